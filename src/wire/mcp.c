#include "wire/mcp.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/protocol.h"

#define META_VERSION "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define META_CLIENT "io.modelcontextprotocol/clientInfo"
#define CLIENT_INFO "{\"name\":\"mcp-exec\",\"version\":\"" PROJECT_VERSION "\"}"

static const char *const era_names[] = {
        [MCP_ERA_AUTO] = "auto",
        [MCP_ERA_LEGACY] = "legacy",
        [MCP_ERA_MODERN] = "modern",
};

const char *mcp_era_to_string(McpEra era) {
        return era_names[era];
}

int mcp_era_from_string(const char *word, size_t size) {
        for (size_t i = 0; i < ELEMENTSOF(era_names); i++)
                if (strlen(era_names[i]) == size && memcmp(era_names[i], word, size) == 0)
                        return i;

        return -1;
}

bool mcp_legacy_version_supported(const char *version) {
        static const char *const versions[] = { "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25" };

        for (size_t i = 0; i < ELEMENTSOF(versions); i++)
                if (streq(version, versions[i]))
                        return true;

        return false;
}

int mcp_parse(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error) {
        enum { ID, METHOD, PARAMS, RESULT, ERROR };
        JsonMember members[] = {
                [ID] = { .name = "id" },         [METHOD] = { .name = "method" }, [PARAMS] = { .name = "params" },
                [RESULT] = { .name = "result" }, [ERROR] = { .name = "error" },
        };
        McpMessage message = { .kind = MCP_NOISE };
        bool has_id;
        int r;

        r = json_scan(line, size, depth_max, members, ELEMENTSOF(members), &message.traits, error);
        if (r < 0)
                return r;

        message.id = members[ID].value;
        message.method = members[METHOD].value;
        message.params = members[PARAMS].value;
        message.result = members[RESULT].value;
        message.error = members[ERROR].value;
        message.ours = json_unsigned(message.id, &message.number);
        has_id = message.id.size > 0 && strchr("\"-0123456789", message.id.data[0]);

        /* A member that stands twice can be read in two ways; such a line is no message. */
        for (size_t i = 0; i < ELEMENTSOF(members); i++)
                if (members[i].count > 1) {
                        *ret = message;
                        return 0;
                }

        if (json_is(message.method, '"')) {
                if (has_id)
                        message.kind = MCP_REQUEST;
                else if (members[ID].count == 0)
                        message.kind = MCP_NOTIFICATION;
        } else if (has_id && members[METHOD].count == 0 && members[RESULT].count + members[ERROR].count == 1) {
                if (members[RESULT].count == 1)
                        message.kind = MCP_RESULT;
                else if (json_is(message.error, '{'))
                        message.kind = MCP_ERROR;
        }

        *ret = message;
        return 0;
}

static void finder_token_done(McpIdFinder *finder) {
        finder->token[MIN(finder->token_size, sizeof(finder->token) - 1)] = 0;

        if (finder->behind_colon) {
                if (finder->key_is_id)
                        finder->found =
                                json_unsigned((JsonSlice){ finder->token, finder->token_size }, &finder->number);
        } else {
                finder->key_is_id = streq(finder->token, "id");
                if (streq(finder->token, "result") || streq(finder->token, "error"))
                        finder->answer = true;
        }

        finder->token_size = 0;
}

static void finder_token_add(McpIdFinder *finder, char c) {
        if (finder->depth == 1 && finder->token_size < sizeof(finder->token))
                finder->token[finder->token_size++] = c;
}

