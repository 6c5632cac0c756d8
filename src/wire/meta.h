#pragma once

/* What stands in _meta, and how the broker calls itself there */

#define META_PREFIX "io.modelcontextprotocol/"
#define META_VERSION META_PREFIX "protocolVersion"
#define META_CAPABILITIES META_PREFIX "clientCapabilities"
#define META_CLIENT META_PREFIX "clientInfo"
#define META_SERVER META_PREFIX "serverInfo"
#define META_LEVEL META_PREFIX "logLevel"
#define META_SUBSCRIPTION META_PREFIX "subscriptionId"
#define META_RELATED_TASK META_PREFIX "related-task"

#define EXTENSION_TASKS META_PREFIX "tasks"
#define EXTENSION_UI META_PREFIX "ui"

#define MCP_BROKER_INFO "{\"name\":\"mcp-exec\",\"version\":\"" PROJECT_VERSION "\"}"
