#!/usr/bin/env node
// A server made with @modelcontextprotocol/server 2.x that has all that the stateless era has: what used to be requests
// of the server are results that ask for input. It serves the legacy era too, as the SDK does by default.
import { load } from './transcript.mjs';

const { McpServer, ResourceTemplate, acceptedContent, completable, fromJsonSchema, inputRequired } = await load('@modelcontextprotocol/server');
const { serveStdio } = await load('@modelcontextprotocol/server/stdio');
const { z } = await load('zod');

const object = (properties) => fromJsonSchema({ type: 'object', properties, required: Object.keys(properties) });
const string = { type: 'string' };
const number = { type: 'number' };
const text = (value) => ({ content: [{ type: 'text', text: value }] });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const elicitName = (message) => inputRequired.elicit({ message, requestedSchema: { type: 'object', properties: { name: string }, required: ['name'] } });
const NOTE = 'note://one';
const subscribed = new Set();
let legacy = false;

function registerTools(server) {
    server.registerTool('echo', { description: 'Returns its message', inputSchema: object({ message: string }) },
        async ({ message }) => text(message));
    server.registerTool('add', { description: 'Adds', inputSchema: object({ a: number, b: number }), outputSchema: object({ sum: number }) },
        async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }));
    server.registerTool('fail', { description: 'Says that it failed' }, async () => ({ ...text('no luck'), isError: true }));
    server.registerTool('throw', { description: 'Throws' }, async () => { throw new Error('thrown'); });

    server.registerTool('work', { description: 'Reports progress', inputSchema: object({ steps: number, ms: number }) },
        async ({ steps, ms }, ctx) => {
            const progressToken = ctx.mcpReq._meta?.progressToken;
            for (let progress = 1; progress <= steps && !ctx.mcpReq.signal.aborted; progress++) {
                await sleep(ms);
                if (progressToken !== undefined && !ctx.mcpReq.signal.aborted)
                    await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: steps } });
            }
            return text(`worked ${steps}`);
        });

    server.registerTool('log', { description: 'Logs at three levels' }, async (ctx) => {
        for (const level of ['debug', 'warning', 'error'])
            await ctx.mcpReq.log(level, `a ${level}`, 'modern');
        return text('logged');
    });

    server.registerTool('ask', { description: 'Asks for a name' }, async (ctx) => {
        const answer = ctx.mcpReq.inputResponses?.name;
        return answer ? text(JSON.stringify(answer)) : inputRequired({ inputRequests: { name: elicitName('Who are you?') } });
    });
    server.registerTool('ask-url', { description: 'Sends to a page' }, async (ctx) => {
        const answer = ctx.mcpReq.inputResponses?.page;
        return answer ? text(answer.action)
            : inputRequired({ inputRequests: { page: inputRequired.elicitUrl({ message: 'Go there', url: 'https://example.org/go' }) } });
    });
    server.registerTool('ask-all', { description: 'Asks for a name, a text of a model and the roots at once' }, async (ctx) => {
        const { name, words, roots } = ctx.mcpReq.inputResponses ?? {};
        if (name && words && roots)
            return text(JSON.stringify({ name, words, roots, state: ctx.mcpReq.requestState() }));
        return inputRequired({
            inputRequests: {
                name: elicitName('Who?'),
                words: inputRequired.createMessage({ messages: [{ role: 'user', content: { type: 'text', text: 'Say it' } }], maxTokens: 9 }),
                roots: inputRequired.listRoots(),
            },
            requestState: 'all "of" it\n',
        });
    });
    server.registerTool('ask-twice', { description: 'Asks for a name, and for another' }, async (ctx) => {
        const names = [...JSON.parse(ctx.mcpReq.requestState() ?? '[]'), acceptedContent(ctx.mcpReq.inputResponses, 'name')?.name].filter(Boolean);
        return names.length === 2 ? text(names.join(' and '))
            : inputRequired({ inputRequests: { name: elicitName(`Name ${names.length + 1}`) }, requestState: JSON.stringify(names) });
    });

    server.registerTool('touch', { description: 'Says that the note was changed' }, async () => {
        if (!legacy || subscribed.has(NOTE))
            await server.server.sendResourceUpdated({ uri: NOTE });
        return text('touched');
    });
    let added = 0;
    server.registerTool('change', { description: 'Adds a tool' }, async () => {
        const name = `added-${++added}`;
        server.registerTool(name, { description: 'Was added' }, async () => text(name));
        return text(name);
    });
}

function registerRest(server) {
    server.registerResource('note', NOTE, { description: 'A note', mimeType: 'text/plain' },
        async (uri) => ({ contents: [{ uri: uri.href, text: 'noted' }] }));
    server.registerResource('asking', 'note://asking', { description: 'Asks for a name' }, async (uri, ctx) => {
        const name = acceptedContent(ctx.mcpReq.inputResponses, 'name')?.name;
        return name ? { contents: [{ uri: uri.href, text: `for ${name}` }] } : inputRequired({ inputRequests: { name: elicitName('For whom?') } });
    });
    server.registerResource('numbered', new ResourceTemplate('note://number/{n}', { list: undefined, complete: { n: () => ['1', '2'] } }),
        { description: 'Numbered notes' }, async (uri, { n }) => ({ contents: [{ uri: uri.href, blob: Buffer.from(`note ${n}`).toString('base64') }] }));

    server.registerPrompt('greet', { description: 'Greets', argsSchema: z.object({ name: completable(z.string(), (value) => ['Ada', 'Alan'].filter((one) => one.startsWith(value))) }) },
        ({ name }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}` } }] }));
    server.registerPrompt('asking', { description: 'Asks for a name' }, (ctx) => {
        const name = acceptedContent(ctx.mcpReq.inputResponses, 'name')?.name;
        return name ? { messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}` } }] }
            : inputRequired({ inputRequests: { name: elicitName('Greet whom?') } });
    });
}

serveStdio(() => {
    const server = new McpServer({ name: 'modern', version: '1.2.3', title: 'Modern' }, {
        instructions: 'Ask away.',
        capabilities: { tools: { listChanged: true }, resources: { subscribe: true, listChanged: true }, prompts: { listChanged: true }, completions: {}, logging: {} },
        cacheHints: { 'tools/list': { ttlMs: 0, cacheScope: 'private' } },
    });
    registerTools(server);
    registerRest(server);
    // Of the legacy era; the other one subscribes by subscriptions/listen, which the SDK does.
    server.server.oninitialized = () => { legacy = true; };
    server.server.setRequestHandler('resources/subscribe', ({ params }) => { subscribed.add(params.uri); return {}; });
    server.server.setRequestHandler('resources/unsubscribe', ({ params }) => { subscribed.delete(params.uri); return {}; });
    return server;
}, { onerror: (error) => console.error(error.message) });
