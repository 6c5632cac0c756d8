#include <errno.h>

#include "wire.h"
#include "wire/meta.h"
#include "wire/subscription.h"
#include "wire/task.h"
#include "wire/translate.h"

static const JsonTraits none = {};

static void test_read(void) {
        McpAsk asks[MCP_ASKS_MAX];
        const char *reason;
        JsonSlice state;
        size_t n;

        /* The specification's own example */
        assert_number(
                mcp_read_input_required(
                        slice("{\"resultType\":\"input_required\",\"inputRequests\":{\"github_login\":{\"method\":"
                              "\"elicitation/create\",\"params\":{\"message\":\"m\",\"requestedSchema\":{}}},"
                              "\"capital_of_france\":{\"method\":\"sampling/createMessage\",\"params\":{"
                              "\"messages\":[],\"maxTokens\":100}},\"r\":{\"method\":\"roots/list\"}},"
                              "\"requestState\":\"eyJs\"}"),
                        asks, &n, &state, &reason),
                0);
        assert_number(n, 3);
        assert_slice(state, "\"eyJs\"");
        assert_slice(asks[0].key, "\"github_login\"");
        assert_slice(asks[0].method, "\"elicitation/create\"");
        assert_slice(asks[0].params, "{\"message\":\"m\",\"requestedSchema\":{}}");
        assert_slice(asks[2].method, "\"roots/list\"");
        assert_slice(asks[2].params, NULL);

        assert_number(mcp_read_input_required(slice("{\"requestState\":\"x\"}"), asks, &n, &state, &reason), 0);
        assert_number(n, 0);
        assert_number(mcp_read_input_required(slice("{\"inputRequests\":{}}"), asks, &n, &state, &reason), 0);
        assert_number(n, 0);
        assert_slice(state, NULL);
}

static void test_read_refused(void) {
        static const char *const results[] = {
                "{}",
                "{\"inputRequests\":[]}",
                "{\"inputRequests\":{},\"requestState\":1}",
                "{\"inputRequests\":{\"a\":{}}}",
                "{\"inputRequests\":{\"a\":{\"method\":\"tools/call\",\"params\":{}}}}",
                "{\"inputRequests\":{\"a\":{\"method\":\"sampling/createMessage\"}}}",
                "{\"inputRequests\":{\"a\":{\"method\":\"elicitation/create\",\"params\":[]}}}",
                "{\"inputRequests\":{\"a\":{\"method\":\"roots/list\"},\"a\":{\"method\":\"roots/list\"}}}",
        };
        McpAsk asks[MCP_ASKS_MAX];
        Buffer buffer = {};
        const char *reason;
        JsonSlice state;
        size_t n;

        for (size_t i = 0; i < ELEMENTSOF(results); i++) {
                reason = NULL;
                assert_number(mcp_read_input_required(slice(results[i]), asks, &n, &state, &reason), -EINVAL);
                assert_true(reason);
        }

        assert_number(buffer_append_string(&buffer, "{\"inputRequests\":{"), 0);
        for (unsigned i = 0; i <= MCP_ASKS_MAX; i++) {
                char request[64];

                (void)snprintf(request, sizeof(request), "%s\"%u\":{\"method\":\"roots/list\"}", i > 0 ? "," : "", i);
                assert_number(buffer_append_string(&buffer, request), 0);
        }
        assert_number(buffer_append_string(&buffer, "}}"), 0);
        assert_number(mcp_read_input_required((JsonSlice){ buffer_data(&buffer), buffer_size(&buffer) }, asks, &n,
                                              &state, &reason),
                      -EINVAL);
        buffer_done(&buffer);
}

static void test_ask(void) {
        static const struct {
                const char *id, *method, *params, *wanted;
        } rows[] = {
                { "5", "\"roots/list\"", NULL, "\"id\":5,\"method\":\"roots/list\"" },
                { "5", "\"elicitation/create\"", "{\"message\":\"m\"}",
                  "\"id\":5,\"method\":\"elicitation/create\",\"params\":{\"message\":\"m\"}" },
                { "5", "\"elicitation/create\"", "{\"mode\":\"url\",\"url\":\"u\"}",
                  "\"id\":5,\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\",\"url\":\"u\","
                  "\"elicitationId\":\"5\"}" },
                { "\"q\"", "\"elicitation/create\"", "{\"mode\":\"url\",\"elicitationId\":1}",
                  "\"id\":\"q\",\"method\":\"elicitation/"
                  "create\",\"params\":{\"mode\":\"url\",\"elicitationId\":\"q\"}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const McpAsk ask = { slice("\"k\""), slice(rows[i].method), slice(rows[i].params) };
                char wanted[256];

                assert_number(mcp_append_ask(&buffer, piece(rows[i].id), &ask, &none), 0);
                (void)snprintf(wanted, sizeof(wanted), "{\"jsonrpc\":\"2.0\",%s}\n", rows[i].wanted);
                assert_appended(&buffer, wanted);
        }
        buffer_done(&buffer);
}

