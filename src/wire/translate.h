#pragma once

#include "wire/profile.h"
#include "wire/rpc.h"

/* Between clients and workers of different eras. What isn't said here to change goes through byte for byte.
 *
 * All that appends returns 0 or -ENOMEM, and the buffer is as it was then; -EINVAL where it says so. */

/* --- Who they are ------------------------------------------------------------------------------------------------- */

/* Of a session's client, as it stands in McpParams of its requests. Owned by the session; what the slices point to
 * needs no change on its way (json_append() wrote it). */
struct McpClient {
        McpEra era;          /* LEGACY or MODERN */
        const char *version; /* static: the one agreed on */
        McpProfile profile;  /* LEGACY: of its initialize. MODERN: each request has its own */
        JsonSlice info;      /* LEGACY: clientInfo, an object, or nothing */
        McpLevel level;      /* LEGACY: of its logging/setLevel, or NONE */
};

/* What a worker said of itself: the result of initialize or of server/discover */
typedef struct McpHello {
        McpEra era;
        JsonPiece result;
        const char *name; /* the server's, in case that it doesn't say one */
} McpHello;

/* The version for a legacy client that asked for requested: that one where it is supported, else the latest legacy one.
 * Static. */
const char *mcp_negotiate(JsonSlice requested);

/* What the params of a client's initialize say: 0, with the version agreed on and clientInfo, where it is an object,
 * pointing into params; -EINVAL with *reason (static) where they lack protocolVersion (a string) or capabilities (an
 * object), which is INVALID_PARAMS. */
int mcp_read_initialize(JsonSlice params, const char **ret_version, McpProfile *ret_profile, JsonSlice *ret_info,
                        const char **reason);

/* Whether a client's request says in its _meta that it is one of the stateless era. */
bool mcp_is_modern_request(const McpParams *params);

/* Checks what every request of a modern client has to carry, and reads what its client can do. 0; else the code to
 * refuse it with: INVALID_PARAMS with *reason (static), or UNSUPPORTED_VERSION: see mcp_append_unsupported(). */
int mcp_read_modern(const McpParams *params, McpProfile *ret_profile, McpLevel *ret_level, const char **reason);

/* The answer to a request for a version that isn't supported: requested is a JSON string, or nothing. */
int mcp_append_unsupported(Buffer *buffer, JsonPiece id, JsonPiece requested);

/* The answer to a request that needs what its client doesn't declare. */
int mcp_append_missing_capability(Buffer *buffer, JsonPiece id, McpProfile missing);

/* The result of initialize for a legacy client: with the version agreed on, and what the server offers less what can't
 * be translated for this client. */
int mcp_append_initialize_result(Buffer *buffer, const McpHello *hello, const char *version);

/* The result of server/discover for a modern client. */
int mcp_append_discover_result(Buffer *buffer, const McpHello *hello);

/* Whether a server declares a capability, as "tools", or part of one, as "resources" and "subscribe" (part may be
 * NULL).
 */
bool mcp_hello_has(const McpHello *hello, const char *capability, const char *part);

/* What a server calls itself, an object, or nothing: for mcp_append_client_result() */
JsonSlice mcp_hello_server_info(const McpHello *hello);

/* --- Requests ----------------------------------------------------------------------------------------------------- */

/* Appends the member params of a request, and the comma in front of it; nothing where there are none. What
 * mcp_append_request() calls, for requests of the bus and of sessions (params->client).
 *
 * MODERN worker: _meta gets the version, the capabilities (a legacy client's from its profile), clientInfo and, of a
 * legacy client, logLevel; a legacy client's task is dropped. LEGACY worker: a modern client's io.modelcontextprotocol/
 * protocolVersion, clientInfo, clientCapabilities and logLevel, inputResponses and requestState are dropped. In any
 * case the progress token, where there is one or the method is tools/call, is id. */
int mcp_append_params(Buffer *buffer, uint64_t id, McpEra worker, const char *method, const McpParams *params);

/* Whether a client's request can be forwarded to a worker of that era. 0, or the code to refuse it with, and *reason
 * (static): for methods that the client's own era doesn't have, and between the eras for those that the broker serves
 * itself or not at all (ping, initialize, logging/setLevel, resources/subscribe and unsubscribe, server/discover,
 * subscriptions/listen, tasks of the one or the other kind). */
int mcp_forwardable(const char *method, McpEra client, McpEra worker, const char **reason);

