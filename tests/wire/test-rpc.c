#include "wire/rpc.h"

#include "wire.h"

static void test_ids(void) {
        static const char *const good[] = { "0", "-1", "12345678901234567890", "\"\"", "\"a\\u0000b\"", "-0", "007" },
                                 *const bad[] = { "", "-", "1.5", "1e3", "null", "true", "{}", "[1]", "+1" };
        char large[RPC_ID_MAX + 2];

        for (size_t i = 0; i < ELEMENTSOF(good); i++)
                assert_true(rpc_id_valid(slice(good[i])));
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(rpc_id_valid(slice(bad[i])));

        memset(large, '1', sizeof(large));
        assert_true(rpc_id_valid((JsonSlice){ large, RPC_ID_MAX }));
        assert_false(rpc_id_valid((JsonSlice){ large, RPC_ID_MAX + 1 }));
}

#define RPC "\"jsonrpc\":\"2.0\""

static void test_lines(void) {
        static const struct {
                const char *line;
                RpcKind kind;
                int code;
                const char *id; /* to answer under */
        } rows[] = {
                { "{" RPC ",\"id\":1,\"method\":\"ping\"}", RPC_REQUEST, 0, NULL },
                { " {" RPC ",\"id\":\"a\",\"method\":\"x/y\",\"params\":{\"_meta\":{}}} ", RPC_REQUEST, 0, NULL },
                { "{" RPC ",\"method\":\"notifications/initialized\"}", RPC_NOTIFICATION, 0, NULL },
                { "{" RPC ",\"id\":1,\"result\":{}}", RPC_ANSWER, 0, NULL },
                { "{\"id\":\"q\",\"error\":{\"code\":1,\"message\":\"\"}}", RPC_ANSWER, 0, NULL },
                { "", RPC_NOISE, 0, NULL },
                { " \t\r", RPC_NOISE, 0, NULL },

                /* Not JSON at all */
                { "hello", RPC_WRONG, RPC_PARSE_ERROR, NULL },
                { "{" RPC ",\"id\":1,\"method\":\"ping\"", RPC_WRONG, RPC_PARSE_ERROR, NULL },
                { "{" RPC ",\"id\":1,\"method\":\"ping\",}", RPC_WRONG, RPC_PARSE_ERROR, "1" },
                { "{" RPC ",\"id\":\"a b\",\"method\":\"\xff\"}", RPC_WRONG, RPC_PARSE_ERROR, "\"a b\"" },
                { "{" RPC ",\"id\":1,\"method\":\"a\"}{}", RPC_WRONG, RPC_PARSE_ERROR, NULL },
                { "{" RPC ",\"id\":1,\"result\":{,}}", RPC_NOISE, RPC_PARSE_ERROR, NULL },
                { "{" RPC ",\"id\":7,\"method\":\"a\",\"params\":{\"a\":[[[[[[[[]]]]]]]]}}", RPC_WRONG,
                  RPC_INVALID_REQUEST, "7" },

                /* JSON, but no request */
                { "1", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "\"ping\"", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "null", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "[]", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "[1]", RPC_BATCH, 0, NULL },
                { "{" RPC ",\"id\":3}", RPC_WRONG, RPC_INVALID_REQUEST, "3" },
                { "{" RPC ",\"id\":3,\"method\":1}", RPC_WRONG, RPC_INVALID_REQUEST, "3" },
                { "{\"id\":3,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, "3" },
                { "{\"jsonrpc\":\"1.0\",\"id\":3,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, "3" },

                /* Ids of every type */
                { "{" RPC ",\"id\":null,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":true,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":{},\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":[1],\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":1.5,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":1e3,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, NULL },
                { "{" RPC ",\"id\":1,\"id\":2,\"method\":\"ping\"}", RPC_WRONG, RPC_INVALID_REQUEST, "2" },

                /* An answer is never answered, a notification neither. */
                { "{" RPC ",\"id\":null,\"result\":{}}", RPC_NOISE, 0, NULL },
                { "{" RPC ",\"id\":1.5,\"result\":{}}", RPC_NOISE, 0, NULL },
                { "{" RPC ",\"id\":1,\"result\":{},\"error\":{}}", RPC_NOISE, 0, NULL },
                { "{" RPC ",\"id\":1,\"error\":\"x\"}", RPC_NOISE, 0, NULL },
                { "{" RPC ",\"method\":\"x\",\"params\":[1]}", RPC_NOISE, RPC_INVALID_PARAMS, NULL },

                { "{" RPC ",\"id\":5,\"method\":\"x\",\"params\":[1]}", RPC_WRONG, RPC_INVALID_PARAMS, "5" },
                { "{" RPC ",\"id\":5,\"method\":\"x\",\"params\":null}", RPC_WRONG, RPC_INVALID_PARAMS, "5" },
                { "{" RPC ",\"id\":5,\"method\":\"x\",\"params\":{\"_meta\":1}}", RPC_WRONG, RPC_INVALID_PARAMS, "5" },
                { "{" RPC ",\"id\":5,\"method\":\"x\",\"params\":{\"_meta\":{},\"_meta\":{}}}", RPC_WRONG,
                  RPC_INVALID_PARAMS, "5" },
                { "{" RPC ",\"id\":5,\"method\":\"x\",\"params\":{\"name\":1,\"name\":2}}", RPC_WRONG,
                  RPC_INVALID_PARAMS, "5" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                RpcInput input;

                rpc_read(rows[i].line, strlen(rows[i].line), 8, &input);
                if (input.kind != rows[i].kind)
                        fprintf(stderr, "%s\n", rows[i].line);
                assert_number(input.kind, rows[i].kind);
                assert_number(input.code, rows[i].code);
                assert_slice(input.id, rows[i].id);
                assert_true(input.kind != RPC_WRONG || (input.reason && input.offset <= strlen(rows[i].line)));
        }
}

static void test_params(void) {
        static const char line[] = "{" RPC ",\"id\":1,\"method\":\"tools/call\",\"params\":"
                                   "{\"name\":\"echo\",\"_meta\":{\"progressToken\":\"t\"}}}";
        RpcInput input;

        rpc_read(line, strlen(line), 64, &input);
        assert_slice(input.params.name, "\"echo\"");
        assert_slice(input.params.token, "\"t\"");
        assert_slice(input.params.meta, "{\"progressToken\":\"t\"}");
        assert_slice(input.params.text, "{\"name\":\"echo\",\"_meta\":{\"progressToken\":\"t\"}}");
}

static void test_method_too_long(void) {
        Buffer line = {};
        RpcInput input;

        assert_number(buffer_append_string(&line, "{" RPC ",\"id\":1,\"method\":\""), 0);
        for (size_t i = 0; i < RPC_METHOD_MAX; i++)
                assert_number(buffer_append_string(&line, "x"), 0);
        assert_number(buffer_append_string(&line, "\"}"), 0);
        rpc_read(buffer_data(&line), buffer_size(&line), 8, &input);
        assert_number(input.kind, RPC_WRONG);
        assert_number(input.code, RPC_METHOD_NOT_FOUND);
        assert_slice(input.id, "1");
        buffer_done(&line);
}

static void test_finder(void) {
        static const struct {
                const char *line;
                RpcKind kind;
                const char *id;
        } rows[] = {
                { "{\"id\":12,\"method\":\"x\"}", RPC_REQUEST, "12" },
                { "{\"method\":\"x\",\"params\":{\"id\":1,\"result\":[]},\"id\" : \"a\\\"b\" }", RPC_REQUEST,
                  "\"a\\\"b\"" },
                { "{\"result\":{\"method\":1},\"id\":-3}", RPC_ANSWER, "-3" },
                { "{\"error\":{},\"id\":\"x y\"}\r", RPC_ANSWER, "\"x y\"" },
                { "{\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":1}", RPC_NOISE, NULL },
                { "{\"id\":1,\"method\":\"x\",\"result\":1}", RPC_NOISE, NULL },
                { "{\"id\":null,\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":[1],\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":1,\"id\":{},\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":1.0,\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":\"\xff\",\"method\":\"x\"}", RPC_NOISE, NULL },
                { "{\"id\":1 2,\"method\":\"x\"}", RPC_REQUEST, "12" }, /* no JSON anyway */
                { "{\"id\":1,\"method\":\"x\"", RPC_NOISE, NULL },
                { "x{\"id\":1,\"method\":\"x\"}", RPC_NOISE, NULL },
                { "[{\"id\":1,\"method\":\"x\"}]", RPC_NOISE, NULL },
                { "{\"x\":\"id\",\"y\":1,\"method\":\"x\"}", RPC_NOISE, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                for (size_t step = 1; step < 9; step += 3) {
                        size_t size = strlen(rows[i].line);
                        IdFinder finder = {};
                        JsonSlice id = {};

                        for (size_t j = 0; j < size; j += step)
                                id_finder_feed(&finder, rows[i].line + j, MIN(step, size - j));
                        assert_number(rpc_found_id(&finder, &id), rows[i].kind);
                        assert_slice(id, rows[i].id);
                }
}

static void test_finder_long_id(void) {
        IdFinder finder = {};
        JsonSlice id;

        id_finder_feed(&finder, "{\"method\":\"x\",\"id\":\"", 20);
        for (size_t i = 0; i < 2 * RPC_ID_MAX; i++)
                id_finder_feed(&finder, "x", 1);
        id_finder_feed(&finder, "\"}", 2);
        assert_number(rpc_found_id(&finder, &id), RPC_NOISE);
}

static void test_answers(void) {
        const JsonTraits newlines = { .newlines = true };
        const JsonChange change = { .name = "a", .kind = JSON_SET, .value = JSON_LITERAL("1") };
        Buffer buffer = {};

        start(&buffer);
        assert_number(
                rpc_append_result(&buffer, piece("\"i\\u0064\""), (JsonPiece){ slice("{\"x\":\r[]}"), &newlines }), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":\"i\\u0064\",\"result\":{\"x\":[]}}\n");

        assert_number(rpc_append_result_changed(&buffer, piece("1"), piece("{\"b\":2}"), &change, 1), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"b\":2,\"a\":1}}\n");
        assert_true(rpc_append_result_changed(&buffer, piece("1"), piece("[]"), &change, 1) < 0);
        assert_nothing_appended(&buffer);

        assert_number(rpc_append_error(&buffer, piece("1"), RPC_INVALID_PARAMS, "no \"tool\"\n", piece("[1]")), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32602,"
                                 "\"message\":\"no \\u0022tool\\u0022\\u000a\",\"data\":[1]}}\n");
        assert_number(rpc_append_error(&buffer, piece(NULL), RPC_PARSE_ERROR, "x", piece(NULL)), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"x\"}}\n");

        assert_number(
                rpc_append_broker_error(&buffer, piece("1"), RPC_BROKER, "late", "org.example.McpExec.Error.Timeout"),
                0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"late\",\"data\":"
                        "{\"source\":\"mcp-exec\",\"error\":\"org.example.McpExec.Error.Timeout\"}}}\n");
        buffer_done(&buffer);
}

static void test_remote_errors(void) {
        static const struct {
                McpEra client;
                const char *error, *wanted;
        } rows[] = {
                { MCP_ERA_LEGACY, "{\"code\":-32002,\"message\":\"x\"}", "{\"code\":-32002,\"message\":\"x\"}" },
                { MCP_ERA_MODERN, "{\"code\":-32002,\"message\":\"x\",\"data\":{\"uri\":\"a:b\"}}",
                  "{\"message\":\"x\",\"data\":{\"uri\":\"a:b\"},\"code\":-32602}" },
                { MCP_ERA_MODERN, "{ \"code\" : 7 , \"message\":\"\" }", "{ \"code\" : 7 , \"message\":\"\" }" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Buffer buffer = {}, wanted = {};

                start(&buffer);
                assert_number(rpc_append_remote_error(&buffer, piece("1"), piece(rows[i].error), rows[i].client), 0);
                assert_number(buffer_append_string(&wanted, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":"), 0);
                assert_number(buffer_append_string(&wanted, rows[i].wanted), 0);
                assert_number(buffer_append(&wanted, "}\n", 3), 0);
                assert_appended(&buffer, buffer_data(&wanted));
                buffer_done(&buffer);
                buffer_done(&wanted);
        }
}

static void test_requests(void) {
        Buffer buffer = {};

        start(&buffer);
        assert_number(rpc_append_request(&buffer, piece("\"s1\""), piece("\"roots/list\""), piece(NULL), piece("7")),
                      0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"method\":\"roots/list\"}\n");

        /* A token takes the place of one, and isn't there where none was. */
        assert_number(rpc_append_request(&buffer, piece("1"), piece("\"x\""),
                                         piece("{\"_meta\":{\"progressToken\":0,\"a\":1},\"b\":2}"), piece("7")),
                      0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":"
                                 "{\"_meta\":{\"a\":1,\"progressToken\":7},\"b\":2}}\n");
        assert_number(
                rpc_append_request(&buffer, piece("1"), piece("\"x\""), piece("{\"_meta\":{\"a\":1}}"), piece("7")), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":{\"_meta\":{\"a\":1}}}\n");

        assert_number(rpc_append_notification(&buffer, piece("\"n\""), piece("{ }"), NULL, 0), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{ }}\n");
        assert_number(rpc_append_cancelled(&buffer, piece("\"q\""), piece("\"why\"")), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":"
                                 "{\"requestId\":\"q\",\"reason\":\"why\"}}\n");
        assert_number(rpc_append_cancelled(&buffer, piece("2"), piece(NULL)), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":"
                                 "{\"requestId\":2}}\n");
        buffer_done(&buffer);
}

int main(void) {
        test_ids();
        test_lines();
        test_params();
        test_method_too_long();
        test_finder();
        test_finder_long_id();
        test_answers();
        test_remote_errors();
        test_requests();
        return 0;
}
