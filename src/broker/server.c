#include <stdio.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/approval.h"
#include "broker/interests.h"
#include "broker/lists.h"
#include "broker/manager.h"
#include "broker/message-ids.h"
#include "broker/payload.h"
#include "broker/session.h"

#define LOG_SHOWN ((size_t)4096)

#define METHOD_MAX 256

/* At most so much of what a worker says is passed on in a time: one that floods its stderr fills no disk, one that
 * floods notifications no queue of the bus. */
#define BUDGET 500
#define BUDGET_INTERVAL (10 * USEC_PER_SEC)

static bool budget_allows(WorkerBudget *budget, uint64_t now) {
        if (budget->since == 0 || now - budget->since > BUDGET_INTERVAL)
                *budget = (WorkerBudget){ .since = now };

        if (budget->n_used >= BUDGET) {
                budget->n_dropped++;
                return false;
        }

        budget->n_used++;
        return true;
}

static char *owner_of(const ServerConfig *config, const Client *client) {
        char *owner = NULL;
        int n = 0;

        switch (config->scope) {
        case SERVER_SCOPE_SHARED:
                return strdup("shared");
        case SERVER_SCOPE_USER:
                n = asprintf(&owner, "uid:%u", (unsigned)client->uid);
                break;
        case SERVER_SCOPE_CLIENT:
                n = asprintf(&owner, "client:%s", client->name);
                break;
        }

        return n < 0 ? NULL : owner;
}

static ServerPool *server_pool_free(ServerPool *server_pool) {
        interests_free(server_pool);
        TAILQ_REMOVE(&server_pool->server->pools, server_pool, link);
        pool_free(server_pool->pool);
        free(server_pool);
        return NULL;
}

/* Whose workers count against the same limit: those of its user, and, for the limit on all, everybody's */
static bool shares_limit(const ServerPool *server_pool, const ServerPool *other, bool of_all) {
        return of_all || server_pool->uid == other->uid;
}

/* Where a limit is reached, the worker that has been idle longest makes room. True: one is leaving. */
static bool make_room(ServerPool *server_pool) {
        Manager *manager = server_pool->server->manager;
        bool of_all = !quota_user_has_all_workers(&manager->quota, server_pool->uid);
        Worker *worker, *idlest = NULL;
        ServerPool *other;
        Server *server;

        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(other, &server->pools, link)
                        TAILQ_FOREACH(worker, &other->pool->workers, link) {
                                if (!shares_limit(server_pool, other, of_all))
                                        continue;
                                if (worker->n_requests + worker->n_holds > 0)
                                        continue;
                                if (worker->state > WORKER_READY)
                                        return true;
                                if (worker->state == WORKER_READY &&
                                    (!idlest || worker->last_active < idlest->last_active))
                                        idlest = worker;
                        }

        if (idlest)
                worker_drain(idlest);
        return idlest;
}

static int on_worker_wanted(void *userdata, Failure *failure) {
        ServerPool *server_pool = userdata;
        int r;

        r = quota_charge_worker(&server_pool->server->manager->quota, server_pool->uid, failure);
        if (r < 0 && make_room(server_pool)) {
                failure_done(failure);
                return 1;
        }

        return r;
}

static void on_worker_gone(void *userdata) {
        ServerPool *server_pool = userdata, *other;
        Manager *manager = server_pool->server->manager;
        Server *server;

        quota_release_worker(&manager->quota, server_pool->uid);
        manager->handlers->workers_changed(manager->userdata, server_pool->uid);
        manager->handlers->maybe_idle(manager->userdata);

        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(other, &server->pools, link)
                        if (other->pool->n_queued > 0)
                                pool_schedule(other->pool);
}

static int on_bytes_wanted(void *userdata, uid_t uid, uint64_t bytes, Failure *failure) {
        ServerPool *server_pool = userdata;

        return payload_charge(server_pool->server->manager, uid, bytes, failure);
}

static void on_bytes_gone(void *userdata, uid_t uid, uint64_t bytes) {
        ServerPool *server_pool = userdata;

        quota_release_payload(&server_pool->server->manager->quota, uid, bytes);
}

static uint64_t on_worked(void *userdata, const Request *request, uint64_t usec) {
        ServerPool *server_pool = userdata;
        Manager *manager = server_pool->server->manager;

        return manager->handlers->worked(manager->userdata, request ? request->uid : server_pool->uid, usec);
}

/* extra: one more field, or NULL */
static void log_worker(int level, const Worker *worker, const char *extra, const char *format, const char *text) {
        char server[80], id[64], owner[160], pid[32];

        (void)snprintf(server, sizeof(server), "MCP_EXEC_SERVER=%s", worker->config->name);
        (void)snprintf(id, sizeof(id), "MCP_EXEC_WORKER=%s", worker->id);
        (void)snprintf(owner, sizeof(owner), "MCP_EXEC_OWNER=%s", worker->pool->owner);
        (void)snprintf(pid, sizeof(pid), "MCP_EXEC_WORKER_PID=%d", worker->process ? (int)worker->process->pid : 0);
        log_fields(level, (const char *const[]){ server, id, owner, pid, extra, NULL }, format, worker->config->name,
                   worker->process ? (int)worker->process->pid : 0, text);
}

