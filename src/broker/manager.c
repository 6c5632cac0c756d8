#include "broker/manager.h"

#include "base/log.h"
#include "base/text.h"
#include "broker/call.h"
#include "broker/job.h"
#include "broker/list-store.h"
#include "broker/payload.h"
#include "broker/session.h"

static void log_problems(const Catalogue *catalogue) {
        const Problem *problem;

        TAILQ_FOREACH(problem, catalogue_problems(catalogue), link)
                log_warning("%s:%s%s", problem->file ?: "?",
                            problem->text && problem->text[0] >= '0' && problem->text[0] <= '9' ? "" : " ",
                            problem->text ?: "?");
}

Server *manager_find_server(Manager *manager, const char *name) {
        Server *server;

        TAILQ_FOREACH(server, &manager->servers, link)
                if (!server->gone && streq(server->config->name, name))
                        return server;

        return NULL;
}

static void insert_sorted(ServerList *servers, Server *server) {
        Server *other;

        TAILQ_FOREACH(other, servers, link)
                if (strcmp(other->config->name, server->config->name) > 0) {
                        TAILQ_INSERT_BEFORE(other, server, link);
                        return;
                }

        TAILQ_INSERT_TAIL(servers, server, link);
}

/* Brings the servers in line with the catalogue: what it doesn't have goes, what changed is drained and replaced, what
 * is as it was isn't touched. */
static void apply(Manager *manager) {
        ServerConfig *const *configs;
        Server *server, *next;
        bool came_or_went = false;
        size_t n;

        configs = catalogue_servers(manager->catalogue, &n);
        manager->quota.settings = *catalogue_settings(manager->catalogue);

        TAILQ_FOREACH_SAFE(server, &manager->servers, link, next) {
                ServerConfig *config = NULL;

                for (size_t i = 0; i < n && !config; i++)
                        if (streq(configs[i]->name, server->config->name))
                                config = configs[i];
                if (config || server->gone)
                        continue;

                came_or_went = true;
                manager->handlers->server_removed(manager->userdata, server);
                server_set_config(server, NULL);
                manager->handlers->server_changed(manager->userdata, server, QUOTA_EVERYBODY);
                if (TAILQ_EMPTY(&server->pools))
                        server_free(server);
        }

        for (size_t i = 0; i < n; i++) {
                bool came = false;

                TAILQ_FOREACH(server, &manager->servers, link)
                        if (streq(server->config->name, configs[i]->name))
                                break;

                if (!server) {
                        server = server_new(manager, configs[i]);
                        if (!server) {
                                log_error("%s: out of memory", configs[i]->name);
                                continue;
                        }
                        insert_sorted(&manager->servers, server);
                        came = true;
                } else if (server->config != configs[i] || server->gone) {
                        came = server->gone;
                        server_set_config(server, configs[i]);
                } else
                        continue;

                came_or_went = came_or_went || came;
                if (came)
                        manager->handlers->server_added(manager->userdata, server);
                sessions_server_came(server);
                manager->handlers->server_changed(manager->userdata, server, QUOTA_EVERYBODY);
        }

        if (came_or_went)
                manager->handlers->servers_changed(manager->userdata);
}

static void on_catalogue_changed(void *userdata) {
        Manager *manager = userdata;

        log_problems(manager->catalogue);
        apply(manager);
        sessions_pump(manager); /* a limit may be higher now */
        log_info("the configuration was read again");
        manager->handlers->configured(manager->userdata);
}

void manager_reload(Manager *manager) {
        catalogue_load(manager->catalogue);
        on_catalogue_changed(manager);
}

Worker *manager_find_worker(Manager *manager, const char *id, ServerPool **ret_pool) {
        Server *server;
        ServerPool *server_pool;
        Worker *worker;

        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                                if (streq(worker->id, id)) {
                                        if (ret_pool)
                                                *ret_pool = server_pool;
                                        return worker;
                                }

        return NULL;
}

Client *manager_find_client(Manager *manager, const char *name) {
        Client *client;

        TAILQ_FOREACH(client, &manager->clients, link)
                if (streq(client->name, name))
                        return client;

        return NULL;
}

unsigned manager_workers(const Manager *manager, uid_t viewer) {
        const ServerPool *server_pool;
        const Server *server;
        unsigned n = 0;

        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        if (server_pool_visible(server_pool, viewer))
                                n += server_pool->pool->n_processes;

        return n;
}

