#pragma once

#include "broker/lists.h"
#include "broker/session-parts.h"

/* A session on several servers: to its client they are one. Tools and prompts are named SERVER__NAME, lists are joined,
 * and resources are found by their uri. Nothing is started before something is asked of it. */

/* session.c */

/* all: servers that the configuration gets join. -ENOMEM: it is freed with the session. */
int aggregate_new(Session *session, bool all);
void aggregate_free(Session *session);
void aggregate_abandon(Session *session);     /* nobody is there to answer to */
void aggregate_joined(SessionServer *server); /* it has a pool now */

/* Requests that wait for lists, or for a server's start: whether there is any; whether there is one of that id; and its
 * end, after which it isn't answered */
bool aggregate_waits(const Session *session);
bool aggregate_has_request(const Session *session, JsonSlice id);
void aggregate_cancel(Session *session, JsonSlice id);

/* A server has come with the configuration, or gone. */
void aggregate_server_came(Session *session, Server *server);
void aggregate_server_gone(Session *session, SessionServer *server);

/* session-notify.c: a server has other lists now: MCP_LISTEN_* */
void aggregate_list_changed(SessionServer *server, unsigned lists);

/* session-method.c */

#define AGGREGATE_DONE 2

/* Which server a client's request is for. 0: *ret is to have it, with input->params, which may stand in text then; or
 * *ret is NULL, and the broker answers as the server that *ret_hello tells of; 1: not now, as session_call_start();
 * AGGREGATE_DONE: it is answered, or will be; or -EREMOTEIO with *failure. */
int aggregate_route(Session *session, RpcInput *input, const McpClient *client, const char *method, SessionServer **ret,
                    McpHello *ret_hello, Buffer *text, Failure *failure);

/* The request is tried again when it is known what the server is: others don't wait for that. Likewise, but never 0. */
int aggregate_wait(Session *session, const RpcInput *input, const char *method, SessionServer *server,
                   Failure *failure);
void aggregate_warmed(SessionServer *server); /* that is known now, or why it can't be */

/* session-listen.c: the server that has the resource, as far as that is known; or NULL */
SessionServer *aggregate_find_resource(Session *session, const char *uri);

/* Between the files of an aggregate only */

#define AGGREGATE_SEPARATOR "__"

typedef struct Gather Gather;

/* What a server's resources are found by, sorted */
typedef struct Names {
        char **names;
        size_t n;
        bool known; /* they are of now */
} Names;

typedef struct Member {
        Names uris, templates;
} Member;

struct Aggregate {
        bool all;
        bool found_out;  /* a request is tried once more, with all that can be known of resources */
        Member *members; /* as session->servers */
        size_t room;     /* of both */
        TAILQ_HEAD(GatherList, Gather) gathers;
};

/* aggregate.c */
SessionServer *aggregate_member(Session *session, const char *name, size_t size);
bool aggregate_offers(const SessionServer *server, const char *capability); /* or it isn't known */

/* aggregate-hello.c: what the servers are together, as one would say it itself. hello points into text. -ENOMEM */
int aggregate_hello(const Session *session, Buffer *text, McpHello *ret);
JsonSlice aggregate_greeting(const SessionServer *server); /* one server's own; or nothing */

/* aggregate-lists.c: a page of the joined list. As aggregate_route(), but never 0. */
int aggregate_list(Session *session, const RpcInput *input, const McpClient *client, ListKind kind, Failure *failure);

/* Finds out which resources there are: 0 where that is known at once. Else it has the request tried once more then. As
 * aggregate_route(). */
int aggregate_find_out(Session *session, const RpcInput *input, const char *method, Failure *failure);

/* aggregate-names.c */
void names_clear(Names *names);
bool names_have(const Names *names, const char *name);
void names_take(Names *names, const ListItem *items, size_t n); /* those of the items, and no others; or none */

/* A tool or prompt as the client gets it, with its server's name in front of its own: owned by the caller; or NULL */
char *aggregate_prefixed(const char *server, const ListItem *item);
