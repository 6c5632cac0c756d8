#!/usr/bin/env node
// The client of @modelcontextprotocol/client 2.x does all that it can with a server, started by COMMAND, and prints what it saw.
// usage: client.mjs legacy|modern|auto everything|across|modern COMMAND [ARGUMENT...]
import { Transcript, load } from './transcript.mjs';
import * as everything from './everything.mjs';
import * as modern from './modern.mjs';

const { Client } = await load('@modelcontextprotocol/client');
const { StdioClientTransport } = await load('@modelcontextprotocol/client/stdio');
const { z } = await load('zod');

const [era, scenario, command, ...args] = process.argv.slice(2);
const { answerElicitation, answerSampling, user } = everything;
const t = new Transcript();
const client = new Client({ name: 'client', version: '2.0.0' }, {
    capabilities: { roots: { listChanged: true }, sampling: {}, elicitation: { form: {}, url: {} } },
    versionNegotiation: { mode: era === 'modern' ? { pin: '2026-07-28' } : era },
});

const answer = (method, answerTo) => (request) => {
    t.saw(method, request.params ?? {});
    return answerTo(request);
};
client.setRequestHandler('roots/list', answer('roots/list', () => ({ roots: user.roots })));
client.setRequestHandler('sampling/createMessage', answer('sampling/createMessage', answerSampling));
client.setRequestHandler('elicitation/create', answer('elicitation/create', answerElicitation));
client.fallbackNotificationHandler = async (notification) => t.saw(notification.method, notification.params);

await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
const isModern = client.getProtocolEra() === 'modern';
if (scenario !== 'across')
    t.note('era', client.getNegotiatedProtocolVersion());

let level, subscription;
const meta = (params) => isModern && level ? { ...params, _meta: { 'io.modelcontextprotocol/logLevel': level } } : params;
const adapter = {
    call: (params, options) => client.callTool(meta(params), options),
    request: (method, params) => client.request({ method, params }, z.looseObject({})),
    // In the stateless era nothing comes by itself that wasn't asked for.
    listen: async () => isModern && client.listen({ toolsListChanged: true, resourcesListChanged: true, promptsListChanged: true }),
    level: async (wanted) => {
        level = wanted;
        if (!isModern)
            await client.setLoggingLevel(wanted);
    },
    subscribe: async (uri) => {
        if (isModern)
            subscription = await client.listen({ resourceSubscriptions: [uri], toolsListChanged: true });
        else
            await client.subscribeResource({ uri });
    },
    unsubscribe: async (uri) => isModern ? subscription.close() : client.unsubscribeResource({ uri }),
};
const meet = { everything: everything.meet, across: everything.meetAcross, modern: modern.meet }[scenario];
await meet(client, t, adapter);
await client.close();
t.print();
