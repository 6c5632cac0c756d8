#include "wire/mcp.h"

#include <stdio.h>

#include "base/macro.h"
#include "unit.h"

#define SLICE(text)                                                                                                    \
        (JsonSlice) {                                                                                                  \
                (text), strlen(text)                                                                                   \
        }
#define assert_slice(slice, wanted) assert_bytes((slice).data, (slice).size, (wanted), strlen(wanted))

#define META_VERSION "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define META_CLIENT "io.modelcontextprotocol/clientInfo"

static void test_eras(void) {
        static const McpEra eras[] = { MCP_ERA_AUTO, MCP_ERA_LEGACY, MCP_ERA_MODERN };

        for (size_t i = 0; i < ELEMENTSOF(eras); i++) {
                const char *word = mcp_era_to_string(eras[i]);

                assert_number(mcp_era_from_string(word, strlen(word)), eras[i]);
                assert_number(mcp_era_from_string(word, strlen(word) - 1), -1);
        }
        assert_number(mcp_era_from_string("modernx", 6), MCP_ERA_MODERN);
        assert_number(mcp_era_from_string("Modern", 6), -1);
        assert_number(mcp_era_from_string("", 0), -1);

        assert_true(mcp_legacy_version_supported(MCP_VERSION_LEGACY));
        assert_true(mcp_legacy_version_supported("2024-11-05"));
        assert_true(mcp_legacy_version_supported("2025-03-26"));
        assert_true(mcp_legacy_version_supported("2025-06-18"));
        assert_false(mcp_legacy_version_supported(MCP_VERSION_MODERN));
        assert_false(mcp_legacy_version_supported("2024-11-0"));
        assert_false(mcp_legacy_version_supported(""));
}

static McpMessage parse(const char *line) {
        McpMessage message = {};

        assert_number(mcp_parse(line, strlen(line), 64, &message, NULL), 0);
        return message;
}

