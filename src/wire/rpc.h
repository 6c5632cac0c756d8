#pragma once

#include "wire/id-finder.h"
#include "wire/json-edit.h"
#include "wire/mcp.h"

/* JSON-RPC as a session speaks it: the other side is a client, whose ids are its own, and whose mistakes are answered
 * with the errors that the specification names. */

typedef enum RpcCode {
        RPC_PARSE_ERROR = -32700,
        RPC_INVALID_REQUEST = -32600,
        RPC_METHOD_NOT_FOUND = -32601,
        RPC_INVALID_PARAMS = -32602, /* also a cursor, a tool, a prompt, a level, a task that isn't there */
        RPC_INTERNAL_ERROR = -32603,
        RPC_BROKER = -32000,                 /* the broker's own, with data that says so */
        RPC_RESOURCE_NOT_FOUND = -32002,     /* to 2025-11-25; INVALID_PARAMS since */
        RPC_URL_ELICITATION_NEEDED = -32042, /* 2025-11-25 only */
        RPC_MISSING_CAPABILITY = -32021,     /* data.requiredCapabilities */
        RPC_UNSUPPORTED_VERSION = -32022,    /* data.supported, data.requested */
} RpcCode;

#define RPC_METHOD_MAX ((size_t)256) /* bytes of a method's name, its quotes included */

/* Whether value is a string or an integer (digits, maybe a minus in front), and at most RPC_ID_MAX bytes long. */
bool rpc_id_valid(JsonSlice value);

typedef enum RpcKind {
        RPC_REQUEST,
        RPC_NOTIFICATION,
        RPC_ANSWER, /* a result or an error */
        RPC_BATCH,  /* an array with something in it, which 2025-03-26 allows: its elements are read one by one */
        RPC_WRONG,  /* answered with code and reason, under id where that could be read */
        RPC_NOISE,  /* wrong as well, but what is no request must have no answer */
} RpcKind;

/* One line of a client. Its slices point into that. */
typedef struct RpcInput {
        RpcKind kind;
        McpMessage message; /* of a valid text */
        McpParams params;   /* of a request or notification: as mcp_params_read() gives them */
        JsonSlice id;       /* WRONG: the id to answer under, empty where it is not known */
        int code;
        const char *reason; /* static */
        size_t offset;      /* where in the line */
} RpcInput;

/* Reads a client's line, or an element of a batch: never fails.
 *
 * WRONG are: what is no valid JSON (PARSE_ERROR; with the id if it looks like a whole request); what is nested deeper
 * than depth_max, a request without "jsonrpc":"2.0" or with an id that is neither string nor integer or is too long, a
 * member that stands twice, an empty array, any other value (INVALID_REQUEST); params that are no object, or whose
 * _meta or name can be read in two ways (INVALID_PARAMS); a name of a method over its bound (METHOD_NOT_FOUND). NOISE
 * are: white space, and likewise wrong notifications and answers. */
void rpc_read(const char *line, size_t size, unsigned depth_max, RpcInput *ret);

/* At the end of a line: REQUEST or ANSWER, with its id, which points into finder, where the bytes look like the whole
 * object of one with a valid id; else NOISE. */
RpcKind rpc_found_id(const IdFinder *finder, JsonSlice *ret);

/* Each of these appends one message with its line's end. -ENOMEM: the buffer is as it was. id and method are JSON, and
 * hold no line breaks and no noncharacters, or are cut from a line whose traits stand with them. An id that is empty is
 * left out: MCP's schema has no null there. */
int rpc_append_result(Buffer *buffer, JsonPiece id, JsonPiece result);
int rpc_append_result_changed(Buffer *buffer, JsonPiece id, JsonPiece result, const JsonChange *changes,
                              size_t n_changes);

/* message is any text; data is JSON, or nothing. */
int rpc_append_error(Buffer *buffer, JsonPiece id, int code, const char *message, JsonPiece data);

/* The broker's own: code with data {"source":"mcp-exec","error":NAME}; name is the D-Bus error's, or NULL. */
int rpc_append_broker_error(Buffer *buffer, JsonPiece id, int code, const char *message, const char *name);

/* A server's own error object as it is, but with the code that this client's revision knows: RESOURCE_NOT_FOUND is
 * INVALID_PARAMS for a modern one. */
int rpc_append_remote_error(Buffer *buffer, JsonPiece id, JsonPiece error, McpEra client);

/* Whether an error object has that code */
bool rpc_error_is(JsonSlice error, int code);

/* Towards a client: method is a JSON string. params may be nothing. With token set, _meta.progressToken, where the
 * server's request has one, is replaced by it. */
int rpc_append_request(Buffer *buffer, JsonPiece id, JsonPiece method, JsonPiece params, JsonPiece token);
int rpc_append_notification(Buffer *buffer, JsonPiece method, JsonPiece params, const JsonChange *changes,
                            size_t n_changes);

/* notifications/cancelled about a request of the broker to a client, or of a client to a server. reason may be none. */
int rpc_append_cancelled(Buffer *buffer, JsonPiece id, JsonPiece reason);

/* A method as text: NULL where there is no memory, or it is longer than RPC_METHOD_MAX. */
char *rpc_method_name(JsonSlice method);
