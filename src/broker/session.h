#pragma once

#include "broker/manager.h"

/* A client's private connection on which it speaks MCP, newline-delimited JSON-RPC: the broker is the server to it, and
 * the pools' workers do the work. */

typedef struct SessionSpec {
        Client *opener; /* whose rights it has */
        bool attached;  /* it ends with its opener, who is told of its end */
        Server *const *servers;
        size_t n_servers;
        bool joined;       /* they are one to its client, be it one alone */
        bool all;          /* likewise, and those that the configuration gets later join it */
        int input, output; /* as stream_new()'s; taken, also on failure */
} SessionSpec;

/* Fails with -EREMOTEIO and *failure. *ret_id belongs to the session. */
int session_open(Manager *manager, const SessionSpec *spec, const char **ret_id, Failure *failure);

/* How many there are, as the viewer sees it (server_pool_visible()) */
unsigned sessions_open(const Manager *manager, uid_t viewer);

/* What the manager has to do for all of them */
int sessions_init(Manager *manager);
void sessions_done(Manager *manager);  /* closes them; nothing may be in a pool's queue for them after pool_stop() */
void sessions_drain(Manager *manager); /* what was asked is answered, then they close */
void sessions_pump(Manager *manager);  /* a call has ended: others may go on */
void sessions_client_gone(Manager *manager, Client *client);
void sessions_server_gone(Server *server, const char *reason);
void sessions_server_came(Server *server);

/* What a pool's workers do */
bool sessions_request(ServerPool *server_pool, Worker *worker, const McpMessage *message);
void sessions_cancelled(ServerPool *server_pool, Worker *worker, JsonSlice params);
void sessions_notification(ServerPool *server_pool, Worker *worker, JsonSlice method, JsonSlice params,
                           const JsonTraits *traits);
void sessions_worker_removed(ServerPool *server_pool, Worker *worker);
