#include "broker/interests.h"

#define URI_MAX_BYTES 2048

typedef struct Subscription Subscription;

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

typedef struct Level {
        TAILQ_ENTRY(Level) link;
        const void *subscriber;
        McpLevel level, wanted; /* wanted: while it is asked for, or level */
        InterestReply reply;
        bool asked;
        Request request;
        ServerPool *server_pool;
} Level;

struct Interests {
        TAILQ_HEAD(, Subscription) subscriptions;
        unsigned n_subscriptions;
        TAILQ_HEAD(, Level) levels;
        McpLevel told; /* to the workers */
};

/* The params of logging/setLevel; static, for they have to outlive the request */
static const char *const level_params[_MCP_LEVEL_MAX] = {
        [MCP_LEVEL_DEBUG] = "{\"level\":\"debug\"}",   [MCP_LEVEL_INFO] = "{\"level\":\"info\"}",
        [MCP_LEVEL_NOTICE] = "{\"level\":\"notice\"}", [MCP_LEVEL_WARNING] = "{\"level\":\"warning\"}",
        [MCP_LEVEL_ERROR] = "{\"level\":\"error\"}",   [MCP_LEVEL_CRITICAL] = "{\"level\":\"critical\"}",
        [MCP_LEVEL_ALERT] = "{\"level\":\"alert\"}",   [MCP_LEVEL_EMERGENCY] = "{\"level\":\"emergency\"}",
};

static const Outcome empty_result = { .result = { "{}", 2 } };

static void give(InterestReply reply, const Outcome *outcome) {
        reply.done(reply.userdata, outcome);
}

