// All that a client can do with modern-server.mjs. adapter has call(params, options), request(method, params), and, as the eras
// differ there: subscribe(uri), unsubscribe(), level(level).

import { user } from './everything.mjs';
import { isProgress, isRound } from './transcript.mjs';

const NOTE = 'note://one';

export async function meet(client, t, adapter) {
    const { call } = adapter;
    const tool = (name, args = {}, options) => t.step(`${name} ${JSON.stringify(args)}`, () => call({ name, arguments: args }, options));
    const is = (method) => (what) => what === method;

    t.note('server', { version: client.getServerVersion(), instructions: client.getInstructions() });
    await t.step('tools/list', () => client.listTools());
    await t.step('prompts/list', () => client.listPrompts());
    await t.step('resources/list', () => client.listResources());
    await t.step('resources/templates/list', () => client.listResourceTemplates());

    await tool('echo', { message: 'grüße 👋\n"\\ \u2028' });
    await tool('echo', { message: 5 });
    await tool('add', { a: 1, b: 2.5 });
    await tool('fail');
    await tool('throw');
    await tool('no-such-tool');
    await t.step('32 at once', () => Promise.all(Array.from({ length: 32 }, (_, i) => call({ name: 'echo', arguments: { message: `number ${i}` } }))));

    for (const uri of [NOTE, 'note://number/7', 'note://none'])
        await t.step(`read ${uri}`, () => client.readResource({ uri }));
    await t.step('prompt', () => client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } }));
    await t.step('prompt that is none', () => client.getPrompt({ name: 'none' }));
    await t.step('complete', () => client.complete({ ref: { type: 'ref/prompt', name: 'greet' }, argument: { name: 'name', value: 'A' } }));
    await t.step('complete a template', () => client.complete({ ref: { type: 'ref/resource', uri: 'note://number/{n}' }, argument: { name: 'n', value: '' } }));

    const progress = [];
    await tool('work', { steps: 4, ms: 50 }, { onprogress: (one) => progress.push(one) });
    t.note('its progress', isProgress(progress, 4));
    const abort = new AbortController();
    let first;
    await tool('work', { steps: 6000, ms: 50 },
        { signal: abort.signal, onprogress: (one) => { if (isRound(one)) return; first ??= one; abort.abort('enough'); }, timeout: 120_000 });
    t.note('its progress', first);
    await tool('echo', { message: 'still there' });

    // What the server wants to know
    t.forget();
    for (const action of ['accept', 'decline', 'cancel']) {
        user.action = action;
        for (const name of ['ask', 'ask-url']) {
            await tool(name);
            t.note(`${name}: asked for, ${action}`, await t.expect('elicitation', is('elicitation/create')));
        }
    }
    user.action = 'accept';
    await tool('ask-all');
    for (const method of ['elicitation/create', 'sampling/createMessage', 'roots/list'])
        t.note('asked for', await t.expect(method, is(method)));
    await tool('ask-twice');
    t.note('asked for twice', [await t.expect('elicitation', is('elicitation/create')), await t.expect('elicitation', is('elicitation/create'))]);
    await t.step('prompt that asks', () => client.getPrompt({ name: 'asking' }));
    await t.step('resource that asks', () => client.readResource({ uri: 'note://asking' }));

    // What comes by itself
    for (const level of ['debug', 'error']) {
        await adapter.level(level);
        t.forget();
        await tool('log');
        await tool('echo', { message: 'behind it' });
        t.note(`logged at ${level}`, t.seen.filter(([what]) => what === 'notifications/message').map(([, value]) => ({ ...value, _meta: undefined })));
    }
    await adapter.subscribe(NOTE);
    t.forget();
    await tool('touch');
    t.note('updated', (await t.expect('an update', is('notifications/resources/updated'))).uri);
    await tool('change');
    await t.expect('tools/list_changed', is('notifications/tools/list_changed'));
    t.note('with the new tool', (await client.listTools()).tools.map(({ name }) => name).at(-1));
    await tool('added-1');
    await adapter.unsubscribe(NOTE);
    t.forget();
    await tool('touch');
    await tool('echo', { message: 'behind it' });
    t.note('no update', t.seen.filter(([what]) => what === 'notifications/resources/updated'));

    await t.step('a method that is none', () => adapter.request('no/such/method', {}));
}
