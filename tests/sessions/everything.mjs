// All that a client can do with server-everything. client: of either SDK; adapter hides where their functions differ:
//   call(params, options), request(method, params), tasks (its experimental.tasks, if it has them, other: those of a second client)

import { isProgress, isRound } from './transcript.mjs';

export const ROOTS = [{ uri: 'file:///tmp/one', name: 'One' }, { uri: 'file:///tmp/two', name: 'Two' }];
const URI = 'demo://resource/dynamic/text/1';
const OTHER_URI = 'demo://resource/dynamic/blob/2';

/** What the user would do: changed by the steps. */
export const user = { action: 'accept', roots: ROOTS };

export function answerElicitation(request) {
    if (user.action !== 'accept')
        return { action: user.action };
    if (request.params.mode === 'url')
        return { action: 'accept' };
    const content = { name: 'Ada', check: true, interpretation: 'technical' };
    const asked = request.params.requestedSchema.properties;
    return { action: 'accept', content: Object.fromEntries(Object.entries(content).filter(([key]) => key in asked)) };
}

export function answerSampling(request) {
    return { model: 'test-model', role: 'assistant', stopReason: 'endTurn',
        content: { type: 'text', text: `You said: ${request.params.messages[0].content.text}` } };
}

async function lists(client, t) {
    t.note('server', { version: client.getServerVersion(), instructions: client.getInstructions() });
    await t.step('tools/list', () => client.listTools());
    await t.step('prompts/list', () => client.listPrompts());
    await t.step('resources/list', () => client.listResources());
    await t.step('resources/templates/list', () => client.listResourceTemplates());
}

async function tools(client, t, { call }) {
    const tool = (name, args = {}) => t.step(`${name} ${JSON.stringify(args)}`, () => call({ name, arguments: args }));

    await tool('echo', { message: 'grüße 👋\n"\\ \u2028' });
    await tool('echo', { message: 'x'.repeat(300_000) });
    await tool('echo', {});
    await tool('get-sum', { a: 2, b: 3.5 });
    await tool('get-sum', { a: 'no', b: 1 });
    await tool('get-tiny-image');
    await tool('get-structured-content', { location: 'New York' });
    for (const messageType of ['error', 'success', 'debug'])
        await tool('get-annotated-message', { messageType, includeImage: messageType === 'success' });
    await tool('get-resource-links', { count: 3 });
    await tool('get-resource-reference', { resourceType: 'Text', resourceId: 1 });
    await tool('get-resource-reference', { resourceType: 'Blob', resourceId: 2 });
    await tool('get-resource-reference', { resourceType: 'Blob', resourceId: -2 });
    await tool('no-such-tool');

    // The environment is another one through the service.
    const env = await call({ name: 'get-env', arguments: {} });
    t.note('get-env', Object.keys(JSON.parse(env.content[0].text)).includes('PATH'));

    const data = `data:text/plain;base64,${Buffer.from('zip me').toString('base64')}`;
    t.forget();
    await tool('gzip-file-as-resource', { name: 'zipped.gz', data, outputType: 'resourceLink' });
    await t.expect('resources/list_changed', (what) => what === 'notifications/resources/list_changed');
    await t.step('read what was zipped', () => client.readResource({ uri: 'demo://resource/session/zipped.gz' }));
    await tool('gzip-file-as-resource', { name: 'again.gz', data, outputType: 'resource' });
    await t.step('resources/list with it', () => client.listResources());

    await t.step('32 at once', () => Promise.all(Array.from({ length: 32 }, (_, i) =>
        call({ name: 'echo', arguments: { message: `number ${i}` } }))));
}

async function resourcesAndPrompts(client, t) {
    for (const uri of [URI, OTHER_URI, 'demo://resource/static/document/features.md', 'demo://resource/dynamic/text/none',
        'nothing://like/it'])
        await t.step(`read ${uri}`, () => client.readResource({ uri }));

    for (const params of [{ name: 'simple-prompt' }, { name: 'args-prompt', arguments: { city: 'Bonn' } },
        { name: 'args-prompt', arguments: { city: 'Bonn', state: 'NRW' } }, { name: 'args-prompt', arguments: {} },
        { name: 'completable-prompt', arguments: { department: 'Sales', name: 'Eve' } },
        { name: 'resource-prompt', arguments: { resourceType: 'Text', resourceId: '3' } },
        { name: 'resource-prompt', arguments: { resourceType: 'Blob', resourceId: 'none' } }, { name: 'no-such-prompt' }])
        await t.step(`prompt ${JSON.stringify(params)}`, () => client.getPrompt(params));

    const prompt = { type: 'ref/prompt', name: 'completable-prompt' };
    for (const params of [{ ref: prompt, argument: { name: 'department', value: 'S' } },
        { ref: prompt, argument: { name: 'name', value: '' }, context: { arguments: { department: 'Sales' } } },
        { ref: { type: 'ref/resource', uri: 'demo://resource/dynamic/text/{resourceId}' }, argument: { name: 'resourceId', value: '7' } },
        { ref: { type: 'ref/prompt', name: 'no-such-prompt' }, argument: { name: 'x', value: '' } }])
        await t.step(`complete ${JSON.stringify(params)}`, () => client.complete(params));
}

