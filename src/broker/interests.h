#pragma once

#include "broker/manager.h"
#include "wire/profile.h"

/* What the sessions of a pool want to hear of unasked: which resources, and how much of the log. Its workers are asked
 * for all of it together, once, and each new worker again; each subscriber gets its own part. A subscriber is a
 * session, known by its address alone. */
typedef struct Interests Interests;

/* Called once with the server's answer, or the broker's in its place: before the function returns where nothing has to
 * be asked. What outcome points to is valid during the call only. */
typedef void (*interest_done_handler)(void *userdata, const Outcome *outcome);

typedef struct InterestReply {
        interest_done_handler done;
        void *userdata;
} InterestReply;

/* resources/subscribe and resources/unsubscribe for one subscriber. uri is copied. Subscribing starts a worker where
 * there is none. Fails with -EREMOTEIO and *failure, and done() isn't called then: InvalidArguments, LimitsExceeded, or
 * what pool_submit() says. Without an error, done() is called unless interests_leave() comes first. */
int interests_subscribe(ServerPool *server_pool, const void *subscriber, const char *uri, InterestReply reply,
                        Failure *failure);
void interests_unsubscribe(ServerPool *server_pool, const void *subscriber, const char *uri);

/* logging/setLevel for one subscriber. A server that is asked and refuses leaves the level as it was. */
int interests_set_level(ServerPool *server_pool, const void *subscriber, McpLevel level, InterestReply reply,
                        Failure *failure);

/* The subscriber is gone, or uses the pool no more; its replies that are due are dropped. */
void interests_leave(ServerPool *server_pool, const void *subscriber);

/* Whether a notifications/resources/updated for uri, or a notifications/message of that level, is for this subscriber.
 * A server may report a part of a resource that was subscribed to: then what stands before it counts. Of one who set no
 * level, it is as if it were info where others set one, and all otherwise. */
bool interests_want_resource(const ServerPool *server_pool, const void *subscriber, const char *uri);
bool interests_want_log(const ServerPool *server_pool, const void *subscriber, McpLevel level);

/* The most verbose level that anybody set, or MCP_LEVEL_NONE: for the _meta of a request to a modern worker. */
McpLevel interests_level(const ServerPool *server_pool);
McpLevel interests_level_of(const ServerPool *server_pool, const void *subscriber);

/* For server.c: a worker has become ready; the pool is about to be freed; whether it has to stay. */
void interests_worker_ready(ServerPool *server_pool, Worker *worker);
void interests_free(ServerPool *server_pool);
bool interests_any(const ServerPool *server_pool);
