'use strict';
/* Runs JavaScript in a vm context, for node.py: a line of JSON on descriptor 3 is a call; the answer is a frame (the call's
 * secret, a length, JSON), and so is word that the next call may come. Descriptor 0 is a file that the supervisor fills. */

const fs = require('fs');
const Module = require('module');
const net = require('net');
const path = require('path');
const util = require('util');
const vm = require('vm');
const {Console} = require('console');

const CHANNEL = 3;
const TEXT_MAX = 256 * 1024;  // characters of the value
const reset = process.argv[2] === 'reset';
const channel = new net.Socket({fd: CHANNEL, readable: true, writable: true});
const home = process.cwd();
const exit = process.reallyExit.bind(process);
const wait = setTimeout;

let context = null;
let count = 0;
let secret = process.argv[3];
let interrupt = null;  // ends the wait for what the code has promised

class Interrupted extends Error {}

class ProcessExit extends Error {
    constructor(code) {
        super(`process.exit(${code})`);
        this.name = 'ProcessExit';
        this.code = code;
    }
}

/* -- The protocol */

function send(message) {
    const data = Buffer.from(JSON.stringify(message));
    const length = data.length.toString(16).padStart(8, '0');
    channel.write(Buffer.concat([Buffer.from(secret, 'hex'), Buffer.from(length), data]));
}

let received = [];

channel.on('data', (data) => {
    received.push(data);
    if (data[data.length - 1] !== 10)
        return;
    const line = Buffer.concat(received).toString();
    received = [];
    run(JSON.parse(line)).catch((error) => {
        process.stderr.write(`mcp-exec-node: ${error.stack}\n`);
        exit(1);
    });
});
channel.on('end', () => exit(0));
channel.on('error', () => exit(0));

/* -- A call */

async function run({code, secret: ours}) {
    secret = ours;
    count += 1;
    renewStdin();
    if (!context || reset)
        context = makeContext();
    const result = {value: null, exception: null, exit_code: 0, interrupted: false};
    const waiting = new Promise((_, reject) => { interrupt = () => reject(new Interrupted()); });
    waiting.catch(() => {});
    try {
        let value = compile(code).runInContext(context, {breakOnSigint: true, displayErrors: false});
        if (value !== null && typeof value === 'object' && typeof value.then === 'function')
            value = await Promise.race([value, waiting]);
        if (value !== undefined)
            result.value = shorten(util.inspect(value, {depth: 6, maxArrayLength: 10000, maxStringLength: TEXT_MAX}));
    } catch (error) {
        describe(error, result);
    }
    interrupt = null;
    await Promise.all([flush(process.stdout), flush(process.stderr)]);
    if (process.exitCode) {
        result.exit_code = result.exit_code || Number(process.exitCode) & 0xff;
        process.exitCode = undefined;
    }
    if (reset)
        result.left_behind = leftBehind();
    result.spent = !hasStreams();
    send(result);
    const clean = !reset || await putBack();
    send({ready: clean && !result.spent});
}

function flush(stream) {
    return new Promise((resolve) => {
        if (stream.writable)
            stream.write('', () => resolve());
        else
            resolve();
    });
}

function compile(code) {
    // Where Node.js has no loader to offer, 18 for one, it lets a function do it.
    const loader = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER || ((name) => import(locate(name)));
    const options = {filename: `<run-${count}>`, importModuleDynamically: loader};
    try {
        return new vm.Script(code, options);
    } catch (error) {
        if (!/\bawait\b/.test(code))
            throw error;
        try {
            return new vm.Script(`(async () => {${code}\n})()`, options);
        } catch {
            throw error;
        }
    }
}

function locate(name) {
    return /^\.{0,2}\//.test(name) ? 'file://' + path.resolve(process.cwd(), name) : name;
}

