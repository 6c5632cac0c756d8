#pragma once

#include "broker/catalogue.h"
#include "broker/client.h"
#include "broker/era-cache.h"
#include "broker/quota.h"
#include "worker/pool.h"

typedef struct Manager Manager;
typedef struct ServerPool ServerPool;
typedef struct Job Job;
typedef struct ListCache ListCache;
typedef struct ListStore ListStore;
typedef struct Interests Interests;
typedef struct Session Session;
typedef TAILQ_HEAD(SessionList, Session) SessionList;
typedef struct SessionServer SessionServer;

/* What the manager tells whoever shows it to the world. */
typedef struct ManagerHandlers {
        void (*configured)(void *userdata);      /* the files were read again */
        void (*servers_changed)(void *userdata); /* one came or went */
        void (*server_added)(void *userdata, Server *server);
        void (*server_removed)(void *userdata, Server *server); /* while it can still be found */
        /* Its state or configuration; owner: whose workers it is about, or QUOTA_EVERYBODY */
        void (*server_changed)(void *userdata, Server *server, uid_t owner);
        void (*tools_changed)(void *userdata, const Server *server, uid_t owner);
        void (*workers_changed)(void *userdata, uid_t owner); /* their number */
        void (*worker_added)(void *userdata, uid_t owner, Worker *worker);
        void (*worker_changed)(void *userdata, uid_t owner, Worker *worker);
        void (*worker_removed)(void *userdata, uid_t owner, Worker *worker);
        /* To one client that is entitled to it */
        void (*notification)(void *userdata, Client *client, const Server *server, const char *method, JsonSlice params,
                             const JsonTraits *traits);
        void (*job_added)(void *userdata, Job *job);
        void (*job_progress)(void *userdata, Job *job);
        void (*job_finished)(void *userdata, Job *job);
        void (*job_removed)(void *userdata, Job *job);
        /* One that was attached by this client */
        void (*session_closed)(void *userdata, Client *opener, const char *id, const char *reason);
        /* Whether the client may use the server, as far as that is known without asking anybody */
        bool (*may_use)(void *userdata, const Client *client, const Server *server);
        /* For this user, so long: returns until when he rests. usec, CLOCK_MONOTONIC */
        uint64_t (*worked)(void *userdata, uid_t uid, uint64_t usec);
        void (*maybe_idle)(void *userdata); /* a worker, a call, a session or a job went */
} ManagerHandlers;

#define ASKERS_MAX 32

/* A pool with what the broker knows of its owner */
struct ServerPool {
        TAILQ_ENTRY(ServerPool) link;
        Server *server;
        Pool *pool;
        uid_t uid;                            /* QUOTA_EVERYBODY with scope shared */
        TAILQ_HEAD(, SessionServer) sessions; /* that use it: it stays for them */
        SessionServer *starter; /* of these, for whom a worker was started or told of roots last; or NULL */
        uint64_t roots_due;     /* usec, CLOCK_MONOTONIC: until then who asks for roots means those */
        Interests *interests;   /* of its sessions; NULL: none yet */
};

/* A configured server, or one that was and still has workers */
struct Server {
        TAILQ_ENTRY(Server) link;
        Manager *manager;
        ServerConfig *config;
        bool gone; /* from the configuration */
        TAILQ_HEAD(, ServerPool) pools;
        char *askers[ASKERS_MAX]; /* tools that were seen to ask their caller something */
        unsigned n_askers;
        TAILQ_HEAD(, ListCache) lists;
};

typedef TAILQ_HEAD(ServerList, Server) ServerList;

struct Manager {
        sd_event *event;
        Launcher *launcher;
        Catalogue *catalogue;
        const ManagerHandlers *handlers;
        void *userdata;
        EraCache *eras;
        ListStore *lists;
        Quota quota;
        int log_calls;      /* the level where the configuration doesn't say */
        ServerList servers; /* sorted by name */
        ClientList clients;
        TAILQ_HEAD(, Job) jobs;
        sd_event_source *job_timer;   /* for the next one that isn't kept any longer */
        TAILQ_HEAD(, CallFile) files; /* that are looked through: the one whose turn it is first */
        sd_event_source *files_source;
        void *payloads;   /* files of results that are open anywhere: a tree of Payload, by their watches */
        int payload_news; /* an inotify of these watches */
        sd_event_source *payload_source;
        SessionList sessions;
        sd_event_source *sessions_source; /* what has to be done for them when the loop is back */
};

/* launcher has to outlive it. runtime_folder: for what has to be remembered from one run to the next, or NULL;
 * cache_folder: likewise, also over restarts of the machine; folders and required: catalogue_new()'s. */
int manager_new(sd_event *event, Launcher *launcher, const char *runtime_folder, const char *cache_folder,
                const char *const *folders, bool required, const ManagerHandlers *handlers, void *userdata,
                Manager **ret);
Manager *manager_free(Manager *manager); /* clients and calls have to be gone; kills the workers */

/* Reads the configuration again. */
void manager_reload(Manager *manager);

/* NULL where there is none of that name */
Server *manager_find_server(Manager *manager, const char *name);
Worker *manager_find_worker(Manager *manager, const char *id, ServerPool **ret_pool);
Client *manager_find_client(Manager *manager, const char *name);

/* How many there are, as the viewer sees it (server_pool_visible()) */
unsigned manager_workers(const Manager *manager, uid_t viewer);
unsigned manager_calls(const Manager *manager, uid_t viewer);

/* The client left the bus: its calls are cancelled, and its own workers stopped. Frees it. */
void manager_client_gone(Manager *manager, Client *client);

/* No call, worker or session, and no job, also none that is kept: nothing that anybody would miss */
bool manager_idle(const Manager *manager);

/* Lets the warm workers and the jobs that are done go; calls under way are finished. */
void manager_leave(Manager *manager);

/* Always -EREMOTEIO, with *failure set: NoSuchServer, and what may have been meant. */
int manager_no_such_server(Manager *manager, const char *name, Failure *failure);

/* The server by that name if the configuration has it and it may be called: or -EREMOTEIO with *failure. */
int manager_get_callable(Manager *manager, const char *name, Server **ret, Failure *failure);

/* server.c */

/* The pool that serves this client, made where there was none. -ENOMEM. */
int server_get_pool(Server *server, const Client *client, ServerPool **ret);
ServerPool *server_find_pool(Server *server, const Client *client); /* or NULL */
Server *server_new(Manager *manager, ServerConfig *config);
Server *server_free(Server *server);
void server_set_config(Server *server, ServerConfig *config); /* NULL: it is configured no more */

/* Whether somebody who sees what belongs to viewer sees this pool: that of everybody is seen by all, and
 * QUOTA_EVERYBODY as the viewer sees all. */
bool server_pool_visible(const ServerPool *server_pool, uid_t viewer);

/* Stops the workers that are this client's alone. */
void server_stop_client(Server *server, const Client *client);

/* "disabled", "inactive", "starting", "active" or "failing", as the viewer sees it */
const char *server_state(const Server *server, uid_t viewer);

void server_stop(Server *server);
int server_restart(Server *server, const Client *client); /* and starts the client's, where there was none: -ENOMEM */

DEFINE_CLEANUP(Manager *, manager_free, manager_freep)