static void log_start(Worker *worker) {
        if (worker->start_logged || !worker->process || worker->process->pid == 0)
                return;

        worker->start_logged = true;
        log_worker(LOG_INFO, worker, "MESSAGE_ID=" MESSAGE_WORKER_STARTED, "%s[%d]: started%s", "");
}

static void on_worker_added(void *userdata, Worker *worker) {
        ServerPool *server_pool = userdata;
        Server *server = server_pool->server;

        log_start(worker);
        server->manager->handlers->worker_added(server->manager->userdata, server_pool->uid, worker);
        server->manager->handlers->workers_changed(server->manager->userdata, server_pool->uid);
        server->manager->handlers->server_changed(server->manager->userdata, server, server_pool->uid);
}

static void on_worker_changed(void *userdata, Worker *worker) {
        ServerPool *server_pool = userdata;
        Server *server = server_pool->server;

        log_start(worker);
        log_worker(LOG_DEBUG, worker, NULL, "%s[%d]: %s", worker_state_to_string(worker->state));
        if (worker->state == WORKER_READY) {
                approval_ask(server_pool, worker);
                lists_worker_ready(server_pool);
                lists_keep_greeting(server_pool);
                interests_worker_ready(server_pool, worker);
        }
        server->manager->handlers->worker_changed(server->manager->userdata, server_pool->uid, worker);
        server->manager->handlers->server_changed(server->manager->userdata, server, server_pool->uid);
}

static void on_worker_removed(void *userdata, Worker *worker, const char *how, bool crashed) {
        ServerPool *server_pool = userdata;
        Server *server = server_pool->server;

        sessions_worker_removed(server_pool, worker);
        log_worker(crashed ? LOG_WARNING : LOG_INFO, worker, "MESSAGE_ID=" MESSAGE_WORKER_EXITED, "%s[%d]: %s", how);
        server->manager->handlers->worker_removed(server->manager->userdata, server_pool->uid, worker);
        server->manager->handlers->server_changed(server->manager->userdata, server, server_pool->uid);
}

static void on_launch_failed(void *userdata, const Failure *failure) {
        ServerPool *server_pool = userdata;

        log_warning("%s: %s", server_pool->server->config->name, failure_message(failure));
        server_pool->server->manager->handlers->server_changed(server_pool->server->manager->userdata,
                                                               server_pool->server, server_pool->uid);
}

static void on_crash_loop(void *userdata, uint64_t pause, const Failure *failure) {
        ServerPool *server_pool = userdata;
        char server[80], owner[160];

        (void)snprintf(server, sizeof(server), "MCP_EXEC_SERVER=%s", server_pool->server->config->name);
        (void)snprintf(owner, sizeof(owner), "MCP_EXEC_OWNER=%s", server_pool->pool->owner);
        log_fields(LOG_ERR, (const char *const[]){ server, owner, "MESSAGE_ID=" MESSAGE_CRASH_LOOP, NULL },
                   "%s: crashes again and again; it is not started for %u s: %s", server_pool->server->config->name,
                   (unsigned)(pause / USEC_PER_SEC), failure_message(failure));
}

static void on_era_known(void *userdata, McpEra era) {
        ServerPool *server_pool = userdata;

        Server *server = server_pool->server;

        /* The pool's own configuration: the server's may have changed since. */
        era_cache_set(server->manager->eras, server_pool->pool->config, era);
}

static void on_notification(void *userdata, Worker *worker, JsonSlice method, JsonSlice params,
                            const JsonTraits *traits) {
        ServerPool *server_pool = userdata;
        Server *server = server_pool->server;
        Manager *manager = server->manager;
        _cleanup_(freep) char *name = json_decode(method);
        Client *client;

        if (!name || strlen(name) > METHOD_MAX)
                return;
        if (streq(name, "notifications/cancelled")) {
                sessions_cancelled(server_pool, worker, params);
                return;
        }

        /* Sessions have limits of their own. */
        sessions_notification(server_pool, worker, method, params, traits);
        if (streq(name, "notifications/progress") || !budget_allows(&worker->notifications, worker_now(worker)))
                return;
        if (streq(name, list_changed_method(LIST_TOOLS)))
                approval_ask(server_pool, worker);
        (void)lists_changed(server_pool, worker, name);

        TAILQ_FOREACH(client, &manager->clients, link)
                if (client->peer && client_uses_server(client, server) &&
                    server_find_pool(server, client) == server_pool)
                        manager->handlers->notification(manager->userdata, client, server, name, params, traits);
}

