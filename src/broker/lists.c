#include "broker/lists.h"

#include <stdio.h>
#include <time.h>

#include "base/log.h"
#include "broker/list-changes.h"

typedef struct Waiter {
        TAILQ_ENTRY(Waiter) link;
        uid_t uid;
        list_done_handler done;
        void *userdata;
} Waiter;

/* One owner's list of one kind and, while it is fetched, who waits for it. owner is NULL for the one that a server of
 * the stateless era declared public: to the user whose worker it was, for a worker does what its callers make it do,
 * and no user writes what another one reads. */
struct ListCache {
        TAILQ_ENTRY(ListCache) link;
        Server *server;
        ListKind kind;
        char *owner;
        unsigned profile; /* the pool's */
        uid_t uid;        /* likewise */

        List list;
        bool known;       /* list is one that the server gave */
        bool valid;       /* and it can be handed out */
        bool announced;   /* that it changed */
        bool looked;      /* whether it was kept by an earlier run of the service */
        uint64_t expires; /* usec, CLOCK_MONOTONIC */

        Request request;
        bool fetching, refetch;
        char *cursor; /* the request's params: {"cursor":...} */
        List fetched;
        bool modern; /* it said how long it is good, */
        bool public; /* and for whom */
        uint64_t ttl;
        TAILQ_HEAD(, Waiter) waiters;
};

static void fetch_done(Request *request, const Outcome *outcome);

static unsigned profile_of(const ServerPool *server_pool) {
        return server_pool->pool->profile;
}

