#pragma once

#include "broker/lists.h"
#include "broker/session-parts.h"

/* A session on several servers: to its client they are one. Tools and prompts are named SERVER__NAME, lists are joined,
 * and resources are found by their uri. Nothing is started before something is asked of it. */
/* session.c */

/* all: servers that the configuration gets join. -ENOMEM */
int aggregate_new(Session *session, bool all);
void aggregate_free(Session *session);

/* What waits for lists: whether there is anything; the client's request of that id, if there is one; and its end, after
 * which it isn't answered */
bool aggregate_waits(const Session *session);
bool aggregate_has_request(const Session *session, JsonSlice id);
void aggregate_cancel(Session *session, JsonSlice id);

/* A server has come with the configuration, or gone. */
void aggregate_server_came(Session *session, Server *server);
void aggregate_server_gone(Session *session, SessionServer *member);

/* A member's list is another one now. */
void aggregate_list_changed(SessionServer *member, const char *method);

/* session-input.c: which server a client's request is for. 0: *ret is to have it, with *params, which may stand in
 * rewritten then; 1: not now, as session_call_start(); 2: it is dealt with; or -EREMOTEIO with *failure. */
int aggregate_route(Session *session, const McpMessage *message, const char *method, McpParams *params,
                    SessionServer **ret, Buffer *rewritten, Failure *failure);

/* Between the files of an aggregate only */

#define AGGREGATE_SEPARATOR "__"

typedef struct Gather Gather;

/* What a member's resources are found by, sorted */
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
        TAILQ_HEAD(, Gather) gathers;
};

/* aggregate-lists.c: a page of the joined list. As aggregate_route() but for 0. */
int aggregate_list(Session *session, const McpMessage *message, ListKind kind, const McpParams *params,
                   Failure *failure);

/* Finds out which resources there are, and has the request tried once more then. Likewise. */
int aggregate_find_out(Session *session, const McpMessage *message, const char *method, const McpParams *params,
                       Failure *failure);
void aggregate_abandon(Session *session); /* what waits */
void names_clear(Names *names);
bool names_have(const Names *names, const char *name);

/* aggregate.c */
int aggregate_append_capabilities(Buffer *buffer, const Session *session);
int aggregate_append_instructions(Buffer *buffer, const Session *session); /* a JSON string */
SessionServer *aggregate_member(Session *session, const char *name, size_t size);
bool aggregate_offers(const SessionServer *member, const char *capability); /* or it isn't known */
bool aggregate_knows(const SessionServer *member);                          /* what it offers */