static bool on_request(void *userdata, Worker *worker, const McpMessage *message) {
        return sessions_request(userdata, worker, message);
}

static void log_line(Worker *worker, int level, const char *format, const char *line, size_t size) {
        _cleanup_(freep) char *text = NULL;
        char identifier[96];
        unsigned dropped = worker->log_lines.n_dropped;

        if (!log_enabled(level) || !budget_allows(&worker->log_lines, worker_now(worker)))
                return;

        if (dropped > 0 && worker->log_lines.n_dropped == 0) {
                char suppressed[64];

                (void)snprintf(suppressed, sizeof(suppressed), "%u lines were not logged", dropped);
                log_worker(LOG_NOTICE, worker, NULL, "%s[%d]: %s", suppressed);
        }

        /* journalctl -t mcp-exec/NAME shows a server's own words. */
        (void)snprintf(identifier, sizeof(identifier), "SYSLOG_IDENTIFIER=mcp-exec/%s", worker->config->name);
        text = text_escape(line, MIN(size, LOG_SHOWN), LOG_SHOWN);
        if (text)
                log_worker(level, worker, identifier, format, text);
}

static void on_stray(void *userdata _unused_, Worker *worker, const char *line, size_t size) {
        /* The first ones tell that something is wrong; a program that logs to its stdout writes many. */
        log_line(worker, worker->stray_lines <= 3 ? LOG_NOTICE : LOG_DEBUG,
                 "%s[%d]: a line on its stdout is no message: %s", line, size);
}

static void on_diagnostic(void *userdata _unused_, Worker *worker, const char *line, size_t size) {
        log_line(worker, LOG_INFO, "%s[%d]: %s", line, size);
}

static void on_unused(void *userdata) {
        ServerPool *server_pool = userdata;
        Server *server = server_pool->server;

        if (interests_any(server_pool) || !TAILQ_EMPTY(&server_pool->sessions))
                return;

        lists_pool_unused(server_pool);
        server_pool_free(server_pool);
        if (server->gone && TAILQ_EMPTY(&server->pools))
                server_free(server);
}

static const PoolHandlers pool_handlers = {
        .worker_wanted = on_worker_wanted,
        .worker_gone = on_worker_gone,
        .bytes_wanted = on_bytes_wanted,
        .bytes_gone = on_bytes_gone,
        .worked = on_worked,
        .worker_added = on_worker_added,
        .worker_changed = on_worker_changed,
        .worker_removed = on_worker_removed,
        .launch_failed = on_launch_failed,
        .crash_loop = on_crash_loop,
        .era_known = on_era_known,
        .notification = on_notification,
        .request = on_request,
        .stray = on_stray,
        .diagnostic = on_diagnostic,
        .unused = on_unused,
};

/* A modern server is told with each request what its client can do. */
static unsigned profile_of(const Server *server, const Client *client) {
        const ServerConfig *config = server->config;

        return config->protocol != SERVER_PROTOCOL_MCP || config->era == MCP_ERA_MODERN ||
                               era_cache_get(server->manager->eras, config) == MCP_ERA_MODERN
                       ? 0
                       : client->profile;
}

ServerPool *server_find_pool(Server *server, const Client *client) {
        unsigned profile = profile_of(server, client);
        _cleanup_(freep) char *owner = owner_of(server->config, client);
        ServerPool *server_pool;

        if (!owner)
                return NULL;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                if (server_pool->pool->profile == profile && streq(server_pool->pool->owner, owner))
                        return server_pool;

        return NULL;
}

static int add_pool(Server *server, const char *owner, unsigned profile, uid_t uid, ServerPool **ret) {
        ServerPool *server_pool = new0(ServerPool, 1);
        int r;

        if (!server_pool)
                return -ENOMEM;

        server_pool->server = server;
        server_pool->uid = uid;
        TAILQ_INIT(&server_pool->sessions);
        r = pool_new(server->manager->event, server->manager->launcher, server->config, owner, profile,
                     era_cache_get(server->manager->eras, server->config), &pool_handlers, server_pool,
                     &server_pool->pool);
        if (r < 0) {
                free(server_pool);
                return r;
        }

        TAILQ_INSERT_TAIL(&server->pools, server_pool, link);
        lists_greet_pool(server_pool);
        *ret = server_pool;
        return 0;
}

int server_get_pool(Server *server, const Client *client, ServerPool **ret) {
        ServerPool *server_pool = server_find_pool(server, client);
        _cleanup_(freep) char *owner = NULL;

        if (server_pool) {
                *ret = server_pool;
                return 0;
        }

        owner = owner_of(server->config, client);
        if (!owner)
                return -ENOMEM;

        return add_pool(server, owner, profile_of(server, client),
                        server->config->scope == SERVER_SCOPE_SHARED ? QUOTA_EVERYBODY : client->uid, ret);
}

