#include "fuzz.h"
#include "wire/rpc.h"
#include "written.h"

/* What a session's client says, one line */

#define DEPTH 64
#define EXTRA 256 /* the envelope */

static RpcKind find_id(const char *text, size_t size, size_t step, JsonSlice *ret, IdFinder *finder) {
        *finder = (IdFinder){};
        for (size_t i = 0; i < size; i += step)
                id_finder_feed(finder, text + i, MIN(step, size - i));

        return rpc_found_id(finder, ret);
}

/* Fed in any pieces it finds the same; and what a good message says, where its keys are plain. */
static void check_finder(const char *text, size_t size, const RpcInput *input) {
        IdFinder finder, other;
        JsonSlice id = {}, other_id = {};
        RpcKind kind = find_id(text, size, SIZE_MAX / 2, &id, &finder);

        for (size_t step = 1; step <= 9; step += 4) {
                assert_number(find_id(text, size, step, &other_id, &other), kind);
                assert_bytes(other_id.data, other_id.size, id.data, id.size);
        }
        assert_true(kind == RPC_NOISE || rpc_id_valid(id));

        if ((input->kind == RPC_REQUEST || input->kind == RPC_ANSWER) && !memchr(text, '\\', size) &&
            !input->message.traits.noncharacters && !input->message.result.data == !input->message.error.data) {
                assert_true(input->kind == RPC_REQUEST && kind == RPC_REQUEST);
                assert_bytes(id.data, id.size, input->message.id.data, input->message.id.size);
        }
}

static void check_id(JsonSlice id, const JsonTraits *traits) {
        const JsonPiece piece = { id, traits };
        McpMessage message;
        Buffer buffer = {};
        JsonTraits written = *traits;

        assert_true(rpc_id_valid(id));
        assert_number(rpc_append_result(&buffer, piece, (JsonPiece)JSON_LITERAL("{}")), 0);
        message = assert_line(&buffer, MCP_RESULT, id.size, &written, EXTRA);
        assert_true(message.id.size > 0);
        buffer_done(&buffer);

        assert_number(rpc_append_broker_error(&buffer, piece, RPC_BROKER, "x", "org.example.X"), 0);
        assert_line(&buffer, MCP_ERROR, id.size, &written, EXTRA);
        buffer_done(&buffer);

        assert_number(rpc_append_cancelled(&buffer, piece, (JsonPiece){}), 0);
        assert_line(&buffer, MCP_NOTIFICATION, id.size, &written, EXTRA);
        buffer_done(&buffer);
}

static void check_message(const RpcInput *input, size_t size) {
        const McpMessage *message = &input->message;
        const JsonPiece id = { message->id, &message->traits }, method = { message->method, &message->traits },
                        params = { message->params, &message->traits }, token = JSON_LITERAL("\"token\"");
        JsonSlice had = json_get(json_get(message->params, "_meta"), "progressToken");
        _cleanup_(freep) char *name = rpc_method_name(message->method);
        Buffer buffer = {};
        McpMessage written;

        assert_true(name);
        assert_true(message->method.size <= RPC_METHOD_MAX);
        assert_true(!message->params.data || json_is(message->params, '{'));

        assert_number(rpc_append_request(&buffer, id.text.data ? id : token, method, params, token), 0);
        written = assert_line(&buffer, MCP_REQUEST, size, &message->traits, EXTRA);
        if (had.data)
                assert_true(json_equal(json_get(json_get(written.params, "_meta"), "progressToken"), "token"));
        buffer_done(&buffer);

        assert_number(rpc_append_notification(&buffer, method, params, NULL, 0), 0);
        assert_line(&buffer, MCP_NOTIFICATION, size, &message->traits, EXTRA);
        buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = size > 0 ? (const char *)data : "";
        Buffer buffer = {};
        RpcInput input;

        rpc_read(text, size, DEPTH, &input);
        check_finder(text, size, &input);

        switch (input.kind) {
        case RPC_REQUEST:
                check_id(input.message.id, &input.message.traits);
                check_message(&input, size);
                break;
        case RPC_NOTIFICATION:
                assert_true(!input.message.id.data);
                check_message(&input, size);
                break;
        case RPC_ANSWER:
                check_id(input.message.id, &input.message.traits);
                if (input.message.error.data) {
                        assert_number(rpc_append_remote_error(&buffer, (JsonPiece)JSON_LITERAL("1"),
                                                              (JsonPiece){ input.message.error, &input.message.traits },
                                                              MCP_ERA_MODERN),
                                      0);
                        assert_line(&buffer, MCP_ERROR, size, &input.message.traits, EXTRA);
                }
                break;
        case RPC_BATCH:
                break;
        case RPC_WRONG:
                assert_true(input.reason && input.code < 0 && input.offset <= size);
                assert_true(!input.id.data || (input.id.data >= text && input.id.data + input.id.size <= text + size));
                if (input.id.data)
                        check_id(input.id, &input.message.traits);
                assert_number(rpc_append_error(&buffer, (JsonPiece){ input.id, &input.message.traits }, input.code,
                                               input.reason, (JsonPiece){}),
                              0);
                /* Without an id it is no answer to mcp_parse(). */
                assert_line(&buffer, input.id.data ? MCP_ERROR : MCP_NOISE, input.id.size, &input.message.traits,
                            EXTRA);
                break;
        case RPC_NOISE:
                break;
        }

        buffer_done(&buffer);
        return 0;
}
