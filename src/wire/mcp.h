#pragma once

#include "wire/json.h"

/* The Model Context Protocol's messages as bytes: JSON-RPC 2.0, one object a line.
 * https://modelcontextprotocol.io/specification, revisions 2024-11-05 to 2026-07-28. */

#define MCP_VERSION_LEGACY "2025-11-25" /* what is offered to a legacy server */
#define MCP_VERSION_MODERN "2026-07-28"

typedef enum McpEra {
        MCP_ERA_AUTO,   /* not known yet */
        MCP_ERA_LEGACY, /* a connection starts with initialize: to 2025-11-25 */
        MCP_ERA_MODERN, /* every request stands alone: from 2026-07-28 */
} McpEra;

const char *mcp_era_to_string(McpEra era);
int mcp_era_from_string(const char *word, size_t size); /* -1 where it is none */

bool mcp_legacy_version_supported(const char *version);

typedef enum McpKind {
        MCP_REQUEST,
        MCP_NOTIFICATION,
        MCP_RESULT,
        MCP_ERROR,
        MCP_NOISE, /* valid JSON, but no message */
} McpKind;

/* A message as it stands in its line: the slices point into that. */
typedef struct McpMessage {
        McpKind kind;
        JsonSlice id, method, params, result, error;
        JsonTraits traits;
        bool ours;       /* id is an unsigned integer, as the broker's own ids are */
        uint64_t number; /* that integer */
} McpMessage;

/* What a client can do for a server, as it declares it at initialize: a legacy server decides by it what it offers. A
 * set of bits, the same for clients that differ in nothing that matters. */
enum {
        MCP_PROFILE_ROOTS = 1 << 0,
        MCP_PROFILE_ROOTS_CHANGED = 1 << 1,
        MCP_PROFILE_SAMPLING = 1 << 2,
        MCP_PROFILE_SAMPLING_CONTEXT = 1 << 3,
        MCP_PROFILE_SAMPLING_TOOLS = 1 << 4,
        MCP_PROFILE_ELICITATION_FORM = 1 << 5,
        MCP_PROFILE_ELICITATION_URL = 1 << 6,
        MCP_PROFILE_TASKS_LIST = 1 << 7,
        MCP_PROFILE_TASKS_CANCEL = 1 << 8,
        MCP_PROFILE_TASKS_SAMPLING = 1 << 9,
        MCP_PROFILE_TASKS_ELICITATION = 1 << 10,
};

/* capabilities: an object, or nothing */
unsigned mcp_profile_read(JsonSlice capabilities);

/* The capabilities that stand for a profile, as an object. -ENOMEM. */
int mcp_append_profile(Buffer *buffer, unsigned profile);

/* 0, also for noise; -EBADMSG or -E2BIG as json_scan(). */
int mcp_parse(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error);

/* Finds the id in a message that can't be parsed, because it is too long to be held or not valid, fed in pieces:
 * follows strings and brackets alone. Zero-initialise. */
typedef struct McpIdFinder {
        unsigned depth;
        bool began, more; /* the object; something else around it */
        bool in_string, escaped, behind_colon;
        char token[24];
        size_t token_size;
        bool key_is_id, answer, found;
        uint64_t number;
} McpIdFinder;

void mcp_id_finder_feed(McpIdFinder *finder, const char *data, size_t size);

/* Whether the bytes look like a whole object that answers request *ret: one that was cut off, or has other text around
 * it, is no attempt of an answer. */
bool mcp_id_finder_result(const McpIdFinder *finder, uint64_t *ret);

/* The parameters of a request, checked by mcp_params_read() and written by mcp_append_request() in place. */
typedef struct McpParams {
        JsonSlice text; /* an object, or nothing */
        JsonTraits traits;
        JsonSlice meta;   /* its member _meta, an object, or nothing */
        JsonSlice token;  /* _meta.progressToken */
        JsonSlice name;   /* its member name, which says the tool in a tools/call */
        const char *tool; /* set: the request is tools/call, and text its arguments */
} McpParams;

/* Checks a caller's text. Empty text is no parameters. *ret points into it. Returns 0; -EBADMSG or -E2BIG as
 * json_scan(); -EINVAL where it is no object, its _meta is none, or that or name stands twice, so that it could be read
 * in two ways: error->reason says which. */
int mcp_params_read(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error);

/* The same for an object inside of a line that was checked, or nothing: only locates. -EINVAL with *ret_reason where it
 * is no object, or its _meta none. */
int mcp_params_locate(JsonSlice object, const JsonTraits *traits, McpParams *ret, const char **ret_reason);

/* Each of these appends one message with its line's end. -ENOMEM: the buffer is as it was.
 *
 * A request to a modern server gets the _meta that the revision wants. The progress token is the broker's own id,
 * where the caller asked for progress or the request is a tools/call: progress restarts a call's clock. */
int mcp_append_request(Buffer *buffer, uint64_t id, McpEra era, const char *method, const McpParams *params);
int mcp_append_notification(Buffer *buffer, const char *method, const McpParams *params);
int mcp_append_initialize(Buffer *buffer, uint64_t id, unsigned profile);
int mcp_append_cancelled(Buffer *buffer, uint64_t id, const char *reason);
int mcp_append_empty_result(Buffer *buffer, JsonSlice id);
int mcp_append_result(Buffer *buffer, JsonSlice id, JsonSlice result, const JsonTraits *traits);
int mcp_append_error(Buffer *buffer, JsonSlice id, JsonSlice error, const JsonTraits *traits);
int mcp_append_method_not_found(Buffer *buffer, JsonSlice id);
