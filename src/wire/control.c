#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "wire/protocol.h"

#define REQUEST "{\"type\":\"control_request\",\"request_id\":\"%llu\",\"request\":{\"subtype\":"
#define CANCEL "{\"type\":\"control_cancel_request\",\"request_id\":\"%llu\"}\n"

static int append_members(Buffer *buffer, const McpParams *params) {
        const char *position = NULL;
        JsonSlice key, value;
        int r = 0;

        while (r >= 0 && json_next_member(params->text, &position, &key, &value)) {
                if (json_equal(key, "subtype"))
                        continue; /* the method's place */

                r = buffer_append(buffer, ",", 1);
                if (r >= 0)
                        r = json_append(buffer, key, &params->traits);
                if (r >= 0)
                        r = buffer_append(buffer, ":", 1);
                if (r >= 0)
                        r = json_append(buffer, value, &params->traits);
        }

        return r;
}

static int append_tool(Buffer *buffer, const McpParams *params) {
        int r;

        r = buffer_append_string(buffer, ",\"name\":");
        if (r >= 0)
                r = json_append_quoted(buffer, params->tool, strlen(params->tool));
        if (r >= 0)
                r = buffer_append_string(buffer, ",\"arguments\":");
        if (r < 0)
                return r;

        return params->text.data ? json_append(buffer, params->text, &params->traits)
                                 : buffer_append_string(buffer, "{}");
}

static int control_append_request(Buffer *buffer, uint64_t id, McpEra era _unused_, const char *method,
                                  const McpParams *params) {
        size_t before = buffer_size(buffer);
        char head[128];
        int r;

        (void)snprintf(head, sizeof(head), REQUEST, (unsigned long long)id);
        r = buffer_append_string(buffer, head);
        if (r >= 0)
                r = json_append_quoted(buffer, method, strlen(method));
        if (r >= 0)
                r = params->tool ? append_tool(buffer, params) : append_members(buffer, params);
        if (r >= 0)
                r = buffer_append_string(buffer, "}}\n");
        if (r < 0)
                buffer_truncate(buffer, before);
        return r;
}

static int control_append_around_file(Buffer *head, Buffer *tail, uint64_t id, McpEra era, const char *method,
                                      const McpParams *params, const RequestFileLayout *layout,
                                      RequestFilePart ret[static 2], size_t *ret_n) {
        size_t before = buffer_size(head);
        McpParams without = { .text = { "{}", 2 }, .tool = params->tool };
        int r;

        r = control_append_request(head, id, era, method, &without);
        if (r < 0)
                return r;

        /* In place of the empty arguments, or behind subtype */
        buffer_truncate(head, buffer_size(head) - (params->tool ? strlen("{}}}\n") : strlen("}}\n")));
        if (params->tool)
                ret[0] = (RequestFilePart){ layout->begin, layout->end - layout->begin };
        else {
                ret[0] = (RequestFilePart){ layout->begin + 1, layout->end - layout->begin - 2 };
                if (!layout->empty)
                        r = buffer_append(head, ",", 1);
        }
        if (r >= 0)
                r = buffer_append_string(tail, "}}\n");
        if (r < 0)
                buffer_truncate(head, before);
        *ret_n = 1;
        return r;
}

static int control_append_cancelled(Buffer *buffer, uint64_t id, const char *reason _unused_) {
        char text[128];

        (void)snprintf(text, sizeof(text), CANCEL, (unsigned long long)id);
        return buffer_append_string(buffer, text);
}

/* Our ids are digits in a string, the first of them no zero. */
static bool read_id(JsonSlice value, uint64_t *ret) {
        if (!json_is(value, '"') || value.size < 3 || value.data[1] == '0')
                return false;

        return json_unsigned((JsonSlice){ value.data + 1, value.size - 2 }, ret);
}

static void take_response(JsonSlice response, McpMessage *message) {
        JsonSlice result = json_get(response, "response"), error = json_get(response, "error");

        message->id = json_get(response, "request_id");
        message->ours = read_id(message->id, &message->number);
        if (json_equal(json_get(response, "subtype"), "success")) {
                message->kind = MCP_RESULT;
                message->result = result.data ? result : (JsonSlice){ "{}", 2 };
        } else if (json_equal(json_get(response, "subtype"), "error")) {
                message->kind = MCP_ERROR;
                message->error = error.data ? error : (JsonSlice){ "\"\"", 2 };
        }
}

static int control_parse(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error) {
        JsonMember members[] = { { .name = "type" }, { .name = "response" } };
        const JsonMember *type = &members[0], *response = &members[1];
        McpMessage message = { .kind = MCP_NOISE };
        size_t blank = 0;
        int r;

        r = json_scan(line, size, depth_max, members, ELEMENTSOF(members), &message.traits, error);
        if (r < 0)
                return r;

        while (blank < size && strchr(" \t\r\n", line[blank]))
                blank++;
        while (size > blank && strchr(" \t\r\n", line[size - 1]))
                size--;

        if (type->count == 1 && json_equal(type->value, "control_response")) {
                JsonSlice inner = response->value, whole = { line + blank, size - blank };

                take_response(json_is(inner, '{') && json_get(inner, "request_id").data ? inner : whole, &message);
        } else if (type->count == 1 && json_is(type->value, '"') && type->value.size > 2 &&
                   !json_equal(type->value, "control_request")) {
                message.kind = MCP_NOTIFICATION;
                message.method = type->value;
                message.params = (JsonSlice){ line + blank, size - blank };
        }

        *ret = message;
        return 0;
}

static bool control_found_id(const IdFinder *finder, uint64_t *ret) {
        const IdFinderLevel *level = &finder->levels[finder->levels[1].has_request_id ? 1 : 0];

        return id_finder_whole(finder) && finder->control_response &&
               read_id((JsonSlice){ level->request_id, level->request_id_size }, ret);
}

const WireProtocol control_protocol = {
        .name = "control",
        .read_params = mcp_params_read,
        .append_request = control_append_request,
        .append_cancelled = control_append_cancelled,
        .file_form = REQUEST_FILE_CONTROL,
        .append_around_file = control_append_around_file,
        .result_name = "response",
        .result_parent = "response",
        .parse = control_parse,
        .found_id = control_found_id,
};
