#pragma once

#include "broker/interests.h"

/* Between the files of what sessions want to hear of */

typedef struct Subscription Subscription;
typedef struct Level Level;

struct Interests {
        TAILQ_HEAD(, Subscription) subscriptions;
        unsigned n_subscriptions;
        TAILQ_HEAD(, Level) levels;
        McpLevel told; /* to the workers */
};

extern const Outcome interest_empty; /* the result {} */

void interest_give(InterestReply reply, const Outcome *outcome);

/* Makes them where there are none yet; NULL: out of memory. */
Interests *interests_get(ServerPool *server_pool);

/* Who waits for what a server says unasked would wait in vain for a worker that has left: keeps one, or no longer. */
void interests_hold_pool(ServerPool *server_pool);

Worker *interests_first_ready(const ServerPool *server_pool); /* or NULL */

/* The one that has answered, if there is but one. Where there are more, all are asked once more, also the one that
 * was: it has the same afterwards. */
Worker *interests_only_ready(const ServerPool *server_pool);

/* Those of the legacy era. asked: the worker that has answered for itself, or NULL */
void interests_tell_workers(ServerPool *server_pool, const char *method, const char *params, const Worker *asked);

/* interests-level.c */
void levels_worker_ready(ServerPool *server_pool, Worker *worker);
void levels_leave(ServerPool *server_pool, const void *subscriber);
void levels_free(ServerPool *server_pool);
