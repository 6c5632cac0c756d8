#!/usr/bin/env node
// Calls a tool by the client of @modelcontextprotocol/sdk, for tests/bench/sessions.
// usage: sessions-client.mjs TOOL stdio COMMAND [ARGUMENT...] | TOOL http|sse|ws URL
// Each line "WINDOW CALLS" on standard input is answered by a line with the calls a second, so many at a time.
import { createInterface } from 'node:readline';
import { load } from '../sessions/transcript.mjs';

const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const [tool, kind, ...rest] = process.argv.slice(2);

async function transport() {
    if (kind === 'stdio') {
        const { StdioClientTransport } = await load('@modelcontextprotocol/sdk/client/stdio.js');
        return new StdioClientTransport({ command: rest[0], args: rest.slice(1), env: process.env, stderr: 'ignore' });
    }
    const url = new URL(rest[0]);
    if (kind === 'http')
        return new (await load('@modelcontextprotocol/sdk/client/streamableHttp.js')).StreamableHTTPClientTransport(url);
    if (kind === 'sse')
        return new (await load('@modelcontextprotocol/sdk/client/sse.js')).SSEClientTransport(url);
    globalThis.WebSocket ??= (await load('ws')).default;
    return new (await load('@modelcontextprotocol/sdk/client/websocket.js')).WebSocketClientTransport(url);
}

const message = 'x'.repeat(100);
const client = new Client({ name: 'bench', version: '1' });
await client.connect(await transport());
for await (const line of createInterface({ input: process.stdin })) {
    const [window, calls] = line.split(' ').map(Number);
    let left = calls;
    const began = process.hrtime.bigint();
    await Promise.all(Array.from({ length: window }, async () => {
        while (left-- > 0) {
            const { content: [{ text }] } = await client.callTool({ name: tool, arguments: { message } });
            if (text !== `Echo: ${message}`)
                throw new Error(`a wrong answer: ${text}`);
        }
    }));
    console.log(calls / (Number(process.hrtime.bigint() - began) / 1e9));
}
await client.close();
