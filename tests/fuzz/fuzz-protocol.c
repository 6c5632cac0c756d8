/* The protocols control, lines and once: the input is what a caller gives as params, and what a worker writes. */

#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/protocol.h"

#define ID UINT64_C(1234567890123)

static bool inside(JsonSlice slice, const char *text, size_t size) {
        return !slice.data || (slice.data >= text && slice.size <= size && slice.data - text <= (ptrdiff_t)size &&
                               slice.data + slice.size <= text + size);
}

static bool find_id(const char *text, size_t size, size_t step, uint64_t *ret) {
        IdFinder finder = {};

        for (size_t i = 0; i < size; i += step)
                id_finder_feed(&finder, text + i, MIN(step, size - i));

        return control_protocol.found_id(&finder, ret);
}

/* An answer is found without parsing as well, in whatever pieces it comes: where it is a line, and its keys are plain.
 */
static void check_id_finder(const char *text, size_t size, const McpMessage *message) {
        uint64_t number = 0, other = 0;
        bool found;

        found = find_id(text, size, SIZE_MAX / 2, &number);
        for (size_t step = 1; step <= 13; step += 3) {
                assert_number(find_id(text, size, step, &other), found);
                assert_true(number == other);
        }

        if (message && message->ours && (message->kind == MCP_RESULT || message->kind == MCP_ERROR) &&
            !memchr(text, '\\', size) && !memchr(text, '\n', size)) {
                assert_true(found);
                assert_true(number == message->number);
        }
}

static void check_value(JsonSlice value) {
        assert_number(json_scan(value.data, value.size, JSON_DEPTH_MAX, NULL, 0, NULL, NULL), 0);
        assert_false(memchr(" \t\r\n", value.data[0], 4) || memchr(" \t\r\n", value.data[value.size - 1], 4));
}

static void check_parse(const char *text, size_t size) {
        JsonError error = {};
        McpMessage message = {};
        int r;

        r = control_protocol.parse(text, size, 64, &message, &error);
        if (r < 0) {
                assert_true(r == -EBADMSG || r == -E2BIG);
                assert_true(error.reason && error.offset <= size);
                check_id_finder(text, size, NULL);
                return;
        }

        assert_true(inside(message.id, text, size) && inside(message.method, text, size) &&
                    inside(message.params, text, size));
        switch (message.kind) {
        case MCP_REQUEST:
                assert_failed(__FILE__, __LINE__, "a control worker has no requests");
                break;
        case MCP_NOTIFICATION:
                assert_true(json_is(message.method, '"') && message.method.size > 2 && json_is(message.params, '{'));
                assert_true(!message.id.data && !message.result.data && !message.error.data);
                check_value(message.params);
                break;
        case MCP_RESULT:
                assert_true(!message.method.data && !message.error.data);
                assert_true(inside(message.result, text, size) || message.result.size == 2);
                check_value(message.result);
                break;
        case MCP_ERROR:
                assert_true(!message.method.data && !message.result.data);
                assert_true(inside(message.error, text, size) || message.error.size == 2);
                check_value(message.error);
                break;
        case MCP_NOISE:
                assert_true(!message.method.data && !message.result.data && !message.error.data);
                break;
        }
        check_id_finder(text, size, &message);
}

/* What was appended is one line: without its end */
static JsonSlice one_line(const Buffer *buffer, size_t before) {
        const char *line = buffer_data(buffer) + before;
        size_t size = buffer_size(buffer) - before;

        assert_true(size > 0 && memchr(line, '\n', size) == line + size - 1);
        assert_true(!memchr(line, '\r', size));
        return (JsonSlice){ line, size - 1 };
}

static bool same_bytes(JsonSlice slice, const Buffer *buffer) {
        return slice.size == buffer_size(buffer) && memcmp(slice.data, buffer_data(buffer), slice.size) == 0;
}

/* Every member of from follows in to, in its order, but subtype. */
static void check_kept(JsonSlice from, JsonSlice to, const JsonTraits *traits) {
        const char *position_from = NULL, *position_to = NULL;
        JsonSlice key, value, to_key, to_value;

        assert_true(json_next_member(to, &position_to, &to_key, &to_value) && json_equal(to_key, "subtype"));
        while (json_next_member(from, &position_from, &key, &value)) {
                Buffer wanted_key = {}, wanted = {};

                if (json_equal(key, "subtype"))
                        continue;

                assert_number(json_append(&wanted_key, key, traits), 0);
                assert_number(json_append(&wanted, value, traits), 0);
                assert_true(json_next_member(to, &position_to, &to_key, &to_value));
                assert_true(same_bytes(to_key, &wanted_key) && same_bytes(to_value, &wanted));
                buffer_done(&wanted_key);
                buffer_done(&wanted);
        }
        assert_false(json_next_member(to, &position_to, &to_key, &to_value));
}

static void check_control_request(const McpParams *params, const char *method) {
        Buffer buffer = {}, arguments = {};
        JsonSlice line, request;
        JsonTraits traits;

        assert_number(buffer_append_string(&buffer, "before\n"), 0);
        assert_number(control_protocol.append_request(&buffer, ID, MCP_ERA_AUTO, method, params), 0);
        assert_bytes(buffer_data(&buffer), 7, "before\n", 7);
        line = one_line(&buffer, 7);
        assert_number(json_scan(line.data, line.size, JSON_DEPTH_MAX, NULL, 0, &traits, NULL), 0);
        assert_false(traits.newlines || traits.noncharacters);
        assert_true(json_equal(json_get(line, "type"), "control_request"));
        assert_true(json_equal(json_get(line, "request_id"), "1234567890123"));

        request = json_get(line, "request");
        assert_true(json_equal(json_get(request, "subtype"), method));
        if (params->tool) {
                assert_true(json_equal(json_get(request, "name"), params->tool));
                if (params->text.data)
                        assert_number(json_append(&arguments, params->text, &params->traits), 0);
                else
                        assert_number(buffer_append_string(&arguments, "{}"), 0);
                assert_true(same_bytes(json_get(request, "arguments"), &arguments));
                buffer_done(&arguments);
        } else
                check_kept(params->text, request, &params->traits);
        buffer_done(&buffer);
}

