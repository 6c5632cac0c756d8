#include "broker/interests-private.h"

#define URI_MAX_BYTES 2048

/* One subscriber's part in a subscription */
typedef struct Part {
        TAILQ_ENTRY(Part) link;
        const void *subscriber;
        InterestReply reply;
        bool due; /* reply wasn't given */
} Part;

typedef enum SubscriptionState {
        SUBSCRIPTION_STARTING, /* waits for a worker, so that its era is known */
        SUBSCRIPTION_ASKED,
        SUBSCRIPTION_ACTIVE,
} SubscriptionState;

struct Subscription {
        TAILQ_ENTRY(Subscription) link;
        ServerPool *server_pool;
        char *uri, *params; /* params: {"uri":...} */
        SubscriptionState state;
        Request request;
        TAILQ_HEAD(PartList, Part) parts;
};

const Outcome interest_empty = { .result = { "{}", 2 } };

void interest_give(InterestReply reply, const Outcome *outcome) {
        reply.done(reply.userdata, outcome);
}

Interests *interests_get(ServerPool *server_pool) {
        Interests *interests = server_pool->interests;

        if (interests)
                return interests;

        interests = new0(Interests, 1);
        if (!interests)
                return NULL;

        TAILQ_INIT(&interests->subscriptions);
        TAILQ_INIT(&interests->levels);
        interests->told = _MCP_LEVEL_NONE;
        server_pool->interests = interests;
        return interests;
}

bool interests_any(const ServerPool *server_pool) {
        const Interests *interests = server_pool->interests;

        return interests && (!TAILQ_EMPTY(&interests->subscriptions) || !TAILQ_EMPTY(&interests->levels));
}

static Subscription *find_subscription(const Interests *interests, const char *uri) {
        Subscription *subscription;

        TAILQ_FOREACH(subscription, &interests->subscriptions, link)
                if (streq(subscription->uri, uri))
                        return subscription;

        return NULL;
}

static Part *find_part(const Subscription *subscription, const void *subscriber) {
        Part *part;

        TAILQ_FOREACH(part, &subscription->parts, link)
                if (part->subscriber == subscriber)
                        return part;

        return NULL;
}

Worker *interests_first_ready(const ServerPool *server_pool) {
        Worker *worker;

        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                if (worker->state == WORKER_READY)
                        return worker;

        return NULL;
}

/* All that is subscribed to, for a worker of the stateless era, which is told the whole at each change */
static void tell_listened(ServerPool *server_pool, Worker *worker) {
        Interests *interests = server_pool->interests;
        Subscription *subscription;
        Buffer uris = {};
        int r = 0;

        TAILQ_FOREACH(subscription, &interests->subscriptions, link) {
                if (subscription->state != SUBSCRIPTION_ACTIVE)
                        continue;
                if (r >= 0 && buffer_size(&uris) > 0)
                        r = buffer_append(&uris, ",", 1);
                if (r >= 0)
                        r = json_append_quoted(&uris, subscription->uri, strlen(subscription->uri));
        }
        if (r >= 0)
                worker_listen(worker, (JsonSlice){ buffer_data(&uris), buffer_size(&uris) });
        buffer_done(&uris);
}

Worker *interests_only_ready(const ServerPool *server_pool) {
        Worker *worker, *only = NULL;

        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                if (worker->state == WORKER_READY) {
                        if (only)
                                return NULL;
                        only = worker;
                }

        return only;
}

void interests_tell_workers(ServerPool *server_pool, const char *method, const char *params, const Worker *asked) {
        Worker *worker;

        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                if (worker != asked && worker->state == WORKER_READY && worker->era == MCP_ERA_LEGACY)
                        worker_tell(worker, method, params);
}

static void tell_subscription(Subscription *subscription, const char *method, const Worker *asked) {
        Worker *worker;

        interests_tell_workers(subscription->server_pool, method, subscription->params, asked);
        TAILQ_FOREACH(worker, &subscription->server_pool->pool->workers, link)
                if (worker->state == WORKER_READY && worker->era == MCP_ERA_MODERN)
                        tell_listened(subscription->server_pool, worker);
}

void interests_hold_pool(ServerPool *server_pool) {
        Pool *pool = server_pool->pool;
        Subscription *subscription;
        bool held = false;

        TAILQ_FOREACH(subscription, &server_pool->interests->subscriptions, link)
                held = held || subscription->state == SUBSCRIPTION_ACTIVE;

        if (pool->held != held || !interests_any(server_pool))
                pool_schedule(pool);
        pool->held = held;
}

static void subscription_free(Subscription *subscription) {
        Interests *interests = subscription->server_pool->interests;
        Part *part;

        TAILQ_REMOVE(&interests->subscriptions, subscription, link);
        interests->n_subscriptions--;
        while ((part = TAILQ_FIRST(&subscription->parts))) {
                TAILQ_REMOVE(&subscription->parts, part, link);
                free(part);
        }
        free(subscription->uri);
        free(subscription->params);
        free(subscription);
}

