#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "wire/rpc.h"

/* One message, piece by piece: what fails is remembered, and undone at the end. */
typedef struct Line {
        Buffer *buffer;
        size_t before;
        int r;
} Line;

static Line begin(Buffer *buffer, size_t expected) {
        Line line = { buffer, buffer_size(buffer), 0 };

        /* One growth instead of several while the pieces are appended */
        line.r = buffer_reserve(buffer, expected + 256);
        if (line.r >= 0)
                line.r = buffer_append_string(buffer, "{\"jsonrpc\":\"2.0\"");
        return line;
}

static void add(Line *line, const char *text) {
        if (line->r >= 0)
                line->r = buffer_append_string(line->buffer, text);
}

static void add_piece(Line *line, JsonPiece piece) {
        static const JsonTraits none = {};

        if (line->r >= 0)
                line->r = json_append(line->buffer, piece.text, piece.traits ?: &none);
}

static void add_member(Line *line, const char *prefix, JsonPiece piece) {
        if (!piece.text.data)
                return;

        add(line, prefix);
        add_piece(line, piece);
}

static int end(Line *line, const char *last) {
        add(line, last);
        add(line, "\n");
        if (line->r < 0)
                buffer_truncate(line->buffer, line->before);

        return line->r;
}

int rpc_append_result(Buffer *buffer, JsonPiece id, JsonPiece result) {
        Line line = begin(buffer, result.text.size);

        add_member(&line, ",\"id\":", id);
        add_member(&line, ",\"result\":", result);
        return end(&line, "}");
}

int rpc_append_result_changed(Buffer *buffer, JsonPiece id, JsonPiece result, const JsonChange *changes,
                              size_t n_changes) {
        Line line = begin(buffer, result.text.size);

        add_member(&line, ",\"id\":", id);
        add(&line, ",\"result\":");
        if (line.r >= 0)
                line.r = json_append_changed(buffer, result, changes, n_changes);
        return end(&line, "}");
}

int rpc_append_error(Buffer *buffer, JsonPiece id, int code, const char *message, JsonPiece data) {
        Line line = begin(buffer, data.text.size);
        char number[16];

        (void)snprintf(number, sizeof(number), "%d", code);
        add_member(&line, ",\"id\":", id);
        add(&line, ",\"error\":{\"code\":");
        add(&line, number);
        add(&line, ",\"message\":");
        if (line.r >= 0)
                line.r = json_append_quoted(buffer, message, strlen(message));
        add_member(&line, ",\"data\":", data);
        return end(&line, "}}");
}

int rpc_append_broker_error(Buffer *buffer, JsonPiece id, int code, const char *message, const char *name) {
        Buffer data = {};
        int r;

        r = buffer_append_string(&data, "{\"source\":\"mcp-exec\"");
        if (r >= 0 && name)
                r = buffer_append_string(&data, ",\"error\":");
        if (r >= 0 && name)
                r = json_append_quoted(&data, name, strlen(name));
        if (r >= 0)
                r = buffer_append(&data, "}", 1);
        if (r >= 0)
                r = rpc_append_error(buffer, id, code, message,
                                     (JsonPiece){ { buffer_data(&data), buffer_size(&data) }, NULL });

        buffer_done(&data);
        return r;
}

bool rpc_error_is(JsonSlice error, int code) {
        JsonSlice value = json_get(error, "code");
        char number[16];
        int n = snprintf(number, sizeof(number), "%d", code);

        return value.size == (size_t)n && memcmp(value.data, number, n) == 0;
}

int rpc_append_remote_error(Buffer *buffer, JsonPiece id, JsonPiece error, McpEra client) {
        static const JsonChange invalid_params = { .name = "code", .kind = JSON_SET, .value = JSON_LITERAL("-32602") };
        bool renamed = client == MCP_ERA_MODERN && rpc_error_is(error.text, RPC_RESOURCE_NOT_FOUND);
        Line line = begin(buffer, error.text.size);

        add_member(&line, ",\"id\":", id);
        add(&line, ",\"error\":");
        if (renamed && line.r >= 0)
                line.r = json_append_changed(buffer, error, &invalid_params, 1);
        else
                add_piece(&line, error);
        return end(&line, "}");
}

int rpc_append_request(Buffer *buffer, JsonPiece id, JsonPiece method, JsonPiece params, JsonPiece token) {
        const JsonChange progress = { .name = "progressToken", .kind = JSON_REPLACE, .value = token };
        JsonEdit edit = { .old = json_get(params.text, "_meta"), .changes = &progress, .n_changes = 1 };
        Line line = begin(buffer, params.text.size);

        add_member(&line, ",\"id\":", id);
        add_member(&line, ",\"method\":", method);
        if (token.text.data && json_is(edit.old, '{')) {
                add(&line, ",\"params\":");
                if (line.r >= 0)
                        line.r = json_append_edited(buffer, params, &edit, 1);
        } else
                add_member(&line, ",\"params\":", params);
        return end(&line, "}");
}

int rpc_append_notification(Buffer *buffer, JsonPiece method, JsonPiece params, const JsonChange *changes,
                            size_t n_changes) {
        Line line = begin(buffer, params.text.size);

        add_member(&line, ",\"method\":", method);
        if (n_changes == 0)
                add_member(&line, ",\"params\":", params);
        else {
                add(&line, ",\"params\":");
                if (line.r >= 0)
                        line.r = json_append_changed(buffer, params, changes, n_changes);
        }
        return end(&line, "}");
}

int rpc_append_cancelled(Buffer *buffer, JsonPiece id, JsonPiece reason) {
        Line line = begin(buffer, reason.text.size);

        add(&line, ",\"method\":\"notifications/cancelled\",\"params\":{");
        add_member(&line, "\"requestId\":", id);
        add_member(&line, ",\"reason\":", reason);
        return end(&line, "}}");
}

char *rpc_method_name(JsonSlice method) {
        if (method.size > RPC_METHOD_MAX)
                return NULL;

        return json_decode(method);
}
