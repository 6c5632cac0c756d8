#pragma once

#include "wire/json-edit.h"
#include "wire/mcp.h"

/* subscriptions/listen of the stateless era, and what stands for it before: resources/subscribe, and list_changed for
 * everyone. */

enum {
        MCP_LISTEN_TOOLS = 1 << 0,
        MCP_LISTEN_PROMPTS = 1 << 1,
        MCP_LISTEN_RESOURCES = 1 << 2,
        MCP_LISTEN_ALL_LISTS = (1 << 3) - 1,
};

typedef struct McpFilter {
        unsigned lists;     /* MCP_LISTEN_* */
        JsonPiece uris;     /* resourceSubscriptions: an array of strings, or nothing */
        JsonPiece task_ids; /* taskIds, likewise: the extension for tasks */
} McpFilter;

#define MCP_FILTER_URIS_MAX 1024
#define MCP_URI_MAX ((size_t)8192)

/* Reads params.notifications of a client's subscriptions/listen, or of a worker's acknowledgement. 0; -EINVAL with
 * *reason (static), which is INVALID_PARAMS: no object, wrong types, more or longer uris than the bounds. */
int mcp_filter_read(JsonSlice params, const JsonTraits *traits, McpFilter *ret, const char **reason);

/* What of it a server can honour by its capabilities (an object, or nothing) */
void mcp_filter_limit(McpFilter *filter, JsonSlice capabilities, McpEra worker);

/* Appends the object that stands as params.notifications. */
int mcp_append_filter(Buffer *buffer, const McpFilter *filter);

/* To a client: the first message of its subscription id, and its graceful end. */
int mcp_append_acknowledged(Buffer *buffer, JsonPiece id, const McpFilter *filter);
int mcp_append_listen_end(Buffer *buffer, JsonPiece id);

/* The list that notifications/.../list_changed is about, or 0 */
unsigned mcp_list_changed(JsonSlice method);

/* The subscription that a modern worker's notification belongs to: its _meta.io.modelcontextprotocol/subscriptionId, or
 * nothing */
JsonSlice mcp_subscription_id(JsonSlice params);

/* Appends a worker's notification for a client: with the subscription's id, where the client has one, in _meta, and
 * without the worker's. */
int mcp_append_subscribed(Buffer *buffer, JsonPiece method, JsonPiece params, JsonPiece id);

/* Appends a worker's notifications/progress with the client's own token. */
int mcp_append_progress(Buffer *buffer, JsonPiece params, JsonPiece token);
