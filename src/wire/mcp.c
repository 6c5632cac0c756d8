#include "wire/mcp.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/meta.h"
#include "wire/protocol.h"
#include "wire/translate.h"

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

static const char *const legacy_versions[] = { "2024-11-05", "2025-03-26", "2025-06-18", MCP_VERSION_LEGACY };

bool mcp_legacy_version_supported(const char *version) {
        for (size_t i = 0; i < ELEMENTSOF(legacy_versions); i++)
                if (streq(version, legacy_versions[i]))
                        return true;

        return false;
}

const char *mcp_negotiate(JsonSlice requested) {
        for (size_t i = 0; i < ELEMENTSOF(legacy_versions); i++)
                if (json_equal(requested, legacy_versions[i]))
                        return legacy_versions[i];

        return MCP_VERSION_LEGACY;
}

int mcp_parse(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error) {
        enum { ID, METHOD, PARAMS, RESULT, ERROR, VERSION };
        JsonMember members[] = {
                [ID] = { .name = "id" },         [METHOD] = { .name = "method" }, [PARAMS] = { .name = "params" },
                [RESULT] = { .name = "result" }, [ERROR] = { .name = "error" },   [VERSION] = { .name = "jsonrpc" },
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
        message.versioned = json_equal(members[VERSION].value, "2.0");
        message.ours = json_unsigned(message.id, &message.number);
        has_id = message.id.size > 0 && strchr("\"-0123456789", message.id.data[0]);

        /* A member that stands twice can be read in two ways; such a line is no message. */
        for (size_t i = 0; i <= ERROR; i++)
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

bool mcp_found_id(const IdFinder *finder, uint64_t *ret) {
        return id_finder_whole(finder) && finder->has_outcome && !finder->has_method &&
               json_unsigned((JsonSlice){ finder->id, finder->id_size }, ret);
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
                r = mcp_append_params(buffer, id, era, method, params);
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
                                "\",\"capabilities\":");
        if (r >= 0)
                r = mcp_append_profile(buffer, profile, MCP_ERA_LEGACY);
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"clientInfo\":" MCP_BROKER_INFO "}");
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

int mcp_append_empty_result(Buffer *buffer, JsonSlice id) {
        return append_answer(buffer, id, ",\"result\":{}");
}

int mcp_append_method_not_found(Buffer *buffer, JsonSlice id) {
        return append_answer(buffer, id, ",\"error\":{\"code\":-32601,\"message\":\"Method not found\"}");
}

const WireProtocol mcp_protocol = {
        .name = "mcp",
        .read_params = mcp_params_read,
        .append_request = mcp_append_request,
        .append_cancelled = mcp_append_cancelled,
        .append_notification = mcp_append_notification,
        .file_form = REQUEST_FILE_MCP,
        .append_around_file = mcp_append_around_file,
        .result_name = "result",
        .parse = mcp_parse,
        .found_id = mcp_found_id,
};
