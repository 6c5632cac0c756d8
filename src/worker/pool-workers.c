/* The workers of a pool: how they come, are replaced, and go. */

#include <stdio.h>

#include "worker/pool.h"

#define RETRY_SHARE 5 /* of the calls under way and waiting, one in so many may be one that is sent again */
#define RETRIES_MIN 3

/* Only pool_run(), which the loop calls, starts, stops and frees workers. All else marks, and schedules it: so no
 * handler of a worker ever finds itself, or its pool, gone. */

static void note_stable_run(Pool *pool, const Worker *worker) {
        if (worker->step == HANDSHAKE_DONE && worker->ready_since > 0)
                crash_policy_ran(&pool->crashes, pool->config->restart.interval, worker->ready_since, pool_now(pool));
}

static void note_crash(Pool *pool, const Failure *failure) {
        const ServerConfig *config = pool->config;
        bool failing = pool_failing(pool);
        const Worker *worker;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (worker->state <= WORKER_DRAINING)
                        note_stable_run(pool, worker);

        failure_copy(&pool->last_crash, failure);
        crash_policy_note(&pool->crashes, config->restart.burst, config->restart.interval, pool_now(pool));
        if (!failing && pool_failing(pool))
                pool->handlers->crash_loop(pool->userdata, pool->crashes.retry_at - pool_now(pool), failure);
}

/* How many more calls may be sent again: all that are, together, are a fifth of what the pool has, or a few. Where
 * calls bring their workers down, or all workers go at once, sending everything twice would make it worse. */
static unsigned retry_budget(const Pool *pool) {
        unsigned budget = MAX((pool->n_queued + pool->n_in_flight) / RETRY_SHARE, RETRIES_MIN), n = 0;
        const Request *request;
        const Worker *worker;

        TAILQ_FOREACH(request, &pool->queue, link)
                n += request->retried;
        TAILQ_FOREACH(worker, &pool->workers, link)
                TAILQ_FOREACH(request, &worker->requests, link)
                        n += request->retried;

        return budget - MIN(n, budget);
}

/* Whether the worker can have run it: a command that has got no byte may have done all its work nevertheless. */
static bool may_have_run(const Worker *worker, const Request *request) {
        return request->position < channel_written(worker->channel) || worker->wire == &once_protocol;
}

/* What its calls are told: a request of which no byte was written goes to another worker, and so does, once, one of
 * an idempotent server. */
static void fail_requests_of(Pool *pool, Worker *worker, const char *how) {
        bool too_large = worker->reason.message && worker->reason.code == FAILURE_TOO_LARGE;
        unsigned retries = pool->config->idempotent && !too_large ? retry_budget(pool) : 0;
        Request *request, *previous;

        for (request = TAILQ_LAST(&worker->requests, RequestList); request; request = previous) {
                bool seen = may_have_run(worker, request);

                previous = TAILQ_PREV(request, RequestList, link);
                if (!pool->closing && !request->pinned && (!seen || (!request->retried && retries > 0))) {
                        retries -= seen;
                        request->retried = request->retried || seen;
                        pool_requeue(request);
                }
        }

        while ((request = TAILQ_FIRST(&worker->requests))) {
                const char *fate = may_have_run(worker, request) ? "the call may have run" : "the call was not sent";
                Failure failure = {};

                if (worker->reason.message)
                        failure_set(&failure, worker->reason.code, "%s; %s", failure_message(&worker->reason), fate);
                else
                        failure_set(&failure, FAILURE_WORKER_DIED, "Server %s: the worker (pid %d) %s; %s",
                                    worker->config->name, (int)worker->process->pid, how, fate);
                pool_fail_request(request, &failure);
                failure_done(&failure);
        }
}

static void fail_pinned_on(Pool *pool, Worker *worker) {
        Request *request, *next;
        Failure failure = {};

        failure_set(&failure, FAILURE_WORKER_DIED,
                    "Server %s: the worker that this call was for is gone; the call was not sent", pool->config->name);
        do {
                TAILQ_FOREACH_SAFE(request, &pool->queue, link, next)
                        if (request->pinned == worker)
                                break;
                if (request)
                        pool_fail_request(request, &failure);
        } while (request);
        failure_done(&failure);
}