/* Workers that belong to everybody are started ahead of the first call; whose the others would be isn't known yet. */
static void prestart(Server *server) {
        ServerPool *server_pool;

        if (server->config->scope != SERVER_SCOPE_SHARED || server->config->pool.min == 0 || server->config->disabled)
                return;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                if (server_pool->pool->profile == 0 && streq(server_pool->pool->owner, "shared"))
                        break;
        if (server_pool || add_pool(server, "shared", /* profile= */ 0, QUOTA_EVERYBODY, &server_pool) >= 0)
                pool_keep_minimum(server_pool->pool);
}

Server *server_new(Manager *manager, ServerConfig *config) {
        Server *server = new0(Server, 1);

        if (!server)
                return NULL;

        *server = (Server){ .manager = manager, .config = server_config_ref(config) };
        TAILQ_INIT(&server->pools);
        TAILQ_INIT(&server->lists);
        prestart(server);
        return server;
}

void server_set_config(Server *server, ServerConfig *config) {
        ServerPool *server_pool;
        bool moved;

        if (config == server->config && !server->gone)
                return;

        if (!config)
                sessions_server_gone(server, "the server was taken out of the configuration");
        else if (config->disabled)
                sessions_server_gone(server, "the server was disabled");
        else if (config->scope != server->config->scope)
                sessions_server_gone(server, "the server's scope was changed");
        moved = config && config->scope != server->config->scope;
        lists_forget(server);
        server->gone = !config;
        if (config) {
                server_config_ref(config);
                server_config_unref(server->config);
                server->config = config;
        }

        TAILQ_FOREACH(server_pool, &server->pools, link)
                if (!config)
                        pool_stop(server_pool->pool, FAILURE_NO_SUCH_SERVER, "it was taken out of the configuration",
                                  /* drain= */ true);
                else if (config->disabled)
                        pool_stop(server_pool->pool, FAILURE_SERVER_DISABLED, "it was disabled", /* drain= */ true);
                else if (moved)
                        pool_stop(server_pool->pool, FAILURE_UNAVAILABLE, "its scope was changed: call again",
                                  /* drain= */ true);
                else {
                        pool_set_config(server_pool->pool, config);
                        server_pool->pool->era = era_cache_get(server->manager->eras, config);
                }

        if (config)
                prestart(server);
}

Server *server_free(Server *server) {
        ServerPool *server_pool;
        Client *client;

        if (!server)
                return NULL;

        TAILQ_FOREACH(client, &server->manager->clients, link)
                client_forget_server(client, server);
        lists_free(server);
        while ((server_pool = TAILQ_FIRST(&server->pools)))
                server_pool_free(server_pool);
        TAILQ_REMOVE(&server->manager->servers, server, link);
        for (size_t i = 0; i < ASKERS_MAX; i++)
                free(server->askers[i]);
        server_config_unref(server->config);
        free(server);
        return NULL;
}

bool server_pool_visible(const ServerPool *server_pool, uid_t viewer) {
        return viewer == QUOTA_EVERYBODY || server_pool->uid == viewer || server_pool->uid == QUOTA_EVERYBODY;
}

const char *server_state(const Server *server, uid_t viewer) {
        bool starting = false, failing = false;
        ServerPool *server_pool;
        Worker *worker;

        if (server->config->disabled)
                return "disabled";

        TAILQ_FOREACH(server_pool, &server->pools, link) {
                if (!server_pool_visible(server_pool, viewer))
                        continue;
                failing = failing || pool_failing(server_pool->pool);
                TAILQ_FOREACH(worker, &server_pool->pool->workers, link) {
                        if (worker->state == WORKER_READY || worker->state == WORKER_DRAINING)
                                return "active";
                        starting = starting || worker->state == WORKER_STARTING;
                }
        }

        return starting ? "starting" : failing ? "failing" : "inactive";
}

void server_stop_client(Server *server, const Client *client) {
        _cleanup_(freep) char *owner =
                server->config->scope == SERVER_SCOPE_CLIENT ? owner_of(server->config, client) : NULL;
        ServerPool *server_pool;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                if (owner && streq(server_pool->pool->owner, owner))
                        pool_stop(server_pool->pool, FAILURE_CANCELLED, "its client has left", /* drain= */ false);
}

void server_stop(Server *server) {
        ServerPool *server_pool;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                pool_stop(server_pool->pool, FAILURE_CANCELLED, "it was stopped by StopServer", /* drain= */ false);
}

int server_restart(Server *server, const Client *client) {
        ServerPool *server_pool;
        int r;

        r = server_get_pool(server, client, &server_pool);
        if (r < 0)
                return r;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                pool_restart(server_pool->pool);

        return 0;
}
