#pragma once

#include "worker/crash-policy.h"
#include "worker/worker.h"

/* What a pool tells its owner. Every handler is called from the loop or from within a pool_*() call; none may free
 * the pool, but unused(). */
typedef struct PoolHandlers {
        /* Whether one more worker may be started now: 0, and it is counted until worker_gone(); 1 where another is
         * leaving for it, and pool_schedule() will be called; or -EREMOTEIO with *failure. */
        int (*worker_wanted)(void *userdata, Failure *failure);
        void (*worker_gone)(void *userdata);

        /* Likewise for so many bytes of a result that goes into a file. uid: of who can be the only one to get it, or
         * -1 */
        int (*bytes_wanted)(void *userdata, uid_t uid, uint64_t bytes, Failure *failure);
        void (*bytes_gone)(void *userdata, uid_t uid, uint64_t bytes);

        /* Handing on a part of a long line took so long. request: whose answer it may be, or NULL. Returns until when
         * no more of it is to be read; usec, CLOCK_MONOTONIC */
        uint64_t (*worked)(void *userdata, const Request *request, uint64_t usec);

        void (*worker_added)(void *userdata, Worker *worker);
        void (*worker_changed)(void *userdata, Worker *worker);
        /* how: a sentence. crashed: it left on its own. */
        void (*worker_removed)(void *userdata, Worker *worker, const char *how, bool crashed);

        void (*launch_failed)(void *userdata, const Failure *failure);
        /* It crashes again and again: refuses for so many usec from now on. */
        void (*crash_loop)(void *userdata, uint64_t pause, const Failure *failure);
        void (*era_known)(void *userdata, McpEra era);
        void (*notification)(void *userdata, Worker *worker, JsonSlice method, JsonSlice params,
                             const JsonTraits *traits);
        /* A request of the worker's own, but for ping: true where it is taken, and worker_answer() comes later. */
        bool (*request)(void *userdata, Worker *worker, const McpMessage *message);
        /* Lines that are no message on stdout, and lines of stderr; size may be large, bytes may be any. */
        void (*stray)(void *userdata, Worker *worker, const char *line, size_t size);
        void (*diagnostic)(void *userdata, Worker *worker, const char *line, size_t size);

        /* Nothing is left in it, also no memory of crashes: may free it. */
        void (*unused)(void *userdata);
} PoolHandlers;

typedef TAILQ_HEAD(WorkerList, Worker) WorkerList;

/* The workers of one server for one owner. */
struct Pool {
        sd_event *event;
        Launcher *launcher;
        ServerConfig *config;
        char *owner; /* "shared", "uid:N", "client:NAME" */
        const PoolHandlers *handlers;
        void *userdata;
        unsigned profile; /* what its workers are told that their client can do */
        McpEra era;       /* the last verdict */
        Buffer greeting;  /* what the last worker that became ready answered to initialize or server/discover */

        WorkerList workers;
        RequestList queue;
        unsigned n_workers; /* those that are or will be ready */
        unsigned n_queued, n_in_flight;
        uint64_t round;       /* the last one that left the queue: see Request */
        unsigned n_pinned;    /* of the queued ones: no new worker helps them */
        unsigned n_processes; /* all, the leaving ones included */

        sd_event_source *run_source, *deadline_source, *retry_source;
        unsigned n_relaunches; /* in search of the era, since the last worker became ready */
        bool wanted;           /* somebody has called: keep min workers */
        bool prestart;         /* start one although nothing waits for it */
        bool held;             /* somebody waits for what a worker says unasked: one is kept */
        bool closing;          /* was told to stop: starts nothing before somebody calls again */
        bool no_spares;        /* a command, started ahead of its call, didn't wait for it: pool.min doesn't count */
        uint64_t inherited_activity; /* for the next worker: when its predecessor was last used; 0: it starts anew */
        CrashPolicy crashes;
        Failure last_crash; /* shown while nothing is started */
};

/* owner is copied, config referenced. profile: MCP_PROFILE_*. */
int pool_new(sd_event *event, Launcher *launcher, ServerConfig *config, const char *owner, unsigned profile, McpEra era,
             const PoolHandlers *handlers, void *userdata, Pool **ret);

/* Kills its workers. The queue and the requests in flight have to be cancelled, or failed by pool_stop(), before. */
Pool *pool_free(Pool *pool);

/* Queues a request, or sends it at once where a worker is free. 0, or -EREMOTEIO with *failure: done() isn't called. */
int pool_submit(Pool *pool, Request *request, Failure *failure);

/* Takes a request back; done() isn't called. The worker that has it is told why. */
void pool_cancel(Request *request, const char *reason);

/* While its caller is being asked something a call's clock stands still, up to timeouts.call_max. */
void pool_hold_clock(Request *request, bool hold);

/* New calls go by the new configuration; the workers of the old one finish what they have. */
void pool_set_config(Pool *pool, ServerConfig *config);

/* Fails all that waits and, unless drain is set, all that is under way, and stops the workers. Forgets crashes. */
void pool_stop(Pool *pool, FailureCode code, const char *why, bool drain);

/* Replaces the workers: a new one starts, the old ones finish what they have. Forgets crashes. */
void pool_restart(Pool *pool);

/* Has it look again whether it can start what it needs. */
void pool_schedule(Pool *pool);

/* Keeps pool.min workers from now on, as if somebody had called. */
void pool_keep_minimum(Pool *pool);

/* No request, and no worker that isn't leaving */
bool pool_idle(const Pool *pool);

/* Whether it counts as failing: nothing is started before a time */
bool pool_failing(const Pool *pool);

/* For the workers only */
void pool_watch_deadline(Pool *pool, uint64_t deadline);
void pool_set_era(Pool *pool, McpEra era);
void pool_set_greeting(Pool *pool, JsonSlice result, const JsonTraits *traits);
void pool_request_done(Request *request, const Outcome *outcome);
void pool_requeue(Request *request);
void pool_dispatch(Pool *pool);

/* Between pool.c, which has the requests, and pool-workers.c, which has the workers, only */
int pool_run(sd_event_source *source, void *userdata);
uint64_t pool_now(const Pool *pool);
bool pool_counts(const Pool *pool, const Worker *worker); /* of today's configuration, and is or will be ready */
void pool_count_workers(Pool *pool);
void pool_fail_request(Request *request, const Failure *failure);
void pool_fail_queue(Pool *pool, const Failure *failure);
int pool_refuse_failing(Pool *pool, Failure *failure);
void pool_forget_crashes(Pool *pool);
void pool_remove_worker(Pool *pool, Worker *worker, const char *how, bool crashed);