function describe(error, result) {
    result.exit_code = 1;
    if (error instanceof ProcessExit) {
        result.exit_code = Number(error.code) & 0xff;
        return;
    }
    if (error instanceof Interrupted || (error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED')) {
        result.interrupted = true;
        return;
    }
    let kind = 'Error', message = '', traceback = '';
    try {
        const isError = util.types.isNativeError(error) || error instanceof Error;
        kind = isError ? String(error.name) : typeof error;
        message = isError ? String(error.message) : util.inspect(error);
        traceback = isError ? ownFramesRemoved(String(error.stack)) : `Uncaught ${message}`;
    } catch {
        message = '<it cannot be described>';
    }
    result.exception = {type: shorten(kind), message: shorten(message), traceback: shorten(traceback) + '\n'};
}

function ownFramesRemoved(stack) {
    return stack.split('\n').filter((line) => !line.includes(__filename) && !/^ {4}at .*node:/.test(line)).join('\n');
}

function shorten(text) {
    if (text.length <= TEXT_MAX)
        return text;
    return `${text.slice(0, TEXT_MAX / 2)}\n[... ${text.length - TEXT_MAX} characters left out ...]\n${text.slice(-TEXT_MAX / 2)}`;
}

/* -- What the code finds */

let stdin = null;

function renewStdin() {
    stdin = null;
    Object.defineProperty(process, 'stdin', {
        configurable: true,
        enumerable: true,
        get: () => stdin || (stdin = new fs.ReadStream(null, {fd: 0, autoClose: false})),
    });
}

const streams = [0, 1, 2].map((fd) => fs.fstatSync(fd).ino);

/* Whether the code has left 0, 1 and 2 as they were: there is no way to get them back. */
function hasStreams() {
    try {
        return process.stdout.writable && process.stderr.writable && streams.every((ino, fd) => fs.fstatSync(fd).ino === ino);
    } catch {
        return false;
    }
}

const timers = new Set();  // with reset, what to clear
const TIMERS = {setTimeout: clearTimeout, setInterval: clearInterval, setImmediate: clearImmediate};

function watchTimers() {
    const modules = [globalThis, require('timers')];
    for (const [name, clear] of Object.entries(TIMERS)) {
        const start = globalThis[name];
        const wrapped = {[name]: (...values) => {
            const timer = start(...values);
            timers.add([clear, timer]);
            return timer;
        }}[name];
        wrapped[util.promisify.custom] = start[util.promisify.custom];
        for (const module of modules)
            module[name] = wrapped;
    }
}

function makeContext() {
    const made = vm.createContext({});
    const intrinsic = new Set(vm.runInContext('Reflect.ownKeys(globalThis)', made));
    for (const name of Reflect.ownKeys(globalThis)) {
        if (intrinsic.has(name) || name === 'global' || name === 'globalThis')
            continue;
        // Some are made when they are first used.
        Object.defineProperty(made, name, {
            configurable: true,
            enumerable: false,
            get: () => globalThis[name],
            set: (value) => Object.defineProperty(made, name, {configurable: true, enumerable: true, writable: true, value}),
        });
    }
    const provide = (name, value) => Object.defineProperty(made, name,
        {configurable: true, enumerable: false, writable: true, value});
    const module = new Module(path.join(home, '[run]'), null);
    module.filename = path.join(home, '[run]');
    module.paths = Module._nodeModulePaths(home);
    provide('require', Module.createRequire(path.join(home, 'run.js')));
    provide('module', module);
    provide('exports', module.exports);
    provide('console', new Console({stdout: process.stdout, stderr: process.stderr}));
    provide('global', vm.runInContext('globalThis', made));
    return made;
}

process.exit = (code) => { throw new ProcessExit(code ?? process.exitCode ?? 0); };
process.on('SIGINT', () => { if (interrupt) interrupt(); });
for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (error) => {
        if (!(error instanceof ProcessExit))
            process.stderr.write(`Uncaught ${error && error.stack ? ownFramesRemoved(error.stack) : util.inspect(error)}\n`);
    });
}

/* -- Putting it back */

let pictures = [], known = new Set();
let baseline = null;

/* Remembers an object's own properties, and those of the prototypes of classes among them. */
function remember(object, depth) {
    if (object === null || typeof object !== 'object' && typeof object !== 'function' || known.has(object))
        return;
    known.add(object);
    const properties = new Map();
    for (const key of Reflect.ownKeys(object))
        properties.set(key, Object.getOwnPropertyDescriptor(object, key));
    pictures.push([object, properties]);
    if (depth > 0) {
        for (const {value} of properties.values()) {
            if (typeof value === 'function' && value.prototype)
                remember(value.prototype, 0);
            if (typeof value === 'function' || typeof value === 'object')
                remember(value, depth - 1);
        }
    }
}

function isSame(one, other) {
    return one && other && one.value === other.value && one.get === other.get && one.set === other.set &&
        one.writable === other.writable && one.configurable === other.configurable && one.enumerable === other.enumerable;
}