/* Nobody has a part in it any more. */
static void subscription_end(Subscription *subscription) {
        ServerPool *server_pool = subscription->server_pool;

        if (subscription->state == SUBSCRIPTION_ACTIVE) {
                subscription->state = SUBSCRIPTION_STARTING;
                tell_subscription(subscription, "resources/unsubscribe", NULL);
        } else
                pool_cancel(&subscription->request, "its subscriber has left");

        subscription_free(subscription);
        interests_hold_pool(server_pool);
}

/* A reply can be followed by anything, also by the end of the subscription: what is due is taken out first. */
static void answer_parts(Subscription *subscription, const Outcome *outcome) {
        struct PartList due = TAILQ_HEAD_INITIALIZER(due);
        bool failed = outcome->failure;
        Part *part, *next;

        TAILQ_FOREACH_SAFE(part, &subscription->parts, link, next) {
                Part *copy;

                if (!part->due)
                        continue;
                part->due = false;
                if (failed) {
                        TAILQ_REMOVE(&subscription->parts, part, link);
                        TAILQ_INSERT_TAIL(&due, part, link);
                } else if ((copy = new0(Part, 1))) {
                        *copy = (Part){ .subscriber = part->subscriber, .reply = part->reply };
                        TAILQ_INSERT_TAIL(&due, copy, link);
                }
        }

        if (failed) {
                ServerPool *server_pool = subscription->server_pool;

                subscription_free(subscription);
                interests_hold_pool(server_pool);
        }

        while ((part = TAILQ_FIRST(&due))) {
                TAILQ_REMOVE(&due, part, link);
                interest_give(part->reply, outcome);
                free(part);
        }
}

static void subscription_asked(Request *request, const Outcome *outcome) {
        Subscription *subscription = (Subscription *)((char *)request - offsetof(Subscription, request));

        if (!outcome->failure) {
                subscription->state = SUBSCRIPTION_ACTIVE;
                tell_subscription(subscription, "resources/subscribe", interests_only_ready(subscription->server_pool));
                interests_hold_pool(subscription->server_pool);
        }
        answer_parts(subscription, outcome);
}

static void subscription_ready(Request *request, const Outcome *outcome);

static int subscription_ask(Subscription *subscription, Failure *failure) {
        Pool *pool = subscription->server_pool->pool;
        Worker *worker = interests_first_ready(subscription->server_pool);

        if (worker && worker->era == MCP_ERA_MODERN) {
                subscription->state = SUBSCRIPTION_ACTIVE;
                tell_subscription(subscription, "resources/subscribe", NULL);
                interests_hold_pool(subscription->server_pool);
                answer_parts(subscription, &interest_empty);
                return 0;
        }

        subscription->state = worker ? SUBSCRIPTION_ASKED : SUBSCRIPTION_STARTING;
        subscription->request = (Request){
                .kind = worker ? REQUEST_CALL : REQUEST_WARM_UP,
                .uid = subscription->server_pool->uid,
                .caller = subscription->server_pool,
                .method = "resources/subscribe",
                .params.text = { subscription->params, strlen(subscription->params) },
                .done = worker ? subscription_asked : subscription_ready,
        };
        return pool_submit(pool, &subscription->request, failure);
}

static void subscription_ready(Request *request, const Outcome *outcome) {
        Subscription *subscription = (Subscription *)((char *)request - offsetof(Subscription, request));
        Failure failure = {};

        if (outcome->failure)
                answer_parts(subscription, outcome);
        else if (subscription_ask(subscription, &failure) < 0)
                answer_parts(subscription, &(Outcome){ .failure = &failure });
        failure_done(&failure);
}

static Subscription *subscription_new(ServerPool *server_pool, const char *uri) {
        Subscription *subscription = new0(Subscription, 1);
        Buffer params = {};
        int r;

        if (!subscription)
                return NULL;

        subscription->server_pool = server_pool;
        TAILQ_INIT(&subscription->parts);
        subscription->uri = strdup(uri);
        r = buffer_append_string(&params, "{\"uri\":");
        if (r >= 0)
                r = json_append_quoted(&params, uri, strlen(uri));
        if (r >= 0)
                r = buffer_append(&params, "}", 2);
        subscription->params = params.data;
        if (!subscription->uri || r < 0) {
                free(subscription->uri);
                free(subscription->params);
                free(subscription);
                return NULL;
        }

        TAILQ_INSERT_TAIL(&server_pool->interests->subscriptions, subscription, link);
        server_pool->interests->n_subscriptions++;
        return subscription;
}

static unsigned count_parts(const Interests *interests, const void *subscriber) {
        Subscription *subscription;
        unsigned n = 0;

        TAILQ_FOREACH(subscription, &interests->subscriptions, link)
                n += find_part(subscription, subscriber) != NULL;

        return n;
}