void mcp_id_finder_feed(McpIdFinder *finder, const char *data, size_t size) {
        for (size_t i = 0; i < size; i++) {
                char c = data[i];

                if (finder->depth == 0 && c != ' ' && c != '\t' && c != '\r') {
                        finder->more = finder->more || finder->began || c != '{';
                        finder->began = true;
                }

                if (finder->in_string) {
                        if (finder->escaped)
                                finder->escaped = false;
                        else if (c == '\\')
                                finder->escaped = true;
                        else if (c == '"') {
                                finder->in_string = false;
                                /* A string is no id of ours, but it may be a key. */
                                if (finder->depth == 1 && !finder->behind_colon)
                                        finder_token_done(finder);
                                continue;
                        }
                        if (!finder->behind_colon)
                                finder_token_add(finder, c);
                        continue;
                }

                switch (c) {
                case '"':
                        finder->in_string = true;
                        finder->token_size = 0;
                        break;
                case '{':
                case '[':
                        finder->depth++;
                        finder->token_size = 0;
                        break;
                case '}':
                case ']':
                case ',':
                        if (finder->depth == 1) {
                                if (finder->behind_colon && finder->token_size > 0)
                                        finder_token_done(finder);
                                finder->behind_colon = false;
                        }
                        if (c != ',' && finder->depth > 0)
                                finder->depth--;
                        break;
                case ':':
                        if (finder->depth == 1) {
                                finder->behind_colon = true;
                                finder->token_size = 0;
                        }
                        break;
                case ' ':
                case '\t':
                case '\r':
                        break;
                default:
                        finder_token_add(finder, c);
                }
        }
}

bool mcp_id_finder_result(const McpIdFinder *finder, uint64_t *ret) {
        if (!finder->found || !finder->answer || finder->depth > 0 || finder->more)
                return false;

        *ret = finder->number;
        return true;
}

int mcp_params_read(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error) {
        JsonMember members[] = { { .name = "_meta" }, { .name = "name" } };
        const JsonMember *meta = &members[0], *name = &members[1];
        McpParams params = {};
        int r;

        if (size == 0) {
                *ret = params;
                return 0;
        }

        r = json_scan(text, size, depth_max, members, ELEMENTSOF(members), &params.traits, error);
        if (r < 0)
                return r;

        params.text.data = text + strspn(text, " \t\r\n");
        params.text.size = text + size - params.text.data;
        while (strchr(" \t\r\n", params.text.data[params.text.size - 1]))
                params.text.size--;

        *error = (JsonError){ .offset = params.text.data - text, .reason = "has to be an object" };
        if (!json_is(params.text, '{'))
                return -EINVAL;

        *error = (JsonError){ .offset = name->key.data - text, .reason = "name stands twice" };
        if (name->count > 1)
                return -EINVAL;
        params.name = name->value;

        if (meta->count > 0) {
                *error = (JsonError){ .offset = meta->key.data - text, .reason = "_meta stands twice" };
                if (meta->count > 1)
                        return -EINVAL;
                error->reason = "_meta has to be an object";
                if (!json_is(meta->value, '{'))
                        return -EINVAL;

                params.meta = meta->value;
                params.token = json_get(meta->value, "progressToken");
        }

        *ret = params;
        return 0;
}

int mcp_params_locate(JsonSlice object, const JsonTraits *traits, McpParams *ret, const char **ret_reason) {
        McpParams params = { .text = object, .traits = *traits };
        const char *position = NULL;
        JsonSlice key, value;

        *ret_reason = "has to be an object";
        if (object.data && !json_is(object, '{'))
                return -EINVAL;

        while (json_next_member(object, &position, &key, &value))
                if (json_equal(key, "_meta"))
                        params.meta = value;
                else if (json_equal(key, "name"))
                        params.name = value;

        if (params.meta.data) {
                *ret_reason = "_meta has to be an object";
                if (!json_is(params.meta, '{'))
                        return -EINVAL;
                params.token = json_get(params.meta, "progressToken");
        }

        *ret = params;
        return 0;
}

