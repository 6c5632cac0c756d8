#pragma once

#include "wire/json-edit.h"
#include "wire/mcp.h"

/* What a client declares that a server can ask of it, as a small set that pools are told apart by: a legacy server
 * decides at initialize what it offers. */
typedef unsigned McpProfile;

enum {
        MCP_PROFILE_ROOTS = 1 << 0,
        MCP_PROFILE_ROOTS_CHANGED = 1 << 1, /* roots.listChanged */
        MCP_PROFILE_SAMPLING = 1 << 2,
        MCP_PROFILE_SAMPLING_TOOLS = 1 << 3,
        MCP_PROFILE_SAMPLING_CONTEXT = 1 << 4,
        MCP_PROFILE_ELICITATION_FORM = 1 << 5, /* also what an empty elicitation means */
        MCP_PROFILE_ELICITATION_URL = 1 << 6,
        MCP_PROFILE_TASKS = 1 << 7, /* 2025-11-25: tasks, with what follows */
        MCP_PROFILE_TASKS_LIST = 1 << 8,
        MCP_PROFILE_TASKS_CANCEL = 1 << 9,
        MCP_PROFILE_TASKS_SAMPLING = 1 << 10,
        MCP_PROFILE_TASKS_ELICITATION = 1 << 11,
        MCP_PROFILE_UI = 1 << 12,              /* extensions["io.modelcontextprotocol/ui"] for HTML */
        MCP_PROFILE_EXTENSION_TASKS = 1 << 13, /* extensions["io.modelcontextprotocol/tasks"] */
        _MCP_PROFILE_ALL = (1 << 14) - 1,
};

/* Reads the capabilities object of an initialize's params, or of a modern request's _meta. What has the wrong type
 * isn't declared; a bit is never set without the one that it is part of. Anything but an object declares nothing. */
McpProfile mcp_profile_read(JsonSlice capabilities);

/* Those bits that mean something to a server of that era: the profile that a pool is keyed by. For MODERN it is always
 * the empty one, since each request says it all; for LEGACY the extension for tasks isn't among them, and where the
 * client is modern, neither are tasks nor roots.listChanged, which it can't serve. */
McpProfile mcp_profile_for(McpProfile profile, McpEra client, McpEra worker);

/* Appends the capabilities object that declares it: to a legacy worker with initialize, or to a modern one with each
 * request of a legacy client. -ENOMEM. */
int mcp_append_profile(Buffer *buffer, McpProfile profile, McpEra worker);

/* Whether a server may send this request to such a client: 0; or the bit that is missing; or UINT_MAX where the method
 * is none that servers may ask. params are the request's. */
McpProfile mcp_profile_missing(McpProfile profile, JsonSlice method, JsonSlice params);

/* Levels of notifications/message, the most verbose one first */
typedef enum McpLevel {
        MCP_LEVEL_DEBUG,
        MCP_LEVEL_INFO,
        MCP_LEVEL_NOTICE,
        MCP_LEVEL_WARNING,
        MCP_LEVEL_ERROR,
        MCP_LEVEL_CRITICAL,
        MCP_LEVEL_ALERT,
        MCP_LEVEL_EMERGENCY,
        _MCP_LEVEL_MAX,
        _MCP_LEVEL_NONE = -1,
} McpLevel;

const char *mcp_level_to_string(McpLevel level);
McpLevel mcp_level_read(JsonSlice value); /* NONE where it is none */
