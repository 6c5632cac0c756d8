#include "broker/tools.h"

#include <stdio.h>
#include <time.h>

#define PAGES_MAX 256
#define TOOLS_MAX 4096
#define LIST_MAX_BYTES ((size_t)4 << 20)
#define CURSOR_MAX_BYTES ((size_t)16 << 10)

typedef struct Waiter {
        TAILQ_ENTRY(Waiter) link;
        uid_t uid;
        tools_done_handler done;
        void *userdata;
} Waiter;

typedef struct ToolList {
        Tool *tools;
        size_t n, bytes;
} ToolList;

/* One owner's list and, while it is fetched, who waits for it. owner is NULL for the one that a server of the
 * stateless era declared public: to the user whose worker it was, for a worker does what its callers make it do, and no
 * user writes what another one reads. */
struct ToolCache {
        TAILQ_ENTRY(ToolCache) link;
        Server *server;
        char *owner;
        uid_t uid; /* the pool's */

        ToolList list;
        bool known;       /* list is one that the server gave */
        bool valid;       /* and it can be handed out */
        bool announced;   /* that it changed */
        uint64_t expires; /* usec, CLOCK_MONOTONIC */

        Request request;
        bool fetching, refetch;
        unsigned n_pages;
        char *cursor; /* the request's params: {"cursor":...} */
        ToolList fetched;
        bool public;
        uint64_t ttl;
        TAILQ_HEAD(, Waiter) waiters;
};

static void fetch_done(Request *request, const Outcome *outcome);