/* What the broker itself says in _meta, then what the caller said there, less what is the broker's to say */
static int append_meta(Buffer *buffer, uint64_t id, McpEra era, const McpParams *params, bool progress) {
        bool has_capabilities = json_get(params->meta, META_CAPABILITIES).data,
             has_client = json_get(params->meta, META_CLIENT).data;
        const char *position = NULL, *comma = "";
        JsonSlice key, value;
        int r;

        r = buffer_append_string(buffer, "\"_meta\":{");
        if (r < 0)
                return r;

        if (progress) {
                r = buffer_append_string(buffer, "\"progressToken\":");
                if (r >= 0)
                        r = buffer_append_number(buffer, id);
                if (r < 0)
                        return r;
                comma = ",";
        }

        if (era == MCP_ERA_MODERN) {
                r = buffer_append_string(buffer, comma);
                if (r >= 0)
                        r = buffer_append_string(buffer, "\"" META_VERSION "\":\"" MCP_VERSION_MODERN "\"");
                if (r >= 0 && !has_capabilities)
                        r = buffer_append_string(buffer, ",\"" META_CAPABILITIES "\":{}");
                if (r >= 0 && !has_client)
                        r = buffer_append_string(buffer, ",\"" META_CLIENT "\":" CLIENT_INFO);
                if (r < 0)
                        return r;
                comma = ",";
        }

        while (json_next_member(params->meta, &position, &key, &value)) {
                if (json_equal(key, "progressToken") || (era == MCP_ERA_MODERN && json_equal(key, META_VERSION)))
                        continue;

                r = buffer_append_string(buffer, comma);
                if (r >= 0)
                        r = json_append(buffer, key, &params->traits);
                if (r >= 0)
                        r = buffer_append(buffer, ":", 1);
                if (r >= 0)
                        r = json_append(buffer, value, &params->traits);
                if (r < 0)
                        return r;
                comma = ",";
        }

        return buffer_append(buffer, "}", 1);
}

/* An object with its _meta taken out and ours put in front */
static int append_object_with_meta(Buffer *buffer, uint64_t id, McpEra era, const McpParams *params, bool progress) {
        const char *position = NULL;
        JsonSlice key, value;
        int r;

        r = buffer_append(buffer, "{", 1);
        if (r >= 0)
                r = append_meta(buffer, id, era, params, progress);
        if (r < 0)
                return r;

        if (!params->meta.data) {
                if (json_next_member(params->text, &position, &key, &value)) {
                        JsonSlice rest = { key.data, params->text.data + params->text.size - key.data };

                        r = buffer_append(buffer, ",", 1);
                        if (r >= 0)
                                r = json_append(buffer, rest, &params->traits);
                        return r;
                }
        } else
                while (json_next_member(params->text, &position, &key, &value)) {
                        if (value.data == params->meta.data)
                                continue;

                        r = buffer_append(buffer, ",", 1);
                        if (r >= 0)
                                r = json_append(buffer, key, &params->traits);
                        if (r >= 0)
                                r = buffer_append(buffer, ":", 1);
                        if (r >= 0)
                                r = json_append(buffer, value, &params->traits);
                        if (r < 0)
                                return r;
                }

        return buffer_append(buffer, "}", 1);
}

static int append_tool_params(Buffer *buffer, uint64_t id, McpEra era, const McpParams *params) {
        static const McpParams no_meta = {};
        int r;

        r = buffer_append(buffer, "{", 1);
        if (r >= 0)
                r = append_meta(buffer, id, era, &no_meta, true);
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"name\":");
        if (r >= 0)
                r = json_append_quoted(buffer, params->tool, strlen(params->tool));
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"arguments\":");
        if (r >= 0)
                r = params->text.data ? json_append(buffer, params->text, &params->traits)
                                      : buffer_append_string(buffer, "{}");
        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        return r;
}

static int append_params(Buffer *buffer, uint64_t id, McpEra era, const char *method, const McpParams *params) {
        bool progress = params->token.data || streq(method, "tools/call");
        int r;

        if (!params->tool && !params->text.data && era != MCP_ERA_MODERN)
                return 0;

        r = buffer_append_string(buffer, ",\"params\":");
        if (r < 0)
                return r;

        if (params->tool)
                return append_tool_params(buffer, id, era, params);
        if (era == MCP_ERA_MODERN || progress)
                return append_object_with_meta(buffer, id, era, params, progress);

        return json_append(buffer, params->text, &params->traits);
}

static int finish(Buffer *buffer, size_t before, int r) {
        if (r >= 0)
                r = buffer_append(buffer, "}\n", 2);
        if (r < 0)
                buffer_truncate(buffer, before);

        return r;
}