static uint64_t now_monotonic(const Server *server) {
        uint64_t usec = 0;

        (void)sd_event_now(server->manager->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static uint64_t now_realtime(const Server *server) {
        uint64_t usec = 0;

        (void)sd_event_now(server->manager->event, CLOCK_REALTIME, &usec);
        return usec;
}

static ListCache *find_cache(Server *server, ListKind kind, const char *owner, unsigned profile, uid_t uid) {
        ListCache *cache;

        TAILQ_FOREACH(cache, &server->lists, link)
                if (cache->kind == kind && cache->profile == profile &&
                    (owner ? cache->owner && streq(cache->owner, owner) : !cache->owner && cache->uid == uid))
                        return cache;

        return NULL;
}

static ListCache *get_cache(Server *server, ListKind kind, const char *owner, unsigned profile, uid_t uid) {
        ListCache *cache = find_cache(server, kind, owner, profile, uid);

        if (cache)
                return cache;

        cache = new0(ListCache, 1);
        if (!cache)
                return NULL;

        *cache = (ListCache){
                .server = server, .kind = kind, .owner = owner ? strdup(owner) : NULL, .profile = profile, .uid = uid
        };
        TAILQ_INIT(&cache->waiters);
        if (owner && !cache->owner) {
                free(cache);
                return NULL;
        }

        TAILQ_INSERT_TAIL(&server->lists, cache, link);
        return cache;
}

static ListKey key_of(const ListCache *cache) {
        return list_key(cache->server->config, cache->uid, cache->profile, list_member(cache->kind));
}

static void answer(ListCache *cache, const Failure *failure) {
        Waiter *waiter;

        while ((waiter = TAILQ_FIRST(&cache->waiters))) {
                TAILQ_REMOVE(&cache->waiters, waiter, link);
                quota_release_call(&cache->server->manager->quota, waiter->uid, 0);
                waiter->done(waiter->userdata, failure ? NULL : cache->list.items, failure ? 0 : cache->list.n,
                             failure);
                free(waiter);
        }

        cache->server->manager->handlers->maybe_idle(cache->server->manager->userdata);
}

static void fetch_stop(ListCache *cache) {
        cache->fetching = false;
        list_clear(&cache->fetched);
        free(cache->cursor);
        cache->cursor = NULL;
}

static void fetch_failed(ListCache *cache, const Failure *failure) {
        fetch_stop(cache);
        answer(cache, failure);
}

static ListCache *cache_free(ListCache *cache) {
        Failure failure = {};

        if (cache->fetching)
                pool_cancel(&cache->request, "the server was taken away");
        failure_set(&failure, FAILURE_NO_SUCH_SERVER, "Server %s was taken away", cache->server->config->name);
        fetch_failed(cache, &failure);
        failure_done(&failure);

        TAILQ_REMOVE(&cache->server->lists, cache, link);
        list_clear(&cache->list);
        free(cache->owner);
        free(cache);
        return NULL;
}

static int fetch_page(ListCache *cache, Pool *pool, Failure *failure) {
        cache->request = (Request){
                .kind = REQUEST_CALL,
                .uid = QUOTA_EVERYBODY,
                .method = list_method(cache->kind),
                .params.text = { cache->cursor, cache->cursor ? strlen(cache->cursor) : 0 },
                .done = fetch_done,
        };
        return pool_submit(pool, &cache->request, failure);
}

static int fetch_begin(ListCache *cache, Pool *pool, Failure *failure) {
        int r;

        cache->refetch = false;
        cache->modern = false;
        cache->public = true;
        cache->ttl = USEC_INFINITY;
        r = fetch_page(cache, pool, failure);
        cache->fetching = r >= 0;
        return r;
}

/* A static list that has changed after all is asked for at once, while its worker is there to be asked. */
static void fetch_unasked(ListCache *cache, Pool *pool) {
        Failure failure = {};

        if (!cache->fetching && fetch_begin(cache, pool, &failure) < 0)
                fetch_failed(cache, &failure);
        failure_done(&failure);
}

/* What a server of the stateless era says of how long and for whom its list is good (server/utilities/caching) */
static void take_caching(ListCache *cache, JsonSlice result) {
        uint64_t ttl;

        if (!json_get(result, "ttlMs").data)
                return;

        cache->modern = true;
        if (json_unsigned(json_get(result, "ttlMs"), &ttl) && ttl < UINT64_MAX / USEC_PER_MSEC)
                cache->ttl = MIN(cache->ttl, ttl * USEC_PER_MSEC);
        cache->public = cache->public && json_equal(json_get(result, "cacheScope"), "public");
}

/* What may be handed out when the service has left and come again: what the server says is good for a time, for as long
 * as that, and what the configuration says doesn't change. Only a list that is nobody's but the user's is kept where
 * workers are a connection's own. */
static void keep(ListStore *store, const ListCache *cache) {
        const ServerConfig *config = cache->server->config;
        uint64_t now = now_realtime(cache->server), expires;
        Buffer text = {};
        const ListKey key = key_of(cache);
        int r = 0;

        if (config->lists == SERVER_LISTS_STATIC)
                expires = USEC_INFINITY;
        else if (cache->modern && cache->ttl > 0 && (cache->public || config->scope != SERVER_SCOPE_CLIENT))
                expires = usec_add(now, MIN(cache->ttl, LISTS_KEEP_MAX));
        else
                return;

        for (size_t i = 0; i < cache->list.n && r >= 0; i++) {
                r = buffer_append_string(&text, cache->list.items[i].text);
                if (r >= 0)
                        r = buffer_append(&text, "\n", 1);
        }
        if (r >= 0)
                list_store_write(store, &key, now, expires, buffer_data(&text), buffer_size(&text));
        buffer_done(&text);
}

static int read_kept(const ListCache *cache, const Buffer *text, List *list) {
        const char *p = buffer_data(text) ?: "", *end = p + buffer_size(text), *line_end;
        int r = 0;

        for (; r >= 0 && p < end; p = line_end + 1) {
                JsonTraits traits;

                line_end = memchr(p, '\n', end - p);
                if (!line_end)
                        return -EBADMSG;
                r = json_scan(p, line_end - p, JSON_DEPTH_MAX, NULL, 0, &traits, NULL);
                if (r >= 0)
                        r = list_add(list, cache->kind, (JsonSlice){ p, line_end - p }, &traits);
        }

        return r;
}

/* Once for each owner. */
static void look_for_kept(ListCache *cache) {
        Server *server = cache->server;
        uint64_t now = now_realtime(server), expires;
        Buffer text = {};
        List list = {};
        const ListKey key = key_of(cache);

        if (cache->looked)
                return;
        cache->looked = true;

        if (list_store_read(server->manager->lists, &key, now, &text, &expires) >= 0 &&
            (expires < USEC_INFINITY || server->config->lists == SERVER_LISTS_STATIC)) {
                if (read_kept(cache, &text, &list) >= 0) {
                        list_clear(&cache->list);
                        cache->list = list;
                        cache->known = cache->valid = true;
                        cache->expires = expires == USEC_INFINITY ? USEC_INFINITY
                                                                  : usec_add(now_monotonic(server), expires - now);
                        log_debug("%s: its %s are those that were kept", server->config->name,
                                  list_member(cache->kind));
                } else {
                        log_notice("%s: the kept list of its %s can't be used", server->config->name,
                                   list_member(cache->kind));
                        list_clear(&list);
                }
        }
        buffer_done(&text);
}

static void note_changes(ListCache *cache, bool changed) {
        Manager *manager = cache->server->manager;
        const ListKey key = key_of(cache);

        if (cache->kind != LIST_TOOLS)
                return;

        changed = list_changes_note(manager->lists, &key, now_realtime(cache->server), cache->list.items,
                                    cache->list.n) ||
                  changed;
        if (changed && !cache->announced)
                manager->handlers->tools_changed(manager->userdata, cache->server, cache->uid);
}

static ServerPool *pool_of(const ListCache *cache) {
        ServerPool *server_pool;

        TAILQ_FOREACH(server_pool, &cache->server->pools, link)
                if (profile_of(server_pool) == cache->profile && streq(server_pool->pool->owner, cache->owner))
                        return server_pool;

        return NULL;
}

static void fetch_complete(ListCache *cache) {
        ServerPool *server_pool = pool_of(cache);
        Server *server = cache->server;
        bool changed = cache->known && !list_equal(&cache->list, &cache->fetched),
             fixed = server->config->lists == SERVER_LISTS_STATIC;
        ListCache *public;

        list_clear(&cache->list);
        cache->list = cache->fetched;
        cache->fetched = (List){};
        fetch_stop(cache);

        cache->known = true;
        cache->valid = !cache->refetch;
        /* A server that adds a tool says so, as a rule; not every one does for what else it has. */
        if (fixed || (cache->kind == LIST_TOOLS && !cache->modern))
                cache->ttl = USEC_INFINITY;
        else if (!cache->modern)
                cache->ttl = 0;
        cache->expires = usec_add(now_monotonic(server), cache->ttl);

        note_changes(cache, changed);
        if (cache->valid)
                keep(server->manager->lists, cache);
        cache->announced = false;

        answer(cache, NULL);

        if (((cache->modern && cache->public) || fixed) && cache->owner && cache->uid != QUOTA_EVERYBODY &&
            (public = get_cache(server, cache->kind, NULL, cache->profile, cache->uid)) && !public->fetching) {
                list_clear(&public->list);
                public->list = cache->list;
                public->known = true;
                public->valid = cache->valid;
                public->expires = cache->expires;
                public->looked = true;
                cache->list = (List){};
                cache->known = cache->valid = false;
        }

        if (fixed && cache->refetch && server_pool)
                fetch_unasked(cache, server_pool->pool);
}

/* What was in doubt, and couldn't be asked for again, isn't kept any more. */
static void distrust(const ListCache *cache) {
        const ListKey key = key_of(cache);

        if (cache->refetch || cache->announced)
                list_store_remove(cache->server->manager->lists, &key);
}

static void fetch_done(Request *request, const Outcome *outcome) {
        ListCache *cache = (ListCache *)((char *)request - offsetof(ListCache, request));
        ServerPool *server_pool;
        Failure failure = {};
        char *cursor = NULL;
        int r;

        if (outcome->failure && cache->kind != LIST_TOOLS && list_unknown(outcome->error)) {
                fetch_complete(cache);
                return;
        }
        if (outcome->failure) {
                distrust(cache);
                fetch_failed(cache, outcome->failure);
                return;
        }

        take_caching(cache, outcome->result);
        r = list_add_page(&cache->fetched, cache->kind, outcome->result, &outcome->traits, &cursor);
        free(cache->cursor);
        cache->cursor = cursor;
        if (r >= 0 && !cursor) {
                fetch_complete(cache);
                return;
        }

        server_pool = pool_of(cache);
        if (r >= 0 && server_pool)
                r = fetch_page(cache, server_pool->pool, &failure);
        else
                (void)list_failed(&failure, r, cache->kind, cache->server->config->name);

        if (failure.code != FAILURE_NONE) {
                distrust(cache);
                fetch_failed(cache, &failure);
        }
        failure_done(&failure);
}

static bool usable(const ListCache *cache) {
        return cache && cache->valid && now_monotonic(cache->server) < cache->expires;
}

int list_get(Server *server, const Client *client, ListKind kind, list_done_handler done, void *userdata,
             Failure *failure) {
        Quota *quota = &server->manager->quota;
        ServerPool *server_pool;
        ListCache *cache;
        Waiter *waiter;
        int r;

        if (server->config->protocol != SERVER_PROTOCOL_MCP)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "Server %s lists no %s: that is for MCP servers, and its protocol is %s",
                                   server->config->name, list_member(kind),
                                   server_protocol_to_string(server->config->protocol));

        r = server_get_pool(server, client, &server_pool);
        cache = r < 0 ? NULL : get_cache(server, kind, NULL, profile_of(server_pool), server_pool->uid);
        if (!cache)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        look_for_kept(cache);
        if (!usable(cache)) {
                cache = get_cache(server, kind, server_pool->pool->owner, profile_of(server_pool), server_pool->uid);
                if (!cache)
                        return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }

        if (usable(cache)) {
                /* A pool that was made for nothing but this goes again. */
                pool_schedule(server_pool->pool);
                done(userdata, cache->list.items, cache->list.n, NULL);
                return 0;
        }

        r = quota_charge_call(quota, client->uid, client->n_calls, 0, failure);
        if (r < 0)
                return r;

        waiter = new0(Waiter, 1);
        if (!waiter) {
                quota_release_call(quota, client->uid, 0);
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }
        *waiter = (Waiter){ .uid = client->uid, .done = done, .userdata = userdata };

        if (!cache->fetching) {
                r = fetch_begin(cache, server_pool->pool, failure);
                if (r < 0) {
                        quota_release_call(quota, client->uid, 0);
                        free(waiter);
                        return r;
                }
        }

        TAILQ_INSERT_TAIL(&cache->waiters, waiter, link);
        return 0;
}

static void doubt(ListCache *cache) {
        cache->valid = false;
        /* A question that wasn't sent yet has an answer that is new. */
        cache->refetch = cache->fetching && (cache->refetch || cache->request.worker || cache->fetched.n_pages > 0);
}

void lists_worker_ready(ServerPool *server_pool) {
        Server *server = server_pool->server;
        ListCache *cache;

        if (server->config->lists == SERVER_LISTS_STATIC)
                return;

        /* The one that is being fetched from this very worker is as new as can be. */
        TAILQ_FOREACH(cache, &server->lists, link)
                if (cache->owner && streq(cache->owner, server_pool->pool->owner) &&
                    cache->profile == profile_of(server_pool) && !cache->fetching)
                        cache->valid = false;
}

bool lists_changed(ServerPool *server_pool, const Worker *worker, const char *method) {
        Server *server = server_pool->server;
        bool fixed = server->config->lists == SERVER_LISTS_STATIC;
        bool tools = streq(method, list_changed_method(LIST_TOOLS)), known = false;
        ListCache *cache;

        for (ListKind kind = 0; kind < _LIST_KIND_MAX; kind++) {
                const ListKey key =
                        list_key(server->config, server_pool->uid, profile_of(server_pool), list_member(kind));

                if (!streq(method, list_changed_method(kind)))
                        continue;
                known = true;
                if (!fixed)
                        list_store_remove(server->manager->lists, &key);
        }
        /* What it says of that while it starts is the same at each start, too. */
        if (!known || (fixed && worker->state == WORKER_STARTING))
                return known;

        TAILQ_FOREACH(cache, &server->lists, link)
                if (streq(method, list_changed_method(cache->kind)) && cache->profile == profile_of(server_pool) &&
                    (cache->owner ? streq(cache->owner, server_pool->pool->owner) : cache->uid == server_pool->uid)) {
                        doubt(cache);
                        cache->announced = true;
                }

        for (ListKind kind = 0; kind < _LIST_KIND_MAX && fixed; kind++) {
                if (!streq(method, list_changed_method(kind)))
                        continue;
                cache = get_cache(server, kind, server_pool->pool->owner, profile_of(server_pool), server_pool->uid);
                if (!cache)
                        continue;
                cache->announced = true;
                fetch_unasked(cache, server_pool->pool);
        }

        if (tools && profile_of(server_pool) == 0)
                server->manager->handlers->tools_changed(server->manager->userdata, server, server_pool->uid);
        return true;
}

void lists_forget(Server *server) {
        ListCache *cache;

        TAILQ_FOREACH(cache, &server->lists, link) {
                doubt(cache);
                /* What another configuration left isn't of this one. */
                cache->looked = cache->owner;
        }
}

void lists_pool_unused(ServerPool *server_pool) {
        ListCache *cache, *next;

        TAILQ_FOREACH_SAFE(cache, &server_pool->server->lists, link, next)
                if (cache->owner && streq(cache->owner, server_pool->pool->owner) &&
                    cache->profile == profile_of(server_pool) &&
                    strncmp(cache->owner, "client:", strlen("client:")) == 0)
                        cache_free(cache);
}

void lists_free(Server *server) {
        ListCache *cache;

        while ((cache = TAILQ_FIRST(&server->lists)))
                cache_free(cache);
}
