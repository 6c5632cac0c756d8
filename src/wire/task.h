#pragma once

#include "wire/json-edit.h"
#include "wire/mcp.h"

/* Tasks, those of 2025-11-25 and those of the extension io.modelcontextprotocol/tasks. Their ids belong to the session
 * that made them. */

#define MCP_TASK_ID_MAX ((size_t)1024) /* bytes, with the quotes */

/* Each returns a JSON string of at most MCP_TASK_ID_MAX bytes that points into its argument, or nothing. */
JsonSlice mcp_task_of_params(JsonSlice params); /* tasks/get, /result, /cancel, /update: params.taskId */
JsonSlice mcp_task_of_notification(JsonSlice method,
                                   JsonSlice params); /* notifications/tasks/status, notifications/tasks */
JsonSlice mcp_task_of_related(JsonSlice params);      /* _meta["io.modelcontextprotocol/related-task"].taskId */

/* Of the result that makes one: {"task":{"taskId":...}}, or {"resultType":"task","taskId":...} of a modern worker */
JsonSlice mcp_task_created(JsonSlice result, McpEra worker);

/* Whether params ask for a task: params.task is an object. */
bool mcp_task_wanted(JsonSlice params);

/* Whether the method is one of tasks/..., of either kind */
bool mcp_method_of_tasks(const char *method);

/* Appends the result of a tasks/list with those tasks only that mine() says are the session's. -EINVAL where result has
 * no array of tasks. */
int mcp_append_task_list(Buffer *buffer, JsonPiece result, bool (*mine)(void *userdata, JsonSlice id), void *userdata);
