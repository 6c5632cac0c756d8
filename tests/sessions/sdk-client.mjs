#!/usr/bin/env node
// The client of @modelcontextprotocol/sdk 1.x does all that it can with a server, started by COMMAND, and prints what it saw.
// usage: sdk-client.mjs everything|modern COMMAND [ARGUMENT...]
import { Transcript, load } from './transcript.mjs';
import * as everything from './everything.mjs';
import * as modern from './modern.mjs';

const { answerElicitation, answerSampling, user } = everything;

const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = await load('@modelcontextprotocol/sdk/client/stdio.js');
const types = await load('@modelcontextprotocol/sdk/types.js');
const { InMemoryTaskMessageQueue, InMemoryTaskStore } = await load('@modelcontextprotocol/sdk/experimental/tasks');

const [scenario, command, ...args] = process.argv.slice(2);
const t = new Transcript();
const taskStore = new InMemoryTaskStore();

// As a task, where the server wants it so: the answer is fetched later.
const answer = (method, answerTo) => async (request, extra) => {
    t.saw(method, request.params ?? {});
    const result = answerTo(request);
    if (!request.params.task)
        return result;
    const task = await extra.taskStore.createTask({ ttl: request.params.task.ttl, pollInterval: 100 });
    await extra.taskStore.storeTaskResult(task.taskId, 'completed', result);
    return { task };
};

// own: what comes by itself is written down
async function connect(own, tasks, options) {
    const client = new Client({ name: 'sdk-client', version: '1.0.0' },
        { capabilities: { roots: { listChanged: true }, sampling: {}, elicitation: { form: {}, url: {} }, tasks }, ...options });
    client.setRequestHandler(types.ListRootsRequestSchema, () => {
        t.saw('roots/list', {});
        return { roots: user.roots };
    });
    client.setRequestHandler(types.CreateMessageRequestSchema, answer('sampling/createMessage', answerSampling));
    client.setRequestHandler(types.ElicitRequestSchema, answer('elicitation/create', answerElicitation));
    client.fallbackNotificationHandler = async (notification) => own && t.saw(notification.method, notification.params);
    await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
    return client;
}

const client = await connect(true, { list: {}, cancel: {}, requests: { sampling: { createMessage: {} }, elicitation: { create: {} } } },
    { taskStore, taskMessageQueue: new InMemoryTaskMessageQueue() });
const other = await connect(false, undefined, {});
await (scenario === 'modern' ? modern : everything).meet(client, t, {
    call: (params, options) => client.callTool(params, undefined, options),
    request: (method, params) => client.request({ method, params }, types.ResultSchema),
    level: (level) => client.setLoggingLevel(level),
    subscribe: (uri) => client.subscribeResource({ uri }),
    unsubscribe: (uri) => client.unsubscribeResource({ uri }),
    tasks: client.experimental.tasks,
    other: other.experimental.tasks,
});
await Promise.all([client.close(), other.close()]);
taskStore.cleanup();
t.print();
