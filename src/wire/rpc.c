#include "wire/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"

static bool is_space(char c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool rpc_id_valid(JsonSlice value) {
        size_t i = json_is(value, '-');

        if (value.size == 0 || value.size > RPC_ID_MAX)
                return false;
        if (json_is(value, '"'))
                return true;

        if (i == value.size)
                return false;
        for (; i < value.size; i++)
                if (value.data[i] < '0' || value.data[i] > '9')
                        return false;

        return true;
}

static void wrong(RpcInput *input, int code, const char *reason, size_t offset) {
        input->kind = RPC_WRONG;
        input->code = code;
        input->reason = reason;
        input->offset = offset;
}

/* Text that is no valid JSON, or nested too deep: the asker gets to know, if it can be told from what can be read. */
static void read_broken(const char *line, size_t size, bool too_deep, const JsonError *error, RpcInput *ret) {
        IdFinder finder = {};
        JsonSlice id;

        wrong(ret, too_deep ? RPC_INVALID_REQUEST : RPC_PARSE_ERROR, error->reason, error->offset);

        id_finder_feed(&finder, line, size);
        switch (rpc_found_id(&finder, &id)) {
        case RPC_REQUEST:
                ret->id.data = memmem(line, size, id.data, id.size);
                ret->id.size = id.size;
                break;
        case RPC_ANSWER:
                ret->kind = RPC_NOISE;
                break;
        default:
                break;
        }
}

/* Valid JSON that mcp_parse() takes for no message */
static void read_no_message(JsonSlice text, RpcInput *ret) {
        const char *position = NULL;
        JsonSlice element;

        if (json_is(text, '[')) {
                if (json_next_element(text, &position, &element))
                        ret->kind = RPC_BATCH;
                else
                        wrong(ret, RPC_INVALID_REQUEST, "an empty batch", 0);
                return;
        }

        if (!json_is(text, '{'))
                wrong(ret, RPC_INVALID_REQUEST, "a message has to be an object", 0);
        else if (!ret->message.method.data && (ret->message.result.data || ret->message.error.data))
                ret->reason = "an answer needs an id, and either result or error";
        else if (!ret->message.method.data)
                wrong(ret, RPC_INVALID_REQUEST, "method is missing", 0);
        else if (!json_is(ret->message.method, '"'))
                wrong(ret, RPC_INVALID_REQUEST, "method has to be a string", 0);
        else if (!rpc_id_valid(ret->message.id))
                wrong(ret, RPC_INVALID_REQUEST, "id has to be a string or an integer", 0);
        else
                wrong(ret, RPC_INVALID_REQUEST, "a member stands twice", 0);
}

static void read_params(RpcInput *input) {
        const McpMessage *message = &input->message;
        const char *reason;

        if (mcp_params_of(message->params, &message->traits, &input->params, &reason) < 0)
                wrong(input, RPC_INVALID_PARAMS, reason, 0);
}

static void read_request(RpcInput *ret) {
        if (!rpc_id_valid(ret->message.id)) {
                wrong(ret, RPC_INVALID_REQUEST, "id has to be a string or an integer, and not too long", 0);
                return;
        }

        ret->kind = RPC_REQUEST;
        if (!ret->message.versioned)
                wrong(ret, RPC_INVALID_REQUEST, "jsonrpc has to be \"2.0\"", 0);
        else if (ret->message.method.size > RPC_METHOD_MAX)
                wrong(ret, RPC_METHOD_NOT_FOUND, "Method not found: the name is too long", 0);
        else
                read_params(ret);
}

void rpc_read(const char *line, size_t size, unsigned depth_max, RpcInput *ret) {
        JsonSlice text = { line, size };
        JsonError error = {};
        int r;

        *ret = (RpcInput){ .kind = RPC_NOISE };

        while (text.size > 0 && is_space(*text.data)) {
                text.data++;
                text.size--;
        }
        if (text.size == 0)
                return;

        r = mcp_parse(line, size, depth_max, &ret->message, &error);
        if (r < 0) {
                read_broken(line, size, r == -E2BIG, &error, ret);
                return;
        }

        switch (ret->message.kind) {
        case MCP_REQUEST:
                read_request(ret);
                break;
        case MCP_NOTIFICATION:
                ret->kind = RPC_NOTIFICATION;
                if (ret->message.method.size > RPC_METHOD_MAX)
                        wrong(ret, RPC_METHOD_NOT_FOUND, "the method's name is too long", 0);
                else
                        read_params(ret);
                if (ret->kind == RPC_WRONG)
                        ret->kind = RPC_NOISE;
                break;
        case MCP_RESULT:
        case MCP_ERROR:
                ret->kind = rpc_id_valid(ret->message.id) ? RPC_ANSWER : RPC_NOISE;
                break;
        case MCP_NOISE:
                read_no_message(text, ret);
                break;
        }

        if (ret->kind == RPC_WRONG && rpc_id_valid(ret->message.id))
                ret->id = ret->message.id;
}

RpcKind rpc_found_id(const IdFinder *finder, JsonSlice *ret) {
        JsonSlice id = { finder->id, finder->id_size };
        JsonTraits traits;

        if (!id_finder_whole(finder) || finder->has_method == finder->has_outcome || !rpc_id_valid(id) ||
            json_scan(id.data, id.size, 1, NULL, 0, &traits, NULL) < 0 || traits.noncharacters)
                return RPC_NOISE;

        *ret = id;
        return finder->has_method ? RPC_REQUEST : RPC_ANSWER;
}