/* --- Results ------------------------------------------------------------------------------------------------------ */

typedef enum McpResultType {
        MCP_RESULT_COMPLETE, /* also where there is none */
        MCP_RESULT_INPUT_REQUIRED,
        MCP_RESULT_TASK,
        MCP_RESULT_UNKNOWN, /* invalid, also what is no object */
} McpResultType;

/* Of a MODERN worker's result; a LEGACY one's is always complete. */
McpResultType mcp_result_type(JsonSlice result, McpEra worker);

/* Whether server/discover, a list, or resources/read: what has ttlMs and cacheScope. */
bool mcp_method_cacheable(const char *method);

/* Whether a result of the method may be input_required: tools/call, prompts/get, resources/read. */
bool mcp_method_asks(const char *method);

/* Appends the answer to a client's request: a complete result (or a task) of a worker of another or of the same era.
 * A modern client gets resultType, ttlMs 0 and cacheScope private where they are due and a legacy worker said none, and
 * serverInfo (an object, or nothing) in _meta. A legacy client gets none of these, no structuredContent and no
 * outputSchema that are none of an object, which its revision forbids. -EINVAL where result is no object. */
int mcp_append_client_result(Buffer *buffer, JsonPiece id, const char *method, JsonPiece result, McpEra worker,
                             McpEra client, JsonPiece server_info);

/* --- input_required ----------------------------------------------------------------------------------------------- */

/* A server's request for something of the client's: one that a legacy worker sent, or one of inputRequests. */
typedef struct McpAsk {
        JsonSlice key; /* the key of inputRequests, a JSON string; of a legacy worker's request: nothing */
        JsonSlice method, params;
} McpAsk;

#define MCP_ASKS_MAX 32 /* in one result */

/* Reads a MODERN worker's input_required result: the number of requests in *ret_asks, at most MCP_ASKS_MAX, and its
 * requestState, a JSON string, or nothing. -EINVAL with *reason (static) where it isn't well-formed: neither of the two
 * is there, a key stands twice, too many, a method that isn't one of the three, params that are no object. */
int mcp_read_input_required(JsonSlice result, McpAsk asks[static MCP_ASKS_MAX], size_t *ret_n, JsonSlice *ret_state,
                            const char **reason);

/* Appends the request to a legacy client that stands for one of a modern worker's inputRequests: id is the session's
 * own. An elicitation of mode url gets an elicitationId, which its revision wants: the id again, as a string. */
int mcp_append_ask(Buffer *buffer, JsonPiece id, const McpAsk *ask, const JsonTraits *traits);

/* Appends, to inputResponses that are being collected, what a legacy client answered: its result; where it answered
 * with an error, what the server may take for a refusal: an elicitation is cancelled, roots are none. -EINVAL where
 * there is no such word: a refused sampling fails the call. *first as json_append_member() has it. */
int mcp_append_input_response(Buffer *buffer, bool *first, const McpAsk *ask, const JsonTraits *ask_traits,
                              JsonPiece result);

/* Appends the params with which a call is asked again: those of the first time, with inputResponses (an object) and
 * requestState (a string, or nothing) in place of what they had there. */
int mcp_append_repeat_params(Buffer *buffer, const McpParams *params, JsonPiece responses, JsonPiece state);

/* Appends the input_required result for a modern client whose call a legacy worker holds: its requests under the keys
 * that are given, and the broker's own requestState (printable ASCII). */
int mcp_append_input_required(Buffer *buffer, JsonPiece id, const McpAsk *asks, const JsonTraits *const *traits,
                              size_t n_asks, const char *state);

/* Appends the input_required result that stands for a legacy worker's error URL_ELICITATION_NEEDED: the elicitations
 * are asked, and the client comes again. -EINVAL where the error has none. */
int mcp_append_url_elicitations(Buffer *buffer, JsonPiece id, JsonPiece error);

/* Whether a modern client's request is the second half of one: 1, with its inputResponses (an object) and requestState
 * (a string), either of which may be nothing; 0: it is a first one; -EINVAL with *reason (static) where they have other
 * types, which is INVALID_PARAMS. */
int mcp_read_retry(JsonSlice params, JsonSlice *ret_responses, JsonSlice *ret_state, const char **reason);

/* Appends the answer to a legacy worker's request out of inputResponses: 1, or 0 where key isn't there. */
int mcp_append_response_of(Buffer *buffer, JsonPiece id, JsonPiece responses, const char *key);
