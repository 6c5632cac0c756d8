#!/usr/bin/env node
// Many clients of @modelcontextprotocol/sdk at once on server-everything, each started by COMMAND: each has to see its own
// answers, progress and requests, and no others. usage: many-clients.mjs COUNT COMMAND [ARGUMENT...]
import assert from 'node:assert/strict';
import { isProgress, load } from './transcript.mjs';

const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = await load('@modelcontextprotocol/sdk/client/stdio.js');
const types = await load('@modelcontextprotocol/sdk/types.js');

const [count, command, ...args] = process.argv.slice(2);
const ROUNDS = 5;

class Person {
    constructor(number) {
        this.name = `person-${number}-`;
        this.number = number;
        this.asked = [];
        this.client = new Client({ name: this.name, version: '1.0.0' }, { capabilities: { sampling: {}, elicitation: { form: {} } } });
        this.client.setRequestHandler(types.CreateMessageRequestSchema, async ({ params }) => {
            this.asked.push(params.messages[0].content.text);
            return { model: this.name, role: 'assistant', content: { type: 'text', text: `by ${this.name}` } };
        });
        this.client.setRequestHandler(types.ElicitRequestSchema, async () => ({ action: 'accept', content: { name: this.name, check: true } }));
        this.strays = [];
        this.client.fallbackNotificationHandler = async ({ method }) => this.strays.push(method);
        this.client.onerror = (error) => this.strays.push(error.message); // progress of an unknown token, an answer to an unknown id
    }

    connect() {
        return this.client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
    }

    async call(name, given, options) {
        const { content } = await this.client.callTool({ name, arguments: given }, undefined, { timeout: 120_000, ...options });
        return content.map(({ text }) => text).join('\n');
    }

    async echoes() {
        const texts = Array.from({ length: 8 }, (_, i) => `${this.name}${i} ${'x'.repeat(i * 1000)}`);
        const answers = await Promise.all(texts.map((message) => this.call('echo', { message })));
        assert.deepEqual(answers, texts.map((text) => `Echo: ${text}`));
    }

    async progress() {
        const total = 3 + this.number;
        const seen = [];
        await this.call('trigger-long-running-operation', { duration: 1, steps: total }, { onprogress: (one) => seen.push(one) });
        assert.ok(isProgress(seen, total), JSON.stringify(seen));
    }

    async cancel() {
        const abort = new AbortController();
        const total = 6000 + this.number;
        let first;
        await assert.rejects(this.call('trigger-long-running-operation', { duration: 600, steps: total },
            { signal: abort.signal, onprogress: (one) => { first ??= one; abort.abort('enough'); } }), /enough/);
        assert.deepEqual(first, { progress: 1, total });
    }

    async sampling() {
        assert.match(await this.call('trigger-sampling-request', { prompt: `for ${this.name}` }), new RegExp(`by ${this.name}`));
    }

    async elicitation() {
        assert.match(await this.call('trigger-elicitation-request', {}), new RegExp(`Name: ${this.name}`));
    }
}

const people = Array.from({ length: Number(count) }, (_, number) => new Person(number));
await Promise.all(people.map((person) => person.connect()));

// Alone first: from then on it is known which tools ask.
await people[0].sampling();
await people[0].elicitation();

for (let round = 0; round < ROUNDS; round++)
    await Promise.all(people.flatMap((person) => [person.echoes(), person.sampling(), person.elicitation(),
        round === 0 && person.progress(), round === 1 && person.cancel()]));

for (const person of people) {
    assert.deepEqual([...new Set(person.asked)], [`Resource trigger-sampling-request context: for ${person.name}`]);
    assert.equal(person.asked.length, person.number === 0 ? ROUNDS + 1 : ROUNDS);
    // Progress that comes with the answer, or crosses with a cancel, is of a call that the SDK has forgotten.
    const late = new RegExp(`unknown token.*"total":(${3 + person.number}|${6000 + person.number}),`);
    assert.deepEqual(person.strays.filter((one) => !one.endsWith('/list_changed') && !late.test(one)), []);
}
console.log('in order'); // and all of them are still there
process.stdin.resume();
await new Promise((resolve) => process.stdin.once('end', resolve));
await Promise.all(people.map((person) => person.client.close()));