static Interests *get_interests(ServerPool *server_pool) {
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

static Worker *first_ready(const ServerPool *server_pool) {
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

/* The one that has answered, if there is but one. Where there are more, all are asked once more, also the one that
 * was: it has the same afterwards. */
static Worker *only_ready(const ServerPool *server_pool) {
        Worker *worker, *only = NULL;

        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                if (worker->state == WORKER_READY) {
                        if (only)
                                return NULL;
                        only = worker;
                }

        return only;
}

/* asked: the worker that has answered for itself, or NULL */
static void tell_workers(ServerPool *server_pool, const char *method, const char *params, const Worker *asked) {
        Worker *worker;

        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                if (worker != asked && worker->state == WORKER_READY && worker->era == MCP_ERA_LEGACY)
                        worker_tell(worker, method, params);
}

static void tell_subscription(Subscription *subscription, const char *method, const Worker *asked) {
        Worker *worker;

        tell_workers(subscription->server_pool, method, subscription->params, asked);
        TAILQ_FOREACH(worker, &subscription->server_pool->pool->workers, link)
                if (worker->state == WORKER_READY && worker->era == MCP_ERA_MODERN)
                        tell_listened(subscription->server_pool, worker);
}

/* Who waits for what a server says unasked would wait in vain for a worker that has left. */
static void hold_pool(ServerPool *server_pool) {
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
        hold_pool(server_pool);
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
                hold_pool(server_pool);
        }

        while ((part = TAILQ_FIRST(&due))) {
                TAILQ_REMOVE(&due, part, link);
                give(part->reply, outcome);
                free(part);
        }
}

static void subscription_asked(Request *request, const Outcome *outcome) {
        Subscription *subscription = (Subscription *)((char *)request - offsetof(Subscription, request));

        if (!outcome->failure) {
                subscription->state = SUBSCRIPTION_ACTIVE;
                tell_subscription(subscription, "resources/subscribe", only_ready(subscription->server_pool));
                hold_pool(subscription->server_pool);
        }
        answer_parts(subscription, outcome);
}

static void subscription_ready(Request *request, const Outcome *outcome);

static int subscription_ask(Subscription *subscription, Failure *failure) {
        Pool *pool = subscription->server_pool->pool;
        Worker *worker = first_ready(subscription->server_pool);

        if (worker && worker->era == MCP_ERA_MODERN) {
                subscription->state = SUBSCRIPTION_ACTIVE;
                tell_subscription(subscription, "resources/subscribe", NULL);
                hold_pool(subscription->server_pool);
                answer_parts(subscription, &empty_result);
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
        Interests *interests = get_interests(server_pool);
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
                give(reply, &empty_result);
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
                give(reply, &empty_result);
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
                give(reply, &empty_result);
}

static Level *find_level(const Interests *interests, const void *subscriber) {
        Level *level;

        TAILQ_FOREACH(level, &interests->levels, link)
                if (level->subscriber == subscriber)
                        return level;

        return NULL;
}

McpLevel interests_level(const ServerPool *server_pool) {
        const Interests *interests = server_pool->interests;
        McpLevel most = _MCP_LEVEL_NONE;
        Level *level;

        if (!interests)
                return _MCP_LEVEL_NONE;

        TAILQ_FOREACH(level, &interests->levels, link)
                if (level->level != _MCP_LEVEL_NONE && (most == _MCP_LEVEL_NONE || level->level < most))
                        most = level->level;

        return most;
}

McpLevel interests_level_of(const ServerPool *server_pool, const void *subscriber) {
        const Level *level = server_pool->interests ? find_level(server_pool->interests, subscriber) : NULL;

        return level ? level->level : _MCP_LEVEL_NONE;
}

/* asked: as tell_workers() */
static void tell_level(ServerPool *server_pool, const Worker *asked) {
        Interests *interests = server_pool->interests;
        McpLevel most = interests_level(server_pool);

        if (most == _MCP_LEVEL_NONE || most == interests->told)
                return;

        interests->told = most;
        tell_workers(server_pool, "logging/setLevel", level_params[most], asked);
}

static void level_free(Level *level) {
        TAILQ_REMOVE(&level->server_pool->interests->levels, level, link);
        free(level);
}

static void level_asked(Request *request, const Outcome *outcome) {
        Level *level = (Level *)((char *)request - offsetof(Level, request));
        ServerPool *server_pool = level->server_pool;
        InterestReply reply = level->reply;

        level->asked = false;
        if (!outcome->failure) {
                level->level = level->wanted;
                tell_level(server_pool, only_ready(server_pool));
        } else if (level->level == _MCP_LEVEL_NONE) {
                level_free(level);
                hold_pool(server_pool);
        }
        give(reply, outcome);
}

int interests_set_level(ServerPool *server_pool, const void *subscriber, McpLevel wanted, InterestReply reply,
                        Failure *failure) {
        Interests *interests = get_interests(server_pool);
        Worker *worker = first_ready(server_pool);
        Level *level;
        int r;

        level = interests ? find_level(interests, subscriber) : NULL;
        if (interests && !level && (level = new0(Level, 1))) {
                *level = (Level){
                        .subscriber = subscriber,
                        .level = _MCP_LEVEL_NONE,
                        .server_pool = server_pool,
                };
                TAILQ_INSERT_TAIL(&interests->levels, level, link);
        }
        if (!level)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (level->asked)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "A level is being set already");

        /* The workers say as much already, or are told so when they come, or with each request. */
        if (!worker || worker->era != MCP_ERA_LEGACY ||
            (interests->told != _MCP_LEVEL_NONE && interests->told <= wanted)) {
                level->level = wanted;
                tell_level(server_pool, NULL);
                give(reply, &empty_result);
                return 0;
        }

        level->wanted = wanted;
        level->reply = reply;
        level->request = (Request){
                .kind = REQUEST_CALL,
                .uid = server_pool->uid,
                .caller = server_pool,
                .method = "logging/setLevel",
                .params.text = { level_params[wanted], strlen(level_params[wanted]) },
                .done = level_asked,
        };
        r = pool_submit(server_pool->pool, &level->request, failure);
        if (r < 0 && level->level == _MCP_LEVEL_NONE)
                level_free(level);
        else if (r >= 0)
                level->asked = true;
        return r;
}

void interests_leave(ServerPool *server_pool, const void *subscriber) {
        Interests *interests = server_pool->interests;
        Subscription *subscription, *next;
        Level *level;

        if (!interests)
                return;

        TAILQ_FOREACH_SAFE(subscription, &interests->subscriptions, link, next) {
                Part *part = find_part(subscription, subscriber);

                if (part)
                        leave_subscription(subscription, part);
        }

        level = find_level(interests, subscriber);
        if (level) {
                if (level->asked)
                        pool_cancel(&level->request, "its session has left");
                level_free(level);
                tell_level(server_pool, NULL);
        }
        hold_pool(server_pool);
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

bool interests_want_log(const ServerPool *server_pool, const void *subscriber, McpLevel level) {
        McpLevel own = interests_level_of(server_pool, subscriber);

        if (own == _MCP_LEVEL_NONE)
                own = interests_level(server_pool) == _MCP_LEVEL_NONE ? MCP_LEVEL_DEBUG : MCP_LEVEL_INFO;

        return level >= own;
}

void interests_worker_ready(ServerPool *server_pool, Worker *worker) {
        Interests *interests = server_pool->interests;
        McpLevel level = interests_level(server_pool);
        Subscription *subscription;

        if (!interests || worker->wire != &mcp_protocol)
                return;

        if (worker->era == MCP_ERA_MODERN) {
                if (!TAILQ_EMPTY(&interests->subscriptions))
                        tell_listened(server_pool, worker);
                return;
        }

        interests->told = level;
        if (level != _MCP_LEVEL_NONE)
                worker_tell(worker, "logging/setLevel", level_params[level]);
        TAILQ_FOREACH(subscription, &interests->subscriptions, link)
                if (subscription->state == SUBSCRIPTION_ACTIVE)
                        worker_tell(worker, "resources/subscribe", subscription->params);
}

void interests_free(ServerPool *server_pool) {
        Interests *interests = server_pool->interests;
        Subscription *subscription;
        Level *level;

        if (!interests)
                return;

        while ((subscription = TAILQ_FIRST(&interests->subscriptions))) {
                if (subscription->request.pool)
                        pool_cancel(&subscription->request, "the server was taken away");
                subscription_free(subscription);
        }
        while ((level = TAILQ_FIRST(&interests->levels))) {
                if (level->asked)
                        pool_cancel(&level->request, "the server was taken away");
                level_free(level);
        }
        free(interests);
        server_pool->interests = NULL;
}
