#pragma once

#include "broker/manager.h"

/* What a server lists, as its owner's workers list it, kept so that listing launches nothing: also from one run of the
 * service to the next where the server, or its configuration, says how long it is good. */

typedef enum ListKind {
        LIST_TOOLS,
        LIST_PROMPTS,
        LIST_RESOURCES,
        LIST_TEMPLATES,
        _LIST_KIND_MAX,
} ListKind;

typedef struct ListItem {
        char *name; /* a tool's or prompt's name, a resource's uri, a template's uriTemplate */
        char *text; /* the whole object, as JSON on one line */
} ListItem;

/* failure is NULL where there is a list. What is passed is valid during the call only. */
typedef void (*list_done_handler)(void *userdata, const ListItem *items, size_t n_items, const Failure *failure);

/* Calls done once, before it returns where the list is known; or fails with -EREMOTEIO and *failure. Somebody who waits
 * has to be there until done() was called. */
int list_get(Server *server, const Client *client, ListKind kind, list_done_handler done, void *userdata,
             Failure *failure);

/* "tools/list", and the member of its result */
const char *list_method(ListKind kind);
const char *list_member(ListKind kind);

/* What makes lists doubtful: a worker that started anew, a server that says so (returns whether the notification's
 * method does), other configuration. */
void lists_worker_ready(ServerPool *server_pool);
bool lists_changed(ServerPool *server_pool, const char *method);
void lists_forget(Server *server);

/* The pool is about to be freed: what only its owner could ask for goes with it. */
void lists_pool_unused(ServerPool *server_pool);

/* The server is about to be freed. */
void lists_free(Server *server);