static void test_responses(void) {
        const McpAsk elicitation = { slice("\"e\""), slice("\"elicitation/create\""), {} },
                     roots = { slice("\"r\""), slice("\"roots/list\""), {} },
                     sampling = { slice("\"s\""), slice("\"sampling/createMessage\""), {} };
        Buffer buffer = {};
        bool first = true;

        start(&buffer);
        assert_number(buffer_append_string(&buffer, "{"), 0);
        assert_number(mcp_append_input_response(&buffer, &first, &elicitation, &none, piece("{\"action\":\"accept\"}")),
                      0);
        assert_number(mcp_append_input_response(&buffer, &first, &roots, &none, piece(NULL)), 0);
        assert_number(mcp_append_input_response(&buffer, &first, &elicitation, &none, piece("[]")), 0);
        assert_number(mcp_append_input_response(&buffer, &first, &sampling, &none, piece(NULL)), -EINVAL);
        assert_number(mcp_append_input_response(&buffer, &first, &sampling, &none, piece("{\"role\":\"user\"}")), 0);
        assert_number(buffer_append_string(&buffer, "}"), 0);
        assert_appended(&buffer, "{\"e\":{\"action\":\"accept\"},\"r\":{\"roots\":[]},\"e\":{\"action\":\"cancel\"},"
                                 "\"s\":{\"role\":\"user\"}}");
        buffer_done(&buffer);
}

static void test_repeat(void) {
        McpParams params;
        JsonError error;
        Buffer buffer = {};
        static const char text[] = "{\"name\":\"t\",\"requestState\":\"old\",\"inputResponses\":1,\"arguments\":{}}";

        assert_number(mcp_params_read(text, strlen(text), 64, &params, &error), 0);
        start(&buffer);
        assert_number(mcp_append_repeat_params(&buffer, &params, piece("{\"a\":{}}"), piece("\"new\"")), 0);
        assert_appended(&buffer,
                        "{\"name\":\"t\",\"arguments\":{},\"inputResponses\":{\"a\":{}},\"requestState\":\"new\"}");
        assert_number(mcp_append_repeat_params(&buffer, &params, piece(NULL), piece(NULL)), 0);
        assert_appended(&buffer, "{\"name\":\"t\",\"arguments\":{}}");
        buffer_done(&buffer);
}

/* What only means something in the old era doesn't get into the new one. */
static void test_input_required(void) {
        const McpAsk asks[] = {
                { slice("\"1\""), slice("\"elicitation/create\""),
                  slice("{\"mode\":\"url\",\"url\":\"u\",\"elicitationId\":\"e\",\"task\":{},\"_meta\":{"
                        "\"progressToken\":1,\"" META_RELATED_TASK "\":{\"taskId\":\"t\"}}}") },
                { slice("\"2\""), slice("\"roots/list\""), {} },
        };
        const JsonTraits *const traits[] = { &none, &none };
        Buffer buffer = {};

        start(&buffer);
        assert_number(mcp_append_input_required(&buffer, piece("9"), asks, traits, 2, "state"), 0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{\"resultType\":\"input_required\","
                        "\"inputRequests\":{\"1\":{\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\","
                        "\"url\":\"u\"}},\"2\":{\"method\":\"roots/list\"}},\"requestState\":\"state\"}}\n");
        buffer_done(&buffer);
}

static void test_url_elicitations(void) {
        static const char *const wrong[] = { "{}", "{\"data\":{\"elicitations\":[]}}",
                                             "{\"data\":{\"elicitations\":[{\"mode\":\"form\"}]}}",
                                             "{\"data\":{\"elicitations\":{\"a\":1}}}" };
        Buffer buffer = {};

        start(&buffer);
        assert_number(mcp_append_url_elicitations(
                              &buffer, piece("9"),
                              piece("{\"code\":-32042,\"message\":\"x\",\"data\":{\"elicitations\":[{\"mode\":\"url\","
                                    "\"elicitationId\":\"e\",\"url\":\"u\",\"message\":\"m\"}]}}")),
                      0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{\"resultType\":\"input_required\","
                        "\"inputRequests\":{\"1\":{\"method\":\"elicitation/create\",\"params\":{\"mode\":\"url\","
                        "\"url\":\"u\",\"message\":\"m\"}}}}}\n");
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                assert_number(mcp_append_url_elicitations(&buffer, piece("9"), piece(wrong[i])), -EINVAL);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);
}

static void test_retry(void) {
        JsonSlice responses, state;
        const char *reason = NULL;
        Buffer buffer = {};

        assert_number(mcp_read_retry(slice("{\"name\":\"t\"}"), &responses, &state, &reason), 0);
        assert_number(mcp_read_retry(slice("{\"requestState\":\"s\"}"), &responses, &state, &reason), 1);
        assert_slice(responses, NULL);
        assert_slice(state, "\"s\"");
        assert_number(
                mcp_read_retry(slice("{\"inputResponses\":{\"1\":{\"a\":1},\"2\":3}}"), &responses, &state, &reason),
                1);
        assert_slice(state, NULL);

        start(&buffer);
        assert_number(mcp_append_response_of(&buffer, piece("0"), (JsonPiece){ responses, NULL }, "1"), 1);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"a\":1}}\n");
        assert_number(mcp_append_response_of(&buffer, piece("0"), (JsonPiece){ responses, NULL }, "2"), 0);
        assert_number(mcp_append_response_of(&buffer, piece("0"), (JsonPiece){ responses, NULL }, "3"), 0);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);

        assert_number(mcp_read_retry(slice("{\"inputResponses\":[]}"), &responses, &state, &reason), -EINVAL);
        assert_number(mcp_read_retry(slice("{\"requestState\":{}}"), &responses, &state, &reason), -EINVAL);
}