async function progressAndCancel(client, t, { call }) {
    const name = 'trigger-long-running-operation';
    const progress = [];
    const params = { name, arguments: { duration: 0.4, steps: 4 } };

    await t.step('a long operation', () => call(params, { onprogress: (one) => progress.push(one) }));
    t.note('its progress', isProgress(progress, 4));
    await t.step('a long operation without progress', () => call(params));

    // Two at once, each with its own
    const both = await Promise.all([3, 5].map(async (steps) => {
        const own = [];
        await call({ name, arguments: { duration: 0.6, steps } }, { onprogress: (one) => own.push(one) });
        return isProgress(own, steps);
    }));
    t.note('progress of two', both);

    const abort = new AbortController();
    let first;
    await t.step('cancelled', () => call({ name, arguments: { duration: 600, steps: 6000 } },
        { signal: abort.signal, onprogress: (one) => { if (isRound(one)) return; first ??= one; abort.abort('enough'); }, timeout: 120_000 }));
    t.note('its progress', first);
    await t.step('too late', () => call({ name, arguments: { duration: 600, steps: 1 } }, { timeout: 300 }));
    await t.step('echo behind it', () => call({ name: 'echo', arguments: { message: 'still there' } }));
}

const isLog = (what, value) => what === 'notifications/message' && value.data?.startsWith?.('Received');

async function subscriptionsAndLevels(client, t, { call }) {
    const logged = async (name, action) => {
        t.forget(isLog);
        await t.step(name, action);
        await call({ name: 'echo', arguments: { message: 'behind it' } }); // what the server sends before an answer comes before it
        t.note(`${name}: logged`, t.seen.filter(([what, value]) => isLog(what, value)).map(([, value]) => value));
    };

    await t.step('level info', () => client.setLoggingLevel('info'));
    await logged('subscribe', () => client.subscribeResource({ uri: URI }));
    await t.step('level error', () => client.setLoggingLevel('error'));
    await logged('subscribe to another', () => client.subscribeResource({ uri: OTHER_URI }));

    t.forget();
    await t.step('updates on', () => call({ name: 'toggle-subscriber-updates', arguments: {} }));
    for (const uri of [URI, OTHER_URI])
        t.note('updated', await t.expect(`an update of ${uri}`, (what, value) => what === 'notifications/resources/updated' && value.uri === uri));
    await t.step('updates off', () => call({ name: 'toggle-subscriber-updates', arguments: {} }));

    await t.step('level debug', () => client.setLoggingLevel('debug'));
    await logged('unsubscribe', () => client.unsubscribeResource({ uri: URI }));
    await logged('unsubscribe from another', () => client.unsubscribeResource({ uri: OTHER_URI }));
    t.forget();
    await t.step('updates on without a subscription', () => call({ name: 'toggle-subscriber-updates', arguments: {} }));
    await t.step('updates off again', () => call({ name: 'toggle-subscriber-updates', arguments: {} }));
    t.note('no updates', t.seen.filter(([what]) => what === 'notifications/resources/updated'));

    // Their levels are random.
    await t.step('logging on', () => call({ name: 'toggle-simulated-logging', arguments: {} }));
    const log = await t.expect('a log message', (what, value) => what === 'notifications/message' && /-level message|level-message/.test(value.data));
    t.note('a message of its level', log.data.toLowerCase().startsWith(log.level));
    await t.step('logging off', () => call({ name: 'toggle-simulated-logging', arguments: {} }));
    // Servers disagree about the code.
    t.note('a level that is none', await client.setLoggingLevel('loud').then(() => 'taken', () => 'refused'));
}

const isAsked = (method) => (what) => what === method;

