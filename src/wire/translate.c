#include "wire/translate.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/meta.h"

#define NO_CACHE_TTL "0"
#define NO_CACHE_SCOPE "\"private\""

int mcp_read_initialize(JsonSlice params, const char **ret_version, McpProfile *ret_profile, JsonSlice *ret_info,
                        const char **reason) {
        JsonSlice version = json_get(params, "protocolVersion"), capabilities = json_get(params, "capabilities"),
                  info = json_get(params, "clientInfo");

        *reason = "protocolVersion has to be a string";
        if (!json_is(version, '"'))
                return -EINVAL;
        *reason = "capabilities has to be an object";
        if (!json_is(capabilities, '{'))
                return -EINVAL;

        *ret_version = mcp_negotiate(version);
        *ret_profile = mcp_profile_read(capabilities);
        *ret_info = json_is(info, '{') ? info : (JsonSlice){};
        return 0;
}

bool mcp_is_modern_request(const McpParams *params) {
        return json_get(params->meta, META_VERSION).data;
}

int mcp_read_modern(const McpParams *params, McpProfile *ret_profile, McpLevel *ret_level, const char **reason) {
        JsonSlice version = json_get(params->meta, META_VERSION),
                  capabilities = json_get(params->meta, META_CAPABILITIES), level = json_get(params->meta, META_LEVEL);
        McpLevel wanted = mcp_level_read(level);

        *reason = "_meta needs " META_VERSION ", a string";
        if (!json_is(version, '"'))
                return RPC_INVALID_PARAMS;
        *reason = "Unsupported protocol version";
        if (!json_equal(version, MCP_VERSION_MODERN))
                return RPC_UNSUPPORTED_VERSION;
        *reason = "_meta needs " META_CAPABILITIES ", an object";
        if (!json_is(capabilities, '{'))
                return RPC_INVALID_PARAMS;
        *reason = "_meta has an unknown " META_LEVEL;
        if (level.data && wanted < 0)
                return RPC_INVALID_PARAMS;

        *ret_profile = mcp_profile_read(capabilities);
        *ret_level = wanted;
        return 0;
}

static JsonPiece buffer_piece(const Buffer *buffer) {
        return (JsonPiece){ { buffer_data(buffer), buffer_size(buffer) }, NULL };
}

int mcp_append_unsupported(Buffer *buffer, JsonPiece id, JsonPiece requested) {
        const JsonChange changes[] = {
                { .name = "supported",
                  .kind = JSON_SET,
                  .value = JSON_LITERAL("[\"" MCP_VERSION_MODERN
                                        "\",\"2025-11-25\",\"2025-06-18\",\"2025-03-26\",\"2024-11-05\"]") },
                { .name = "requested", .kind = JSON_SET, .value = requested },
        };
        Buffer data = {};
        int r;

        r = json_append_changed(&data, (JsonPiece){}, changes, ELEMENTSOF(changes));
        if (r >= 0)
                r = rpc_append_error(buffer, id, RPC_UNSUPPORTED_VERSION, "Unsupported protocol version",
                                     buffer_piece(&data));
        buffer_done(&data);
        return r;
}

int mcp_append_missing_capability(Buffer *buffer, JsonPiece id, McpProfile missing) {
        Buffer data = {};
        int r;

        /* A part is declared within what it is part of. */
        if (missing & (MCP_PROFILE_SAMPLING_TOOLS | MCP_PROFILE_SAMPLING_CONTEXT))
                missing |= MCP_PROFILE_SAMPLING;

        r = buffer_append_string(&data, "{\"requiredCapabilities\":");
        if (r >= 0)
                r = mcp_append_profile(&data, missing, MCP_ERA_MODERN);
        if (r >= 0)
                r = buffer_append(&data, "}", 1);
        if (r >= 0)
                r = rpc_append_error(buffer, id, RPC_MISSING_CAPABILITY, "Missing required client capability",
                                     buffer_piece(&data));
        buffer_done(&data);
        return r;
}

