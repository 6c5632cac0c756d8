#include "base/macro.h"
#include "unit.h"
#include "wire/protocol.h"

static const WireProtocol *const protocols[] = { &mcp_protocol, &control_protocol, &lines_protocol, &once_protocol };

static McpParams read_params(const WireProtocol *protocol, const char *text) {
        McpParams params;
        JsonError error;

        assert_number(protocol->read_params(text, strlen(text), 64, &params, &error), 0);
        return params;
}

/* What is written for a call, as one string */
static void assert_request(const WireProtocol *protocol, const char *method, const char *tool, const char *params,
                           const char *wanted) {
        McpParams read = read_params(protocol, params);
        Buffer buffer = {};

        read.tool = tool;
        assert_number(protocol->append_request(&buffer, 7, MCP_ERA_AUTO, method, &read), 0);
        assert_bytes(buffer_data(&buffer), buffer_size(&buffer), wanted, strlen(wanted));
        buffer_done(&buffer);
}

static void test_requests(void) {
        assert_request(&lines_protocol, "any", NULL, "{\"a\":\n1}", "{\"a\":1}\n");
        assert_request(&lines_protocol, "any", NULL, "\"2 + 2\"", "2 + 2\n");
        assert_request(&lines_protocol, "any", NULL, "", "\n");
        assert_request(&lines_protocol, "tools/call", "t", " [1, 2] ", "[1, 2]\n");
        assert_request(&once_protocol, "any", NULL, "\"two\\nlines\"", "two\nlines");
        assert_request(&once_protocol, "any", NULL, "{}", "{}\n");
        assert_request(&once_protocol, "any", NULL, "", "");
        assert_request(&control_protocol, "status", NULL, "",
                       "{\"type\":\"control_request\",\"request_id\":\"7\",\"request\":{\"subtype\":\"status\"}}\n");
        assert_request(
                &control_protocol, "a\"b", NULL, "{\"x\":1,\"subtype\":2,\n\"y\":[\n]}",
                "{\"type\":\"control_request\",\"request_id\":\"7\",\"request\":{\"subtype\":\"a\\u0022b\",\"x\":1,"
                "\"y\":[]}}\n");
        assert_request(&control_protocol, "tools/call", "t", "",
                       "{\"type\":\"control_request\",\"request_id\":\"7\",\"request\":{\"subtype\":\"tools/call\","
                       "\"name\":\"t\",\"arguments\":{}}}\n");
}

/* A string with a line's end can't be one line. */
static void test_one_line(void) {
        McpParams params = read_params(&once_protocol, "\"two\\nlines\"");
        Buffer buffer = {};
        JsonError error;

        assert_number(lines_protocol.read_params(params.text.data, params.text.size, 64, &params, &error), -EINVAL);
        assert_number(buffer_append_string(&buffer, "before"), 0);
        assert_number(lines_protocol.append_request(&buffer, 1, MCP_ERA_AUTO, "any", &params), -EINVAL);
        assert_bytes(buffer_data(&buffer), buffer_size(&buffer), "before", 6);
        buffer_done(&buffer);
}

static void test_params(void) {
        JsonError error;
        McpParams params;

        for (size_t i = 0; i < ELEMENTSOF(protocols); i++) {
                assert_number(protocols[i]->read_params("{\"a\"", 4, 64, &params, &error), -EBADMSG);
                assert_number(protocols[i]->read_params("[[[]]]", 6, 2, &params, &error), -E2BIG);
                assert_number(protocols[i]->read_params("", 0, 64, &params, &error), 0);
        }
        assert_number(control_protocol.read_params("[]", 2, 64, &params, &error), -EINVAL);
        assert_number(lines_protocol.read_params("[]", 2, 64, &params, &error), 0);
}

static McpMessage parse(const char *line) {
        McpMessage message;
        JsonError error;

        assert_number(control_protocol.parse(line, strlen(line), 64, &message, &error), 0);
        return message;
}

