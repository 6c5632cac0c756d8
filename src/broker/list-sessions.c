/* What sessions are told of servers beside the lists that the broker asked for itself */

#include <time.h>

#include "broker/list-changes.h"

static uint64_t now_realtime(const Server *server) {
        uint64_t usec = 0;

        (void)sd_event_now(server->manager->event, CLOCK_REALTIME, &usec);
        return usec;
}

static ListKey key_of(const ServerPool *server_pool, const char *kind) {
        return list_key(server_pool->pool->config, server_pool->uid, server_pool->pool->profile, kind);
}

void lists_seen(ServerPool *server_pool, JsonSlice params, JsonSlice result, const JsonTraits *traits) {
        Server *server = server_pool->server;
        Manager *manager = server->manager;
        const char *position = NULL;
        List list = {};
        const ListKey key = key_of(server_pool, list_member(LIST_TOOLS));
        JsonSlice element;
        int r = 0;

        if (json_get(params, "cursor").data || json_is(json_get(result, "nextCursor"), '"') ||
            !json_is(json_get(result, "tools"), '['))
                return;

        while (r >= 0 && json_next_element(json_get(result, "tools"), &position, &element))
                r = list_add(&list, LIST_TOOLS, element, traits);
        if (r >= 0 && list_changes_note(manager->lists, &key, now_realtime(server), list.items, list.n))
                manager->handlers->tools_changed(manager->userdata, server, server_pool->uid);
        list_clear(&list);
}

/* A greeting is written with the era in which it is read. */
void lists_greet_pool(ServerPool *server_pool) {
        Server *server = server_pool->server;
        bool fixed = server->config->lists == SERVER_LISTS_STATIC;
        uint64_t now = now_realtime(server), expires;
        Pool *pool = server_pool->pool;
        Buffer text = {};
        const ListKey key = key_of(server_pool, "greeting");
        JsonTraits traits;

        if (server->config->protocol == SERVER_PROTOCOL_MCP &&
            list_store_read(server->manager->lists, &key, now, &text, &expires) >= 0 &&
            (fixed || expires < USEC_INFINITY) &&
            json_scan(buffer_data(&text), buffer_size(&text), JSON_DEPTH_MAX, NULL, 0, &traits, NULL) >= 0) {
                JsonSlice greeting = { buffer_data(&text), buffer_size(&text) };
                McpEra era = json_get(greeting, "supportedVersions").data ? MCP_ERA_MODERN : MCP_ERA_LEGACY;

                if (pool->era == MCP_ERA_AUTO || pool->era == era) {
                        pool->era = era;
                        pool_set_greeting(pool, greeting, &traits);
                }
        }
        buffer_done(&text);
}

void lists_keep_greeting(ServerPool *server_pool) {
        const Server *server = server_pool->server;
        const Buffer *greeting = &server_pool->pool->greeting;
        JsonSlice text = { buffer_data(greeting), buffer_size(greeting) }, ttl = json_get(text, "ttlMs");
        uint64_t now = now_realtime(server), expires = USEC_INFINITY, milliseconds;
        const ListKey key = key_of(server_pool, "greeting");

        if (text.size == 0)
                return;
        if (server->config->lists != SERVER_LISTS_STATIC) {
                if (!json_unsigned(ttl, &milliseconds) || milliseconds == 0 ||
                    !(json_equal(json_get(text, "cacheScope"), "public") ||
                      server->config->scope != SERVER_SCOPE_CLIENT))
                        return;
                expires = usec_add(now, MIN(milliseconds, LISTS_KEEP_MAX / USEC_PER_MSEC) * USEC_PER_MSEC);
        }

        list_store_write(server->manager->lists, &key, now, expires, text.data, text.size);
}
