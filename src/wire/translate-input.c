/* What a server asks of the client in the midst of a call: a request in one era, a result in the other */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "wire/meta.h"
#include "wire/translate.h"

static bool can_be_asked(JsonSlice method) {
        return json_equal(method, "elicitation/create") || json_equal(method, "roots/list") ||
               json_equal(method, "sampling/createMessage");
}

static int read_asks(JsonSlice requests, McpAsk asks[static MCP_ASKS_MAX], size_t *n, const char **reason) {
        const char *position = NULL;
        JsonSlice key, request;

        while (json_next_member(requests, &position, &key, &request)) {
                McpAsk ask = { key, json_get(request, "method"), json_get(request, "params") };

                *reason = "inputRequests has too many requests";
                if (*n == MCP_ASKS_MAX)
                        return -EINVAL;
                *reason = "inputRequests has a key that is too long";
                if (key.size > RPC_ID_MAX)
                        return -EINVAL;
                *reason = "inputRequests has a request that clients don't know";
                if (!can_be_asked(ask.method))
                        return -EINVAL;
                *reason = "inputRequests has a request without params";
                if (!json_is(ask.params, '{') && (ask.params.data || !json_equal(ask.method, "roots/list")))
                        return -EINVAL;

                *reason = "inputRequests has a key twice";
                for (size_t i = 0; i < *n; i++)
                        if (asks[i].key.size == key.size && memcmp(asks[i].key.data, key.data, key.size) == 0)
                                return -EINVAL;

                asks[(*n)++] = ask;
        }

        return 0;
}

int mcp_read_input_required(JsonSlice result, McpAsk asks[static MCP_ASKS_MAX], size_t *ret_n, JsonSlice *ret_state,
                            const char **reason) {
        JsonSlice requests = json_get(result, "inputRequests"), state = json_get(result, "requestState");
        size_t n = 0;
        int r;

        *reason = "inputRequests has to be an object";
        if (requests.data && !json_is(requests, '{'))
                return -EINVAL;
        *reason = "requestState has to be a string";
        if (state.data && !json_is(state, '"'))
                return -EINVAL;
        *reason = "it has neither inputRequests nor requestState";
        if (!requests.data && !state.data)
                return -EINVAL;

        r = read_asks(requests, asks, &n, reason);
        if (r < 0)
                return r;

        *ret_n = n;
        *ret_state = state;
        return 0;
}

static bool by_url(const McpAsk *ask) {
        return json_equal(ask->method, "elicitation/create") && json_equal(json_get(ask->params, "mode"), "url");
}

int mcp_append_ask(Buffer *buffer, JsonPiece id, const McpAsk *ask, const JsonTraits *traits) {
        JsonPiece params = { ask->params, traits }, method = { ask->method, traits };
        Buffer changed = {}, elicitation = {};
        int r = 0;

        if (by_url(ask)) {
                bool quoted = json_is(id.text, '"');

                if (!quoted)
                        r = buffer_append(&elicitation, "\"", 1);
                if (r >= 0)
                        r = buffer_append(&elicitation, id.text.data, id.text.size);
                if (r >= 0 && !quoted)
                        r = buffer_append(&elicitation, "\"", 1);
                if (r >= 0) {
                        const JsonChange change = {
                                .name = "elicitationId",
                                .kind = JSON_SET,
                                .value = { { buffer_data(&elicitation), buffer_size(&elicitation) }, id.traits },
                        };

                        r = json_append_changed(&changed, params, &change, 1);
                }
                params = (JsonPiece){ { buffer_data(&changed), buffer_size(&changed) }, NULL };
        }

        if (r >= 0)
                r = rpc_append_request(buffer, id, method, params, (JsonPiece){});
        buffer_done(&changed);
        buffer_done(&elicitation);
        return r;
}

static int append_keyed(Buffer *buffer, bool *first, JsonPiece key, JsonPiece value) {
        static const JsonTraits none = {};
        size_t before = buffer_size(buffer);
        int r = 0;

        if (!*first)
                r = buffer_append(buffer, ",", 1);
        if (r >= 0)
                r = json_append(buffer, key.text, key.traits ?: &none);
        if (r >= 0)
                r = buffer_append(buffer, ":", 1);
        if (r >= 0)
                r = json_append(buffer, value.text, value.traits ?: &none);

        if (r < 0)
                buffer_truncate(buffer, before);
        else
                *first = false;
        return r;
}

int mcp_append_input_response(Buffer *buffer, bool *first, const McpAsk *ask, const JsonTraits *ask_traits,
                              JsonPiece result) {
        static const JsonPiece cancelled = JSON_LITERAL("{\"action\":\"cancel\"}"),
                               no_roots = JSON_LITERAL("{\"roots\":[]}");

        if (!json_is(result.text, '{')) {
                if (json_equal(ask->method, "elicitation/create"))
                        result = cancelled;
                else if (json_equal(ask->method, "roots/list"))
                        result = no_roots;
                else
                        return -EINVAL;
        }

        return append_keyed(buffer, first, (JsonPiece){ ask->key, ask_traits }, result);
}