static int read_params(const WireProtocol *protocol, const char *text, size_t size, McpParams *ret) {
        JsonError error = {};
        int r;

        r = protocol->read_params(text, size, 64, ret, &error);
        if (r < 0) {
                assert_true(r == -EBADMSG || r == -E2BIG || r == -EINVAL);
                assert_true(error.reason && error.offset <= size);
        } else
                assert_true(inside(ret->text, text, size));
        return r;
}

/* Valid UTF-8 without U+0000 is the bus's promise for a method's and a tool's name. */
static void make_name(const char *text, size_t size, char name[static 20]) {
        size_t n = MIN(size, (size_t)19);

        for (size_t i = 0; i < n; i++)
                name[i] = (text[i] & 0x7f) ?: 'x';
        name[n] = 0;
}

static void check_control_params(const char *text, size_t size) {
        char name[20];
        McpParams params;
        Buffer buffer = {};
        JsonSlice line;

        make_name(text, size, name);
        assert_number(control_protocol.append_cancelled(&buffer, ID, name), 0);
        line = one_line(&buffer, 0);
        assert_number(json_scan(line.data, line.size, 8, NULL, 0, NULL, NULL), 0);
        buffer_done(&buffer);

        if (read_params(&control_protocol, text, size, &params) < 0)
                return;
        check_control_request(&params, "status");
        check_control_request(&params, name);
        params.tool = name;
        check_control_request(&params, "tools/call");
}

/* The text that a request of lines or once is: a string's own, any other value as JSON */
static void append_wanted(Buffer *wanted, const McpParams *params) {
        if (json_is(params->text, '"')) {
                _cleanup_(freep) char *string = json_decode(params->text);

                assert_true(string);
                assert_number(buffer_append_string(wanted, string), 0);
        } else if (params->text.data)
                assert_number(json_append(wanted, params->text, &params->traits), 0);
}

static void check_plain_params(const char *text, size_t size) {
        Buffer buffer = {}, wanted = {};
        McpParams params, other;
        bool string;
        int r;

        if (read_params(&once_protocol, text, size, &params) < 0) {
                assert_true(read_params(&lines_protocol, text, size, &other) < 0);
                return;
        }

        string = json_is(params.text, '"');
        append_wanted(&wanted, &params);
        assert_number(once_protocol.append_request(&buffer, ID, MCP_ERA_AUTO, "any", &params), 0);
        if (params.text.data && !string)
                assert_number(buffer_append(&wanted, "\n", 1), 0);
        assert_bytes(buffer_data(&buffer), buffer_size(&buffer), buffer_data(&wanted), buffer_size(&wanted));

        /* What can't be one line is told when it is read, and not written when it isn't. */
        buffer_truncate(&buffer, 0);
        r = read_params(&lines_protocol, text, size, &other);
        assert_number(lines_protocol.append_request(&buffer, ID, MCP_ERA_AUTO, "any", &params), r);
        if (r < 0) {
                assert_number(r, -EINVAL);
                assert_true(string);
                assert_number(buffer_size(&buffer), 0);
        } else {
                JsonSlice line = one_line(&buffer, 0);

                if (string || !params.text.data)
                        assert_number(buffer_append(&wanted, "\n", 1), 0);
                assert_bytes(buffer_data(&buffer), buffer_size(&buffer), buffer_data(&wanted), buffer_size(&wanted));
                if (params.text.data && !string)
                        check_value(line);
        }
        buffer_done(&buffer);
        buffer_done(&wanted);
}

/* Whatever a command writes becomes JSON that the bus takes. */
static void check_plain_result(const char *text, size_t size) {
        Buffer scratch = {}, sent = {};
        JsonTraits traits = {}, left;
        JsonSlice result;
        bool json;

        json = json_scan(text, size, 64, NULL, 0, NULL, NULL) >= 0;
        assert_number(plain_result(text, size, 64, &scratch, &result, &traits), 0);
        check_value(result);
        if (json) {
                assert_true(inside(result, text, size));
                for (const char *p = text; p < text + size; p++)
                        assert_true(memchr(" \t\r\n", *p, 4) || (p >= result.data && p < result.data + result.size));
        } else
                assert_true(json_is(result, '"'));

        assert_number(json_append(&sent, result, &traits), 0);
        assert_number(json_scan(buffer_data(&sent), buffer_size(&sent), 64, NULL, 0, &left, NULL), 0);
        assert_false(left.newlines || left.noncharacters);
        assert_true(!memchr(buffer_data(&sent), 0, buffer_size(&sent)));
        buffer_done(&sent);

        /* Plain ASCII comes out as it went in. */
        for (size_t i = 0; i < size; i++)
                if (text[i] <= 0)
                        json = true;
        if (!json) {
                _cleanup_(freep) char *string = json_decode(result);

                assert_true(string);
                assert_bytes(string, strlen(string), text, size);
        }
        buffer_done(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = size > 0 ? (const char *)data : "";

        if (size > 0)
                check_parse(text, size);
        check_control_params(text, size);
        check_plain_params(text, size);
        check_plain_result(text, size);
        return 0;
}