int interests_subscribe(ServerPool *server_pool, const void *subscriber, const char *uri, InterestReply reply,
                        Failure *failure) {
        const __typeof__((Settings){}.limits) *limits = &server_pool->server->manager->quota.settings.limits;
        Interests *interests = interests_get(server_pool);
        Subscription *subscription;
        Part *part;
        int r;

        if (!interests)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (!*uri || strlen(uri) > URI_MAX_BYTES)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "uri has to have 1 to %d bytes", URI_MAX_BYTES);

        subscription = find_subscription(interests, uri);
        part = subscription ? find_part(subscription, subscriber) : NULL;
        if (part && !part->due) {
                interest_give(reply, &interest_empty);
                return 0;
        }
        if (part)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "This resource is being subscribed to already");

        if (count_parts(interests, subscriber) >= limits->subscriptions_per_session)
                return quota_exceeded(failure, "resources are subscribed to by this session",
                                      limits->subscriptions_per_session, "subscriptions_per_session");
        if (!subscription && interests->n_subscriptions >= limits->subscriptions_per_server)
                return quota_exceeded(failure, "resources of this server are subscribed to",
                                      limits->subscriptions_per_server, "subscriptions_per_server");

        part = new0(Part, 1);
        if (part && !subscription) {
                subscription = subscription_new(server_pool, uri);
                if (!subscription) {
                        free(part);
                        part = NULL;
                }
        }
        if (!part)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        *part = (Part){ .subscriber = subscriber, .reply = reply, .due = true };
        TAILQ_INSERT_TAIL(&subscription->parts, part, link);

        if (subscription->state == SUBSCRIPTION_ACTIVE) {
                part->due = false;
                interest_give(reply, &interest_empty);
                return 0;
        }
        if (TAILQ_NEXT(TAILQ_FIRST(&subscription->parts), link))
                return 0;

        r = subscription_ask(subscription, failure);
        if (r < 0)
                subscription_free(subscription);
        return r;
}

static void leave_subscription(Subscription *subscription, Part *part) {
        TAILQ_REMOVE(&subscription->parts, part, link);
        free(part);
        if (TAILQ_EMPTY(&subscription->parts))
                subscription_end(subscription);
}

void interests_unsubscribe(ServerPool *server_pool, const void *subscriber, const char *uri) {
        Interests *interests = server_pool->interests;
        Subscription *subscription = interests ? find_subscription(interests, uri) : NULL;
        Part *part = subscription ? find_part(subscription, subscriber) : NULL;
        bool due;
        InterestReply reply;

        if (!part)
                return;

        due = part->due;
        reply = part->reply;
        leave_subscription(subscription, part);
        if (due)
                interest_give(reply, &interest_empty);
}

void interests_leave(ServerPool *server_pool, const void *subscriber) {
        Interests *interests = server_pool->interests;
        Subscription *subscription, *next;

        if (!interests)
                return;

        TAILQ_FOREACH_SAFE(subscription, &interests->subscriptions, link, next) {
                Part *part = find_part(subscription, subscriber);

                if (part)
                        leave_subscription(subscription, part);
        }

        levels_leave(server_pool, subscriber);
        interests_hold_pool(server_pool);
}

bool interests_want_resource(const ServerPool *server_pool, const void *subscriber, const char *uri) {
        Subscription *subscription;

        if (!server_pool->interests)
                return false;

        TAILQ_FOREACH(subscription, &server_pool->interests->subscriptions, link) {
                size_t size = strlen(subscription->uri);

                if (strncmp(subscription->uri, uri, size) == 0 &&
                    (uri[size] == 0 || uri[size] == '/' || uri[size] == '#' || subscription->uri[size - 1] == '/') &&
                    find_part(subscription, subscriber))
                        return true;
        }

        return false;
}

void interests_worker_ready(ServerPool *server_pool, Worker *worker) {
        Interests *interests = server_pool->interests;
        Subscription *subscription;

        if (!interests || worker->wire != &mcp_protocol)
                return;

        if (worker->era == MCP_ERA_MODERN) {
                if (!TAILQ_EMPTY(&interests->subscriptions))
                        tell_listened(server_pool, worker);
                return;
        }

        levels_worker_ready(server_pool, worker);
        TAILQ_FOREACH(subscription, &interests->subscriptions, link)
                if (subscription->state == SUBSCRIPTION_ACTIVE)
                        worker_tell(worker, "resources/subscribe", subscription->params);
}

void interests_free(ServerPool *server_pool) {
        Interests *interests = server_pool->interests;
        Subscription *subscription;

        if (!interests)
                return;

        while ((subscription = TAILQ_FIRST(&interests->subscriptions))) {
                if (subscription->request.pool)
                        pool_cancel(&subscription->request, "the server was taken away");
                subscription_free(subscription);
        }
        levels_free(server_pool);
        free(interests);
        server_pool->interests = NULL;
}
