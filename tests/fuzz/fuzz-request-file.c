/* Params in a file: the check in pieces finds what that of the whole finds, and a worker gets what it would get
 * otherwise.
 */

#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/protocol.h"

#define DEPTH 32
#define ID 7

static int scan(const char *text, size_t size, size_t piece, RequestFileForm form, RequestFileScan *ret) {
        *ret = (RequestFileScan){ .depth_max = DEPTH, .form = form };

        for (size_t i = 0; i < size || i == 0; i += piece) {
                int r = request_file_scan_feed(ret, text + i, MIN(piece, size - i));

                if (r < 0)
                        return r;
                if (size - i <= piece)
                        break;
        }

        return request_file_scan_finish(ret);
}

static void append_without_breaks(Buffer *line, const char *text, size_t size) {
        for (size_t i = 0; i < size; i++)
                if (text[i] != '\n' && text[i] != '\r')
                        assert_number(buffer_append(line, text + i, 1), 0);
}

/* In pieces of that size, as far as they can be decoded */
static void append_decoded(Buffer *line, const char *text, size_t size, size_t piece) {
        while (size > 0) {
                size_t n = MIN(piece, size), used = SIZE_MAX, decoded;
                char *copy = malloc(n + 1);

                assert_true(copy);
                memcpy(copy, text, n);
                decoded = json_decode_piece(copy, n, /* last= */ n == size, &used);
                assert_true(used > 0 && used <= n && decoded <= used);
                if (n == size)
                        assert_number(used, n);
                assert_number(buffer_append(line, copy, decoded), 0);
                free(copy);
                text += used;
                size -= used;
        }
}

/* What a worker would get */
static void put_together(Buffer *line, const WireProtocol *wire, const char *text, size_t piece,
                         const McpParams *params, const RequestFileLayout *layout, McpEra era, const char *method) {
        RequestFilePart parts[2];
        Buffer tail = {};
        size_t n = 0;

        assert_number(wire->append_around_file(line, &tail, ID, era, method, params, layout, parts, &n), 0);
        assert_true(n == 1 || n == 2);
        for (size_t i = 0; i < n; i++) {
                assert_true(parts[i].offset >= layout->begin && parts[i].offset + parts[i].size <= layout->end);
                if (layout->string && layout->escapes)
                        append_decoded(line, text + parts[i].offset, parts[i].size, piece);
                else
                        append_without_breaks(line, text + parts[i].offset, parts[i].size);
        }
        assert_number(buffer_append(line, buffer_data(&tail), buffer_size(&tail)), 0);
        buffer_done(&tail);
}

static bool next_but_meta(JsonSlice object, const char **position, JsonSlice *key, JsonSlice *value) {
        while (json_next_member(object, position, key, value))
                if (!json_equal(*key, "_meta"))
                        return true;

        return false;
}

/* The same members in the same order, wherever _meta stands */
static void check_same(JsonSlice a, JsonSlice b) {
        const char *position_a = NULL, *position_b = NULL;
        JsonSlice meta_a = json_get(a, "_meta"), meta_b = json_get(b, "_meta"), key_a, key_b, value_a, value_b;

        assert_bytes(meta_a.data, meta_a.size, meta_b.data ?: "", meta_b.size);
        for (;;) {
                bool more = next_but_meta(a, &position_a, &key_a, &value_a);

                assert_number(next_but_meta(b, &position_b, &key_b, &value_b), more);
                if (!more)
                        return;
                assert_bytes(key_a.data, key_a.size, key_b.data, key_b.size);
                assert_bytes(value_a.data, value_a.size, value_b.data, value_b.size);
        }
}

static void check_mcp(const char *text, const McpParams *whole, const RequestFileLayout *layout, McpEra era,
                      const char *method, const char *tool, bool asks) {
        McpParams params = *whole, in_file = *whole;
        Buffer line = {}, expected = {};
        McpMessage a, b;

        params.tool = in_file.tool = tool;
        if (tool)
                params.meta = params.token = in_file.meta = in_file.token = (JsonSlice){};
        if (asks && !params.token.data)
                params.token = in_file.token = (JsonSlice){ "0", 1 };
        in_file.text = (JsonSlice){};
        put_together(&line, &mcp_protocol, text, 1, &in_file, layout, era, method);
        assert_number(mcp_append_request(&expected, ID, era, method, &params), 0);

        assert_true(!memchr(buffer_data(&line), '\n', buffer_size(&line) - 1));
        assert_number(mcp_parse(buffer_data(&line), buffer_size(&line), JSON_DEPTH_MAX, &a, NULL), 0);
        assert_number(mcp_parse(buffer_data(&expected), buffer_size(&expected), JSON_DEPTH_MAX, &b, NULL), 0);
        assert_number(a.kind, MCP_REQUEST);
        assert_number(a.number, ID);
        check_same(a.params, b.params);
        buffer_done(&line);
        buffer_done(&expected);
}

