#pragma once

#include "broker/manager.h"

/* The tools of a server, as its owner's workers list them, kept so that listing launches nothing. */

typedef struct Tool {
        char *name, *description, *schema; /* schema: its inputSchema, the bytes as the server wrote them */
} Tool;

/* failure is NULL where there is a list. What is passed is valid during the call only. */
typedef void (*tools_done_handler)(void *userdata, const Tool *tools, size_t n_tools, const Failure *failure);

/* Calls done once, before it returns where the list is known; or fails with -EREMOTEIO and *failure. */
int tools_list(Server *server, const Client *client, tools_done_handler done, void *userdata, Failure *failure);

/* What makes a list doubtful: a worker that started anew, a server that says so, other configuration. */
void tools_worker_ready(ServerPool *server_pool);
void tools_list_changed(ServerPool *server_pool);
void tools_forget(Server *server);

/* The pool is about to be freed: what only its owner could ask for goes with it. */
void tools_pool_unused(ServerPool *server_pool);

/* The server is about to be freed. */
void tools_free(Server *server);