/* Returns whether the object is as it was. */
function restore(object, properties) {
    for (const key of Reflect.ownKeys(object)) {
        if (!properties.has(key) && !Reflect.deleteProperty(object, key))
            return false;
    }
    for (const [key, descriptor] of properties) {
        if (!isSame(Object.getOwnPropertyDescriptor(object, key), descriptor) &&
                !Reflect.defineProperty(object, key, descriptor))
            return false;
    }
    return true;
}

function countResources() {
    const counts = {};
    for (const name of process.getActiveResourcesInfo())
        counts[name] = (counts[name] || 0) + 1;
    return counts;
}

const IGNORED = new Set(['TTYWrap', 'Immediate', 'CloseReq', 'TickObject', 'FSReqCallback', 'FSReqPromise']);

function extraResources(ignored) {
    let extra = 0;
    for (const [name, number] of Object.entries(countResources())) {
        if (!ignored.has(name))
            extra += Math.max(0, number - (baseline.resources[name] || 0));
    }
    return extra;
}

function leftBehind() {
    const handles = extraResources(IGNORED);
    return handles ? {handles} : null;
}

function countDescriptors() {
    return fs.readdirSync('/proc/self/fd').length;
}

function takeBaseline() {
    watchTimers();
    const load = Module._load;
    Module._load = function (request, parent, isMain) {
        const exported = load.call(this, request, parent, isMain);
        if (Module.builtinModules.includes(String(request).replace(/^node:/, '')))
            remember(exported, 1);
        return exported;
    };
    renewStdin();
    // Those of the main realm, which are reached through whatever comes from there.
    for (const object of [Object, Function, Array, Promise, Map, Set, RegExp, Date, Error, TypeError, JSON, Math, Reflect,
        String, Number, Boolean, Symbol, Buffer, Uint8Array, ArrayBuffer, URL, EventTarget, AbortController]) {
        remember(object, 0);
        if (object.prototype)
            remember(object.prototype, 0);
    }
    remember(Object.getPrototypeOf(Uint8Array.prototype), 0);
    remember(Object.getPrototypeOf(process), 0);
    remember(globalThis, 0);
    remember(console, 0);
    for (const name of ['fs', 'path', 'util', 'net', 'vm', 'module', 'console', 'events'])
        remember(require(name), 1);
    remember(process, 0);
    baseline = {
        environment: {...process.env},
        modules: new Set(Object.keys(require.cache)),
        listeners: new Map(process.eventNames().map((name) => [name, process.listeners(name)])),
        umask: process.umask(),
        resources: countResources(),
        descriptors: countDescriptors(),
    };
}

/* Returns whether everything is as it was before the first call. If not, another process takes this one's place. */
async function putBack() {
    try {
        for (const [clear, timer] of timers)
            clear(timer);
        timers.clear();
        context = null;
        for (const name of process.eventNames()) {
            for (const listener of process.rawListeners(name)) {
                if (!(baseline.listeners.get(name) || []).includes(listener))
                    process.removeListener(name, listener);
            }
        }
        for (const [object, properties] of pictures) {
            if (!restore(object, properties))
                return false;
        }
        for (const name of Object.keys(process.env)) {
            if (!(name in baseline.environment))
                delete process.env[name];
        }
        for (const [name, value] of Object.entries(baseline.environment)) {
            if (process.env[name] !== value)
                process.env[name] = value;
        }
        process.chdir(home);
        process.umask(baseline.umask);
        for (const name of Object.keys(require.cache)) {
            if (!baseline.modules.has(name)) {
                if (name.endsWith('.node'))
                    return false;
                delete require.cache[name];
            }
        }
        // What was closed leaves in the next turns of the loop.
        for (let turn = 0; turn < 5 && isBusy(); turn++)
            await new Promise((resolve) => wait(resolve, turn));
        return !isBusy();
    } catch {
        return false;
    }
}

function isBusy() {
    return extraResources(new Set(['TTYWrap', 'Immediate'])) > 0 || countDescriptors() > baseline.descriptors;
}

// That its way of importing is an experimental one is not the code's concern.
const emitWarning = process.emitWarning;
process.emitWarning = function (warning, ...rest) {
    if (!String(warning).includes('USE_MAIN_CONTEXT_DEFAULT_LOADER'))
        emitWarning.call(process, warning, ...rest);
};
for (const stream of [process.stdout, process.stderr]) {
    // Or else what a loop prints is kept in memory for as long as it runs.
    if (stream._handle && stream._handle.setBlocking)
        stream._handle.setBlocking(true);
}
if (reset)
    takeBaseline();
send({ready: true});
