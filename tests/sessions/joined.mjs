#!/usr/bin/env node
// The SDKs' clients with several servers as one, by COMMAND: what they list, and an answer of each server.
// usage: joined.mjs 1|legacy|modern COMMAND [ARGUMENT...]
import { load } from './transcript.mjs';

const [kind, command, ...args] = process.argv.slice(2);
const old = kind === '1';
const { Client } = await load(old ? '@modelcontextprotocol/sdk/client/index.js' : '@modelcontextprotocol/client');
const { StdioClientTransport } = await load(old ? '@modelcontextprotocol/sdk/client/stdio.js' : '@modelcontextprotocol/client/stdio');

const client = new Client({ name: 'joined', version: '1.0.0' }, {
    capabilities: {},
    ...(old ? {} : { versionNegotiation: { mode: kind === 'modern' ? { pin: '2026-07-28' } : kind } }),
});
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));

async function all(list, member) {
    const found = [];
    let cursor;
    do {
        const page = await list(cursor ? { cursor } : {});
        found.push(...page[member]);
        cursor = page.nextCursor;
    } while (cursor);
    return found;
}

const tools = await all((params) => client.listTools(params), 'tools');
const prompts = await all((params) => client.listPrompts(params), 'prompts');
const resources = await all((params) => client.listResources(params), 'resources');
const templates = await all((params) => client.listResourceTemplates(params), 'resourceTemplates');
const echoes = await Promise.all(tools.filter(({ name }) => name.endsWith('__echo')).map(async ({ name }) => {
    const { content } = await client.callTool({ name, arguments: { message: name } });
    return [name, content[0].text];
}));
const read = await client.readResource({ uri: resources[0].uri });
const prompt = await client.getPrompt({ name: prompts.find(({ name }) => name.startsWith('second__simple')).name });
console.log(JSON.stringify({
    server: client.getServerVersion()?.name,
    instructions: client.getInstructions(),
    tools: tools.map(({ name }) => name),
    prompts: prompts.map(({ name }) => name),
    resources: resources.map(({ uri }) => uri),
    templates: templates.map(({ uriTemplate }) => uriTemplate),
    echoes: Object.fromEntries(echoes),
    read: read.contents.length,
    prompt: prompt.messages.length,
}));
await client.close();
