#pragma once

#include "wire/id-finder.h"

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
        bool versioned;  /* jsonrpc is "2.0" */
        bool ours;       /* id is an unsigned integer, as the broker's own ids are */
        uint64_t number; /* that integer */
} McpMessage;

/* 0, also for noise; -EBADMSG or -E2BIG as json_scan(). */
int mcp_parse(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error);

/* At the end of a line that can't be parsed: whether its bytes look like a whole object that answers request *ret. */
bool mcp_found_id(const IdFinder *finder, uint64_t *ret);

typedef struct McpClient McpClient; /* translate.h */

/* The parameters of a request, checked by mcp_params_read() and written by mcp_append_request() in place. */
typedef struct McpParams {
        JsonSlice text; /* an object, or nothing */
        JsonTraits traits;
        JsonSlice meta;   /* its member _meta, an object, or nothing */
        JsonSlice token;  /* _meta.progressToken */
        JsonSlice name;   /* its member name, which says the tool in a tools/call */
        const char *tool; /* set: the request is tools/call, and text its arguments */

        const McpClient *client; /* set: a session's request, which is translated to the worker's era */
} McpParams;

/* Checks a caller's text. Empty text is no parameters. *ret points into it. Returns 0; -EBADMSG or -E2BIG as
 * json_scan(); -EINVAL where it is no object, its _meta is none, or that or name stands twice, so that it could be read
 * in two ways: error->reason says which. */
int mcp_params_read(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error);

/* As mcp_params_read(), of params that stand in a line which was scanned with these traits: -EINVAL as there. */
int mcp_params_of(JsonSlice params, const JsonTraits *traits, McpParams *ret, const char **reason);

/* Each of these appends one message with its line's end. -ENOMEM: the buffer is as it was.
 *
 * A request to a modern server gets the _meta that the revision wants. The progress token is the broker's own id,
 * where the caller asked for progress or the request is a tools/call: progress restarts a call's clock. */
int mcp_append_request(Buffer *buffer, uint64_t id, McpEra era, const char *method, const McpParams *params);
int mcp_append_notification(Buffer *buffer, const char *method, const McpParams *params);
int mcp_append_initialize(Buffer *buffer, uint64_t id, unsigned profile); /* McpProfile: what is declared */
int mcp_append_cancelled(Buffer *buffer, uint64_t id, const char *reason);
int mcp_append_empty_result(Buffer *buffer, JsonSlice id);
int mcp_append_method_not_found(Buffer *buffer, JsonSlice id);
