'use strict';
/* MCP over stdio as a server with one tool speaks it, both eras: lines in, lines out. */

const MODERN_VERSIONS = ['2026-07-28'];
const LEGACY_VERSIONS = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'];
const METHODS = {
    legacy: new Set(['initialize', 'ping', 'tools/list', 'tools/call']),
    modern: new Set(['server/discover', 'tools/list', 'tools/call']),
};
const SERVER_INFO = {name: 'mcp-exec-node', title: 'Node', version: '1.0'};
const CAPABILITIES = {tools: {}};
const [PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS] = [-32700, -32600, -32601, -32602];
const UNSUPPORTED_VERSION = -32022;
const META_VERSION = 'io.modelcontextprotocol/protocolVersion';
const META_CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const META_SERVER = 'io.modelcontextprotocol/serverInfo';
const TIMEOUT_MAX = 86400;
const OUTPUT_MAX = 4 * 1024 * 1024;

const TEXT = {type: 'string'};
const FLAG = {type: 'boolean'};
const ARGUMENTS = {
    code: {...TEXT, description: 'The JavaScript code; a promise that is its value is awaited'},
    timeout: {type: 'number', exclusiveMinimum: 0, maximum: TIMEOUT_MAX,
        description: 'Seconds after which the code is ended; no limit if left out'},
    stdin: {...TEXT, default: '', description: 'What the code finds in the global variable stdin'},
    max_output: {type: 'integer', minimum: 0, maximum: OUTPUT_MAX, default: 256 * 1024,
        description: 'Bytes of stdout, and of stderr, that are kept: half from the start, half from the end'},
};
const EXCEPTION = {type: TEXT, message: TEXT, traceback: TEXT};
const RESULT = {
    stdout: TEXT,
    stderr: TEXT,
    value: {type: ['string', 'null'], description: "util.inspect() of the last expression's value; null if undefined"},
    exception: {type: ['object', 'null'], properties: EXCEPTION, required: Object.keys(EXCEPTION)},
    exit_code: {type: ['integer', 'null'], description: 'As if the code were a program; null if a signal ended it'},
    signal: {type: ['string', 'null'], description: "The signal that ended the code's process"},
    truncated: {...FLAG, description: 'Whether parts of the texts were left out'},
    timed_out: FLAG,
    context_lost: {...FLAG, description: 'Whether the variables of earlier calls are lost'},
};

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isId = (value) => typeof value === 'string' || Number.isSafeInteger(value);
const own = (object, key) => Object.hasOwn(object, key) ? object[key] : undefined;

/* A JSON-RPC error. */
class Refusal extends Error {
    constructor(code, message, data) {
        super(message);
        this.answer = {code, message, data};
    }
}

class Program {
    constructor(isolation) {
        const state = isolation === 'shared' ? 'Calls that reach the same process share its variables.'
            : 'Each call begins anew: nothing is left of the calls before it.';
        this.instructions = `Runs JavaScript with Node. ${state}`;
        this.tool = {
            name: 'run',
            title: 'Run JavaScript',
            description: 'Runs JavaScript with Node and returns what it printed, the value of its last expression, and ' +
                `the exception if it threw one. require() and import() are there. ${state}`,
            inputSchema: {type: 'object', properties: ARGUMENTS, required: ['code'], additionalProperties: false},
            outputSchema: {type: 'object', properties: RESULT, required: Object.keys(RESULT)},
            annotations: {readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true},
        };
    }
}

function checkValue(name, value) {
    const {type, exclusiveMinimum, minimum, maximum} = ARGUMENTS[name];
    if (type === 'string' && typeof value !== 'string')
        throw new Refusal(INVALID_PARAMS, `${name} is not a string`);
    if (type === 'number' && !(typeof value === 'number' && value > exclusiveMinimum && value <= maximum))
        throw new Refusal(INVALID_PARAMS, `${name} is not a number of seconds above 0, at most ${maximum}`);
    if (type === 'integer' && !(Number.isInteger(value) && value >= minimum && value <= maximum))
        throw new Refusal(INVALID_PARAMS, `${name} is not a whole number from ${minimum} to ${maximum}`);
}

function checkCall(params) {
    if (own(params, 'name') !== 'run')
        throw new Refusal(INVALID_PARAMS, `unknown tool: ${own(params, 'name')}`);
    const args = Object.hasOwn(params, 'arguments') ? params.arguments : {};
    if (!isObject(args))
        throw new Refusal(INVALID_PARAMS, 'arguments is not an object');
    for (const name of Object.keys(args)) {
        if (!Object.hasOwn(ARGUMENTS, name))
            throw new Refusal(INVALID_PARAMS, `unknown argument: ${name}`);
        checkValue(name, args[name]);
    }
    if (!Object.hasOwn(args, 'code'))
        throw new Refusal(INVALID_PARAMS, 'code is missing');
    return args;
}

const toLine = (id, outcome) => JSON.stringify({jsonrpc: '2.0', id, ...outcome}) + '\n';