int mcp_append_request(Buffer *buffer, uint64_t id, McpEra era, const char *method, const McpParams *params) {
        size_t before = buffer_size(buffer);
        int r;

        /* One growth instead of several while the pieces are appended */
        r = buffer_reserve(buffer, params->text.size + 512);
        if (r >= 0)
                r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (r >= 0)
                r = buffer_append_number(buffer, id);
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"method\":");
        if (r >= 0)
                r = json_append_quoted(buffer, method, strlen(method));
        if (r >= 0)
                r = append_params(buffer, id, era, method, params);
        return finish(buffer, before, r);
}

int mcp_append_notification(Buffer *buffer, const char *method, const McpParams *params) {
        size_t before = buffer_size(buffer);
        int r;

        r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"method\":");
        if (r >= 0)
                r = json_append_quoted(buffer, method, strlen(method));
        if (r >= 0 && params->text.data) {
                r = buffer_append_string(buffer, ",\"params\":");
                if (r >= 0)
                        r = json_append(buffer, params->text, &params->traits);
        }
        return finish(buffer, before, r);
}

int mcp_append_initialize(Buffer *buffer, uint64_t id, unsigned profile) {
        size_t before = buffer_size(buffer);
        int r;

        r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (r >= 0)
                r = buffer_append_number(buffer, id);
        if (r >= 0)
                r = buffer_append_string(
                        buffer, ",\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"" MCP_VERSION_LEGACY
                                "\",\"clientInfo\":" CLIENT_INFO ",\"capabilities\":");
        if (r >= 0)
                r = mcp_append_profile(buffer, profile);
        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        return finish(buffer, before, r);
}

int mcp_append_cancelled(Buffer *buffer, uint64_t id, const char *reason) {
        size_t before = buffer_size(buffer);
        int r;

        r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\","
                                         "\"params\":{\"requestId\":");
        if (r >= 0)
                r = buffer_append_number(buffer, id);
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"reason\":");
        if (r >= 0)
                r = json_append_quoted(buffer, reason, strlen(reason));
        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        return finish(buffer, before, r);
}

static int append_answer(Buffer *buffer, JsonSlice id, const char *outcome) {
        size_t before = buffer_size(buffer);
        int r;

        r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (r >= 0)
                r = buffer_append(buffer, id.data, id.size);
        if (r >= 0)
                r = buffer_append_string(buffer, outcome);
        return finish(buffer, before, r);
}

static int append_outcome(Buffer *buffer, JsonSlice id, const char *name, JsonSlice value, const JsonTraits *traits) {
        size_t before = buffer_size(buffer);
        int r;

        r = buffer_reserve(buffer, value.size + id.size + 64);
        if (r >= 0)
                r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (r >= 0)
                r = buffer_append(buffer, id.data, id.size);
        if (r >= 0)
                r = buffer_append_string(buffer, name);
        if (r >= 0)
                r = json_append(buffer, value, traits);
        return finish(buffer, before, r);
}

int mcp_append_result(Buffer *buffer, JsonSlice id, JsonSlice result, const JsonTraits *traits) {
        return append_outcome(buffer, id, ",\"result\":", result, traits);
}

int mcp_append_error(Buffer *buffer, JsonSlice id, JsonSlice error, const JsonTraits *traits) {
        return append_outcome(buffer, id, ",\"error\":", error, traits);
}

int mcp_append_empty_result(Buffer *buffer, JsonSlice id) {
        return append_answer(buffer, id, ",\"result\":{}");
}

int mcp_append_method_not_found(Buffer *buffer, JsonSlice id) {
        return append_answer(buffer, id, ",\"error\":{\"code\":-32601,\"message\":\"Method not found\"}");
}

static void mcp_find_id(IdFinder *finder, const char *data, size_t size) {
        mcp_id_finder_feed(&finder->mcp, data, size);
}

static bool mcp_found_id(const IdFinder *finder, uint64_t *ret) {
        return mcp_id_finder_result(&finder->mcp, ret);
}

const WireProtocol mcp_protocol = {
        .name = "mcp",
        .read_params = mcp_params_read,
        .append_request = mcp_append_request,
        .append_cancelled = mcp_append_cancelled,
        .append_notification = mcp_append_notification,
        .parse = mcp_parse,
        .find_id = mcp_find_id,
        .found_id = mcp_found_id,
};
