#pragma once

#include "broker/list.h"
#include "broker/manager.h"

#define LISTS_KEEP_MAX (30 * 24 * 3600 * USEC_PER_SEC) /* whatever the server says */

/* What a server lists, as its owner's workers list it, kept so that listing launches nothing: also from one run of the
 * service to the next where the server, or its configuration, says how long it is good. */

/* failure is NULL where there is a list. What is passed is valid during the call only. */
typedef void (*list_done_handler)(void *userdata, const ListItem *items, size_t n_items, const Failure *failure);

/* Calls done once, before it returns where the list is known; or fails with -EREMOTEIO and *failure. Somebody who waits
 * has to be there until done() was called. */
int list_get(Server *server, const Client *client, ListKind kind, list_done_handler done, void *userdata,
             Failure *failure);

/* What makes lists doubtful: a worker that started anew, a server that says so (returns whether the notification's
 * method does), other configuration. */
void lists_worker_ready(ServerPool *server_pool);
bool lists_changed(ServerPool *server_pool, const char *method);
void lists_forget(Server *server);

/* The pool is about to be freed: what only its owner could ask for goes with it. */
void lists_pool_unused(ServerPool *server_pool);

/* The server is about to be freed. */
void lists_free(Server *server);

/* list-sessions.c */

/* A client that has a session was told these tools: they are compared with those of the last time, as in list_get(). A
 * list of several pages isn't. */
void lists_seen(ServerPool *server_pool, JsonSlice params, JsonSlice result, const JsonTraits *traits);

/* What a server says of itself is kept as its lists are: a new pool has the greeting of an earlier one, and a worker
 * that was greeted has it written. */
void lists_greet_pool(ServerPool *server_pool);
void lists_keep_greeting(ServerPool *server_pool);
