#include "wire/translate.h"

#include <errno.h>

#include "wire.h"
#include "wire/meta.h"

#define VERSION "\"" META_VERSION "\":\"" MCP_VERSION_MODERN "\""
#define LEGACY MCP_ERA_LEGACY
#define MODERN MCP_ERA_MODERN

static void test_negotiation(void) {
        static const struct {
                const char *asked, *agreed;
        } rows[] = {
                { "\"2024-11-05\"", "2024-11-05" },
                { "\"2025-03-26\"", "2025-03-26" },
                { "\"2025-06-18\"", "2025-06-18" },
                { "\"2025-11-25\"", "2025-11-25" },
                { "\"2026-07-28\"", "2025-11-25" },
                { "\"1999-01-01\"", "2025-11-25" },
                { "1", "2025-11-25" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_string(mcp_negotiate(slice(rows[i].asked)), rows[i].agreed);
}

static void test_initialize_params(void) {
        static const char *const wrong[] = { "{}", "{\"protocolVersion\":1,\"capabilities\":{}}",
                                             "{\"protocolVersion\":\"2025-06-18\"}",
                                             "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":[]}" };
        const char *version, *reason = NULL;
        McpProfile profile;
        JsonSlice info;

        assert_number(mcp_read_initialize(slice("{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"roots\":{}},"
                                                "\"clientInfo\":{\"name\":\"c\"}}"),
                                          &version, &profile, &info, &reason),
                      0);
        assert_string(version, "2025-06-18");
        assert_number(profile, MCP_PROFILE_ROOTS);
        assert_slice(info, "{\"name\":\"c\"}");

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                reason = NULL;
                assert_number(mcp_read_initialize(slice(wrong[i]), &version, &profile, &info, &reason), -EINVAL);
                assert_true(reason);
        }
}

static McpParams params_of(const char *text) {
        McpParams params;
        JsonError error;

        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        return params;
}

static void test_modern_requests(void) {
        static const struct {
                const char *params;
                bool modern;
                int code;
                McpProfile profile;
                McpLevel level;
        } rows[] = {
                { "{\"_meta\":{" VERSION ",\"" META_CAPABILITIES "\":{\"roots\":{}}}}", true, 0, MCP_PROFILE_ROOTS,
                  -1 },
                { "{\"_meta\":{" VERSION ",\"" META_CAPABILITIES "\":{},\"" META_LEVEL "\":\"info\"}}", true, 0, 0,
                  MCP_LEVEL_INFO },
                { "{\"_meta\":{" VERSION ",\"" META_CAPABILITIES "\":{},\"" META_LEVEL "\":\"loud\"}}", true,
                  RPC_INVALID_PARAMS, 0, 0 },
                { "{\"_meta\":{" VERSION "}}", true, RPC_INVALID_PARAMS, 0, 0 },
                { "{\"_meta\":{" VERSION ",\"" META_CAPABILITIES "\":[]}}", true, RPC_INVALID_PARAMS, 0, 0 },
                { "{\"_meta\":{\"" META_VERSION "\":1,\"" META_CAPABILITIES "\":{}}}", true, RPC_INVALID_PARAMS, 0, 0 },
                { "{\"_meta\":{\"" META_VERSION "\":\"2099-01-01\",\"" META_CAPABILITIES "\":{}}}", true,
                  RPC_UNSUPPORTED_VERSION, 0, 0 },
                { "{\"_meta\":{\"" META_CAPABILITIES "\":{}}}", false, RPC_INVALID_PARAMS, 0, 0 },
                { "{}", false, RPC_INVALID_PARAMS, 0, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                McpParams params = params_of(rows[i].params);
                McpProfile profile = 0;
                McpLevel level = 0;
                const char *reason;

                assert_number(mcp_is_modern_request(&params), rows[i].modern);
                assert_number(mcp_read_modern(&params, &profile, &level, &reason), rows[i].code);
                assert_number(profile, rows[i].profile);
                assert_number(level, rows[i].level);
                assert_true(rows[i].code == 0 || reason);
        }
}

static void test_errors(void) {
        Buffer buffer = {};

        start(&buffer);
        assert_number(mcp_append_unsupported(&buffer, piece("1"), piece("\"1900-01-01\"")), 0);
        assert_appended(
                &buffer,
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32022,\"message\":\"Unsupported protocol "
                "version\",\"data\":{\"supported\":[\"2026-07-28\",\"2025-11-25\",\"2025-06-18\",\"2025-03-26\","
                "\"2024-11-05\"],\"requested\":\"1900-01-01\"}}}\n");
        assert_number(mcp_append_missing_capability(&buffer, piece("1"), MCP_PROFILE_SAMPLING_TOOLS), 0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32021,\"message\":\"Missing required "
                        "client capability\",\"data\":{\"requiredCapabilities\":{\"sampling\":{\"tools\":{}}}}}}\n");
        buffer_done(&buffer);
}

#define INFO "{\"name\":\"s\",\"version\":\"1\"}"

static void test_initialize_results(void) {
        static const struct {
                McpEra era;
                const char *hello, *wanted;
        } rows[] = {
                /* Of its own era all is as the server said it, but for the version. */
                { LEGACY,
                  "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tasks\":{},\"x\":1},\"serverInfo\":" INFO
                  ",\"instructions\":\"i\"}",
                  "{\"capabilities\":{\"tasks\":{},\"x\":1},\"serverInfo\":" INFO
                  ",\"instructions\":\"i\",\"protocolVersion\":\"2025-06-18\"}" },
                { MODERN,
                  "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{},"
                  "\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}},\"_meta\":{\"" META_SERVER "\":" INFO
                  "},\"instructions\":\"i\",\"ttlMs\":3600000,\"cacheScope\":\"public\"}",
                  "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},\"serverInfo\":" INFO
                  ",\"instructions\":\"i\"}" },
                { MODERN, "{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":7,\"instructions\":1}",
                  "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{\"name\":\"configured\","
                  "\"version\":\"\"}}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const McpHello hello = { rows[i].era, piece(rows[i].hello), "configured" };

                assert_number(mcp_append_initialize_result(&buffer, &hello, "2025-06-18"), 0);
                assert_appended(&buffer, rows[i].wanted);
        }
        buffer_done(&buffer);
}

static void test_discover_results(void) {
        static const struct {
                McpEra era;
                const char *hello, *wanted;
        } rows[] = {
                { LEGACY,
                  "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tasks\":{},\"tools\":{\"listChanged\":true}}"
                  ","
                  "\"serverInfo\":" INFO ",\"instructions\":\"i\"}",
                  "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":"
                  "{\"tools\":{\"listChanged\":true}},\"instructions\":\"i\",\"ttlMs\":0,\"cacheScope\":\"private\","
                  "\"_meta\":{\"" META_SERVER "\":" INFO "}}" },
                { MODERN,
                  "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\",\"2027-01-01\"],\"capabilities\":"
                  "{},"
                  "\"_meta\":{\"" META_SERVER "\":" INFO "},\"ttlMs\":3600000,\"cacheScope\":\"public\"}",
                  "{\"capabilities\":{},\"_meta\":{\"" META_SERVER "\":" INFO
                  "},\"ttlMs\":3600000,\"cacheScope\":\"public\",\"resultType\":\"complete\","
                  "\"supportedVersions\":[\"2026-07-28\"]}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const McpHello hello = { rows[i].era, piece(rows[i].hello), "configured" };

                assert_number(mcp_append_discover_result(&buffer, &hello), 0);
                assert_appended(&buffer, rows[i].wanted);
                assert_slice(mcp_hello_server_info(&hello), INFO);
        }
        buffer_done(&buffer);
}

static void test_hello_has(void) {
        const McpHello hello = { LEGACY,
                                 piece("{\"capabilities\":{\"resources\":{\"subscribe\":true,\"listChanged\":false},"
                                       "\"tasks\":{\"list\":{}}}}"),
                                 "s" };

        assert_true(mcp_hello_has(&hello, "resources", NULL));
        assert_true(mcp_hello_has(&hello, "resources", "subscribe"));
        assert_false(mcp_hello_has(&hello, "resources", "listChanged"));
        assert_true(mcp_hello_has(&hello, "tasks", "list"));
        assert_false(mcp_hello_has(&hello, "tools", NULL));
        assert_false(mcp_hello_has(&hello, "tools", "listChanged"));
}

/* --- Requests ----------------------------------------------------------------------------------------------------- */

#define NO_CAPABILITIES "\"" META_CAPABILITIES "\":{}"
#define CLIENT(text) "\"" META_CLIENT "\":" text

static void test_params(void) {
        static const struct {
                McpEra client, worker;
                const char *method, *params, *wanted;
        } rows[] = {
                /* Within an era nothing changes, but for the progress token. */
                { LEGACY, LEGACY, "resources/read", "{ \"uri\" : \"a:b\" }", "{ \"uri\" : \"a:b\" }" },
                { LEGACY, LEGACY, "ping", "", NULL },
                { LEGACY, LEGACY, "tools/call", "{\"name\":\"t\",\"task\":{}}",
                  "{\"_meta\":{\"progressToken\":77},\"name\":\"t\",\"task\":{}}" },
                { LEGACY, LEGACY, "prompts/get", "{\"_meta\":{\"progressToken\":\"p\",\"a\":1},\"name\":\"n\"}",
                  "{\"_meta\":{\"a\":1,\"progressToken\":77},\"name\":\"n\"}" },
                { MODERN, MODERN, "resources/read",
                  "{\"uri\":\"a:b\",\"_meta\":{" VERSION "," NO_CAPABILITIES
                  "," CLIENT("{\"name\":\"m\"}") ",\"" META_LEVEL
                                                 "\":\"info\"},\"requestState\":\"s\",\"inputResponses\":{\"a\":{}}}",
                  "{\"uri\":\"a:b\",\"_meta\":{" NO_CAPABILITIES
                  "," CLIENT("{\"name\":\"m\"}") ",\"" META_LEVEL "\":\"info\"," VERSION
                                                 "},\"requestState\":\"s\",\"inputResponses\":{\"a\":{}}}" },
                { MODERN, MODERN, "tools/list", "{\"_meta\":{" VERSION "," NO_CAPABILITIES "}}",
                  "{\"_meta\":{" NO_CAPABILITIES "," VERSION "," CLIENT(MCP_BROKER_INFO) "}}" },

                /* A modern server has to be told with each request what a legacy client said once. */
                { LEGACY, MODERN, "tools/list", "",
                  "{\"_meta\":{\"" META_LEVEL "\":\"warning\"," VERSION ",\"" META_CAPABILITIES
                  "\":{\"roots\":{}}," CLIENT("{\"name\":\"c\"}") "}}" },
                { LEGACY, MODERN, "tools/call",
                  "{\"name\":\"t\",\"task\":{\"ttl\":1},\"arguments\":{\"task\":1},\"_meta\":{\"a\":1,"
                  "\"" META_CAPABILITIES "\":{\"sampling\":{}}}}",
                  "{\"name\":\"t\",\"arguments\":{\"task\":1},\"_meta\":{\"a\":1,\"progressToken\":77,\"" META_LEVEL
                  "\":\"warning\"," VERSION ",\"" META_CAPABILITIES
                  "\":{\"roots\":{}}," CLIENT("{\"name\":\"c\"}") "}}" },

                /* A legacy one isn't told what it doesn't know. */
                { MODERN, LEGACY, "tools/list", "{\"_meta\":{" VERSION "," NO_CAPABILITIES "}}", "{}" },
                { MODERN, LEGACY, "tools/list",
                  "{\"_meta\":{" VERSION "," NO_CAPABILITIES
                  "," CLIENT("{}") ",\"" META_LEVEL "\":\"info\",\"traceparent\":\"00\"},\"cursor\":\"c\"}",
                  "{\"cursor\":\"c\",\"_meta\":{\"traceparent\":\"00\"}}" },
                { MODERN, LEGACY, "tools/call",
                  "{\"_meta\":{" VERSION "," NO_CAPABILITIES
                  ",\"progressToken\":3},\"name\":\"t\",\"inputResponses\":{},"
                  "\"requestState\":\"s\",\"arguments\":{\"requestState\":1}}",
                  "{\"name\":\"t\",\"arguments\":{\"requestState\":1},\"_meta\":{\"progressToken\":77}}" },
        };
        const McpClient legacy = { .era = LEGACY,
                                   .version = "2025-06-18",
                                   .profile = MCP_PROFILE_ROOTS | MCP_PROFILE_ROOTS_CHANGED,
                                   .info = slice("{\"name\":\"c\"}"),
                                   .level = MCP_LEVEL_WARNING },
                        modern = { .era = MODERN, .version = MCP_VERSION_MODERN, .level = -1 };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                McpParams params = params_of(rows[i].params);
                Buffer buffer = {};
                McpMessage message;

                params.client = rows[i].client == LEGACY ? &legacy : &modern;
                assert_number(mcp_append_request(&buffer, 77, rows[i].worker, rows[i].method, &params), 0);
                assert_number(mcp_parse(buffer_data(&buffer), buffer_size(&buffer), 64, &message, NULL), 0);
                assert_number(message.kind, MCP_REQUEST);
                assert_slice(message.params, rows[i].wanted);
                buffer_done(&buffer);
        }
}

/* A legacy client that said nothing of itself, and set no level */
static void test_params_of_silent_client(void) {
        const McpClient client = { .era = LEGACY, .version = "2025-06-18", .level = -1 };
        McpParams params = params_of("{\"_meta\":{\"" META_LEVEL "\":\"debug\"}}");
        Buffer buffer = {};

        params.client = &client;
        start(&buffer);
        assert_number(mcp_append_request(&buffer, 7, MODERN, "tools/list", &params), 0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/list\",\"params\":{\"_meta\":{" VERSION
                        "," NO_CAPABILITIES "," CLIENT(MCP_BROKER_INFO) "}}}\n");
        buffer_done(&buffer);
}

static void test_forwardable(void) {
        static const char *const everywhere[] = { "tools/list",          "tools/call", "prompts/get",
                                                  "completion/complete", "x/unknown",  "resources/read" },
                                 *const nowhere[] = { "ping",
                                                      "initialize",
                                                      "logging/setLevel",
                                                      "resources/subscribe",
                                                      "resources/unsubscribe",
                                                      "server/discover",
                                                      "subscriptions/listen",
                                                      "tasks/get",
                                                      "tasks/list",
                                                      "tasks/cancel",
                                                      "tasks/result",
                                                      "tasks/update" };
        const char *reason;

        for (size_t i = 0; i < ELEMENTSOF(everywhere); i++) {
                assert_number(mcp_forwardable(everywhere[i], LEGACY, MODERN, &reason), 0);
                assert_number(mcp_forwardable(everywhere[i], MODERN, LEGACY, &reason), 0);
                assert_number(mcp_forwardable(everywhere[i], MODERN, MODERN, &reason), 0);
        }
        for (size_t i = 0; i < ELEMENTSOF(nowhere); i++) {
                assert_number(mcp_forwardable(nowhere[i], LEGACY, MODERN, &reason), RPC_METHOD_NOT_FOUND);
                assert_number(mcp_forwardable(nowhere[i], MODERN, LEGACY, &reason), RPC_METHOD_NOT_FOUND);
        }

        /* Within an era what it has goes through, and nothing else that is of the other one. */
        assert_number(mcp_forwardable("tasks/list", LEGACY, LEGACY, &reason), 0);
        assert_number(mcp_forwardable("tasks/get", LEGACY, LEGACY, &reason), 0);
        assert_number(mcp_forwardable("tasks/get", MODERN, MODERN, &reason), 0);
        assert_number(mcp_forwardable("tasks/update", MODERN, MODERN, &reason), 0);
        assert_number(mcp_forwardable("tasks/update", LEGACY, LEGACY, &reason), RPC_METHOD_NOT_FOUND);
        assert_number(mcp_forwardable("tasks/list", MODERN, MODERN, &reason), RPC_METHOD_NOT_FOUND);
        assert_number(mcp_forwardable("ping", MODERN, MODERN, &reason), RPC_METHOD_NOT_FOUND);
}

/* --- Results ------------------------------------------------------------------------------------------------------ */

static void test_result_types(void) {
        static const struct {
                const char *result;
                McpResultType modern, legacy;
        } rows[] = {
                { "{}", MCP_RESULT_COMPLETE, MCP_RESULT_COMPLETE },
                { "{\"resultType\":\"complete\"}", MCP_RESULT_COMPLETE, MCP_RESULT_COMPLETE },
                { "{\"resultType\":\"input_required\"}", MCP_RESULT_INPUT_REQUIRED, MCP_RESULT_COMPLETE },
                { "{\"resultType\":\"task\"}", MCP_RESULT_TASK, MCP_RESULT_COMPLETE },
                { "{\"resultType\":\"com.example/x\"}", MCP_RESULT_UNKNOWN, MCP_RESULT_COMPLETE },
                { "{\"resultType\":1}", MCP_RESULT_UNKNOWN, MCP_RESULT_COMPLETE },
                { "[]", MCP_RESULT_UNKNOWN, MCP_RESULT_UNKNOWN },
                { "null", MCP_RESULT_UNKNOWN, MCP_RESULT_UNKNOWN },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_number(mcp_result_type(slice(rows[i].result), MODERN), rows[i].modern);
                assert_number(mcp_result_type(slice(rows[i].result), LEGACY), rows[i].legacy);
        }
}

#define COMPLETE "\"resultType\":\"complete\""
#define SERVER_META "\"_meta\":{\"" META_SERVER "\":" INFO "}"
#define TOOL(output) "{\"name\":\"t\",\"inputSchema\":{\"type\":\"object\"}" output "}"

static void test_results(void) {
        static const struct {
                McpEra worker, client;
                const char *method, *result, *wanted;
        } rows[] = {
                { LEGACY, LEGACY, "tools/call", "{ \"content\" : [] }", "{ \"content\" : [] }" },
                { MODERN, MODERN, "tools/list", "{" COMPLETE ",\"tools\":[],\"ttlMs\":1,\"cacheScope\":\"public\"}",
                  "{" COMPLETE ",\"tools\":[],\"ttlMs\":1,\"cacheScope\":\"public\"}" },
                { MODERN, MODERN, "tools/call", "{\"resultType\":\"task\",\"taskId\":\"1\"}",
                  "{\"resultType\":\"task\",\"taskId\":\"1\"}" },

                { LEGACY, MODERN, "tools/call", "{\"content\":[],\"isError\":true}",
                  "{\"content\":[],\"isError\":true," COMPLETE "," SERVER_META "}" },
                { LEGACY, MODERN, "tools/call",
                  "{\"content\":[],\"resultType\":\"input_required\",\"_meta\":{\"a\":1}}",
                  "{\"content\":[]," COMPLETE ",\"_meta\":{\"a\":1,\"" META_SERVER "\":" INFO "}}" },
                { LEGACY, MODERN, "tools/list", "{\"tools\":[],\"nextCursor\":\"n\"}",
                  "{\"tools\":[],\"nextCursor\":\"n\"," COMPLETE ",\"ttlMs\":0,\"cacheScope\":\"private\"," SERVER_META
                  "}" },
                { LEGACY, MODERN, "resources/read", "{\"contents\":[],\"ttlMs\":5}",
                  "{\"contents\":[],\"ttlMs\":5," COMPLETE ",\"cacheScope\":\"private\"," SERVER_META "}" },
                { LEGACY, MODERN, "completion/complete", "{\"completion\":{\"values\":[]}}",
                  "{\"completion\":{\"values\":[]}," COMPLETE "," SERVER_META "}" },

                { MODERN, LEGACY, "tools/call", "{" COMPLETE ",\"content\":[]," SERVER_META "}", "{\"content\":[]}" },
                { MODERN, LEGACY, "tools/call", "{\"content\":[],\"_meta\":{\"a\":1},\"structuredContent\":{\"b\":2}}",
                  "{\"content\":[],\"structuredContent\":{\"b\":2},\"_meta\":{\"a\":1}}" },
                { MODERN, LEGACY, "tools/call", "{" COMPLETE ",\"content\":[],\"structuredContent\":[1,2]}",
                  "{\"content\":[]}" },
                { MODERN, LEGACY, "prompts/get", "{" COMPLETE ",\"messages\":[],\"ttlMs\":1}",
                  "{\"messages\":[],\"ttlMs\":1}" },
                { MODERN, LEGACY, "prompts/list", "{" COMPLETE ",\"prompts\":[],\"ttlMs\":1,\"cacheScope\":\"public\"}",
                  "{\"prompts\":[]}" },
                { MODERN, LEGACY, "tools/list",
                  "{" COMPLETE ",\"nextCursor\":\"n\",\"tools\":[" TOOL("") "," TOOL(
                          ",\"outputSchema\":{\"type\":"
                          "\"object\"}") "," TOOL(",\"outputSchema\":{\"type\":\"array\"}") "," TOOL(",\"outputSchema\""
                                                                                                     ":{}") "],"
                                                                                                            "\"ttlMs\":"
                                                                                                            "1,"
                                                                                                            "\"cacheSco"
                                                                                                            "pe\":"
                                                                                                            "\"public\""
                                                                                                            "}",
                  "{\"nextCursor\":\"n\",\"tools\":[" TOOL("") "," TOOL(
                          ",\"outputSchema\":{\"type\":\"object\"}") "," TOOL("") "," TOOL("") "]}" },
                { MODERN, LEGACY, "tools/list", "{" COMPLETE ",\"tools\":[]}", "{\"tools\":[]}" },
                { MODERN, LEGACY, "tools/list", "{" COMPLETE ",\"tools\":7}", "{\"tools\":7}" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Buffer buffer = {};
                McpMessage message;

                assert_number(mcp_append_client_result(&buffer, piece("\"i\""), rows[i].method, piece(rows[i].result),
                                                       rows[i].worker, rows[i].client, piece(INFO)),
                              0);
                assert_number(mcp_parse(buffer_data(&buffer), buffer_size(&buffer), 64, &message, NULL), 0);
                assert_number(message.kind, MCP_RESULT);
                assert_slice(message.id, "\"i\"");
                assert_slice(message.result, rows[i].wanted);
                buffer_done(&buffer);
        }
}

static void test_results_refused(void) {
        static const char *const results[] = { "[]", "null", "\"x\"", "1" };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(results); i++)
                assert_number(mcp_append_client_result(&buffer, piece("1"), "tools/call", piece(results[i]), LEGACY,
                                                       MODERN, piece(NULL)),
                              -EINVAL);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);
}

static void test_methods(void) {
        assert_true(mcp_method_cacheable("tools/list") && mcp_method_cacheable("prompts/list") &&
                    mcp_method_cacheable("resources/list") && mcp_method_cacheable("resources/templates/list") &&
                    mcp_method_cacheable("resources/read") && mcp_method_cacheable("server/discover"));
        assert_false(mcp_method_cacheable("tools/call") || mcp_method_cacheable("prompts/get") ||
                     mcp_method_cacheable("tasks/list"));
        assert_true(mcp_method_asks("tools/call") && mcp_method_asks("prompts/get") &&
                    mcp_method_asks("resources/read"));
        assert_false(mcp_method_asks("tools/list") || mcp_method_asks("completion/complete"));
}

int main(void) {
        test_negotiation();
        test_initialize_params();
        test_modern_requests();
        test_errors();
        test_initialize_results();
        test_discover_results();
        test_hello_has();
        test_params();
        test_params_of_silent_client();
        test_forwardable();
        test_result_types();
        test_results();
        test_results_refused();
        test_methods();
        return 0;
}