int mcp_append_repeat_params(Buffer *buffer, const McpParams *params, JsonPiece responses, JsonPiece state) {
        const JsonChange changes[] = {
                { .name = "inputResponses", .kind = responses.text.data ? JSON_SET : JSON_REMOVE, .value = responses },
                { .name = "requestState", .kind = state.text.data ? JSON_SET : JSON_REMOVE, .value = state },
        };

        return json_append_changed(buffer, (JsonPiece){ params->text, &params->traits }, changes, ELEMENTSOF(changes));
}

/* A legacy worker's request as a modern client knows it */
static int append_ask_for_modern(Buffer *buffer, const McpAsk *ask, const JsonTraits *traits) {
        static const JsonChange meta[] = {
                { .name = "progressToken", .kind = JSON_REMOVE },
                { .name = META_RELATED_TASK, .kind = JSON_REMOVE },
        };
        static const JsonChange params[] = {
                { .name = "_meta", .kind = JSON_INSIDE, .inside = meta, .n_inside = ELEMENTSOF(meta) },
                { .name = "elicitationId", .kind = JSON_REMOVE },
                { .name = "task", .kind = JSON_REMOVE },
        };
        int r;

        r = buffer_append_string(buffer, "{\"method\":");
        if (r >= 0)
                r = json_append(buffer, ask->method, traits);
        if (r >= 0 && json_is(ask->params, '{')) {
                r = buffer_append_string(buffer, ",\"params\":");
                if (r >= 0)
                        r = json_append_changed(buffer, (JsonPiece){ ask->params, traits }, params, ELEMENTSOF(params));
        }
        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        return r;
}

int mcp_append_input_required(Buffer *buffer, JsonPiece id, const McpAsk *asks, const JsonTraits *const *traits,
                              size_t n_asks, const char *state) {
        Buffer requests = {}, quoted = {}, ask = {};
        bool first = true;
        int r;

        r = buffer_append(&requests, "{", 1);
        for (size_t i = 0; i < n_asks && r >= 0; i++) {
                buffer_truncate(&ask, 0);
                r = append_ask_for_modern(&ask, &asks[i], traits[i]);
                if (r >= 0)
                        r = append_keyed(&requests, &first, (JsonPiece){ asks[i].key, traits[i] },
                                         (JsonPiece){ { buffer_data(&ask), buffer_size(&ask) }, NULL });
        }
        if (r >= 0)
                r = buffer_append(&requests, "}", 1);
        if (r >= 0 && state)
                r = json_append_quoted(&quoted, state, strlen(state));
        if (r >= 0) {
                const JsonChange changes[] = {
                        { .name = "resultType", .kind = JSON_SET, .value = JSON_LITERAL("\"input_required\"") },
                        { .name = "inputRequests",
                          .kind = JSON_SET,
                          .value = { { buffer_data(&requests), buffer_size(&requests) }, NULL } },
                        { .name = "requestState",
                          .kind = JSON_SET,
                          .value = { { buffer_data(&quoted), buffer_size(&quoted) }, NULL } },
                };

                r = rpc_append_result_changed(buffer, id, (JsonPiece){}, changes, ELEMENTSOF(changes));
        }

        buffer_done(&ask);
        buffer_done(&quoted);
        buffer_done(&requests);
        return r;
}

int mcp_append_url_elicitations(Buffer *buffer, JsonPiece id, JsonPiece error) {
        static const JsonTraits none = {};
        JsonSlice list = json_get(json_get(error.text, "data"), "elicitations"), element;
        char keys[MCP_ASKS_MAX][8];
        const JsonTraits *traits[MCP_ASKS_MAX];
        McpAsk asks[MCP_ASKS_MAX];
        const char *position = NULL;
        size_t n = 0;

        while (json_is(list, '[') && json_next_element(list, &position, &element)) {
                int size;

                if (n == MCP_ASKS_MAX || !json_is(element, '{') || !json_equal(json_get(element, "mode"), "url"))
                        return -EINVAL;

                size = snprintf(keys[n], sizeof(keys[n]), "\"%zu\"", n + 1);
                asks[n] = (McpAsk){ { keys[n], size }, { "\"elicitation/create\"", 20 }, element };
                traits[n] = error.traits ?: &none;
                n++;
        }
        if (n == 0)
                return -EINVAL;

        return mcp_append_input_required(buffer, id, asks, traits, n, NULL);
}

int mcp_read_retry(JsonSlice params, JsonSlice *ret_responses, JsonSlice *ret_state, const char **reason) {
        JsonSlice responses = json_get(params, "inputResponses"), state = json_get(params, "requestState");

        *reason = "inputResponses has to be an object";
        if (responses.data && !json_is(responses, '{'))
                return -EINVAL;
        *reason = "requestState has to be a string";
        if (state.data && !json_is(state, '"'))
                return -EINVAL;

        *ret_responses = responses;
        *ret_state = state;
        return responses.data || state.data;
}

int mcp_append_response_of(Buffer *buffer, JsonPiece id, JsonPiece responses, const char *key) {
        JsonPiece response = { json_get(responses.text, key), responses.traits };
        int r;

        if (!json_is(response.text, '{'))
                return 0;

        r = rpc_append_result(buffer, id, response);
        return r < 0 ? r : 1;
}