JsonSlice mcp_hello_server_info(const McpHello *hello) {
        JsonSlice info = hello->era == MCP_ERA_MODERN ? json_get(json_get(hello->result.text, "_meta"), META_SERVER)
                                                      : json_get(hello->result.text, "serverInfo");

        return json_is(info, '{') ? info : (JsonSlice){};
}

bool mcp_hello_has(const McpHello *hello, const char *capability, const char *part) {
        JsonSlice declared = json_get(json_get(hello->result.text, "capabilities"), capability), value;

        if (!part)
                return json_is(declared, '{');

        value = json_get(declared, part);
        return json_is(value, 't') || json_is(value, '{');
}

/* What a server is called that doesn't say it itself: its name in the configuration */
static int append_name_as_info(Buffer *buffer, const char *name) {
        int r;

        r = buffer_append_string(buffer, "{\"name\":");
        if (r >= 0)
                r = json_append_quoted(buffer, name, strlen(name));
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"version\":\"\"}");
        return r;
}

/* The capabilities for a client of the other era, serverInfo, and instructions */
typedef struct Introduction {
        Buffer capabilities, info;
        JsonSlice instructions;
} Introduction;

static void introduction_done(Introduction *introduction) {
        buffer_done(&introduction->capabilities);
        buffer_done(&introduction->info);
}

static int introduce(const McpHello *hello, Introduction *ret) {
        static const JsonChange no_extension = { .name = EXTENSION_TASKS, .kind = JSON_REMOVE };
        /* Tasks of one era mean nothing in the other. */
        const JsonChange less_legacy = { .name = "tasks", .kind = JSON_REMOVE }, less_modern = {
                .name = "extensions", .kind = JSON_INSIDE, .inside = &no_extension, .n_inside = 1
        };
        JsonSlice capabilities = json_get(hello->result.text, "capabilities"), info = mcp_hello_server_info(hello),
                  instructions = json_get(hello->result.text, "instructions");
        int r;

        if (!json_is(capabilities, '{'))
                capabilities = (JsonSlice){};
        if (json_is(instructions, '"'))
                ret->instructions = instructions;

        r = json_append_changed(&ret->capabilities, (JsonPiece){ capabilities, hello->result.traits },
                                hello->era == MCP_ERA_MODERN ? &less_modern : &less_legacy, 1);
        if (r >= 0)
                r = info.data ? json_append_changed(&ret->info, (JsonPiece){ info, hello->result.traits }, NULL, 0)
                              : append_name_as_info(&ret->info, hello->name);
        return r;
}

int mcp_append_initialize_result(Buffer *buffer, const McpHello *hello, const char *version) {
        _cleanup_(introduction_done) Introduction introduction = {};
        JsonPiece agreed = { { version, strlen(version) }, NULL };
        Buffer quoted = {};
        int r;

        r = json_append_quoted(&quoted, version, agreed.text.size);
        if (r < 0)
                return r;
        agreed = buffer_piece(&quoted);

        if (hello->era == MCP_ERA_MODERN) {
                r = introduce(hello, &introduction);
                if (r >= 0) {
                        const JsonChange changes[] = {
                                { .name = "protocolVersion", .kind = JSON_SET, .value = agreed },
                                { .name = "capabilities",
                                  .kind = JSON_SET,
                                  .value = buffer_piece(&introduction.capabilities) },
                                { .name = "serverInfo", .kind = JSON_SET, .value = buffer_piece(&introduction.info) },
                                { .name = "instructions",
                                  .kind = JSON_SET,
                                  .value = { introduction.instructions, hello->result.traits } },
                        };

                        r = json_append_changed(buffer, (JsonPiece){}, changes, ELEMENTSOF(changes));
                }
        } else {
                const JsonChange changes[] = { { .name = "protocolVersion", .kind = JSON_SET, .value = agreed } };

                r = json_append_changed(buffer, hello->result, changes, ELEMENTSOF(changes));
        }

        buffer_done(&quoted);
        return r;
}