void pool_remove_worker(Pool *pool, Worker *worker, const char *how, bool crashed) {
        fail_pinned_on(pool, worker);
        pool->handlers->worker_removed(pool->userdata, worker, how, crashed);
        TAILQ_REMOVE(&pool->workers, worker, link);
        pool->n_processes--;
        worker_free(worker);
        pool->handlers->worker_gone(pool->userdata);
}

/* A worker that ended on its own, or failed to start. What waited for the one that failed to start is told at once,
 * not when the next one has failed as well. */
static void account_crash(Pool *pool, Worker *worker, const char *how) {
        bool started = worker->step == HANDSHAKE_DONE;
        Failure failure = {};

        worker->accounted = true;

        /* It ran well for long enough: what was before that doesn't count. */
        if (started && worker_now(worker) - worker->ready_since >= pool->config->restart.interval)
                pool_forget_crashes(pool);

        if (worker->reason.message)
                failure_copy(&failure, &worker->reason);
        else if (started)
                failure_set(&failure, FAILURE_WORKER_DIED, "Server %s: the worker (pid %d) %s", worker->config->name,
                            (int)worker->process->pid, how);
        else
                failure_set(&failure, FAILURE_LAUNCH_FAILED, "Server %s: before the handshake was done, %s %s",
                            worker->config->name, worker->config->argv[0], how);
        note_crash(pool, &failure);

        if (!started) {
                if (worker->era_assumed)
                        pool_set_era(pool, MCP_ERA_AUTO);
                pool->handlers->launch_failed(pool->userdata, &failure);
                if (pool->n_workers == 0)
                        pool_fail_queue(pool, &failure);
        }
        failure_done(&failure);
}

/* A command that ended, or had to be, before it had a call: started ahead again and again it would do its work for
 * nobody. */
static bool ended_ahead_of_its_call(const Worker *worker) {
        return worker->wire == &once_protocol && worker->calls == 0 && worker->exit_code != 0 &&
               (worker->reason.message || (worker->exit_code == CLD_EXITED && !worker->asked_to_stop));
}

static void reap(Pool *pool, Worker *worker) {
        _cleanup_(freep) char *how = worker_describe_exit(worker);
        bool started = worker->step == HANDSHAKE_DONE, relaunch = worker->relaunch, crashed;

        if (ended_ahead_of_its_call(worker)) {
                pool->no_spares = pool->no_spares || worker->config == pool->config;
                pool_remove_worker(pool, worker,
                                   "ended before it had a call: it doesn't wait for its stdin, so that pool.min is "
                                   "passed over from now on",
                                   /* crashed= */ false);
                return;
        }

        /* Died of the question what it speaks? Then the next one is asked otherwise. */
        if (!started && !worker->reason.message && !worker->asked_to_stop && worker->config == pool->config)
                relaunch = handshake_died(worker);

        /* A command that fails says so to its caller; it is there for the next. */
        if (worker->wire == &once_protocol && worker->calls > 0)
                worker_conclude(worker);

        crashed = !relaunch && !(worker->wire == &once_protocol && worker->calls > 0 && worker->exit_code != 0) &&
                  (worker->reason.message || !worker->asked_to_stop) &&
                  (!started || worker->n_requests > 0 || worker->reason.message || worker->exit_code != CLD_EXITED ||
                   worker->exit_status != 0 || pool->config->pool.min > 0);
        if (crashed && !worker->accounted)
                account_crash(pool, worker, how ?: "ended");
        else if (!crashed)
                note_stable_run(pool, worker);

        fail_requests_of(pool, worker, how ?: "ended");
        pool->prestart = pool->prestart || relaunch;
        pool_remove_worker(pool, worker, worker->reason.message ?: (crashed ? NULL : worker->let_go) ?: how ?: "ended", crashed);
}

/* Recycling: a successor is started before its predecessor drains, so that no call waits for it. */
static bool successor_needed(Pool *pool) {
        Worker *worker, *worn = NULL, *successor = NULL;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (pool_counts(pool, worker) && worker->worn_out && (!worn || worker->worn_at < worn->worn_at))
                        worn = worker;
        if (!worn)
                return false;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (pool_counts(pool, worker) && !worker->worn_out && !worker->succeeds &&
                    worker->started >= worn->worn_at)
                        successor = worker;
        if (!successor)
                return true;

        if (successor->state == WORKER_READY) {
                successor->succeeds = true;
                worker_drain(worn);
        }

        return false;
}