async function requestsOfTheServer(client, t, { call }) {
    t.forget();
    await t.step('sampling', () => call({ name: 'trigger-sampling-request', arguments: { prompt: 'hi there', maxTokens: 7 } }));
    t.note('asked for', await t.expect('sampling', isAsked('sampling/createMessage')));

    for (const action of ['accept', 'decline', 'cancel']) {
        user.action = action;
        await t.step(`elicitation, ${action}`, () => call({ name: 'trigger-elicitation-request', arguments: {} }));
        t.note('asked for', await t.expect('elicitation', isAsked('elicitation/create')));
        await t.step(`elicitation by url, ${action}`, () => call({ name: 'trigger-url-elicitation',
            arguments: { url: 'https://example.org/go', message: 'Go there', elicitationId: 'mine' } }));
        t.note('asked for', await t.expect('elicitation', isAsked('elicitation/create')));
    }
    user.action = 'accept';

    await t.step('roots', () => call({ name: 'get-roots-list', arguments: {} }));
}

// The stateless era has neither: what was an error asks for input there.
async function errorsAndChangedRoots(client, t, { call }) {
    for (const attempt of ['refused', 'again'])
        await t.step(`elicitation by error, ${attempt}`, () => call({ name: 'trigger-url-elicitation',
            arguments: { url: 'https://example.org/first', errorPath: true, elicitationId: 'other' } }));

    t.forget();
    user.roots = [{ uri: 'file:///tmp/three', name: 'Three' }];
    await client.sendRootsListChanged();
    await t.expect('roots/list', isAsked('roots/list'));
    await t.expect('the server has them', (what, value) => what === 'notifications/message' && /^Roots updated: 1/.test(value.data));
    await t.step('other roots', () => call({ name: 'get-roots-list', arguments: {} }));
}

async function tasks(client, t, { tasks: own, other, call }) {
    const name = 'simulate-research-query';
    const research = async (where, args) => {
        const kinds = [];
        for await (const message of where.callToolStream({ name, arguments: args }, undefined, { task: {} })) {
            if (kinds.at(-1) !== message.type)
                kinds.push(message.type);
            if (message.type === 'taskCreated') {
                const { taskId } = message.task;
                t.note('its state', (({ status, ttl, pollInterval }) => ({ status, ttl, pollInterval }))(await where.getTask(taskId)));
                t.note('listed', (await where.listTasks()).tasks.some((task) => task.taskId === taskId));
            }
            if (message.type === 'error')
                throw message.error;
            if (message.type === 'result')
                return { kinds, result: message.result };
        }
        return { kinds };
    };

    t.forget();
    await t.step('a task', () => research(own, { topic: 'warm processes' }));
    // A client that has tasks of its own never sends its answer (1.32: it is put into the queue of those).
    await t.step('a task that asks', () => research(other, { topic: 'python', ambiguous: true }));
    t.note('asked for', await t.expect('elicitation', isAsked('elicitation/create')));
    await t.step('not as a task', () => call({ name, arguments: { topic: 'x' } }));

    const stream = own.callToolStream({ name, arguments: { topic: 'given up' } });
    const { value: { task } } = await stream.next();
    const { status } = await own.cancelTask(task.taskId);
    t.note('a task that is cancelled', status);
    t.note('its state', (await own.getTask(task.taskId)).status);
    await stream.return();
    for (const [what, action] of [['get', () => own.getTask('nobodys')], ['cancel', () => own.cancelTask('nobodys')]])
        t.note(`${what} a task that is none`, await action().then(() => 'done', (error) => error.code));

    // The other way round: the server's requests are tasks of the client.
    await t.step('sampling as a task', () => call({ name: 'trigger-sampling-request-async', arguments: { prompt: 'take your time' } }));
    await t.step('elicitation as a task', () => call({ name: 'trigger-elicitation-request-async', arguments: {} }));
}

/** What does not depend on the era. */
export async function meetAcross(client, t, adapter) {
    await adapter.listen();
    await lists(client, t);
    await tools(client, t, adapter);
    await resourcesAndPrompts(client, t);
    await progressAndCancel(client, t, adapter);
    await requestsOfTheServer(client, t, adapter);
}

export async function meet(client, t, adapter) {
    t.note('capabilities', client.getServerCapabilities());
    await t.step('ping', () => client.ping());
    await lists(client, t);
    await tools(client, t, adapter);
    await resourcesAndPrompts(client, t);
    await progressAndCancel(client, t, adapter);
    await subscriptionsAndLevels(client, t, adapter);
    await requestsOfTheServer(client, t, adapter);
    await errorsAndChangedRoots(client, t, adapter);
    if (adapter.tasks)
        await tasks(client, t, adapter);
    await t.step('a method that is none', () => adapter.request('no/such/method', {}));
}