unsigned manager_calls(const Manager *manager, uid_t viewer) {
        const Client *client;
        const Job *job;
        unsigned n = 0;

        if (viewer == QUOTA_EVERYBODY)
                return manager->quota.counts.calls;

        TAILQ_FOREACH(client, &manager->clients, link)
                if (client->uid == viewer)
                        n += client->n_calls;
        TAILQ_FOREACH(job, &manager->jobs, link)
                if (job->client->uid == viewer)
                        n += job->client->n_calls;

        return n;
}

void manager_client_gone(Manager *manager, Client *client) {
        Call *call;

        sessions_client_gone(manager, client);
        while ((call = TAILQ_FIRST(&client->calls)))
                call_cancel(call, "the caller has left");
        jobs_client_gone(manager, client->name);

        for (size_t i = 0; i < client->n_servers; i++)
                server_stop_client(client->servers[i], client);

        TAILQ_REMOVE(&manager->clients, client, link);
        client_free(client);
}

int manager_no_such_server(Manager *manager, const char *name, Failure *failure) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;
        Server *server;

        TAILQ_FOREACH(server, &manager->servers, link)
                if (!server->gone)
                        text_nearer(name, server->config->name, &best, &nearest);

        if (nearest)
                return failure_set(failure, FAILURE_NO_SUCH_SERVER, "No server is named %s: did you mean %s?", name,
                                   nearest);
        return failure_set(failure, FAILURE_NO_SUCH_SERVER, "No server is named %s; ListServers tells which there are",
                           name);
}

int manager_get_callable(Manager *manager, const char *name, Server **ret, Failure *failure) {
        Server *server = manager_find_server(manager, name);
        const ServerConfig *config;

        if (!server)
                return manager_no_such_server(manager, name, failure);

        config = server->config;
        if (config->disabled)
                return failure_set(failure, FAILURE_SERVER_DISABLED, "Server %s is disabled in %s", name, config->file);

        *ret = server;
        return 0;
}

bool manager_idle(const Manager *manager) {
        return manager->quota.counts.calls == 0 && manager->quota.counts.workers == 0 &&
               manager->quota.counts.sessions == 0 && TAILQ_EMPTY(&manager->jobs);
}

void manager_leave(Manager *manager) {
        Server *server;
        ServerPool *server_pool;

        jobs_forget(manager);
        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        pool_stop(server_pool->pool, FAILURE_UNAVAILABLE, "the service is leaving", /* drain= */ true);
}

int manager_new(sd_event *event, Launcher *launcher, const char *runtime_folder, const char *cache_folder,
                const char *const *folders, bool required, const ManagerHandlers *handlers, void *userdata,
                Manager **ret) {
        _cleanup_(manager_freep) Manager *manager = new0(Manager, 1);
        int r;

        if (!manager)
                return -ENOMEM;

        *manager = (Manager){
                .event = sd_event_ref(event),
                .launcher = launcher,
                .handlers = handlers,
                .userdata = userdata,
        };
        quota_init(&manager->quota);
        TAILQ_INIT(&manager->servers);
        TAILQ_INIT(&manager->clients);
        TAILQ_INIT(&manager->jobs);
        TAILQ_INIT(&manager->files);
        payloads_init(manager);
        TAILQ_INIT(&manager->sessions);
        r = sessions_init(manager);
        if (r < 0)
                return r;

        manager->eras = era_cache_new(runtime_folder);
        manager->lists = list_store_new(cache_folder);
        if (!manager->eras || !manager->lists)
                return -ENOMEM;

        r = catalogue_new(event, folders, required, on_catalogue_changed, manager, &manager->catalogue);
        if (r < 0)
                return r;

        catalogue_load(manager->catalogue);
        log_problems(manager->catalogue);
        apply(manager);

        *ret = TAKE_PTR(manager);
        return 0;
}

Manager *manager_free(Manager *manager) {
        Server *server;
        ServerPool *server_pool;
        Client *client;

        if (!manager)
                return NULL;

        /* Every call is answered, before those go who asked. */
        TAILQ_FOREACH(server, &manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        pool_stop(server_pool->pool, FAILURE_UNAVAILABLE, "the service is leaving", /* drain= */ false);
        jobs_forget(manager);
        sessions_done(manager);
        while ((client = TAILQ_FIRST(&manager->clients)))
                manager_client_gone(manager, client);
        while ((server = TAILQ_FIRST(&manager->servers)))
                server_free(server);
        catalogue_free(manager->catalogue);
        era_cache_free(manager->eras);
        payloads_forget(manager);
        sd_event_source_disable_unref(manager->files_source);
        sd_event_source_disable_unref(manager->job_timer);
        list_store_free(manager->lists);
        quota_done(&manager->quota);
        sd_event_unref(manager->event);
        free(manager);
        return NULL;
}
