#!/usr/bin/env node
// A server that the conformance suite is content with, made with @modelcontextprotocol/sdk 1.x: server-everything has few of
// the tools that it calls.
import { load } from './transcript.mjs';

const { Server } = await load('@modelcontextprotocol/sdk/server/index.js');
const { StdioServerTransport } = await load('@modelcontextprotocol/sdk/server/stdio.js');
const types = await load('@modelcontextprotocol/sdk/types.js');

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=';
const text = (value) => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const string = { type: 'string' };
const object = (properties = {}) => ({ type: 'object', properties, required: Object.keys(properties) });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const titled = (words) => words.map((word, i) => ({ const: `value${i + 1}`, title: `${word} Option` }));

async function elicited(extra, properties, message = 'Please fill in') {
    const { action, content } = await extra.sendRequest({ method: 'elicitation/create',
        params: { message, requestedSchema: { type: 'object', properties } } }, types.ElicitResultSchema);
    return [text(`Elicitation completed: action=${action}, content=${JSON.stringify(content)}`)];
}

const tools = {
    test_simple_text: { run: () => [text('This is a simple text response for testing.')] },
    test_image_content: { run: () => [image] },
    test_audio_content: { run: () => [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] },
    test_embedded_resource: {
        run: () => [{ type: 'resource', resource: { uri: 'test://embedded-resource', mimeType: 'text/plain', text: 'This is an embedded resource content.' } }],
    },
    test_multiple_content_types: {
        run: () => [text('Multiple content types test:'), image,
            { type: 'resource', resource: { uri: 'test://mixed-content-resource', mimeType: 'application/json', text: '{"test":"data","value":123}' } }],
    },
    test_tool_with_logging: {
        run: async (_, extra) => {
            for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
                await extra.sendNotification({ method: 'notifications/message', params: { level: 'info', data } });
                await sleep(50);
            }
            return [text('logged')];
        },
    },
    test_error_handling: { run: () => { throw new Error('This tool intentionally returns an error for testing'); } },
    test_tool_with_progress: {
        run: async (_, extra) => {
            for (const progress of [0, 50, 100]) {
                if (extra._meta?.progressToken !== undefined)
                    await extra.sendNotification({ method: 'notifications/progress', params: { progressToken: extra._meta.progressToken, progress, total: 100 } });
                await sleep(50);
            }
            return [text(String(extra._meta?.progressToken !== undefined))];
        },
    },
    test_sampling: {
        inputSchema: object({ prompt: string }),
        run: async ({ prompt }, extra) => {
            const { content } = await extra.sendRequest({ method: 'sampling/createMessage',
                params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens: 100 } }, types.CreateMessageResultSchema);
            return [text(`LLM response: ${content.text}`)];
        },
    },
    test_elicitation: {
        inputSchema: object({ message: string }),
        run: ({ message }, extra) => elicited(extra, { username: string, email: string }, message),
    },
    test_elicitation_sep1034_defaults: {
        run: (_, extra) => elicited(extra, {
            name: { ...string, default: 'John Doe' }, age: { type: 'integer', default: 30 }, score: { type: 'number', default: 95.5 },
            status: { ...string, enum: ['active', 'inactive', 'pending'], default: 'active' }, verified: { type: 'boolean', default: true },
        }),
    },
    test_elicitation_sep1330_enums: {
        run: (_, extra) => elicited(extra, {
            untitledSingle: { ...string, enum: ['option1', 'option2', 'option3'] },
            titledSingle: { ...string, oneOf: titled(['First', 'Second', 'Third']) },
            legacyEnum: { ...string, enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
            untitledMulti: { type: 'array', items: { ...string, enum: ['option1', 'option2', 'option3'] } },
            titledMulti: { type: 'array', items: { anyOf: titled(['First', 'Second', 'Third']) } },
        }),
    },
    json_schema_2020_12_tool: {
        inputSchema: {
            $schema: 'https://json-schema.org/draft/2020-12/schema', type: 'object',
            $defs: { address: { type: 'object', properties: { street: string, city: string } } },
            properties: { name: string, address: { $ref: '#/$defs/address' } }, additionalProperties: false,
        },
        run: () => [text('done')],
    },
    test_reconnection: { run: () => [text('reconnected')] },
};

const user = (content) => ({ role: 'user', content });
const prompts = {
    test_simple_prompt: { get: () => [user(text('This is a simple prompt for testing.'))] },
    test_prompt_with_arguments: {
        names: ['arg1', 'arg2'],
        get: ({ arg1, arg2 }) => [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))],
    },
    test_prompt_with_embedded_resource: {
        names: ['resourceUri'],
        get: ({ resourceUri }) => [user({ type: 'resource', resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' } }),
            user(text('Please process the embedded resource above.'))],
    },
    test_prompt_with_image: { get: () => [user(image), user(text('Please analyze the image above.'))] },
};

const resources = {
    'test://static-text': { mimeType: 'text/plain', text: 'This is the content of the static text resource.' },
    'test://static-binary': { mimeType: 'image/png', blob: PNG },
    'test://watched-resource': { mimeType: 'text/plain', text: 'Watched' },
};

function read(uri) {
    const id = uri.match(/^test:\/\/template\/(.*)\/data$/)?.[1];
    if (id)
        return { uri, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) };
    if (!resources[uri])
        throw new types.McpError(-32002, `Resource ${uri} not found`);
    return { uri, ...resources[uri] };
}

const server = new Server({ name: 'conformant', version: '1.0.0' },
    { capabilities: { tools: {}, prompts: {}, resources: { subscribe: true }, logging: {}, completions: {} } });
const handle = (schema, handler) => server.setRequestHandler(schema, handler);
handle(types.ListToolsRequestSchema, () => ({
    tools: Object.entries(tools).map(([name, { inputSchema = object() }]) => ({ name, description: `Tool ${name}`, inputSchema })),
}));
handle(types.CallToolRequestSchema, async ({ params }, extra) => {
    try {
        return { content: await tools[params.name].run(params.arguments, extra) };
    } catch (error) {
        return { content: [text(error.message)], isError: true };
    }
});
handle(types.ListPromptsRequestSchema, () => ({
    prompts: Object.entries(prompts).map(([name, { names = [] }]) => ({ name, description: `Prompt ${name}`,
        arguments: names.map((one) => ({ name: one, description: one, required: true })) })),
}));
handle(types.GetPromptRequestSchema, ({ params }) => ({ messages: prompts[params.name].get(params.arguments ?? {}) }));
handle(types.ListResourcesRequestSchema, () => ({
    resources: Object.entries(resources).map(([uri, { mimeType }]) => ({ uri, name: uri, description: `Resource ${uri}`, mimeType })),
}));
handle(types.ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [{ uriTemplate: 'test://template/{id}/data', name: 'template', description: 'A template' }] }));
handle(types.ReadResourceRequestSchema, ({ params }) => ({ contents: [read(params.uri)] }));
handle(types.SubscribeRequestSchema, () => ({}));
handle(types.UnsubscribeRequestSchema, () => ({}));
handle(types.CompleteRequestSchema, () => ({ completion: { values: ['paris', 'park', 'party'], total: 150, hasMore: false } }));
await server.connect(new StdioServerTransport());
