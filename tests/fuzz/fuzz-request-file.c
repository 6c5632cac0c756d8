#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/request-file.h"

#define DEPTH 32

static int scan(const char *text, size_t size, size_t piece, bool arguments, RequestFileScan *ret) {
        *ret = (RequestFileScan){ .depth_max = DEPTH, .form = arguments ? REQUEST_FILE_ARGUMENTS : REQUEST_FILE_MCP };

        for (size_t i = 0; i < size || i == 0; i += piece) {
                int r = request_file_scan_feed(ret, text + i, MIN(piece, size - i));

                if (r < 0)
                        return r;
                if (size - i <= piece)
                        break;
        }

        return request_file_scan_finish(ret);
}

/* The line as a worker would get it */
static void put_together(Buffer *line, const char *text, const McpParams *params, const RequestFileLayout *layout,
                         McpEra era, const char *method) {
        RequestFilePart parts[2];
        Buffer tail = {};
        size_t n = 0;

        assert_number(mcp_append_around_file(line, &tail, 7, era, method, params, layout, parts, &n), 0);
        assert_true(n == 1 || n == 2);
        for (size_t i = 0; i < n; i++) {
                assert_true(parts[i].offset >= layout->begin && parts[i].offset + parts[i].size <= layout->end);
                for (size_t j = 0; j < parts[i].size; j++) {
                        char c = text[parts[i].offset + j];

                        if (c != '\n' && c != '\r')
                                assert_number(buffer_append(line, &c, 1), 0);
                }
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

static void check_line(const char *text, const McpParams *whole, const RequestFileLayout *layout, McpEra era,
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
        put_together(&line, text, &in_file, layout, era, method);
        assert_number(mcp_append_request(&expected, 7, era, method, &params), 0);

        assert_true(!memchr(buffer_data(&line), '\n', buffer_size(&line) - 1));
        assert_number(mcp_parse(buffer_data(&line), buffer_size(&line), JSON_DEPTH_MAX, &a, NULL), 0);
        assert_number(mcp_parse(buffer_data(&expected), buffer_size(&expected), JSON_DEPTH_MAX, &b, NULL), 0);
        assert_number(a.kind, MCP_REQUEST);
        assert_number(a.number, 7);
        check_same(a.params, b.params);
        buffer_done(&line);
        buffer_done(&expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const size_t pieces[] = { 1, 5, SIZE_MAX };
        const char *text = (const char *)data;
        McpParams params = {};
        JsonError error = {};
        RequestFileScan file = {};
        int r;

        if (size == 0)
                return 0;

        r = mcp_params_read(text, size, DEPTH, &params, &error);
        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                int scanned = scan(text, size, pieces[i], /* arguments= */ false, &file);

                /* Of two mistakes either may be told: that of the members is found on the way. */
                assert_number(scanned < 0, r < 0);
                if (r == -EBADMSG && scanned == -EBADMSG)
                        assert_true(file.error.reason && file.error.offset <= size);
                assert_number(scan(text, size, pieces[i], /* arguments= */ true, &(RequestFileScan){}) < 0,
                              json_scan(text, size, DEPTH, NULL, 0, NULL, NULL) < 0 ||
                                      text[strspn(text, " \t\r\n")] != '{');
        }
        if (r < 0 || params.traits.noncharacters)
                return 0;

        assert_number(file.layout.end - file.layout.begin, params.text.size);
        for (McpEra era = MCP_ERA_LEGACY; era <= MCP_ERA_MODERN; era++) {
                check_line(text, &params, &file.layout, era, "x", NULL, false);
                check_line(text, &params, &file.layout, era, "x", NULL, true);
                check_line(text, &params, &file.layout, era, "tools/call", NULL, false);
                check_line(text, &params, &file.layout, era, "tools/call", "tool", false);
        }
        return 0;
}
