#include "worker/pool.h"

#include <stdio.h>

#define GREETING_MAX ((size_t)1 << 20)

uint64_t pool_now(const Pool *pool) {
        uint64_t usec = 0;

        (void)sd_event_now(pool->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

void pool_schedule(Pool *pool) {
        (void)sd_event_source_set_enabled(pool->run_source, SD_EVENT_ONESHOT);
}

void pool_set_era(Pool *pool, McpEra era) {
        if (pool->era == era)
                return;

        pool->era = era;
        pool->handlers->era_known(pool->userdata, era);
}

void pool_set_greeting(Pool *pool, JsonSlice result, const JsonTraits *traits) {
        buffer_done(&pool->greeting);
        if (result.size > GREETING_MAX || json_append(&pool->greeting, result, traits) < 0)
                buffer_done(&pool->greeting);
}

/* The worker's configuration is the pool's, and it is or will be ready. */
bool pool_counts(const Pool *pool, const Worker *worker) {
        return worker->state <= WORKER_READY && worker->config == pool->config;
}

void pool_count_workers(Pool *pool) {
        Worker *worker;

        pool->n_workers = 0;
        TAILQ_FOREACH(worker, &pool->workers, link)
                pool->n_workers += pool_counts(pool, worker);
}

static void unlink_request(Request *request) {
        Pool *pool = request->pool;

        if (request->worker) {
                TAILQ_REMOVE(&request->worker->requests, request, link);
                request->worker->n_requests--;
                pool->n_in_flight--;
                request->answered_by = request->worker;
                request->worker = NULL;
        } else {
                TAILQ_REMOVE(&pool->queue, request, link);
                pool->n_queued--;
                pool->n_pinned -= request->pinned != NULL;
        }

        request->pool = NULL;
}

void pool_request_done(Request *request, const Outcome *outcome) {
        unlink_request(request);
        request->done(request, outcome);
}

void pool_fail_request(Request *request, const Failure *failure) {
        pool_request_done(request, &(Outcome){ .failure = failure });
}

void pool_requeue(Request *request) {
        Pool *pool = request->pool;

        TAILQ_REMOVE(&request->worker->requests, request, link);
        request->worker->n_requests--;
        request->worker = NULL;
        pool->n_in_flight--;
        TAILQ_INSERT_HEAD(&pool->queue, request, link);
        pool->n_queued++;
        pool->n_pinned += request->pinned != NULL;
}

void pool_fail_queue(Pool *pool, const Failure *failure) {
        Request *request;

        /* Each done() can submit anew: what comes behind the last one of now stays. */
        for (unsigned n = pool->n_queued; n > 0 && (request = TAILQ_FIRST(&pool->queue)); n--)
                pool_fail_request(request, failure);
}

static void insert_by_round(Pool *pool, Request *request) {
        Request *other;

        TAILQ_FOREACH_REVERSE(other, &pool->queue, RequestList, link)
        if (other->round <= request->round)
                break;
        if (other)
                TAILQ_INSERT_AFTER(&pool->queue, other, request, link);
        else
                TAILQ_INSERT_HEAD(&pool->queue, request, link);
}

/* Users take turns: the n-th request that a user has waiting comes behind the n-th of all others, and behind one of
 * each when he has just had his. So one that sends a thousand, on however many connections, delays another's one by
 * one. Among his own the callers take turns in the same way: a new one takes the place that is its turn, and those
 * behind it move to the next that is their user's. */
static void enqueue(Pool *pool, Request *request) {
        Request *other, *next, *moving = request;
        bool first = true;

        request->turn = 0;
        request->round = pool->round + 1;
        TAILQ_FOREACH(other, &pool->queue, link) {
                if (other->uid != request->uid)
                        continue;
                if (first || (other->caller == request->caller && other->turn >= request->turn))
                        request->turn = other->turn + (other->caller == request->caller);
                request->round = MAX(request->round, other->round + 1);
                first = false;
        }

        TAILQ_FOREACH_SAFE(other, &pool->queue, link, next)
                if (other->uid == request->uid && other->turn > request->turn) {
                        uint64_t round = moving->round;

                        TAILQ_INSERT_BEFORE(other, moving, link);
                        TAILQ_REMOVE(&pool->queue, other, link);
                        moving->round = other->round;
                        moving = other;
                        moving->round = round;
                }
        insert_by_round(pool, moving);
        pool->n_queued++;
        pool->n_pinned += request->pinned != NULL;
}

static bool same_party(const Request *one, const Request *other, bool users) {
        return one->uid == other->uid && (users || one->caller == other->caller);
}

/* The last request of another user, or of another caller of this user, that has more waiting and can spare one */
static Request *find_spare(Pool *pool, const Request *request, bool users, unsigned *ret_theirs) {
        unsigned n_own = 0, n_theirs = 0;
        Request *other, *last;

        TAILQ_FOREACH_REVERSE(last, &pool->queue, RequestList, link)
        if (!same_party(last, request, users) && (users || last->uid == request->uid))
                break;
        if (!last)
                return NULL;

        TAILQ_FOREACH(other, &pool->queue, link) {
                n_own += same_party(other, request, users);
                n_theirs += same_party(other, last, users);
        }
        *ret_theirs = n_theirs;
        return n_own + 1 < n_theirs ? last : NULL;
}

/* Where the queue is full, one that has few waiting takes the place of the last of the one that has most. */
static bool yield_place(Pool *pool, const Request *request) {
        unsigned n_theirs = 0;
        Request *spare = find_spare(pool, request, /* users= */ true, &n_theirs);
        bool users = spare;
        Failure failure = {};

        if (!spare)
                spare = find_spare(pool, request, /* users= */ false, &n_theirs);
        if (!spare)
                return false;

        failure_set(&failure, FAILURE_LIMITS_EXCEEDED,
                    "Server %s is busy, and %u calls of this %s were waiting: this one made room for another "
                    "%s's (pool.queue is %u)",
                    pool->config->name, n_theirs, users ? "user" : "caller", users ? "user" : "caller",
                    pool->config->pool.queue);
        pool_fail_request(spare, &failure);
        failure_done(&failure);
        return true;
}

/* Whether another caller's call that may ask back is there: whom the worker asks couldn't be told. */
static bool others_ask(const Worker *worker, const Request *request) {
        const Request *other;

        TAILQ_FOREACH(other, &worker->requests, link)
                if (other->asks && other->caller != request->caller)
                        return true;

        return false;
}

/* The least busy worker that can take a request */
static Worker *choose_worker(Pool *pool, const Request *request) {
        Worker *worker, *best = NULL;

        if (request->pinned)
                return worker_available_pinned(request->pinned) &&
                                       (request->pinned->n_unapproved == 0 || request->approves)
                               ? request->pinned
                               : NULL;

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (worker->config == pool->config && worker_available(worker) &&
                    (!best || worker->n_requests < best->n_requests) && !(request->asks && others_ask(worker, request)))
                        best = worker;

        return best;
}

/* A notification is for every worker that is there; whether there was one */
static bool notify_workers(Pool *pool, const Request *request) {
        bool notified = false;
        Worker *worker;

        TAILQ_FOREACH(worker, &pool->workers, link) {
                Buffer *input = channel_input(worker->channel);

                if (worker->state == WORKER_READY && input && !channel_blocked(worker->channel) &&
                    worker->wire->append_notification &&
                    worker_write(worker, worker->wire->append_notification(input, request->method, &request->params)) >=
                            0)
                        notified = true;
        }

        return notified;
}

/* The first request that can be sent now, and to which worker. One that wants a certain worker, or one where nobody
 * else is asked anything, is in nobody's way. */
static Request *next_request(Pool *pool, Worker **ret) {
        Request *request;

        TAILQ_FOREACH(request, &pool->queue, link) {
                if (request->kind == REQUEST_NOTIFICATION) {
                        if (notify_workers(pool, request))
                                return request;
                        continue;
                }

                *ret = choose_worker(pool, request);
                if (*ret)
                        return request;
                if (!request->pinned && !request->asks && pool->n_pinned == 0)
                        return NULL;
        }

        return NULL;
}

static int send_request(Pool *pool, Worker *worker, Request *request) {
        pool->round = MAX(pool->round, request->round);
        return worker_send(worker, request);
}

void pool_dispatch(Pool *pool) {
        Request *request;
        Worker *worker = NULL;

        while ((request = next_request(pool, &worker))) {
                Failure failure = {};
                int r;

                if (request->kind == REQUEST_NOTIFICATION) {
                        pool_request_done(request, &(Outcome){});
                        continue;
                }

                r = send_request(pool, worker, request);
                if (r >= 0 || (r == -EPIPE && !worker_available(worker)))
                        continue; /* one that reads no more isn't chosen again */

                failure_set(&failure, FAILURE_UNAVAILABLE, "Can't send the call: %s", strerror(-r));
                pool_fail_request(request, &failure);
                failure_done(&failure);
        }
}

static void fail_overdue(Request *request, uint64_t now) {
        Pool *pool = request->pool;
        const ServerConfig *config = pool->config;
        Worker *worker = request->worker;
        bool capped = now >= request->deadline_max;
        double seconds = (double)(capped ? config->timeouts.call_max : request_timeout(request, config)) / USEC_PER_SEC;
        const char *which = capped ? "timeouts.call_max" : request->timeout ? "the option timeout" : "timeouts.call";
        Failure failure = {};

        if (!worker && request->sent > 0)
                failure_set(&failure, FAILURE_TIMEOUT,
                            "Server %s: no answer within %.3g s (%s): its worker died, and no other one was free%s",
                            config->name, seconds, which, request->retried ? "; the call may have run" : "");
        else if (!worker)
                failure_set(&failure, FAILURE_TIMEOUT,
                            "Server %s: no worker was free within %.3g s (timeouts.start and timeouts.call)",
                            config->name, (double)(config->timeouts.start + config->timeouts.call) / USEC_PER_SEC);
        else
                failure_set(&failure, FAILURE_TIMEOUT, "Server %s: no answer within %.3g s (%s)%s%s", config->name,
                            seconds, which,
                            worker->last_stray ? "; the last line of its stdout that was no message: " : "",
                            worker->last_stray ?: "");

        pool_cancel(request, "timeout");
        request->done(request, &(Outcome){ .failure = &failure });
        failure_done(&failure);
}

static Request *overdue_in(RequestList *list, uint64_t now, uint64_t *next) {
        Request *request;

        TAILQ_FOREACH(request, list, link) {
                if (request->deadline <= now)
                        return request;
                *next = MIN(*next, request->deadline);
        }

        return NULL;
}

/* One timer for all deadlines. It isn't moved when a call comes or goes, but fires at what was the earliest
 * deadline, and looks for the next then: a call costs no timer of its own. */
static int on_deadline(sd_event_source *source, uint64_t usec _unused_, void *userdata) {
        Pool *pool = userdata;
        uint64_t now = pool_now(pool), next;
        Request *overdue;
        Worker *worker;

        do {
                next = USEC_INFINITY;
                overdue = overdue_in(&pool->queue, now, &next);
                TAILQ_FOREACH(worker, &pool->workers, link)
                        if (!overdue)
                                overdue = overdue_in(&worker->requests, now, &next);
                if (overdue)
                        fail_overdue(overdue, now);
        } while (overdue);

        if (next < USEC_INFINITY) {
                (void)sd_event_source_set_time(source, next);
                (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        }

        return 0;
}

void pool_watch_deadline(Pool *pool, uint64_t deadline) {
        uint64_t armed = USEC_INFINITY;
        int enabled = SD_EVENT_OFF;

        (void)sd_event_source_get_enabled(pool->deadline_source, &enabled);
        (void)sd_event_source_get_time(pool->deadline_source, &armed);
        if (enabled != SD_EVENT_OFF && armed <= deadline)
                return;

        (void)sd_event_source_set_time(pool->deadline_source, deadline);
        (void)sd_event_source_set_enabled(pool->deadline_source, SD_EVENT_ONESHOT);
}

int pool_refuse_failing(Pool *pool, Failure *failure) {
        uint64_t now = pool_now(pool);
        char often[80] = "again, when it was tried anew";

        if (pool->crashes.n_trips <= 1)
                (void)snprintf(often, sizeof(often), "%u times within %.3g s", pool->config->restart.burst,
                               (double)pool->config->restart.interval / USEC_PER_SEC);
        return failure_set(failure, FAILURE_UNAVAILABLE,
                           "Server %s failed %s (restart); the next try is in %.0f s. The last time: %s",
                           pool->config->name, often,
                           (double)(pool->crashes.retry_at - MIN(now, pool->crashes.retry_at)) / USEC_PER_SEC + 0.5,
                           failure_message(&pool->last_crash));
}

bool pool_failing(const Pool *pool) {
        return crash_policy_closed(&pool->crashes, pool_now(pool));
}

int pool_submit(Pool *pool, Request *request, Failure *failure) {
        const ServerConfig *config = pool->config;
        uint64_t now = pool_now(pool);
        unsigned concurrency = server_config_per_call(config) ? 1 : config->pool.concurrency;

        if (pool->n_workers == 0 && pool_failing(pool))
                return pool_refuse_failing(pool, failure);

        if (!request->approves &&
            pool->n_queued + pool->n_in_flight >= config->pool.max * concurrency + config->pool.queue &&
            !yield_place(pool, request))
                return failure_set(
                        failure, FAILURE_LIMITS_EXCEEDED,
                        "Server %s is busy with %u calls and %u more are waiting: the limit is %u waiting (pool.queue)",
                        config->name, pool->n_in_flight, pool->n_queued, config->pool.queue);

        pool->wanted = true;
        pool->closing = false;
        request->pool = pool;
        request->worker = NULL;
        request->retried = false;
        request->sent = 0;
        request->held = false;
        /* Until it is sent: the time for a worker's start and for the calls before it. Then its own clock starts. */
        request->deadline = request->deadline_max =
                usec_add(now, usec_add(config->timeouts.start, config->timeouts.call));
        pool_watch_deadline(pool, request->deadline);
        enqueue(pool, request);

        /* The usual case, a free worker and nobody waiting, ends here with the bytes in its pipe. */
        if (TAILQ_FIRST(&pool->queue) == request && request->kind == REQUEST_CALL) {
                Worker *worker = choose_worker(pool, request);
                int r = worker ? send_request(pool, worker, request) : 0;

                if (r < 0 && r != -EPIPE) {
                        unlink_request(request);
                        return failure_set(failure, FAILURE_UNAVAILABLE, "Can't send the call: %s", strerror(-r));
                }
        }

        if (!request->worker)
                pool_schedule(pool);

        return 0;
}

void pool_hold_clock(Request *request, bool hold) {
        Pool *pool = request->pool;

        request->held = hold;
        if (!request->worker)
                return;

        request->deadline =
                hold ? request->deadline_max
                     : MIN(usec_add(pool_now(pool), request_timeout(request, pool->config)), request->deadline_max);
        pool_watch_deadline(pool, request->deadline);
}

void pool_cancel(Request *request, const char *reason) {
        Pool *pool = request->pool;
        Worker *worker = request->worker;

        if (worker) {
                pool->n_in_flight--;
                worker_cancel(worker, request, reason);
        } else {
                TAILQ_REMOVE(&pool->queue, request, link);
                pool->n_queued--;
                pool->n_pinned -= request->pinned != NULL;
        }

        request->pool = NULL;
        pool_schedule(pool);
}

void pool_forget_crashes(Pool *pool) {
        crash_policy_forget(&pool->crashes);
        (void)sd_event_source_set_enabled(pool->retry_source, SD_EVENT_OFF);
}

static int on_retry(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        pool_schedule(userdata);
        return 0;
}

void pool_set_config(Pool *pool, ServerConfig *config) {
        Worker *worker;

        pool->closing = false;
        if (pool->config == config)
                return;

        server_config_unref(pool->config);
        pool->config = server_config_ref(config);
        pool->era = config->era;
        pool->no_spares = false;
        buffer_done(&pool->greeting);
        pool_forget_crashes(pool);

        TAILQ_FOREACH(worker, &pool->workers, link) {
                pool->prestart = pool->prestart || worker->state == WORKER_READY;
                worker_drain(worker);
        }

        pool_schedule(pool);
}

void pool_stop(Pool *pool, FailureCode code, const char *why, bool drain) {
        Failure failure = {};
        Worker *worker;

        failure_set(&failure, code, "Server %s: %s", pool->config->name, why);
        pool_forget_crashes(pool);
        pool->wanted = pool->prestart = pool->no_spares = false;
        pool->closing = true;

        pool_fail_queue(pool, &failure);
        TAILQ_FOREACH(worker, &pool->workers, link) {
                if (drain) {
                        worker_drain(worker);
                        continue;
                }

                worker_stop(worker, /* impatient= */ worker->state == WORKER_STARTING);
                for (Request *request; (request = TAILQ_FIRST(&worker->requests));)
                        pool_fail_request(request, &failure);
        }

        failure_done(&failure);
        pool_schedule(pool);
}

void pool_restart(Pool *pool) {
        Worker *worker;

        pool_forget_crashes(pool);
        TAILQ_FOREACH(worker, &pool->workers, link)
                worker_drain(worker);

        pool->prestart = true;
        pool->closing = pool->no_spares = false;
        pool_schedule(pool);
}

void pool_keep_minimum(Pool *pool) {
        pool->wanted = true;
        pool->closing = false;
        pool_schedule(pool);
}

bool pool_idle(const Pool *pool) {
        return pool->n_processes == 0 && pool->n_queued == 0;
}

int pool_new(sd_event *event, Launcher *launcher, ServerConfig *config, const char *owner, unsigned profile, McpEra era,
             const PoolHandlers *handlers, void *userdata, Pool **ret) {
        Pool *pool = new0(Pool, 1);
        int r;

        if (!pool)
                return -ENOMEM;

        *pool = (Pool){
                .event = sd_event_ref(event),
                .launcher = launcher,
                .config = server_config_ref(config),
                .owner = strdup(owner),
                .handlers = handlers,
                .userdata = userdata,
                .profile = profile,
                .era = era,
        };
        TAILQ_INIT(&pool->workers);
        TAILQ_INIT(&pool->queue);

        r = pool->owner ? 0 : -ENOMEM;
        if (r >= 0)
                r = sd_event_add_defer(event, &pool->run_source, pool_run, pool);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->run_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(event, &pool->deadline_source, CLOCK_MONOTONIC, USEC_INFINITY, USEC_PER_MSEC,
                                      on_deadline, pool);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->deadline_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(event, &pool->retry_source, CLOCK_MONOTONIC, USEC_INFINITY, USEC_PER_MSEC,
                                      on_retry, pool);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->retry_source, SD_EVENT_OFF);
        if (r < 0) {
                pool_free(pool);
                return r;
        }

        *ret = pool;
        return 0;
}

Pool *pool_free(Pool *pool) {
        Worker *worker;

        if (!pool)
                return NULL;

        while ((worker = TAILQ_FIRST(&pool->workers)))
                pool_remove_worker(pool, worker, "was stopped", /* crashed= */ false);

        sd_event_source_disable_unref(pool->run_source);
        sd_event_source_disable_unref(pool->deadline_source);
        sd_event_source_disable_unref(pool->retry_source);
        crash_policy_done(&pool->crashes);
        failure_done(&pool->last_crash);
        buffer_done(&pool->greeting);
        free(pool->owner);
        server_config_unref(pool->config);
        sd_event_unref(pool->event);
        free(pool);
        return NULL;
}
