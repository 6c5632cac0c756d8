'use strict';
/* Runs code for mcp-exec-node in a vm context. Descriptor 3 is the channel: a line of JSON in is a call, with a secret;
 * out come `ready`, `touched`, and the secret followed by the result.
 *
 * With isolation reset a context is used once, and the process only as long as the code has stayed within its context:
 * it finds ECMAScript, console, timers and stdin there, none of which holds an object from outside. All else (require,
 * process, Buffer, import(), ...) is handed out on demand, once `touched` has gone out: no later call comes here then.
 * What gets out of a context by other ways, such as errors of functions that run out of stack, meets a Function
 * constructor that says `touched`, and builtins that are looked at after the call. */

const fs = require('fs');
const Module = require('module');
const net = require('net');
const path = require('path');
const util = require('util');
const vm = require('vm');
const {Console} = require('console');
const {Writable} = require('stream');
const {pathToFileURL} = require('url');

const CHANNEL = 3;
const TEXT_MAX = 256 * 1024;  // characters of the value and of each text of an exception
const [isolation, ...preload] = process.argv.splice(2);
const alone = isolation === 'reset';
const {setTimeout, clearTimeout, setImmediate} = globalThis;
const {writeSync} = fs;
const {stringify, parse} = JSON;
const {inspect, types} = util;
const {getOwnPropertyDescriptor, ownKeys} = Reflect;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const sleep = Atomics.wait;
const {from: toBuffer, concat} = Buffer;
const die = process.reallyExit.bind(process);

function writeAll(fd, text) {
    let data = typeof text === 'string' ? toBuffer(text) : text;
    while (data.length) {
        try {
            data = data.subarray(writeSync(fd, data));
        } catch (error) {
            if (error.code !== 'EAGAIN')
                throw error;
            sleep(sleeper, 0, 0, 1);
        }
    }
}

let touched = false;

function touch() {
    if (touched)
        return;
    touched = true;
    writeAll(CHANNEL, 'touched\n');
}

// -- What the code prints, at once: nothing is lost when the process is killed

function makeStream(fd) {
    const write = (chunk, done) => {
        try {
            writeAll(fd, chunk);
        } catch (error) {
            return done(error.code === 'EBADF' || error.code === 'EPIPE' ? null : error);
        }
        return done();
    };
    const stream = new Writable({decodeStrings: true, write: (chunk, _, done) => write(chunk, done)});
    return Object.assign(stream, {fd, _type: 'pipe', _isStdio: true, destroySoon() {}, _destroy(_, done) { done(); }});
}

const streams = {stdout: makeStream(1), stderr: makeStream(2)};
for (const [name, stream] of Object.entries(streams))
    Object.defineProperty(process, name, {configurable: true, enumerable: true, writable: true, value: stream});

// Custom inspection hands functions of this realm to the code.
const makeConsole = (customInspect) => new Console({...streams, colorMode: false, inspectOptions: {customInspect}});

// -- The context

const home = process.cwd();
const prelude = new vm.Script(fs.readFileSync(path.join(__dirname, 'mcp-exec-node-context.js'), 'utf8'),
    {filename: 'node:mcp-exec-context'});
let provided = null;  // the names of what is handed out on demand