int mcp_append_discover_result(Buffer *buffer, const McpHello *hello) {
        _cleanup_(introduction_done) Introduction introduction = {};
        const JsonChange type = { .name = "resultType", .kind = JSON_SET, .value = JSON_LITERAL("\"complete\"") },
                         versions = { .name = "supportedVersions",
                                      .kind = JSON_SET,
                                      .value = JSON_LITERAL("[\"" MCP_VERSION_MODERN "\"]") },
                         ttl = { .name = "ttlMs", .kind = JSON_DEFAULT, .value = JSON_LITERAL(NO_CACHE_TTL) },
                         scope = { .name = "cacheScope", .kind = JSON_DEFAULT, .value = JSON_LITERAL(NO_CACHE_SCOPE) };
        int r;

        if (hello->era == MCP_ERA_MODERN) {
                const JsonChange changes[] = { type, versions, ttl, scope };

                return json_append_changed(buffer, hello->result, changes, ELEMENTSOF(changes));
        }

        r = introduce(hello, &introduction);
        if (r >= 0) {
                const JsonChange server = { .name = META_SERVER,
                                            .kind = JSON_SET,
                                            .value = buffer_piece(&introduction.info) };
                const JsonChange changes[] = {
                        type,
                        versions,
                        { .name = "capabilities", .kind = JSON_SET, .value = buffer_piece(&introduction.capabilities) },
                        { .name = "instructions",
                          .kind = JSON_SET,
                          .value = { introduction.instructions, hello->result.traits } },
                        ttl,
                        scope,
                        { .name = "_meta", .kind = JSON_INSIDE, .inside = &server, .n_inside = 1 },
                };

                r = json_append_changed(buffer, (JsonPiece){}, changes, ELEMENTSOF(changes));
        }
        return r;
}

static bool is_one_of(const char *word, const char *const *words, size_t n_words) {
        for (size_t i = 0; i < n_words; i++)
                if (streq(word, words[i]))
                        return true;

        return false;
}

int mcp_forwardable(const char *method, McpEra client, McpEra worker, const char **reason) {
        static const char *const legacy[] = {
                "initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe",
                "tasks/list", "tasks/result",
        };
        static const char *const modern[] = { "server/discover", "subscriptions/listen", "tasks/update" };
        /* Both have them, but they don't mean the same. */
        static const char *const different[] = { "tasks/cancel", "tasks/get" };

        bool unknown = client == MCP_ERA_MODERN ? is_one_of(method, legacy, ELEMENTSOF(legacy))
                                                : is_one_of(method, modern, ELEMENTSOF(modern));

        if (!unknown && (client == MCP_ERA_MODERN) != (worker == MCP_ERA_MODERN))
                unknown = is_one_of(method, legacy, ELEMENTSOF(legacy)) ||
                          is_one_of(method, modern, ELEMENTSOF(modern)) ||
                          is_one_of(method, different, ELEMENTSOF(different));

        *reason = "Method not found";
        return unknown ? RPC_METHOD_NOT_FOUND : 0;
}

McpResultType mcp_result_type(JsonSlice result, McpEra worker) {
        JsonSlice type = json_get(result, "resultType");

        if (!json_is(result, '{'))
                return MCP_RESULT_UNKNOWN;
        if (worker != MCP_ERA_MODERN || !type.data || json_equal(type, "complete"))
                return MCP_RESULT_COMPLETE;
        if (json_equal(type, "input_required"))
                return MCP_RESULT_INPUT_REQUIRED;

        return json_equal(type, "task") ? MCP_RESULT_TASK : MCP_RESULT_UNKNOWN;
}

bool mcp_method_cacheable(const char *method) {
        static const char *const methods[] = {
                "prompts/list",    "resources/list", "resources/read", "resources/templates/list",
                "server/discover", "tools/list",
        };

        return is_one_of(method, methods, ELEMENTSOF(methods));
}

bool mcp_method_asks(const char *method) {
        static const char *const methods[] = { "prompts/get", "resources/read", "tools/call" };

        return is_one_of(method, methods, ELEMENTSOF(methods));
}