static void test_filters(void) {
        static const char *const wrong[] = {
                "{}",
                "{\"notifications\":[]}",
                "{\"notifications\":{\"toolsListChanged\":1}}",
                "{\"notifications\":{\"resourceSubscriptions\":\"a:b\"}}",
                "{\"notifications\":{\"resourceSubscriptions\":[1]}}",
                "{\"notifications\":{\"taskIds\":{}}}",
        };
        const char *reason = NULL;
        McpFilter filter;
        Buffer buffer = {};

        start(&buffer);
        assert_number(
                mcp_filter_read(slice("{\"notifications\":{\"toolsListChanged\":true,\"promptsListChanged\":false,"
                                      "\"resourcesListChanged\":true,\"resourceSubscriptions\":[\"a:b\",\"c\"],"
                                      "\"taskIds\":[\"t\"],\"x\":1}}"),
                                &none, &filter, &reason),
                0);
        assert_number(filter.lists, MCP_LISTEN_TOOLS | MCP_LISTEN_RESOURCES);
        assert_number(mcp_append_acknowledged(&buffer, piece("\"i\""), &filter), 0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{"
                        "\"_meta\":{\"" META_SUBSCRIPTION "\":\"i\"},\"notifications\":{\"toolsListChanged\":true,"
                        "\"resourcesListChanged\":true,\"resourceSubscriptions\":[\"a:b\",\"c\"],"
                        "\"taskIds\":[\"t\"]}}}\n");

        mcp_filter_limit(&filter, slice("{\"tools\":{\"listChanged\":true},\"resources\":{\"subscribe\":true}}"),
                         MCP_ERA_LEGACY);
        assert_number(mcp_append_filter(&buffer, &filter), 0);
        assert_appended(&buffer, "{\"toolsListChanged\":true,\"resourceSubscriptions\":[\"a:b\",\"c\"]}");
        mcp_filter_limit(&filter, slice(NULL), MCP_ERA_MODERN);
        assert_number(mcp_append_filter(&buffer, &filter), 0);
        assert_appended(&buffer, "{}");

        assert_number(mcp_append_listen_end(&buffer, piece("3")), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"resultType\":\"complete\",\"_meta\":{"
                                 "\"" META_SUBSCRIPTION "\":3}}}\n");
        buffer_done(&buffer);

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                reason = NULL;
                assert_number(mcp_filter_read(slice(wrong[i]), &none, &filter, &reason), -EINVAL);
                assert_true(reason);
        }
}