function resolveImport(name) {
    if (/^\.{0,2}\//.test(name))
        return pathToFileURL(path.resolve(name)).href;
    if (Module.builtinModules.includes(name.replace(/^node:/, '')) || /^(node|data|file):/.test(name))
        return name;
    return pathToFileURL(Module.createRequire(path.join(process.cwd(), 'code')).resolve(name)).href;
}

/* Makes a context, and what the runner does in it. */
function makeContext() {
    const sandbox = Object.create(null);
    const context = vm.createContext(sandbox, {name: 'code'});
    const printer = {plain: null, full: null};
    const timers = new Map();
    const state = {context, timers, dead: false, hooks: null};
    const live = (action) => (...values) => state.dead ? undefined : action(...values);
    const host = {
        __proto__: null,
        print: live((method, values) => {
            const kind = touched || !alone ? 'full' : 'plain';
            printer[kind] ||= makeConsole(kind === 'full');
            if (kind === 'plain' && method === 'dir')
                values.length = 1;
            printer[kind][method](...values);
        }),
        grant: live((name) => {
            touch();
            if (name === 'require')
                return Module.createRequire(path.join(home, 'code'));
            return globalThis[name];
        }),
        touch: live(() => touch()),
        arm: live((id, delay, isReferenced) => {
            const timer = setTimeout(() => { timers.delete(id); state.hooks.fire(id); }, delay);
            if (!isReferenced)
                timer.unref();
            timers.set(id, timer);
        }),
        disarm: live((id) => {
            clearTimeout(timers.get(id));
            timers.delete(id);
        }),
    };
    const make = prelude.runInContext(context);
    if (!provided) {
        const names = new Set(vm.runInContext('Reflect.ownKeys(globalThis)', context));
        provided = ownKeys(globalThis).filter((name) => typeof name === 'string' && !names.has(name) && name !== 'global');
        provided.push('require');
    }
    state.hooks = make(host, provided.join(), alone);
    return state;
}

function discard(state) {
    state.dead = true;
    for (const timer of state.timers.values())
        clearTimeout(timer);
}

// -- A call

let state = null;
let call = null;
let count = 0;

function begin({secret, code, stdin}) {
    count += 1;
    const mine = call = {secret, value: undefined, failed: false, exception: null, cut: false, over: false};
    state ||= makeContext();
    const finish = (failed, value) => {
        if (mine.over)
            return;
        mine.over = true;
        if (failed)
            fail(mine, value);
        else
            mine.value = describeValue(mine, value);
        // Until then what the code has set off without waiting for it has run as far as it can at once.
        setImmediate(() => {
            try {
                complete(mine);
            } catch {
                die(1);  // what this needs is spoilt
            }
        });
    };
    mine.finish = finish;
    let script;
    try {
        script = compile(code, alone || isolation === 'fresh' ? '<run>' : `<run-${count}>`);
    } catch (error) {
        return finish(true, error);
    }
    try {
        state.hooks.setStdin(stdin);
        const value = script.runInContext(state.context, {displayErrors: false});
        if (types.isPromise(value))
            state.hooks.watch(value, (result) => finish(false, result), (error) => finish(true, error));
        else
            finish(false, value);
    } catch (error) {
        finish(true, error);
    }
    return undefined;
}

function compile(code, filename) {
    const options = {filename, importModuleDynamically(name) {
        touch();
        return import(resolveImport(String(name)));
    }};
    const attempt = (text, columnOffset) => {
        try {
            return new vm.Script(text, {...options, columnOffset});
        } catch (error) {
            if (columnOffset === 0)
                throw error;
            return null;
        }
    };
    // {a: 1} is an object, as in the Node REPL.
    if (/^\s*\{[^]*\}\s*$/.test(code)) {
        const script = attempt(`(${code}\n)`, -1);
        if (script)
            return script;
    }
    try {
        return attempt(code, 0);
    } catch (error) {
        if (!/\bawait\b/.test(code))
            throw error;
        const script = compileAsync(code, attempt);
        if (script)
            return script;
        throw error;
    }
}

const OPENING = '(async () => {';
const SPLITS_MAX = 200;
const DECLARATION = /^\s*((async\s+)?function\b|class\b|\{)/;

/* For top-level await: a function that returns the last expression's value. Where that begins only a parser knows, and
 * there is one: the earliest place from which on the code is an expression, while what is before it is complete. Names
 * declared at the top level are left to the context. */
function compileAsync(code, attempt) {
    if (!attempt(`${OPENING}${code}\n})`, -OPENING.length))
        return null;
    const names = new Set();
    for (const [, names1] of code.matchAll(/\b(?:let|const|var|class|function)\b\s*\*?\s*([\w$]+|[{[][^=;]*[}\]])/g))
        names1.match(/[\p{ID_Start}$_][\p{ID_Continue}$]*/gu)?.forEach((name) => names.add(name));
    const keep = [...names].map((name) => `try { if (typeof ${name} !== 'undefined') globalThis.${name} = ${name}; } catch {} `)
        .filter((text) => attempt(text, -1)).join('');
    const places = [0];
    for (const {index} of code.matchAll(/[\n;}]/g))
        places.push(index + 1);
    for (const place of places.length > SPLITS_MAX ? [0, ...places.slice(-SPLITS_MAX)] : places) {
        const head = code.slice(0, place);
        const tail = code.slice(place).replace(/(\s|;)+$/, '');
        if (!tail.trim() || DECLARATION.test(tail) || !attempt(`(async () => (${tail}\n))`, -1) || !attempt(`${OPENING}${head}\n})`, -1))
            continue;
        // A name that no code can have used before.
        const result = `result_${code.length}_${count}`;
        const script = attempt(`${OPENING}${head} const ${result} = (${tail}\n); ${keep}return ${result};\n})()`,
            -OPENING.length);
        if (script)
            return script;
    }
    return attempt(`${OPENING}${code}\n${keep}})()`, -OPENING.length);
}

function shorten(mine, text) {
    if (text.length <= TEXT_MAX)
        return text;
    mine.cut = true;
    const half = TEXT_MAX / 2;
    return `${text.slice(0, half)}\n[... ${text.length - 2 * half} characters left out ...]\n${text.slice(-half)}`;
}

function describeValue(mine, value) {
    if (value === undefined)
        return null;
    try {
        return shorten(mine, inspect(value, {customInspect: touched || !alone, maxStringLength: 2 * TEXT_MAX}));
    } catch (error) {
        fail(mine, error);
        return null;
    }
}

const isOwnLine = (line) => /^ {4}at .*(mcp-exec-node-runner\.js|node:)/.test(line);

function describe(mine, error) {
    try {
        if (types.isNativeError(error) || error !== null && typeof error === 'object' && 'stack' in error) {
            const stack = String(error.stack).split('\n').filter((line) => !isOwnLine(line)).join('\n');
            return {name: shorten(mine, String(error.name)), message: shorten(mine, String(error.message)),
                stack: shorten(mine, stack)};
        }
        const message = shorten(mine, inspect(error, {customInspect: touched || !alone}));
        return {name: typeof error, message, stack: `Uncaught ${message}`};
    } catch {
        return {name: 'Error', message: '<it cannot be described>', stack: 'Error: <it cannot be described>'};
    }
}

/* The first failure counts. */
function fail(mine, error) {
    mine.exception ||= describe(mine, error);
}

/* Outside of calls nobody is told: as little as of what is printed then. */
function uncaught(error) {
    if (!call)
        return;
    fail(call, error);
    call.finish(true, error);
}

function complete(mine) {
    const exitCode = Number(process.exitCode) || 0;
    process.exitCode = undefined;
    let clean = !alone;
    if (alone) {
        discard(state);
        state = null;
        clean = !touched && isUnchanged();
        if (!clean)
            touch();  // before the secret is anywhere where changed builtins could find it
    }
    call = null;
    // Without a prototype: its toJSON may be the code's.
    const exception = mine.exception && {__proto__: null, ...mine.exception};
    writeAll(CHANNEL, mine.secret + stringify({__proto__: null, value: mine.value ?? null, exception, cut: mine.cut,
        exit_code: exitCode, clean}) + '\n');
    if (alone && clean)
        setImmediate(() => state ||= makeContext());
}

// -- The builtins of this realm

const pictures = [];

function takePictures() {
    const seen = new Set();
    const remember = (object) => {
        if (object === null || typeof object !== 'object' && typeof object !== 'function' || seen.has(object))
            return;
        seen.add(object);
        const keys = ownKeys(object);
        pictures.push([object, keys, keys.map((key) => getOwnPropertyDescriptor(object, key)), Object.getPrototypeOf(object)]);
        for (const key of keys) {
            const {value} = getOwnPropertyDescriptor(object, key);
            if (key === 'prototype')
                remember(value);
        }
        remember(Object.getPrototypeOf(object));
    };
    for (const name of vm.runInNewContext('Object.getOwnPropertyNames(globalThis)')) {
        if (name !== 'globalThis' && name in globalThis)
            remember(globalThis[name]);
    }
    for (const made of [async () => {}, function* () {}, async function* () {}, [][Symbol.iterator](), ''[Symbol.iterator](),
        new Map().entries(), new Set().values(), 'a'.matchAll(/a/g), (function* () {})(), (async function* () {})(), new Error()])
        remember(Object.getPrototypeOf(made));
}

/* Uses nothing but what is its own: any method may be the code's by now. */
function isUnchanged() {
    const {getPrototypeOf} = own;
    for (let i = 0; i < own.size; i++) {
        const [object, keys, descriptors, prototype, length] = own.entry(i);
        const now = ownKeys(object);
        if (now.length !== length || getPrototypeOf(object) !== prototype)
            return false;
        for (let k = 0; k < length; k++) {
            const is = getOwnPropertyDescriptor(object, keys[k]);
            const was = descriptors[k];
            if (!is || is.value !== was.value && was.value === was.value || is.get !== was.get || is.set !== was.set)
                return false;
        }
    }
    return true;
}

let own = null;

function watchRealm() {
    // The only ways from an object to code of this realm.
    for (const made of [() => {}, async () => {}, function* () {}, async function* () {}]) {
        const prototype = Object.getPrototypeOf(made);
        const Original = prototype.constructor;
        const {construct} = Reflect;
        const Guard = function (...values) {
            touch();
            return construct(Original, values, new.target && new.target !== Guard ? new.target : Original);
        };
        Object.defineProperty(Guard, 'name', {value: Original.name});
        Object.defineProperty(Guard, 'prototype', {value: prototype, writable: false});
        Object.defineProperty(prototype, 'constructor', {value: Guard});
    }
    takePictures();
    own = {__proto__: null, size: pictures.length, getPrototypeOf: Reflect.getPrototypeOf, entry: (i) => pictures[i]};
    for (const picture of pictures)
        picture.push(picture[1].length);
}

// -- The channel

function serve() {
    const channel = new net.Socket({fd: CHANNEL, readable: true, writable: false});
    let received = [];
    channel.on('data', (data) => {
        received.push(data);
        if (data[data.length - 1] !== 10)
            return;
        const line = concat(received).toString();
        received = [];
        begin(parse(line));
    });
    channel.on('end', () => process.exit());
    channel.on('error', () => process.exit());
    process.on('uncaughtException', uncaught);
    process.on('unhandledRejection', uncaught);
    process.removeAllListeners('warning');
    process.on('warning', (warning) => {
        if (!/VM Modules|vm\.Module/.test(warning.message))
            streams.stderr.write(`${warning.name}: ${warning.message}\n`);
    });
}

function main() {
    const load = Module.createRequire(path.join(home, 'code'));
    for (const name of preload) {
        try {
            load(name);
        } catch (error) {
            writeAll(2, `cannot preload ${name}: ${error.message.split('\n')[0]}\n`);
            die(1);
        }
    }
    delete require.cache[__filename];
    serve();
    if (alone)
        watchRealm();
    state = makeContext();
    if (isolation !== 'fresh') {
        // What is used for the first time takes several times as long.
        compile('1', '<run>').runInContext(state.context);
        inspect({a: [1, 'a']});
    }
    writeAll(CHANNEL, 'ready\n');
}

main();