/* Answers everything but tools/call itself. The handler has send(line), isOpen(id): whether a call of that id waits or
 * runs, start(id, modern, args) and cancel(id). */
class Endpoint {
    constructor(program, handler) {
        Object.assign(this, {program, handler, initialized: false});
        this.decoder = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});
    }

    receive(line) {
        let id = null;
        try {
            let text, message;
            try {
                text = this.decoder.decode(line);
                if (!text.trim())
                    return;
                message = JSON.parse(text);
            } catch (error) {
                throw new Refusal(PARSE_ERROR, `parse error: ${error.message}`);
            }
            if (!isObject(message))
                throw new Refusal(INVALID_REQUEST, 'not one JSON-RPC message');
            const method = own(message, 'method');
            if (method === undefined && (Object.hasOwn(message, 'result') || Object.hasOwn(message, 'error')))
                return;  // an answer: nothing was asked
            const params = Object.hasOwn(message, 'params') ? message.params : {};
            if (Object.hasOwn(message, 'id')) {
                if (!isId(message.id))
                    throw new Refusal(INVALID_REQUEST, 'the id is neither a string nor an integer that JavaScript can hold');
                id = message.id;
            }
            if (own(message, 'jsonrpc') !== '2.0')
                throw new Refusal(INVALID_REQUEST, 'jsonrpc is not 2.0');
            if (typeof method !== 'string')
                throw new Refusal(INVALID_REQUEST, 'the method is not a string');
            if (!Object.hasOwn(message, 'id'))
                this.notified(method, params);
            else if (!isObject(params))
                throw new Refusal(INVALID_PARAMS, 'params is not an object');
            else
                this.handle(id, method, params);
        } catch (error) {
            if (!(error instanceof Refusal))
                throw error;
            this.handler.send(toLine(id, {error: error.answer}));
        }
    }

    notified(method, params) {
        if (method === 'notifications/cancelled' && isObject(params) && isId(own(params, 'requestId')))
            this.handler.cancel(params.requestId);
    }

    handle(id, method, params) {
        const modern = this.isModern(method, params);
        if (!METHODS[modern ? 'modern' : 'legacy'].has(method))
            throw new Refusal(METHOD_NOT_FOUND, `no such method: ${method}`);
        let result = {};
        if (method === 'tools/call') {
            if (this.handler.isOpen(id))
                throw new Refusal(INVALID_REQUEST, 'the id belongs to a call that runs or waits');
            this.handler.start(id, modern, checkCall(params));
            return;
        } else if (method === 'tools/list') {
            if (Object.hasOwn(params, 'cursor'))
                throw new Refusal(INVALID_PARAMS, 'no such cursor: the list has one page');
            result = {tools: [this.program.tool]};
        } else if (method === 'server/discover') {
            result = {supportedVersions: MODERN_VERSIONS, capabilities: CAPABILITIES, instructions: this.program.instructions};
        } else if (method === 'initialize') {
            result = this.initialize(params);
        }
        if (modern)
            Object.assign(result, {ttlMs: 3600000, cacheScope: 'public'});
        this.handler.send(this.resultLine(id, modern, result));
    }

    resultLine(id, modern, result) {
        return toLine(id, {result: modern ? {resultType: 'complete', ...result, _meta: {[META_SERVER]: SERVER_INFO}} : result});
    }

    /* Tells the era by the request alone, except that after initialize one without the fields of the stateless era is a
     * legacy one. */
    isModern(method, params) {
        if (!METHODS.legacy.has(method) && !METHODS.modern.has(method))
            throw new Refusal(METHOD_NOT_FOUND, `no such method: ${method}`);
        const meta = Object.hasOwn(params, '_meta') ? params._meta : {};
        if (!isObject(meta))
            throw new Refusal(INVALID_PARAMS, '_meta is not an object');
        const version = own(meta, META_VERSION);
        const capabilities = own(meta, META_CAPABILITIES);
        if (version === undefined && capabilities === undefined &&
                (method === 'initialize' || method === 'ping' || this.initialized && method !== 'server/discover'))
            return false;
        if (typeof version !== 'string' || !isObject(capabilities))
            throw new Refusal(INVALID_PARAMS, `_meta lacks ${META_VERSION} or ${META_CAPABILITIES}`);
        if (!MODERN_VERSIONS.includes(version)) {
            throw new Refusal(UNSUPPORTED_VERSION, 'unsupported protocol version',
                {supported: MODERN_VERSIONS, requested: version});
        }
        return true;
    }

    initialize(params) {
        const version = own(params, 'protocolVersion');
        if (typeof version !== 'string')
            throw new Refusal(INVALID_PARAMS, 'protocolVersion is not a string');
        this.initialized = true;
        return {protocolVersion: LEGACY_VERSIONS.includes(version) ? version : LEGACY_VERSIONS[0], serverInfo: SERVER_INFO,
            capabilities: CAPABILITIES, instructions: this.program.instructions};
    }
}

module.exports = {Endpoint, Program};
