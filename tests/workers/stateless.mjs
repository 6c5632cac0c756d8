#!/usr/bin/env node
// A stateless MCP server (revision 2026-07-28) made with the real SDK's serveStdio, so that the broker's
// stateless side is tested against somebody else's code.
//
//   node stateless.mjs             speaks both eras, as serveStdio does by default
//   node stateless.mjs --modern    refuses the legacy era: initialize is answered with -32022
//
// The SDK is found in ../npm (filled by `npm ci` there), or in the folder that MCP_EXEC_TEST_NPM names.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const npm = process.env.MCP_EXEC_TEST_NPM;
const require = createRequire(npm ? join(npm, 'package.json') : new URL('../npm/package.json', import.meta.url));
const { McpServer, acceptedContent, fromJsonSchema, inputRequired } = require('@modelcontextprotocol/server');
const { serveStdio } = require('@modelcontextprotocol/server/stdio');

const object = (properties) => fromJsonSchema({ type: 'object', properties, required: Object.keys(properties) });
const text = (value) => ({ content: [{ type: 'text', text: value }] });
const string = { type: 'string' };
const number = { type: 'number' };

function registerTools(server) {
    server.registerTool('echo', { description: 'Returns its message', inputSchema: object({ message: string }) },
        async ({ message }) => text(message));

    server.registerTool('add', { description: 'Adds two numbers', inputSchema: object({ a: number, b: number }) },
        async ({ a, b }) => text(String(a + b)));

    server.registerTool('pid', { description: 'Returns the process id' }, async () => text(String(process.pid)));

    // The answer to the first call is input_required; the call that repeats it with the answer is greeted.
    server.registerTool('greet', { description: 'Asks for a name, then greets' }, async (ctx) => {
        const answer = acceptedContent(ctx.mcpReq.inputResponses, 'name');
        if (typeof answer?.name === 'string')
            return text(`hello ${answer.name}, state ${ctx.mcpReq.requestState()}`);

        return inputRequired({
            inputRequests: {
                name: inputRequired.elicit({
                    message: 'Who are you?',
                    requestedSchema: { type: 'object', properties: { name: string }, required: ['name'] },
                }),
            },
            requestState: `greet-${process.pid}`,
        });
    });

    // Progress every `ms`, `steps` times; a cancel ends it without an answer.
    server.registerTool('work', { description: 'Reports progress', inputSchema: object({ steps: number, ms: number }) },
        async ({ steps, ms }, ctx) => {
            const progressToken = ctx.mcpReq._meta?.progressToken;
            for (let step = 1; step <= Math.min(steps, 1000) && !ctx.mcpReq.signal.aborted; step++) {
                await new Promise((resolve) => setTimeout(resolve, ms));
                if (progressToken !== undefined && !ctx.mcpReq.signal.aborted)
                    await ctx.mcpReq.notify({
                        method: 'notifications/progress',
                        params: { progressToken, progress: step, total: steps },
                    });
            }
            return text(`worked ${steps}`);
        });

    // Adds a tool, which the SDK announces with tools/list_changed (to subscribers only, in the stateless era).
    let added = 0;
    server.registerTool('change', { description: 'Adds a tool' }, async () => {
        const name = `added-${++added}`;
        server.registerTool(name, { description: 'Was added by change' }, async () => text(name));
        return text(name);
    });
}

serveStdio(() => {
    const server = new McpServer({ name: 'stateless', version: '1.0.0' }, {
        cacheHints: { 'tools/list': { ttlMs: 60000, cacheScope: 'public' } },
        capabilities: { tools: { listChanged: true } },
    });
    registerTools(server);
    return server;
}, {
    legacy: process.argv.includes('--modern') ? 'reject' : 'serve',
    onerror: (error) => console.error(error.message),
});