static void test_kinds(void) {
        static const struct {
                const char *line;
                McpKind kind;
        } rows[] = {
                { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", MCP_REQUEST },
                { "{\"id\":\"a\",\"method\":\"ping\"}", MCP_REQUEST },
                { "{\"id\":\"\",\"method\":\"ping\"}", MCP_REQUEST },
                { "{\"id\":-1.5,\"method\":\"ping\",\"params\":{}}", MCP_REQUEST },
                { "{\"\\u0069d\":1,\"m\\u0065thod\":\"ping\"}", MCP_REQUEST },
                { "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}", MCP_NOTIFICATION },
                { "{\"method\":\"\",\"params\":{\"id\":1}}", MCP_NOTIFICATION },
                { "{\"id\":1,\"result\":{}}", MCP_RESULT },
                { "{\"id\":\"a\",\"result\":null}", MCP_RESULT },
                { "{\"id\":1,\"error\":{\"code\":1,\"message\":\"m\"}}", MCP_ERROR },
                { "{\"id\":1,\"error\":{}}", MCP_ERROR },

                { "{}", MCP_NOISE },
                { "[]", MCP_NOISE },
                { "[{\"id\":1,\"result\":{}}]", MCP_NOISE },
                { "\"id\"", MCP_NOISE },
                { "7", MCP_NOISE },
                { "null", MCP_NOISE },
                { "{\"id\":1}", MCP_NOISE },
                { "{\"result\":{}}", MCP_NOISE },
                { "{\"error\":{}}", MCP_NOISE },
                { "{\"params\":{}}", MCP_NOISE },
                { "{\"id\":null,\"method\":\"ping\"}", MCP_NOISE },
                { "{\"id\":null,\"result\":{}}", MCP_NOISE },
                { "{\"id\":null,\"error\":{}}", MCP_NOISE },
                { "{\"id\":1,\"result\":{},\"error\":{}}", MCP_NOISE },
                { "{\"id\":1,\"result\":{},\"error\":null}", MCP_NOISE },
                { "{\"id\":1,\"error\":null}", MCP_NOISE },
                { "{\"id\":1,\"error\":\"text\"}", MCP_NOISE },
                { "{\"id\":1,\"error\":[]}", MCP_NOISE },
                { "{\"id\":1,\"method\":5}", MCP_NOISE },
                { "{\"id\":1,\"method\":null}", MCP_NOISE },
                { "{\"id\":1,\"method\":null,\"result\":{}}", MCP_NOISE },
                { "{\"method\":{}}", MCP_NOISE },
                { "{\"ID\":1,\"Result\":{}}", MCP_NOISE },

                /* members that stand twice */
                { "{\"id\":1,\"id\":1,\"method\":\"ping\"}", MCP_NOISE },
                { "{\"id\":1,\"id\":2,\"result\":{}}", MCP_NOISE },
                { "{\"id\":1,\"\\u0069d\":2,\"result\":{}}", MCP_NOISE },
                { "{\"id\":1,\"result\":{},\"result\":{}}", MCP_NOISE },
                { "{\"id\":1,\"error\":{},\"error\":{}}", MCP_NOISE },
                { "{\"method\":\"a\",\"method\":\"a\"}", MCP_NOISE },
                { "{\"method\":\"a\",\"params\":{},\"params\":{}}", MCP_NOISE },
                { "{\"id\":1,\"result\":{\"id\":1,\"id\":1},\"x\":1,\"x\":1}", MCP_RESULT },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                McpKind kind = parse(rows[i].line).kind;

                if (kind != rows[i].kind)
                        fprintf(stderr, "%s\n", rows[i].line);
                assert_number(kind, rows[i].kind);
        }
}

/* An id is a string or a number (JSON-RPC 2.0, 4); a message with another is none, and gets no answer. */
static void test_id_types(void) {
        static const struct {
                const char *id;
                bool good, ours;
        } rows[] = {
                { "0", true, true },
                { "7", true, true },
                { "9999999999999999999", true, true },
                { "-1", true, false },
                { "1.0", true, false },
                { "1e1", true, false },
                { "\"7\"", true, false },
                { "\"\"", true, false },
                { "\"\\u0037\"", true, false },
                { "null", false, false },
                { "true", false, false },
                { "false", false, false },
                { "{}", false, false },
                { "[]", false, false },
                { "[7]", false, false },
                { "{\"a\":[1,\r2]}", false, false },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                char line[200];
                McpMessage message;

                (void)snprintf(line, sizeof(line), "{\"id\": %s ,\"method\":\"ping\"}", rows[i].id);
                message = parse(line);
                if (message.kind != (rows[i].good ? MCP_REQUEST : MCP_NOISE))
                        fprintf(stderr, "%s\n", line);
                assert_number(message.kind, rows[i].good ? MCP_REQUEST : MCP_NOISE);
                assert_slice(message.id, rows[i].id);
                assert_number(message.ours, rows[i].ours);

                (void)snprintf(line, sizeof(line), "{\"result\":1,\"id\":%s}", rows[i].id);
                message = parse(line);
                assert_number(message.kind, rows[i].good ? MCP_RESULT : MCP_NOISE);
                assert_number(message.ours, rows[i].ours);
        }
}

static void permute(const char *members[], size_t n, size_t fixed, McpKind kind) {
        McpMessage message;
        Buffer line = {};

        for (size_t i = fixed; i < n; i++) {
                const char *other = members[i];

                members[i] = members[fixed];
                members[fixed] = other;
                permute(members, n, fixed + 1, kind);
                members[fixed] = members[i];
                members[i] = other;
        }
        if (fixed < n)
                return;

        assert_number(buffer_append_string(&line, "{"), 0);
        for (size_t i = 0; i < n; i++) {
                assert_number(buffer_append_string(&line, i > 0 ? " , " : ""), 0);
                assert_number(buffer_append_string(&line, members[i]), 0);
        }
        assert_number(buffer_append(&line, "}", 2), 0);
        message = parse(buffer_data(&line));
        assert_number(message.kind, kind);

        switch (kind) {
        case MCP_REQUEST:
                assert_slice(message.id, "12");
                assert_slice(message.method, "\"m\"");
                assert_slice(message.params, "{\"id\":3}");
                break;
        case MCP_RESULT:
                assert_slice(message.result, "{\"id\":4,\"error\":{}}");
                break;
        case MCP_ERROR:
                assert_slice(message.error, "{\"code\":5}");
                break;
        default:
                assert_true(false);
        }
        assert_true(message.ours);
        assert_number(message.number, 12);
        buffer_done(&line);
}

static void test_orders(void) {
        permute((const char *[]){ "\"jsonrpc\":\"2.0\"", "\"id\":12", "\"method\":\"m\"", "\"params\":{\"id\":3}" }, 4,
                0, MCP_REQUEST);
        permute((const char *[]){ "\"jsonrpc\":\"2.0\"", "\"id\":12", "\"result\":{\"id\":4,\"error\":{}}",
                                  "\"x\":[{\"id\":9}]" },
                4, 0, MCP_RESULT);
        permute((const char *[]){ "\"jsonrpc\":\"2.0\"", "\"id\":12", "\"error\":{\"code\":5}" }, 3, 0, MCP_ERROR);
}

static void test_parse_errors(void) {
        McpMessage message = { .kind = MCP_REQUEST, .number = 5 };
        JsonError error = {};

        assert_number(mcp_parse("{\"id\":1,}", 9, 64, &message, &error), -EBADMSG);
        assert_number(error.offset, 8);
        assert_number(mcp_parse("", 0, 64, &message, &error), -EBADMSG);
        assert_number(mcp_parse("{\"a\":[[]]}", 10, 2, &message, &error), -E2BIG);
        assert_number(error.offset, 6);
        assert_number(mcp_parse("{\"a\":[[]]}", 10, 2, &message, NULL), -E2BIG);

        /* untouched */
        assert_number(message.kind, MCP_REQUEST);
        assert_number(message.number, 5);
}

static void test_parse_traits(void) {
        assert_true(parse("{\"id\":1,\r\"result\":1}").traits.newlines);
        assert_true(parse("{\"id\":1,\"result\":\"\xef\xbf\xbf\"}").traits.noncharacters);
        assert_false(parse("{\"id\":1,\"result\":\"\\uffff\\n\"}").traits.noncharacters);
        assert_false(parse("{\"id\":1,\"result\":\"\\n\"}").traits.newlines);
}

typedef struct FinderRow {
        const char *text;
        bool found;
        uint64_t number;
} FinderRow;

static void check_finder(const FinderRow *row) {
        size_t size = strlen(row->text);

        for (size_t split = 0; split <= size + 1; split++) {
                IdFinder finder = {};
                uint64_t number = 0;
                bool found;

                if (split <= size) {
                        id_finder_feed(&finder, row->text, split);
                        id_finder_feed(&finder, row->text + split, size - split);
                } else
                        for (size_t i = 0; i < size; i++)
                                id_finder_feed(&finder, row->text + i, 1);

                found = mcp_found_id(&finder, &number);
                if (found != row->found || number != row->number)
                        fprintf(stderr, "split at %zu: %s\n", split, row->text);
                assert_number(found, row->found);
                assert_number(number, row->number);
        }
}

static void test_id_finder(void) {
        static const FinderRow rows[] = {
                { "{\"jsonrpc\":\"2.0\",\"id\":12,\"result\":{\"a\":1}}", true, 12 },
                { "{\"result\":{\"a\":1},\"jsonrpc\":\"2.0\",\"id\":12}", true, 12 },
                { "{\"error\":{\"code\":1},\"id\":0}", true, 0 },
                { "{\"id\":9999999999999999999,\"result\":1}", true, UINT64_C(9999999999999999999) },
                { " { \"id\"\t:  12 , \"result\" : 1 } ", true, 12 },
                { "{\"id\":12,\"result\":[1,2,{\"x\":[]}],\"z\":\"\"}", true, 12 },

                /* not JSON, but for the brackets and strings */
                { "{\"id\":12,\"result\":\xff\xfe,bad}", true, 12 },
                { "{\"result\":\"\xff\x01\",\"id\":12}", true, 12 },
                { "{\"result\":[1,,2],\"id\":12}", true, 12 },
                { "{\"a-key-of-more-than-twenty-four-bytes\":1,\"result\":1,\"id\":12}", true, 12 },
                { "{\"result\":1234567890123456789012345678901234567890,\"id\":12}", true, 12 },
                { " \t{\"id\":12,\"result\":1}\r", true, 12 },

                /* cut off, or something else around it */
                { "{\"id\":12,\"result\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false, 0 },
                { "{\"id\":12,\"result\":{{{{", false, 0 },
                { "{\"id\":12,\"result\":\"\\\"}", false, 0 },
                { "{\"id\":12,\"result\":1", false, 0 },
                { "{\"id\":12,\"result\":1}}", false, 0 },
                { "{\"id\":12,\"result\":1}{\"id\":13,\"result\":1}", false, 0 },
                { "{\"id\":12,\"result\":1} x", false, 0 },
                { "log: {\"id\":12,\"result\":1}", false, 0 },
                { "[{\"id\":12,\"result\":1}]", false, 0 },
                { "{}{\"id\":12,\"result\":1}", false, 0 },

                /* ids of others */
                { "{\"result\":{\"id\":5}}", false, 0 },
                { "{\"result\":{\"id\":5},\"id\":12}", true, 12 },
                { "{\"id\":12,\"result\":{\"id\":5}}", true, 12 },
                { "{\"result\":[{\"id\":5},{\"id\":6}],\"id\":12}", true, 12 },
                { "{\"result\":\"\\\"id\\\":5,\",\"id\":12}", true, 12 },
                { "{\"result\":\",\\\"id\\\":5\"}", false, 0 },
                { "{\"result\":\"\\\\\",\"id\":12}", true, 12 },
                { "{\"result\":\"\\\\\\\",\\\"id\\\":5\"}", false, 0 },
                { "{\"result\":\"}\",\"id\":12}", true, 12 },
                { "{\"result\":\"{\",\"id\":12}", true, 12 },
                { "{\"result\":\"id\",\"x\":5}", false, 0 },
                { "{\"x\":\"id\",\"y\":5,\"result\":1}", false, 0 },
                { "{\"x\":\"result\",\"id\":5}", false, 0 },
                { "{\"iid\":5,\"idd\":6,\"i\":7,\"result\":1}", false, 0 },
                { "{\"result\":{\"result\":1,\"x\":{\"error\":1}}}", false, 0 },
                { "{\"id\":5,\"params\":{\"result\":1}}", false, 0 },

                /* no id of ours */
                { "{\"id\":\"12\",\"result\":1}", false, 0 },
                { "{\"id\":-1,\"result\":1}", false, 0 },
                { "{\"id\":1.5,\"result\":1}", false, 0 },
                { "{\"id\":1e2,\"result\":1}", false, 0 },
                { "{\"id\":null,\"result\":1}", false, 0 },
                { "{\"id\":[12],\"result\":1}", false, 0 },
                { "{\"id\":{\"id\":12},\"result\":1}", false, 0 },
                { "{\"id\":,\"result\":1}", false, 0 },
                { "{\"id\":99999999999999999999999999,\"result\":1}", false, 0 },
                { "{\"id\":12", false, 0 },
                { "{\"result\":1,\"id\":12", false, 0 },

                /* no answer */
                { "{\"id\":12,\"method\":\"x\"}", false, 0 },
                { "{\"id\":12}", false, 0 },
                { "", false, 0 },
                { "plain text that no server should write", false, 0 },
                { "}}}}]]]]", false, 0 },
                { "\"id\":12,\"result\":1", false, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                check_finder(&rows[i]);
}

/* '\r' is white space between tokens too. */
static void test_id_finder_carriage_return(void) {
        check_finder(&(FinderRow){ "{\"result\":1,\r\"id\":\r12}", true, 12 });
        check_finder(&(FinderRow){ "{\"result\":1,\"id\":12\r}", true, 12 });
        check_finder(&(FinderRow){ "{\"id\":12\r\r,\r\"result\":1}", true, 12 });
}

/* What goes by is not kept: a hundred million bytes cost what one does. */
static void test_id_finder_deep_and_long(void) {
        IdFinder finder = {};
        static char brackets[65536];
        uint64_t number = 0;

        id_finder_feed(&finder, "{\"result\":", 10);
        memset(brackets, '[', sizeof(brackets));
        id_finder_feed(&finder, brackets, sizeof(brackets));
        id_finder_feed(&finder, "{\"id\":5}", 8);
        memset(brackets, ']', sizeof(brackets));
        id_finder_feed(&finder, brackets, sizeof(brackets));
        id_finder_feed(&finder, ",\"id\":12}\r", 10);
        assert_true(mcp_found_id(&finder, &number));
        assert_number(number, 12);
}

static void test_params_read(void) {
        McpParams params = { .tool = "x" };
        JsonError error = {};
        const char *text;

        assert_number(mcp_params_read("", 0, 64, &params, &error), 0);
        assert_true(!params.text.data && !params.meta.data && !params.token.data && !params.tool);

        text = " \r\n{ \"a\" : 1 }\t\n";
        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        assert_slice(params.text, "{ \"a\" : 1 }");
        assert_true(params.text.data == text + 3);
        assert_true(params.traits.newlines);
        assert_true(!params.meta.data && !params.token.data);

        text = "{\"_meta\":{\"progressToken\":\"t\",\"x\":1},\"a\":{\"_meta\":5}}";
        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        assert_slice(params.meta, "{\"progressToken\":\"t\",\"x\":1}");
        assert_slice(params.token, "\"t\"");

        text = "{\"\\u005fmeta\":{}}";
        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        assert_slice(params.meta, "{}");
}

static void test_params_errors(void) {
        static const struct {
                const char *text;
                int result;
                size_t offset;
        } rows[] = {
                { " ", -EBADMSG, 1 },
                { "{", -EBADMSG, 1 },
                { "{} {}", -EBADMSG, 3 },
                { "{\"a\":\"\xff\"}", -EBADMSG, 6 },
                { "{\"a\":[[]]}", -E2BIG, 6 },
                { "[]", -EINVAL, 0 },
                { "  null", -EINVAL, 2 },
                { "7", -EINVAL, 0 },
                { "\"{}\"", -EINVAL, 0 },
                { "{\"_meta\":null}", -EINVAL, 1 },
                { "{\"a\":1, \"_meta\":[]}", -EINVAL, 8 },
                { "{\"_meta\":\"{}\"}", -EINVAL, 1 },
                { "{\"_meta\":{},\"_meta\":{}}", -EINVAL, 12 },
                { "{\"_meta\":{},\"\\u005fmeta\":{}}", -EINVAL, 12 },
                { "{\"_meta\":{},\"a\":0,\"_meta\":5}", -EINVAL, 18 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                McpParams params = { .tool = "untouched" };
                JsonError error = { .offset = 999 };
                int r;

                r = mcp_params_read(rows[i].text, strlen(rows[i].text), 2, &params, &error);
                if (r != rows[i].result || error.offset != rows[i].offset)
                        fprintf(stderr, "row %zu: %s\n", i, rows[i].text);
                assert_number(r, rows[i].result);
                assert_number(error.offset, rows[i].offset);
                assert_true(error.reason && *error.reason);
                assert_string(params.tool, "untouched");
        }
}

static const McpParams no_params = {};

/* One message of a buffer that starts with others: checked to be one line of valid JSON, and taken out of it. */
typedef struct Line {
        Buffer buffer;
        McpMessage message;
} Line;

static void line_done(Line *line) {
        buffer_done(&line->buffer);
}

static void line_begin(Line *line) {
        *line = (Line){};
        assert_number(buffer_append_string(&line->buffer, "{\"other\":1}\n"), 0);
}

static void line_end(Line *line, int r) {
        const char *data;
        size_t size;

        assert_number(r, 0);
        assert_bytes(buffer_data(&line->buffer), 12, "{\"other\":1}\n", 12);
        buffer_consume(&line->buffer, 12);
        data = buffer_data(&line->buffer);
        size = buffer_size(&line->buffer);
        assert_true(size > 0 && memchr(data, '\n', size) == data + size - 1);
        assert_true(!memchr(data, '\r', size));
        assert_number(mcp_parse(data, size - 1, 128, &line->message, NULL), 0);
        assert_false(line->message.traits.newlines || line->message.traits.noncharacters);
        assert_slice(json_get((JsonSlice){ data, size - 1 }, "jsonrpc"), "\"2.0\"");
}

static void request(Line *line, McpEra era, const char *method, const char *text, const char *tool) {
        McpParams params;
        JsonError error;

        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        params.tool = tool;
        line_begin(line);
        line_end(line, mcp_append_request(&line->buffer, 77, era, method, &params));
        assert_number(line->message.kind, MCP_REQUEST);
        assert_number(line->message.number, 77);
        assert_true(json_equal(line->message.method, method));
}

static unsigned count_members(JsonSlice object, const char *name) {
        const char *position = NULL;
        JsonSlice key, value;
        unsigned n = 0;

        while (json_next_member(object, &position, &key, &value))
                n += name == NULL || json_equal(key, name);
        return n;
}

/* What every request to a modern server says of itself, each once */
static void assert_modern_meta(JsonSlice params, const char *capabilities) {
        JsonSlice meta = json_get(params, "_meta");

        assert_number(count_members(params, "_meta"), 1);
        assert_number(count_members(meta, META_VERSION), 1);
        assert_number(count_members(meta, META_CAPABILITIES), 1);
        assert_number(count_members(meta, META_CLIENT), 1);
        assert_slice(json_get(meta, META_VERSION), "\"" MCP_VERSION_MODERN "\"");
        assert_slice(json_get(meta, META_CAPABILITIES), capabilities);
        assert_true(json_equal(json_get(json_get(meta, META_CLIENT), "name"), "mcp-exec"));
}

static void test_request_legacy(void) {
        Line line;

        request(&line, MCP_ERA_LEGACY, "ping", "", NULL);
        assert_true(!line.message.params.data);
        line_done(&line);

        request(&line, MCP_ERA_LEGACY, "resources/read", "{\"uri\":\"a:b\"}", NULL);
        assert_slice(line.message.params, "{\"uri\":\"a:b\"}");
        line_done(&line);

        request(&line, MCP_ERA_AUTO, "tools/list", "{ }", NULL);
        assert_slice(line.message.params, "{ }");
        line_done(&line);

        /* _meta without a progress token goes through as it is. */
        request(&line, MCP_ERA_LEGACY, "tools/list", "{\"_meta\":{\"a/b\":1},\"cursor\":\"c\"}", NULL);
        assert_slice(line.message.params, "{\"_meta\":{\"a/b\":1},\"cursor\":\"c\"}");
        line_done(&line);
}

static void test_request_legacy_progress(void) {
        JsonSlice meta;
        Line line;

        request(&line, MCP_ERA_LEGACY, "resources/read",
                "{\"a\":1,\"_meta\":{\"x\":[2],\"progressToken\":\"mine\"},\"b\" : 3}", NULL);
        meta = json_get(line.message.params, "_meta");
        assert_number(count_members(line.message.params, NULL), 3);
        assert_slice(json_get(line.message.params, "a"), "1");
        assert_slice(json_get(line.message.params, "b"), "3");
        assert_number(count_members(meta, NULL), 2);
        assert_slice(json_get(meta, "progressToken"), "77");
        assert_slice(json_get(meta, "x"), "[2]");
        line_done(&line);

        /* An escaped or repeated one is replaced as well. */
        request(&line, MCP_ERA_LEGACY, "x", "{\"_meta\":{\"progressToken\":1,\"progress\\u0054oken\":2}}", NULL);
        meta = json_get(line.message.params, "_meta");
        assert_number(count_members(meta, NULL), 1);
        assert_slice(json_get(meta, "progressToken"), "77");
        line_done(&line);

        /* A call of a tool always has one. */
        request(&line, MCP_ERA_LEGACY, "tools/call", "{\"name\":\"t\",\"arguments\":{}}", NULL);
        assert_slice(json_get(json_get(line.message.params, "_meta"), "progressToken"), "77");
        assert_slice(json_get(line.message.params, "name"), "\"t\"");
        assert_slice(json_get(line.message.params, "arguments"), "{}");
        assert_number(count_members(line.message.params, NULL), 3);
        line_done(&line);
}

static void test_request_modern(void) {
        static const char *const texts[] = { "", "{}", " { } ", "{\"_meta\":{}}", "{ \"_meta\" : { } }" };
        Line line;

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                request(&line, MCP_ERA_MODERN, "tools/list", texts[i], NULL);
                assert_number(count_members(line.message.params, NULL), 1);
                assert_modern_meta(line.message.params, "{}");
                assert_true(!json_get(json_get(line.message.params, "_meta"), "progressToken").data);
                line_done(&line);
        }

        request(&line, MCP_ERA_MODERN, "resources/read", "{ \"uri\" : \"a:b\" , \"z\":[{}] }", NULL);
        assert_modern_meta(line.message.params, "{}");
        assert_slice(json_get(line.message.params, "uri"), "\"a:b\"");
        assert_slice(json_get(line.message.params, "z"), "[{}]");
        assert_number(count_members(line.message.params, NULL), 3);
        line_done(&line);
}

static void test_request_modern_meta(void) {
        JsonSlice meta;
        Line line;

        request(&line, MCP_ERA_MODERN, "resources/read",
                "{\"before\":1,\"_meta\":{\"traceparent\":\"00-x\",\"" META_VERSION
                "\":\"1999-01-01\",\"" META_CAPABILITIES "\":{\"sampling\":{}},\"progressToken\":5},\"after\":2}",
                NULL);
        meta = json_get(line.message.params, "_meta");
        assert_modern_meta(line.message.params, "{\"sampling\":{}}");
        assert_number(count_members(line.message.params, NULL), 3);
        assert_slice(json_get(line.message.params, "before"), "1");
        assert_slice(json_get(line.message.params, "after"), "2");
        assert_number(count_members(meta, NULL), 5);
        assert_slice(json_get(meta, "traceparent"), "\"00-x\"");
        assert_slice(json_get(meta, "progressToken"), "77");
        line_done(&line);

        /* The caller's own clientInfo is kept. */
        request(&line, MCP_ERA_MODERN, "x", "{\"_meta\":{\"" META_CLIENT "\":{\"name\":\"me\",\"version\":\"1\"}}}",
                NULL);
        meta = json_get(line.message.params, "_meta");
        assert_number(count_members(meta, META_CLIENT), 1);
        assert_slice(json_get(meta, META_CLIENT), "{\"name\":\"me\",\"version\":\"1\"}");
        line_done(&line);

        /* An escaped key is the same key. */
        request(&line, MCP_ERA_MODERN, "x",
                "{\"\\u005fmeta\":{\"io.modelcontextprotocol\\/protocolVersion\":\"1\"},\"a\":1}", NULL);
        assert_modern_meta(line.message.params, "{}");
        assert_slice(json_get(line.message.params, "a"), "1");
        line_done(&line);
}

static void test_request_newlines(void) {
        static const McpEra eras[] = { MCP_ERA_LEGACY, MCP_ERA_MODERN };
        const char *position;
        JsonSlice key, value;
        Line line;

        for (size_t i = 0; i < ELEMENTSOF(eras); i++) {
                request(&line, eras[i], "x", "\n{\r\n\"a\"\n:\n[1,\n\"\\n\"]\r\n}\n", NULL);
                assert_slice(json_get(line.message.params, "a"), "[1,\"\\n\"]");
                line_done(&line);

                request(&line, eras[i], "x",
                        "{\n\"_meta\":\n{\r\"progressToken\":\n1,\n\"k\":[\n]},\n\"a\":{\n\"b\":1}\n}", NULL);
                assert_slice(json_get(line.message.params, "a"), "{\"b\":1}");
                assert_slice(json_get(json_get(line.message.params, "_meta"), "k"), "[]");
                line_done(&line);

                request(&line, eras[i], "tools/call", "{\n\"a\"\r:1\n}", "t");
                assert_slice(json_get(line.message.params, "arguments"), "{\"a\":1}");
                line_done(&line);

                request(&line, eras[i], "x", "{\"\xef\xbf\xbf\":\"\xf0\x9f\xbf\xbe\"}", NULL);
                position = NULL;
                do
                        assert_true(json_next_member(line.message.params, &position, &key, &value));
                while (json_equal(key, "_meta"));
                assert_slice(key, "\"\\uffff\"");
                assert_slice(value, "\"\\ud83f\\udffe\"");
                line_done(&line);
        }
}

static void test_request_tool(void) {
        static const char *const tools[] = {
                "echo",
                "",
                "a\"b",
                "a\\b",
                "a\nb",
                "\x01\x1f\x7f",
                "na\xc3\xafve \xe2\x82\xac",
                "\",\"name\":\"evil",
                "}\n{\"id\":1}",
        };
        Line line;

        for (size_t i = 0; i < ELEMENTSOF(tools); i++) {
                request(&line, MCP_ERA_LEGACY, "tools/call", "{\"name\":\"not this\",\"_meta\":{\"progressToken\":1}}",
                        tools[i]);
                assert_true(json_equal(json_get(line.message.params, "name"), tools[i]));
                assert_number(count_members(line.message.params, NULL), 3);
                /* A tool's arguments are the tool's: nothing in them is changed. */
                assert_slice(json_get(line.message.params, "arguments"),
                             "{\"name\":\"not this\",\"_meta\":{\"progressToken\":1}}");
                assert_slice(json_get(json_get(line.message.params, "_meta"), "progressToken"), "77");
                line_done(&line);

                request(&line, MCP_ERA_MODERN, "tools/call", "", tools[i]);
                assert_true(json_equal(json_get(line.message.params, "name"), tools[i]));
                assert_slice(json_get(line.message.params, "arguments"), "{}");
                assert_modern_meta(line.message.params, "{}");
                assert_slice(json_get(json_get(line.message.params, "_meta"), "progressToken"), "77");
                line_done(&line);
        }
}

static void test_request_ids_and_methods(void) {
        static const uint64_t ids[] = { 0, 1, UINT32_MAX, INT64_MAX };
        static const char *const methods[] = { "a/b", "", "a\"b\n", "\xe2\x82\xac" };

        for (size_t i = 0; i < ELEMENTSOF(ids); i++) {
                Line line;

                line_begin(&line);
                line_end(&line, mcp_append_request(&line.buffer, ids[i], MCP_ERA_LEGACY, methods[i], &no_params));
                assert_true(line.message.ours && line.message.number == ids[i]);
                assert_true(json_equal(line.message.method, methods[i]));
                line_done(&line);
        }
}

static void test_notification(void) {
        McpParams params;
        JsonError error;
        Line line;

        line_begin(&line);
        line_end(&line, mcp_append_notification(&line.buffer, "notifications/initialized", &no_params));
        assert_number(line.message.kind, MCP_NOTIFICATION);
        assert_true(!line.message.params.data);
        line_done(&line);

        assert_number(mcp_params_read("\n{\n\"a\":\"\xef\xbf\xbf\"}\n", 13, 64, &params, &error), 0);
        line_begin(&line);
        line_end(&line, mcp_append_notification(&line.buffer, "x\"y", &params));
        assert_number(line.message.kind, MCP_NOTIFICATION);
        assert_true(json_equal(line.message.method, "x\"y"));
        assert_slice(line.message.params, "{\"a\":\"\\uffff\"}");
        line_done(&line);
}

static void test_initialize(void) {
        Line line;

        line_begin(&line);
        line_end(&line, mcp_append_initialize(&line.buffer, 3, 0));
        assert_number(line.message.kind, MCP_REQUEST);
        assert_number(line.message.number, 3);
        assert_true(json_equal(line.message.method, "initialize"));
        assert_true(json_equal(json_get(line.message.params, "protocolVersion"), MCP_VERSION_LEGACY));
        assert_slice(json_get(line.message.params, "capabilities"), "{}");
        assert_true(json_is(json_get(json_get(line.message.params, "clientInfo"), "name"), '"'));
        assert_true(json_is(json_get(json_get(line.message.params, "clientInfo"), "version"), '"'));
        line_done(&line);
}

static void test_cancelled(void) {
        Line line;

        line_begin(&line);
        line_end(&line, mcp_append_cancelled(&line.buffer, 9, "the caller said \"no\"\n\xff"));
        assert_number(line.message.kind, MCP_NOTIFICATION);
        assert_true(json_equal(line.message.method, "notifications/cancelled"));
        assert_slice(json_get(line.message.params, "requestId"), "9");
        assert_true(json_equal(json_get(line.message.params, "reason"), "the caller said \"no\"\n\xef\xbf\xbd"));
        line_done(&line);
}

/* An answer has the server's own id, byte for byte. */
static void test_answers(void) {
        static const char *const ids[] = { "0", "-7", "1.50", "\"a\\u0062\\\"c\"", "\"\"" };

        for (size_t i = 0; i < ELEMENTSOF(ids); i++) {
                Line line;

                line_begin(&line);
                line_end(&line, mcp_append_empty_result(&line.buffer, SLICE(ids[i])));
                assert_number(line.message.kind, MCP_RESULT);
                assert_slice(line.message.id, ids[i]);
                assert_slice(line.message.result, "{}");
                line_done(&line);

                line_begin(&line);
                line_end(&line, mcp_append_method_not_found(&line.buffer, SLICE(ids[i])));
                assert_number(line.message.kind, MCP_ERROR);
                assert_slice(line.message.id, ids[i]);
                assert_slice(json_get(line.message.error, "code"), "-32601");
                line_done(&line);
        }
}

int main(void) {
        test_eras();
        test_kinds();
        test_orders();
        test_parse_errors();
        test_parse_traits();
        test_id_finder();
        test_id_finder_deep_and_long();
        test_params_read();
        test_params_errors();
        test_request_legacy();
        test_request_legacy_progress();
        test_request_modern();
        test_request_modern_meta();
        test_request_newlines();
        test_request_tool();
        test_request_ids_and_methods();
        test_notification();
        test_initialize();
        test_cancelled();
        test_answers();
        test_id_types();
        test_id_finder_carriage_return();
        return 0;
}