static void test_control_answers(void) {
        static const struct {
                const char *line;
                McpKind kind;
                const char *text;
        } rows[] = {
                { "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"7\","
                  "\"response\":{"
                  "\"a\":1}}}",
                  MCP_RESULT, "{\"a\":1}" },
                { "{\"type\":\"control_response\",\"subtype\":\"success\",\"request_id\":\"7\",\"response\":[1]} ",
                  MCP_RESULT, "[1]" },
                { "{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"7\"}}",
                  MCP_RESULT, "{}" },
                { "{\"type\":\"control_response\",\"response\":{\"subtype\":\"error\",\"request_id\":\"7\",\"error\":"
                  "\"no\"}}",
                  MCP_ERROR, "\"no\"" },
                { "{\"type\":\"control_response\",\"subtype\":\"error\",\"request_id\":\"7\"}", MCP_ERROR, "\"\"" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                McpMessage message = parse(rows[i].line);
                JsonSlice text = rows[i].kind == MCP_RESULT ? message.result : message.error;

                assert_number(message.kind, rows[i].kind);
                assert_true(message.ours);
                assert_number(message.number, 7);
                assert_bytes(text.data, text.size, rows[i].text, strlen(rows[i].text));
        }
}

static void test_control_others(void) {
        static const char *const noise[] = { "1",
                                             "[]",
                                             "{}",
                                             "{\"type\":1}",
                                             "{\"type\":\"\"}",
                                             "{\"type\":\"control_request\",\"request_id\":\"1\"}",
                                             "{\"type\":\"a\",\"type\":\"b\"}",
                                             "{\"type\":\"control_response\",\"response\":{\"request_id\":\"7\"}}" };
        McpMessage message = parse(" {\"type\":\"system\",\"x\":1}");

        assert_number(message.kind, MCP_NOTIFICATION);
        assert_bytes(message.method.data, message.method.size, "\"system\"", 8);
        assert_bytes(message.params.data, message.params.size, "{\"type\":\"system\",\"x\":1}", 23);

        for (size_t i = 0; i < ELEMENTSOF(noise); i++)
                assert_number(parse(noise[i]).kind, MCP_NOISE);

        /* An id that isn't one of ours is nobody's answer. */
        assert_false(parse("{\"type\":\"control_response\",\"subtype\":\"success\",\"request_id\":7}").ours);
        assert_false(parse("{\"type\":\"control_response\",\"subtype\":\"success\",\"request_id\":\"x\"}").ours);
}

/* Whose answer a line was meant to be that can't be parsed */
static void test_control_ids(void) {
        static const struct {
                const char *line;
                uint64_t number; /* 0: nobody's */
        } rows[] = {
                { "{\"type\":\"control_response\",\"response\":{\"request_id\":\"7\",\"response\":01}}", 7 },
                { " {\"request_id\" : \"7\", \"x\":[01], \"type\" : \"control_response\"}\r", 7 },
                { "{\"type\":\"control_response\",\"request_id\":\"8\",\"response\":{\"request_id\":\"7\"}}", 7 },
                { "{\"type\":\"control_response\",\"response\":{\"x\":{\"request_id\":\"9\"},\"request_id\":\"7\"}}",
                  7 },
                { "{\"type\":\"control_response\",\"response\":{\"response\":\"\\\"request_id\\\"\",\"request_id\":"
                  "\"7\"}}",
                  7 },
                { "{\"type\":\"control_response\",\"response\":[{\"request_id\":\"9\"}],\"request_id\":\"7\"}", 7 },
                { "{\"type\":\"control_response\",\"request_id\":\"8\",\"response\":{\"request_id\":7}}", 0 },
                { "{\"type\":\"control_response\",\"response\":{\"request_id\":\"7\"", 0 },
                { "{\"type\":\"control_response\",\"request_id\":\"7\"} x", 0 },
                { "[{\"type\":\"control_response\",\"request_id\":\"7\"}]", 0 },
                { "{\"type\":\"report\",\"request_id\":\"7\",\"x\":01}", 0 },
                { "{\"type\":\"control_response\",\"id\":7,\"result\":01}", 0 },
                { "{\"type\":\"control_response\",\"request_id\":\"0000000000000000000000000007\"}", 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                for (size_t step = 1; step < 5; step++) {
                        size_t size = strlen(rows[i].line);
                        uint64_t number = 0;
                        IdFinder finder = {};

                        for (size_t at = 0; at < size; at += step)
                                id_finder_feed(&finder, rows[i].line + at, MIN(step, size - at));
                        assert_number(control_protocol.found_id(&finder, &number), rows[i].number > 0);
                        assert_number(number, rows[i].number);
                }
}

static void assert_plain(const char *text, size_t size, const char *wanted) {
        Buffer scratch = {};
        JsonTraits traits;
        JsonSlice result;

        assert_number(plain_result(text, size, 64, &scratch, &result, &traits), 0);
        assert_bytes(result.data, result.size, wanted, strlen(wanted));
        buffer_done(&scratch);
}

static void test_plain_results(void) {
        assert_plain("4", 1, "4");
        assert_plain(" {\"a\": [1]}\n", 12, "{\"a\": [1]}");
        assert_plain("four\n", 5, "\"four\\u000a\"");
        assert_plain("", 0, "\"\"");
        assert_plain("a\0b\xff", 4, "\"a\\u0000b\xef\xbf\xbd\"");
        assert_plain("\xef\xbf\xbe \xf4\x8f\xbf\xbf", 8, "\"\\ufffe \\udbff\\udfff\"");
}

int main(void) {
        test_requests();
        test_one_line();
        test_params();
        test_control_answers();
        test_control_others();
        test_control_ids();
        test_plain_results();
        return 0;
}