static int append_for_modern(Buffer *buffer, JsonPiece id, const char *method, JsonPiece result,
                             JsonPiece server_info) {
        const JsonChange server = { .name = META_SERVER, .kind = JSON_DEFAULT, .value = server_info };
        JsonChange changes[4] = {
                { .name = "resultType", .kind = JSON_SET, .value = JSON_LITERAL("\"complete\"") },
        };
        size_t n = 1;

        if (mcp_method_cacheable(method)) {
                changes[n++] =
                        (JsonChange){ .name = "ttlMs", .kind = JSON_DEFAULT, .value = JSON_LITERAL(NO_CACHE_TTL) };
                changes[n++] = (JsonChange){ .name = "cacheScope",
                                             .kind = JSON_DEFAULT,
                                             .value = JSON_LITERAL(NO_CACHE_SCOPE) };
        }
        if (server_info.text.data)
                changes[n++] = (JsonChange){ .name = "_meta", .kind = JSON_INSIDE, .inside = &server, .n_inside = 1 };

        return rpc_append_result_changed(buffer, id, result, changes, n);
}

static bool schema_unknown_to_legacy(JsonSlice tool) {
        JsonSlice schema = json_get(tool, "outputSchema");

        return schema.data && !json_equal(json_get(schema, "type"), "object");
}

/* A legacy client takes no list at all that has a tool whose outputSchema is none of an object. */
static int append_tools_for_legacy(Buffer *buffer, JsonSlice tools, const JsonTraits *traits) {
        static const JsonChange no_schema = { .name = "outputSchema", .kind = JSON_REMOVE };
        const char *position = NULL, *comma = "";
        JsonSlice tool;
        int r;

        r = buffer_append(buffer, "[", 1);
        while (r >= 0 && json_next_element(tools, &position, &tool)) {
                r = buffer_append_string(buffer, comma);
                if (r >= 0)
                        r = schema_unknown_to_legacy(tool)
                                    ? json_append_changed(buffer, (JsonPiece){ tool, traits }, &no_schema, 1)
                                    : json_append_edited(buffer, (JsonPiece){ tool, traits }, NULL, 0);
                comma = ",";
        }
        if (r >= 0)
                r = buffer_append(buffer, "]", 1);
        return r;
}

static int append_for_legacy(Buffer *buffer, JsonPiece id, const char *method, JsonPiece result) {
        static const JsonChange no_server = { .name = META_SERVER, .kind = JSON_REMOVE };
        JsonChange changes[5] = {
                { .name = "resultType", .kind = JSON_REMOVE },
                { .name = "_meta", .kind = JSON_INSIDE, .inside = &no_server, .n_inside = 1 },
        };
        Buffer tools = {};
        size_t n = 2;
        int r = 0;

        if (mcp_method_cacheable(method)) {
                changes[n++] = (JsonChange){ .name = "ttlMs", .kind = JSON_REMOVE };
                changes[n++] = (JsonChange){ .name = "cacheScope", .kind = JSON_REMOVE };
        }
        if (streq(method, "tools/list")) {
                JsonSlice list = json_get(result.text, "tools");

                if (json_is(list, '['))
                        r = append_tools_for_legacy(&tools, list, result.traits);
                changes[n++] = (JsonChange){ .name = "tools", .kind = JSON_REPLACE, .value = buffer_piece(&tools) };
        } else if (streq(method, "tools/call")) {
                JsonSlice content = json_get(result.text, "structuredContent");

                if (content.data && !json_is(content, '{'))
                        changes[n++] = (JsonChange){ .name = "structuredContent", .kind = JSON_REMOVE };
        }

        if (r >= 0)
                r = rpc_append_result_changed(buffer, id, result, changes, n);
        buffer_done(&tools);
        return r;
}

int mcp_append_client_result(Buffer *buffer, JsonPiece id, const char *method, JsonPiece result, McpEra worker,
                             McpEra client, JsonPiece server_info) {
        if (!json_is(result.text, '{'))
                return -EINVAL;

        if (client == MCP_ERA_MODERN && worker != MCP_ERA_MODERN)
                return append_for_modern(buffer, id, method, result, server_info);
        if (client != MCP_ERA_MODERN && worker == MCP_ERA_MODERN)
                return append_for_legacy(buffer, id, method, result);

        return rpc_append_result(buffer, id, result);
}