static JsonSlice parse_control(const Buffer *line) {
        JsonSlice text = { buffer_data(line), buffer_size(line) };

        assert_true(memchr(text.data, '\n', text.size) == text.data + text.size - 1);
        assert_number(json_scan(text.data, text.size, JSON_DEPTH_MAX, NULL, 0, NULL, NULL), 0);
        return json_get((JsonSlice){ text.data, text.size - 1 }, "request");
}

static void check_control(const char *text, const McpParams *whole, const RequestFileLayout *layout, const char *tool) {
        McpParams params = *whole, in_file = { .tool = tool };
        Buffer line = {}, expected = {};

        params.tool = tool;
        put_together(&line, &control_protocol, text, 1, &in_file, layout, MCP_ERA_AUTO, "x");
        assert_number(control_protocol.append_request(&expected, ID, MCP_ERA_AUTO, "x", &params), 0);
        check_same(parse_control(&line), parse_control(&expected));
        buffer_done(&line);
        buffer_done(&expected);
}

static bool has_member(JsonSlice object, const char *name) {
        return json_get(object, name).data;
}

static void check_plain(const WireProtocol *wire, const char *text, size_t size) {
        const size_t pieces[] = { 12, 13 + (unsigned char)text[size / 2] % 64, 1 << 20 };
        McpParams params = {};
        JsonError error = {};
        int r = wire->read_params(text, size, DEPTH, &params, &error);

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                RequestFileScan file;
                Buffer line = {}, expected = {};

                assert_number(scan(text, size, pieces[i], wire->file_form, &file), r);
                if (r == -EBADMSG || r == -E2BIG)
                        assert_number(file.error.offset, error.offset);
                if (r < 0 || (params.traits.noncharacters && !file.layout.string))
                        continue; /* in a file these stay as they are */

                put_together(&line, wire, text, pieces[i], &(McpParams){}, &file.layout, MCP_ERA_AUTO, "x");
                assert_number(wire->append_request(&expected, ID, MCP_ERA_AUTO, "x", &params), 0);
                assert_bytes(buffer_data(&line), buffer_size(&line), buffer_data(&expected), buffer_size(&expected));
                buffer_done(&line);
                buffer_done(&expected);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const size_t pieces[] = { 1, 5, SIZE_MAX };
        const char *text = (const char *)data;
        RequestFileScan file = {}, control, arguments;
        McpParams params = {};
        JsonError error = {};
        int r;

        if (size == 0)
                return 0;

        check_plain(&lines_protocol, text, size);
        check_plain(&once_protocol, text, size);
        r = mcp_params_read(text, size, DEPTH, &params, &error);
        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                int scanned = scan(text, size, pieces[i], REQUEST_FILE_MCP, &file);

                /* Of two mistakes either may be told: that of the members is found on the way. */
                assert_number(scanned < 0, r < 0);
                if (r == -EBADMSG && scanned == -EBADMSG)
                        assert_true(file.error.reason && file.error.offset <= size);
                assert_number(scan(text, size, pieces[i], REQUEST_FILE_CONTROL, &control) < 0,
                              r < 0 || has_member(params.text, "subtype"));
                assert_number(scan(text, size, pieces[i], REQUEST_FILE_ARGUMENTS, &arguments) < 0,
                              json_scan(text, size, DEPTH, NULL, 0, NULL, NULL) < 0 ||
                                      text[strspn(text, " \t\r\n")] != '{');
        }
        if (r < 0 || params.traits.noncharacters)
                return 0;

        assert_number(file.layout.end - file.layout.begin, params.text.size);
        for (McpEra era = MCP_ERA_LEGACY; era <= MCP_ERA_MODERN; era++) {
                check_mcp(text, &params, &file.layout, era, "x", NULL, false);
                check_mcp(text, &params, &file.layout, era, "x", NULL, true);
                check_mcp(text, &params, &file.layout, era, "tools/call", NULL, false);
                check_mcp(text, &params, &file.layout, era, "tools/call", "tool", false);
        }
        check_control(text, &params, &arguments.layout, "tool");
        if (!has_member(params.text, "subtype"))
                check_control(text, &params, &control.layout, NULL);
        return 0;
}