/* Whether workers are started ahead of the calls, up to pool.min: not while one has closed its pipes without a call,
 * and its end will tell whether it was the kind that doesn't wait. */
static bool keeps_minimum(Pool *pool) {
        Worker *worker;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (worker->wire == &once_protocol && worker->calls == 0 && worker->hung_up)
                        return false;

        return pool->wanted && !pool->no_spares;
}

static unsigned launches_needed(Pool *pool) {
        unsigned concurrency = server_config_per_call(pool->config) ? 1 : pool->config->pool.concurrency, coming = 0,
                 needed = 0, n_queued = pool->n_queued - pool->n_pinned,
                 room = pool->config->pool.max - MIN(pool->n_workers, pool->config->pool.max);
        Worker *worker;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (pool_counts(pool, worker) && (worker->state == WORKER_STARTING || worker->n_unapproved > 0))
                        coming += concurrency;

        if (n_queued > coming)
                needed = (n_queued - coming + concurrency - 1) / concurrency;
        if (pool->n_workers < pool->config->pool.min && keeps_minimum(pool))
                needed = MAX(needed, pool->config->pool.min - pool->n_workers);
        if ((pool->prestart || pool->held) && pool->n_workers == 0)
                needed = MAX(needed, 1u);
        pool->prestart = false;

        needed = MIN(needed, room);
        if (needed == 0 && successor_needed(pool))
                return 1;

        return needed;
}

static void launch(Pool *pool, unsigned n) {
        Failure failure = {};
        int r = 0;

        for (; n > 0 && r == 0; n--) {
                Worker *worker;

                if (pool_failing(pool)) {
                        r = pool_refuse_failing(pool, &failure);
                        break;
                }

                r = pool->handlers->worker_wanted(pool->userdata, &failure);
                if (r != 0)
                        break;

                r = worker_new(pool, pool->event, pool->launcher, pool->config, pool->owner, pool->era, &worker,
                               &failure);
                if (r < 0) {
                        pool->handlers->worker_gone(pool->userdata);
                        note_crash(pool, &failure);
                        pool->handlers->launch_failed(pool->userdata, &failure);
                        break;
                }

                TAILQ_INSERT_TAIL(&pool->workers, worker, link);
                pool->n_processes++;
                pool->n_workers++;
                pool->handlers->worker_added(pool->userdata, worker);
                /* A command that isn't greeted has its call before anything else is heard of it: it may have ended as
                 * soon, and with a call given to none it would be run once more. */
                if (worker->step == HANDSHAKE_DONE)
                        worker_became_ready(worker);
        }

        /* Others that are there, or on their way, will see to the queue. */
        if (r < 0 && pool->n_workers == 0)
                pool_fail_queue(pool, &failure);
        failure_done(&failure);
}

/* A pool without workers stays for as long as its crashes count. */
static bool remembers_crashes(Pool *pool) {
        uint64_t now = pool_now(pool);

        if (now >= pool->crashes.remember_until)
                return false;

        (void)sd_event_source_set_time(pool->retry_source, pool->crashes.retry_at > now ? pool->crashes.retry_at
                                                                                        : pool->crashes.remember_until);
        (void)sd_event_source_set_enabled(pool->retry_source, SD_EVENT_ONESHOT);
        return true;
}

int pool_run(sd_event_source *source _unused_, void *userdata) {
        Pool *pool = userdata;
        Worker *worker, *next;
        bool remembered;
        unsigned n;

        pool_count_workers(pool);

        TAILQ_FOREACH_SAFE(worker, &pool->workers, link, next) {
                if (worker->state == WORKER_STOPPING && worker->reason.message && worker->step != HANDSHAKE_DONE &&
                    !worker->accounted)
                        account_crash(pool, worker, "was killed");
                else if (worker->state == WORKER_EXITED)
                        reap(pool, worker);
                else if (worker->state == WORKER_DRAINING && worker->n_requests == 0 && worker->n_holds == 0 &&
                         !worker->hung_up)
                        worker_stop(worker, /* impatient= */ false);
        }

        pool_count_workers(pool);
        pool_dispatch(pool);

        n = pool->closing ? 0 : launches_needed(pool);
        if (n > 0)
                launch(pool, n);

        remembered = remembers_crashes(pool);
        if (pool_idle(pool) && !remembered && !(pool->wanted && pool->config->pool.min > 0))
                pool->handlers->unused(pool->userdata);

        return 0;
}