static void test_notifications(void) {
        Buffer buffer = {};

        assert_number(mcp_list_changed(slice("\"notifications/tools/list_changed\"")), MCP_LISTEN_TOOLS);
        assert_number(mcp_list_changed(slice("\"notifications/resources/list_changed\"")), MCP_LISTEN_RESOURCES);
        assert_number(mcp_list_changed(slice("\"notifications/message\"")), 0);
        assert_slice(mcp_subscription_id(slice("{\"_meta\":{\"" META_SUBSCRIPTION "\":7}}")), "7");
        assert_slice(mcp_subscription_id(slice("{\"_meta\":7}")), NULL);
        assert_slice(mcp_subscription_id(slice(NULL)), NULL);

        start(&buffer);
        assert_number(mcp_append_subscribed(&buffer, piece("\"n\""),
                                            piece("{\"uri\":\"a:b\",\"_meta\":{"
                                                  "\"" META_SUBSCRIPTION "\":7,\"a\":1}}"),
                                            piece("\"mine\"")),
                      0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{\"uri\":\"a:b\",\"_meta\":{\"a\":1,"
                                 "\"" META_SUBSCRIPTION "\":\"mine\"}}}\n");
        assert_number(mcp_append_subscribed(&buffer, piece("\"n\""), piece(NULL), piece("1")), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{\"_meta\":{\"" META_SUBSCRIPTION
                                 "\":1}}}\n");
        assert_number(mcp_append_subscribed(&buffer, piece("\"n\""), piece("{\"_meta\":{\"" META_SUBSCRIPTION "\":7}}"),
                                            piece(NULL)),
                      0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{}}\n");
        assert_number(mcp_append_subscribed(&buffer, piece("\"n\""), piece(NULL), piece(NULL)), 0);
        assert_appended(&buffer, "{\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n");

        assert_number(mcp_append_progress(&buffer, piece("{\"progressToken\":77,\"progress\":1}"), piece("\"t\"")), 0);
        assert_appended(&buffer,
                        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1,"
                        "\"progressToken\":\"t\"}}\n");
        buffer_done(&buffer);
}

static bool is_mine(void *userdata, JsonSlice id) {
        return json_equal(id, userdata);
}

static void test_tasks(void) {
        Buffer buffer = {};

        assert_slice(mcp_task_of_params(slice("{\"taskId\":\"t\"}")), "\"t\"");
        assert_slice(mcp_task_of_params(slice("{\"taskId\":1}")), NULL);
        assert_slice(mcp_task_of_params(slice(NULL)), NULL);
        assert_slice(mcp_task_of_notification(slice("\"notifications/tasks/status\""), slice("{\"taskId\":\"t\"}")),
                     "\"t\"");
        assert_slice(mcp_task_of_notification(slice("\"notifications/tasks\""), slice("{\"taskId\":\"t\"}")), "\"t\"");
        assert_slice(mcp_task_of_notification(slice("\"notifications/message\""), slice("{\"taskId\":\"t\"}")), NULL);
        assert_slice(mcp_task_of_related(slice("{\"_meta\":{\"" META_RELATED_TASK "\":{\"taskId\":\"t\"}}}")), "\"t\"");
        assert_slice(mcp_task_of_related(slice("{\"_meta\":{}}")), NULL);

        assert_slice(mcp_task_created(slice("{\"task\":{\"taskId\":\"t\"}}"), MCP_ERA_LEGACY), "\"t\"");
        assert_slice(mcp_task_created(slice("{\"taskId\":\"t\",\"resultType\":\"task\"}"), MCP_ERA_LEGACY), NULL);
        assert_slice(mcp_task_created(slice("{\"taskId\":\"t\",\"resultType\":\"task\"}"), MCP_ERA_MODERN), "\"t\"");
        assert_slice(mcp_task_created(slice("{\"taskId\":\"t\",\"resultType\":\"complete\"}"), MCP_ERA_MODERN), NULL);

        assert_true(mcp_task_wanted(slice("{\"task\":{}}")));
        assert_false(mcp_task_wanted(slice("{\"task\":null}")));
        assert_true(mcp_method_of_tasks("tasks/get") && mcp_method_of_tasks("tasks/update"));
        assert_false(mcp_method_of_tasks("tasks/x") || mcp_method_of_tasks("tools/list"));

        start(&buffer);
        assert_number(
                mcp_append_task_list(&buffer,
                                     piece("{\"nextCursor\":\"n\",\"tasks\":[{\"taskId\":\"a\"},{\"taskId\":\"b\","
                                           "\"x\":1},{},7,{\"taskId\":\"b\"}]}"),
                                     is_mine, (void *)"b"),
                0);
        assert_appended(&buffer, "{\"nextCursor\":\"n\",\"tasks\":[{\"taskId\":\"b\",\"x\":1},{\"taskId\":\"b\"}]}");
        assert_number(mcp_append_task_list(&buffer, piece("{\"tasks\":[]}"), is_mine, (void *)"b"), 0);
        assert_appended(&buffer, "{\"tasks\":[]}");
        assert_number(mcp_append_task_list(&buffer, piece("{}"), is_mine, (void *)"b"), -EINVAL);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);
}

int main(void) {
        test_read();
        test_read_refused();
        test_ask();
        test_responses();
        test_repeat();
        test_input_required();
        test_url_elicitations();
        test_retry();
        test_filters();
        test_notifications();
        test_tasks();
        return 0;
}