static uint64_t now_monotonic(const Server *server) {
        uint64_t usec = 0;

        (void)sd_event_now(server->manager->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static void list_clear(ToolList *list) {
        for (size_t i = 0; i < list->n; i++) {
                free(list->tools[i].name);
                free(list->tools[i].description);
                free(list->tools[i].schema);
        }
        free(list->tools);
        *list = (ToolList){};
}

static bool list_equal(const ToolList *a, const ToolList *b) {
        if (a->n != b->n)
                return false;

        for (size_t i = 0; i < a->n; i++)
                if (!streq(a->tools[i].name, b->tools[i].name) ||
                    !streq(a->tools[i].description, b->tools[i].description) ||
                    !streq(a->tools[i].schema, b->tools[i].schema))
                        return false;

        return true;
}

static ToolCache *find_cache(Server *server, const char *owner, uid_t uid) {
        ToolCache *cache;

        TAILQ_FOREACH(cache, &server->tools, link)
                if (owner ? cache->owner && streq(cache->owner, owner) : !cache->owner && cache->uid == uid)
                        return cache;

        return NULL;
}

static ToolCache *get_cache(Server *server, const char *owner, uid_t uid) {
        ToolCache *cache = find_cache(server, owner, uid);

        if (cache)
                return cache;

        cache = new0(ToolCache, 1);
        if (!cache)
                return NULL;

        *cache = (ToolCache){ .server = server, .owner = owner ? strdup(owner) : NULL, .uid = uid };
        TAILQ_INIT(&cache->waiters);
        if (owner && !cache->owner) {
                free(cache);
                return NULL;
        }

        TAILQ_INSERT_TAIL(&server->tools, cache, link);
        return cache;
}

static void answer(ToolCache *cache, const Failure *failure) {
        Waiter *waiter;

        while ((waiter = TAILQ_FIRST(&cache->waiters))) {
                TAILQ_REMOVE(&cache->waiters, waiter, link);
                quota_release_call(&cache->server->manager->quota, waiter->uid, 0);
                waiter->done(waiter->userdata, failure ? NULL : cache->list.tools, failure ? 0 : cache->list.n,
                             failure);
                free(waiter);
        }

        cache->server->manager->handlers->maybe_idle(cache->server->manager->userdata);
}

static void fetch_stop(ToolCache *cache) {
        cache->fetching = false;
        list_clear(&cache->fetched);
        free(cache->cursor);
        cache->cursor = NULL;
}

static void fetch_failed(ToolCache *cache, const Failure *failure) {
        fetch_stop(cache);
        answer(cache, failure);
}

static ToolCache *cache_free(ToolCache *cache) {
        Failure failure = {};

        if (cache->fetching)
                pool_cancel(&cache->request, "the server was taken away");
        failure_set(&failure, FAILURE_NO_SUCH_SERVER, "Server %s was taken away", cache->server->config->name);
        fetch_failed(cache, &failure);
        failure_done(&failure);

        TAILQ_REMOVE(&cache->server->tools, cache, link);
        list_clear(&cache->list);
        free(cache->owner);
        free(cache);
        return NULL;
}

static int fetch_page(ToolCache *cache, Pool *pool, Failure *failure) {
        cache->request = (Request){
                .kind = REQUEST_CALL,
                .method = "tools/list",
                .params.text = { cache->cursor, cache->cursor ? strlen(cache->cursor) : 0 },
                .done = fetch_done,
        };
        cache->n_pages++;
        return pool_submit(pool, &cache->request, failure);
}

static char *copy_schema(JsonSlice schema, const JsonTraits *traits) {
        Buffer text = {};

        if (!json_is(schema, '{'))
                return strdup("{}");
        if (json_append(&text, schema, traits) < 0 || buffer_append(&text, "", 1) < 0) {
                buffer_done(&text);
                return NULL;
        }

        return text.data;
}

static int take_tool(ToolCache *cache, JsonSlice element, const JsonTraits *traits) {
        Tool *tools, tool = {
                .name = json_decode(json_get(element, "name")),
                .description = json_decode(json_get(element, "description")) ?: strdup(""),
                .schema = copy_schema(json_get(element, "inputSchema"), traits),
        };

        tools = reallocarray(cache->fetched.tools, cache->fetched.n + 1, sizeof(Tool));
        if (tools)
                cache->fetched.tools = tools;
        if (!tools || !tool.name || !tool.description || !tool.schema) {
                bool nameless = tools && !tool.name && !json_is(json_get(element, "name"), '"');

                free(tool.name);
                free(tool.description);
                free(tool.schema);
                return nameless ? 0 : -ENOMEM;
        }

        cache->fetched.bytes += strlen(tool.name) + strlen(tool.description) + strlen(tool.schema);
        cache->fetched.tools[cache->fetched.n++] = tool;
        return cache->fetched.n > TOOLS_MAX || cache->fetched.bytes > LIST_MAX_BYTES ? -E2BIG : 0;
}

/* What a server of the stateless era says of how long and for whom its list is good (server/utilities/caching) */
static void take_caching(ToolCache *cache, JsonSlice result) {
        uint64_t ttl;

        if (!json_get(result, "ttlMs").data)
                return;

        if (json_unsigned(json_get(result, "ttlMs"), &ttl) && ttl < UINT64_MAX / USEC_PER_MSEC)
                cache->ttl = MIN(cache->ttl, ttl * USEC_PER_MSEC);
        cache->public = cache->public && json_equal(json_get(result, "cacheScope"), "public");
}

static void fetch_complete(ToolCache *cache, bool modern) {
        Server *server = cache->server;
        bool changed = cache->known && !list_equal(&cache->list, &cache->fetched);
        ToolCache *public;

        list_clear(&cache->list);
        cache->list = cache->fetched;
        cache->fetched = (ToolList){};
        fetch_stop(cache);

        cache->known = true;
        cache->valid = !cache->refetch;
        cache->expires = usec_add(now_monotonic(server), cache->ttl);

        if (changed && !cache->announced)
                server->manager->handlers->tools_changed(server->manager->userdata, server, cache->uid);
        cache->announced = false;

        answer(cache, NULL);

        if (modern && cache->public && cache->owner && cache->uid != QUOTA_EVERYBODY &&
            (public = get_cache(server, NULL, cache->uid)) && !public->fetching) {
                list_clear(&public->list);
                public->list = cache->list;
                public->known = true;
                public->valid = cache->valid;
                public->expires = cache->expires;
                cache->list = (ToolList){};
                cache->known = cache->valid = false;
        }
}

static int take_page(ToolCache *cache, const Outcome *outcome, bool *ret_more) {
        JsonSlice cursor = json_get(outcome->result, "nextCursor"), tools = json_get(outcome->result, "tools"), element;
        const char *position = NULL;
        Buffer params = {};
        int r = 0;

        if (!json_is(tools, '['))
                return -EBADMSG;

        take_caching(cache, outcome->result);
        while (r >= 0 && json_next_element(tools, &position, &element))
                r = take_tool(cache, element, &outcome->traits);
        if (r < 0)
                return r;

        *ret_more = json_is(cursor, '"');
        if (!*ret_more)
                return 0;
        if (cache->n_pages >= PAGES_MAX || cursor.size > CURSOR_MAX_BYTES)
                return -E2BIG;

        r = buffer_append_string(&params, "{\"cursor\":");
        if (r >= 0)
                r = json_append(&params, cursor, &outcome->traits);
        if (r >= 0)
                r = buffer_append(&params, "}", 2);
        if (r < 0) {
                buffer_done(&params);
                return r;
        }

        free(cache->cursor);
        cache->cursor = params.data;
        return 0;
}

static void fetch_done(Request *request, const Outcome *outcome) {
        ToolCache *cache = (ToolCache *)((char *)request - offsetof(ToolCache, request));
        ServerPool *server_pool;
        Failure failure = {};
        bool more = false;
        int r;

        if (outcome->failure) {
                fetch_failed(cache, outcome->failure);
                return;
        }

        r = take_page(cache, outcome, &more);
        if (r >= 0 && !more) {
                fetch_complete(cache, json_get(outcome->result, "ttlMs").data != NULL);
                return;
        }

        TAILQ_FOREACH(server_pool, &cache->server->pools, link)
                if (server_pool->pool->profile == 0 && streq(server_pool->pool->owner, cache->owner))
                        break;

        if (r >= 0 && server_pool)
                r = fetch_page(cache, server_pool->pool, &failure);
        else if (r == -E2BIG)
                failure_set(&failure, FAILURE_TOO_LARGE,
                            "Server %s: its list of tools is longer than %u pages, %u tools or %zu bytes",
                            cache->server->config->name, PAGES_MAX, TOOLS_MAX, LIST_MAX_BYTES);
        else if (r == -EBADMSG)
                failure_set(&failure, FAILURE_PROTOCOL_ERROR,
                            "Server %s: its answer to tools/list has no array of tools", cache->server->config->name);
        else
                failure_set(&failure, FAILURE_UNAVAILABLE, "Server %s: %s", cache->server->config->name,
                            strerror(ENOMEM));

        if (failure.code != FAILURE_NONE)
                fetch_failed(cache, &failure);
        failure_done(&failure);
}

static bool usable(const ToolCache *cache) {
        return cache && cache->valid && now_monotonic(cache->server) < cache->expires;
}

int tools_list(Server *server, const Client *client, tools_done_handler done, void *userdata, Failure *failure) {
        ToolCache *cache = find_cache(server, NULL, client->uid);
        Quota *quota = &server->manager->quota;
        ServerPool *server_pool;
        Waiter *waiter;
        int r;

        if (server->config->protocol != SERVER_PROTOCOL_MCP)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "Server %s lists no tools: that is for MCP servers, and its protocol is %s",
                                   server->config->name, server_protocol_to_string(server->config->protocol));

        if (!usable(cache)) {
                r = server_get_pool(server, client, &server_pool);
                cache = r < 0 ? NULL : get_cache(server, server_pool->pool->owner, server_pool->uid);
                if (!cache)
                        return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }

        if (usable(cache)) {
                done(userdata, cache->list.tools, cache->list.n, NULL);
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
                cache->n_pages = 0;
                cache->refetch = false;
                cache->public = true;
                cache->ttl = USEC_INFINITY;
                r = fetch_page(cache, server_pool->pool, failure);
                if (r < 0) {
                        quota_release_call(quota, client->uid, 0);
                        free(waiter);
                        return r;
                }
                cache->fetching = true;
        }

        TAILQ_INSERT_TAIL(&cache->waiters, waiter, link);
        return 0;
}

static void doubt(ToolCache *cache) {
        cache->valid = false;
        cache->refetch = cache->fetching;
}

void tools_worker_ready(ServerPool *server_pool) {
        ToolCache *cache = find_cache(server_pool->server, server_pool->pool->owner, server_pool->uid);

        /* The one that is being fetched from this very worker is as new as can be. */
        if (cache && !cache->fetching)
                cache->valid = false;
}

void tools_list_changed(ServerPool *server_pool) {
        Server *server = server_pool->server;
        ToolCache *cache;

        TAILQ_FOREACH(cache, &server->tools, link)
                if (cache->owner ? streq(cache->owner, server_pool->pool->owner) : cache->uid == server_pool->uid) {
                        doubt(cache);
                        cache->announced = true;
                }

        server->manager->handlers->tools_changed(server->manager->userdata, server, server_pool->uid);
}

void tools_forget(Server *server) {
        ToolCache *cache;

        TAILQ_FOREACH(cache, &server->tools, link)
                doubt(cache);
}

void tools_pool_unused(ServerPool *server_pool) {
        ToolCache *cache = find_cache(server_pool->server, server_pool->pool->owner, server_pool->uid);

        if (cache && strncmp(cache->owner, "client:", strlen("client:")) == 0)
                cache_free(cache);
}

void tools_free(Server *server) {
        ToolCache *cache;

        while ((cache = TAILQ_FIRST(&server->tools)))
                cache_free(cache);
}
