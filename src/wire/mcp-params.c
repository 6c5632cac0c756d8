#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "wire/meta.h"
#include "wire/translate.h"

static int refuse(const McpParams *params, const JsonMember *member, const char *reason, JsonError *error) {
        *error = (JsonError){ .offset = member ? member->key.data - params->text.data : 0, .reason = reason };
        return -EINVAL;
}

static int check(const JsonMember *meta, const JsonMember *name, McpParams *params, JsonError *error) {
        if (!json_is(params->text, '{'))
                return refuse(params, NULL, "has to be an object", error);
        if (name->count > 1)
                return refuse(params, name, "name stands twice", error);
        if (meta->count > 1)
                return refuse(params, meta, "_meta stands twice", error);
        if (meta->count > 0 && !json_is(meta->value, '{'))
                return refuse(params, meta, "_meta has to be an object", error);

        params->name = name->value;
        params->meta = meta->value;
        params->token = json_get(meta->value, "progressToken");
        return 0;
}

int mcp_params_read(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error) {
        JsonMember members[] = { { .name = "_meta" }, { .name = "name" } };
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

        r = check(&members[0], &members[1], &params, error);
        if (r < 0) {
                error->offset += params.text.data - text;
                return r;
        }

        *ret = params;
        return 0;
}

int mcp_params_of(JsonSlice text, const JsonTraits *traits, McpParams *ret, const char **reason) {
        JsonMember meta = { .name = "_meta" }, name = { .name = "name" };
        McpParams params = { .text = text, .traits = *traits };
        const char *position = NULL;
        JsonSlice key, value;
        JsonError error;
        int r;

        if (!text.data) {
                *ret = (McpParams){};
                return 0;
        }

        while (json_next_member(text, &position, &key, &value)) {
                JsonMember *member = json_equal(key, "_meta") ? &meta : json_equal(key, "name") ? &name : NULL;

                if (member) {
                        member->key = key;
                        member->value = value;
                        member->count++;
                }
        }

        r = check(&meta, &name, &params, &error);
        if (r < 0) {
                *reason = error.reason;
                return r;
        }

        *ret = params;
        return 0;
}

/* An object whose _meta gets these changes. Nothing of the rest is looked at. */
static int append_with_meta(Buffer *buffer, const McpParams *params, const JsonChange *changes, size_t n_changes) {
        const char *position = NULL;
        JsonSlice key, value, rest;
        int r;

        if (params->meta.data)
                return json_append_edited(
                        buffer, (JsonPiece){ params->text, &params->traits },
                        &(JsonEdit){ .old = params->meta, .changes = changes, .n_changes = n_changes }, 1);

        r = buffer_append_string(buffer, "{\"_meta\":");
        if (r >= 0)
                r = json_append_changed(buffer, (JsonPiece){}, changes, n_changes);
        if (r < 0)
                return r;

        if (!json_next_member(params->text, &position, &key, &value))
                return buffer_append(buffer, "}", 1);

        rest = (JsonSlice){ key.data, params->text.data + params->text.size - key.data };
        r = buffer_append(buffer, ",", 1);
        if (r >= 0)
                r = json_append(buffer, rest, &params->traits);
        return r;
}

static int append_tool_params(Buffer *buffer, const McpParams *params, const JsonChange *changes, size_t n_changes) {
        int r;

        r = buffer_append_string(buffer, "{\"_meta\":");
        if (r >= 0)
                r = json_append_changed(buffer, (JsonPiece){}, changes, n_changes);
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

/* A client's words for the other era's server: some of them mean nothing there, or something else. */
static int append_translated(Buffer *buffer, const McpParams *params, const JsonChange *meta, size_t n_meta,
                             McpEra worker) {
        JsonChange changes[3] = { { .name = "_meta", .kind = JSON_INSIDE, .inside = meta, .n_inside = n_meta } };
        size_t n = 1;

        if (worker == MCP_ERA_MODERN)
                changes[n++] = (JsonChange){ .name = "task", .kind = JSON_REMOVE };
        else {
                changes[n++] = (JsonChange){ .name = "inputResponses", .kind = JSON_REMOVE };
                changes[n++] = (JsonChange){ .name = "requestState", .kind = JSON_REMOVE };
        }

        return json_append_changed(buffer, (JsonPiece){ params->text, &params->traits }, changes, n);
}

int mcp_append_params(Buffer *buffer, uint64_t id, McpEra worker, const char *method, const McpParams *params) {
        bool progress = params->token.data || streq(method, "tools/call"), modern = worker == MCP_ERA_MODERN;
        const McpClient *client = params->client;
        bool translated = client && (client->era == MCP_ERA_MODERN) != modern;
        JsonChange changes[8] = {};
        Buffer capabilities = {};
        char token[24], level[24] = "";
        size_t n = 0, before = buffer_size(buffer);
        int r;

        if (!params->tool && !params->text.data && !modern)
                return 0;

        (void)snprintf(token, sizeof(token), "%llu", (unsigned long long)id);
        if (progress)
                changes[n++] = (JsonChange){ .name = "progressToken",
                                             .kind = JSON_SET,
                                             .value = { { token, strlen(token) }, NULL } };

        if (modern) {
                JsonChange can = { .name = META_CAPABILITIES, .kind = JSON_DEFAULT, .value = JSON_LITERAL("{}") },
                           who = { .name = META_CLIENT, .kind = JSON_DEFAULT, .value = JSON_LITERAL(MCP_BROKER_INFO) };

                if (translated) {
                        r = mcp_append_profile(&capabilities, client->profile, worker);
                        if (r < 0)
                                return r;
                        can.kind = who.kind = JSON_SET;
                        can.value.text = (JsonSlice){ buffer_data(&capabilities), buffer_size(&capabilities) };
                        if (client->info.data)
                                who.value.text = client->info;
                        if (client->level >= 0)
                                (void)snprintf(level, sizeof(level), "\"%s\"", mcp_level_to_string(client->level));
                        changes[n++] = (JsonChange){ .name = META_LEVEL,
                                                     .kind = client->level >= 0 ? JSON_SET : JSON_REMOVE,
                                                     .value = { { level, strlen(level) }, NULL } };
                }
                changes[n++] = (JsonChange){ .name = META_VERSION,
                                             .kind = JSON_SET,
                                             .value = JSON_LITERAL("\"" MCP_VERSION_MODERN "\"") };
                changes[n++] = can;
                changes[n++] = who;
        } else if (translated) {
                changes[n++] = (JsonChange){ .name = META_VERSION, .kind = JSON_REMOVE };
                changes[n++] = (JsonChange){ .name = META_CAPABILITIES, .kind = JSON_REMOVE };
                changes[n++] = (JsonChange){ .name = META_CLIENT, .kind = JSON_REMOVE };
                changes[n++] = (JsonChange){ .name = META_LEVEL, .kind = JSON_REMOVE };
        }

        r = buffer_append_string(buffer, ",\"params\":");
        if (r >= 0)
                r = params->tool ? append_tool_params(buffer, params, changes, n)
                    : translated ? append_translated(buffer, params, changes, n, worker)
                    : n > 0      ? append_with_meta(buffer, params, changes, n)
                                 : json_append(buffer, params->text, &params->traits);
        if (r < 0)
                buffer_truncate(buffer, before);
        buffer_done(&capabilities);
        return r;
}
