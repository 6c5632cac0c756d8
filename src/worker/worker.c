#include "worker/worker.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "worker/ends.h"
#include "worker/pool.h"

#define PING_TIMEOUT (5 * USEC_PER_SEC)
#define HANG_UP_GRACE (USEC_PER_SEC / 5) /* a process that closed its pipes has this long to exit */
#define WEIGH_INTERVAL USEC_PER_SEC
#define UNUSED_TIMEOUT (10 * USEC_PER_SEC)

static const McpParams no_params = {};

const char *worker_state_to_string(WorkerState state) {
        static const char *const names[] = {
                [WORKER_STARTING] = "starting", [WORKER_READY] = "ready",   [WORKER_DRAINING] = "draining",
                [WORKER_STOPPING] = "stopping", [WORKER_EXITED] = "exited",
        };

        return names[state];
}

uint64_t worker_now(const Worker *worker) {
        uint64_t usec = 0;

        (void)sd_event_now(worker->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static uint64_t now_realtime(Worker *worker) {
        uint64_t usec = 0;

        (void)sd_event_now(worker->event, CLOCK_REALTIME, &usec);
        return usec;
}

void worker_touch(Worker *worker) {
        worker->last_active = worker_now(worker);
        worker->last_active_realtime = now_realtime(worker);
}

static void set_state(Worker *worker, WorkerState state) {
        if (worker->state == state)
                return;

        worker->state = state;
        worker->pool->handlers->worker_changed(worker->pool->userdata, worker);
        pool_schedule(worker->pool);
}

void worker_set_timer(Worker *worker, uint64_t usec) {
        (void)sd_event_source_set_time(worker->timer, usec);
        (void)sd_event_source_set_enabled(worker->timer, usec == USEC_INFINITY ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

/* value ±10 %, so that workers that were started together aren't replaced together */
static uint64_t jitter(uint64_t value) {
        uint16_t random = 0;

        if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0 || value < 10)
                return value;

        return value - value / 10 + (uint64_t)((double)value / 5 * random / UINT16_MAX);
}

/* A worker that is for one call, and was started ahead of it, isn't kept for long. */
static uint64_t keep_alive_timeout(const ServerConfig *config) {
        uint64_t timeout = config->keep_alive.timeout;

        if (!server_config_per_call(config))
                return timeout;

        return timeout == 0 ? UNUSED_TIMEOUT : MIN(timeout, UNUSED_TIMEOUT);
}

/* When the timer of a ready worker has to look again. It is not moved at each call: it fires at what was the next
 * time then, looks at what has happened since, and is set anew. */
void worker_rearm(Worker *worker) {
        const ServerConfig *config = worker->config;
        uint64_t next = MIN(worker->retire_at, worker_owes_until(worker)), timeout = keep_alive_timeout(config);

        if (worker->ping_id)
                next = MIN(next, worker->ping_deadline);
        else if (config->keep_alive.check_interval > 0)
                next = MIN(next,
                           usec_add(MAX(worker->last_check, worker->last_active), config->keep_alive.check_interval));
        if (timeout > 0)
                next = MIN(next,
                           usec_add(worker->n_requests + worker->n_holds > 0 ? worker_now(worker) : worker->last_active,
                                    timeout));

        worker_set_timer(worker, next);
}

void worker_became_ready(Worker *worker) {
        worker->step = HANDSHAKE_DONE;
        worker->pool->n_relaunches = 0;
        if (worker->hung_up) {
                set_state(worker, WORKER_DRAINING); /* its timer sees to its end */
                return;
        }

        worker->ready_since = worker->last_active = worker->last_check = worker_now(worker);
        if (worker->pool->inherited_activity > 0 && worker->pool->n_queued == 0)
                worker->last_active = worker->pool->inherited_activity;
        worker->pool->inherited_activity = 0;
        if (worker->config->recycle.calls > 0)
                worker->calls_max = jitter(worker->config->recycle.calls);
        worker->retire_at = worker->config->recycle.lifetime > 0
                                    ? usec_add(worker->started, jitter(worker->config->recycle.lifetime))
                                    : USEC_INFINITY;
        worker_rearm(worker);
        set_state(worker, WORKER_READY);
        pool_dispatch(worker->pool);
}

void worker_fail(Worker *worker, FailureCode code, const char *format, ...) {
        _cleanup_(freep) char *text = NULL, *words = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);

        words = worker_describe_exit(worker);
        if (!worker->reason.message)
                failure_set(&worker->reason, code, "Server %s: %s%s", worker->config->name, n < 0 ? "" : text,
                            words ?: "");
        worker_stop(worker, /* impatient= */ true);
}

/* The worker can't be asked, or can't answer, any more. Most often it is about to exit, and its status tells more. */
static void hang_up(Worker *worker, const char *what) {
        if (worker->state >= WORKER_STOPPING)
                return;

        worker->hung_up = what;
        channel_close_input(worker->channel);
        worker_set_timer(worker, usec_add(worker_now(worker), HANG_UP_GRACE));
        if (worker->state == WORKER_READY)
                set_state(worker, WORKER_DRAINING);
        pool_schedule(worker->pool);
}

int worker_write(Worker *worker, int appended) {
        int r = appended;

        if (r >= 0)
                r = channel_flush(worker->channel);
        if (r == -EPIPE && worker->wire == &once_protocol) {
                /* It has all that it wanted of its stdin. */
                channel_close_input(worker->channel);
                return 0;
        }
        if (r == -EPIPE)
                hang_up(worker, "stdin");

        return r;
}

bool worker_available(const Worker *worker) {
        unsigned concurrency = server_config_per_call(worker->config) ? 1 : worker->config->pool.concurrency;

        return worker->state == WORKER_READY && !worker->hung_up && worker->n_requests < concurrency &&
               !worker->suspect && worker->n_unapproved == 0 && !channel_blocked(worker->channel) &&
               !(server_config_per_call(worker->config) && worker->calls > 0) &&
               (worker->wire != &lines_protocol || channel_quiet(worker->channel));
}

bool worker_available_pinned(const Worker *worker) {
        return (worker->state == WORKER_READY || worker->state == WORKER_DRAINING) && !worker->hung_up &&
               (!worker->suspect || worker->state == WORKER_DRAINING) && !channel_blocked(worker->channel);
}

void worker_hold(Worker *worker) {
        worker->n_holds++;
}

void worker_release(Worker *worker) {
        worker->n_holds--;
        worker->last_active = MAX(worker->last_active, worker_now(worker));
        if (worker->n_holds == 0)
                pool_schedule(worker->pool);
}

static void wear_out(Worker *worker) {
        if (worker->worn_out)
                return;

        worker->worn_out = true;
        worker->worn_at = worker_now(worker);
        pool_schedule(worker->pool);
}

static void weigh(Worker *worker) {
        uint64_t now = worker_now(worker);

        if (worker->config->recycle.memory == 0 || now - worker->last_weighed < WEIGH_INTERVAL)
                return;

        worker->last_weighed = now;
        if (worker->process->ops->memory(worker->process) > worker->config->recycle.memory)
                wear_out(worker);
}

void worker_request_left(Worker *worker) {
        worker_touch(worker);

        if (worker->calls_max > 0 && worker->calls >= worker->calls_max)
                wear_out(worker);
        weigh(worker);
        if (worker->n_requests == 0)
                worker_set_spills(worker, false);

        if (worker->hung_up) {
                if (worker->n_requests == 0 && worker->state == WORKER_DRAINING)
                        worker_set_timer(worker, usec_add(worker_now(worker), HANG_UP_GRACE));
        } else if (server_config_per_call(worker->config))
                worker_drain(worker);
        else if (worker->state != WORKER_READY || !worker->wire->parse)
                /* Where answers have no ids, what else came with this one is looked at before more is asked. */
                pool_schedule(worker->pool);
        else
                pool_dispatch(worker->pool);
}

void worker_finish(Worker *worker, Request *request, const Outcome *outcome) {
        worker->call_time += worker_now(worker) - request->sent;
        pool_request_done(request, outcome);
        worker_request_left(worker);
}

static void on_writable(void *userdata) {
        Worker *worker = userdata;

        pool_dispatch(worker->pool);
}

static void on_closed(void *userdata, const char *what) {
        Worker *worker = userdata;

        /* A command that ends its input or output early has still to say how it ended. */
        if (worker->wire != &once_protocol || worker->calls == 0)
                hang_up(worker, what);
}

static const ChannelHandlers channel_handlers = {
        .output = { .line = worker_on_line, .oversized = worker_on_oversized },
        .diagnostic = worker_on_diagnostic,
        .writable = on_writable,
        .moved = worker_on_moved,
        .worked = worker_on_worked,
        .closed = on_closed,
};

static const ChannelHandlers lines_handlers = {
        .output = { .line = worker_on_line, .oversized = worker_on_oversized },
        .unfinished = worker_on_unfinished,
        .diagnostic = worker_on_diagnostic,
        .writable = on_writable,
        .moved = worker_on_moved,
        .worked = worker_on_worked,
        .closed = on_closed,
};

static void on_process_exit(void *userdata, const ProcessExit *exit) {
        Worker *worker = userdata;

        worker->exit_code = exit->code;
        worker->exit_status = exit->status;
        worker->exit_result = exit->result ? strdup(exit->result) : NULL;
        if (exit->code == 0 && !worker->reason.message)
                failure_set(&worker->reason, FAILURE_LAUNCH_FAILED, "Server %s: %s", worker->config->name,
                            exit->problem);

        channel_drain(worker->channel);
        worker_set_timer(worker, USEC_INFINITY);
        set_state(worker, WORKER_EXITED);
}

static void stop_step(Worker *worker) {
        switch (worker->stop_step++) {
        case 0:
                worker->process->ops->signal(worker->process, SIGTERM);
                worker_set_timer(worker, usec_add(worker_now(worker), worker->config->timeouts.stop));
                break;
        case 1:
                worker->process->ops->signal(worker->process, SIGKILL);
                break;
        }
}

static void on_ready_timer(Worker *worker) {
        const ServerConfig *config = worker->config;
        uint64_t now = worker_now(worker), timeout = keep_alive_timeout(config);
        bool idle = worker->n_requests == 0 && worker->n_holds == 0;

        if (now >= worker_owes_until(worker)) {
                worker->let_go = "didn't end a call that was cancelled";
                if (idle)
                        worker_stop(worker, /* impatient= */ true);
                else
                        worker_drain(worker);
                return;
        }

        if (now >= worker->retire_at) {
                wear_out(worker);
                worker->retire_at = USEC_INFINITY;
                pool_schedule(worker->pool);
        }

        if (worker->ping_id && now >= worker->ping_deadline) {
                /* One that is busy may well answer afterwards; until then it gets no more. The next one is as warm as
                 * this one was, and no longer. */
                if (idle && worker_owes_until(worker) == USEC_INFINITY) {
                        worker->pool->prestart = true;
                        worker->pool->inherited_activity = worker->last_active;
                        if (worker->suspect) {
                                worker->let_go = "didn't answer a ping after a call was cancelled";
                                worker_stop(worker, /* impatient= */ true);
                                return;
                        }
                        worker_fail(worker, FAILURE_WORKER_DIED, "it didn't answer a ping");
                        return;
                }
                worker->suspect = true;
                worker->ping_deadline = usec_add(now, PING_TIMEOUT);
        }

        if (idle && timeout > 0 && now >= usec_add(worker->last_active, timeout)) {
                if (worker->pool->n_workers > MAX(config->pool.min, worker->pool->held ? 1u : 0u)) {
                        worker_drain(worker);
                        return;
                }
                worker->last_active = now;
        }

        if (config->keep_alive.check_interval > 0 && !worker->ping_id &&
            now >= usec_add(MAX(worker->last_check, worker->last_active), config->keep_alive.check_interval)) {
                worker->last_check = now;
                if (idle)
                        worker_check(worker);
        }

        if (worker->state == WORKER_READY)
                worker_rearm(worker);
}

static int on_timer(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Worker *worker = userdata;

        switch (worker->state) {
        case WORKER_STARTING:
                if (worker->hung_up)
                        handshake_hung_up(worker);
                else
                        handshake_timeout(worker);
                break;
        case WORKER_READY:
                on_ready_timer(worker);
                break;
        case WORKER_DRAINING:
                /* Without its stdin it can still answer what it has been asked. */
                if (worker->hung_up && (worker->n_requests == 0 || streq(worker->hung_up, "stdout")))
                        worker_fail(worker, FAILURE_WORKER_DIED, "it closed its %s", worker->hung_up);
                break;
        case WORKER_STOPPING:
                stop_step(worker);
                break;
        case WORKER_EXITED:
                break;
        }

        return 0;
}

void worker_check(Worker *worker) {
        Buffer *input = channel_input(worker->channel);

        if (worker->ping_id || worker->state != WORKER_READY || !input || worker->wire != &mcp_protocol)
                return;

        worker->ping_id = ++worker->last_id;
        worker->ping_deadline = usec_add(worker_now(worker), PING_TIMEOUT);
        (void)worker_write(worker,
                           mcp_append_request(input, worker->ping_id, worker->era,
                                              worker->era == MCP_ERA_MODERN ? "server/discover" : "ping", &no_params));
        if (worker->state == WORKER_READY)
                worker_rearm(worker);
}

void worker_answered_ping(Worker *worker) {
        worker->ping_id = 0;
        worker->last_check = worker_now(worker);
        if (worker->ping_again) {
                worker->ping_again = false;
                worker_check(worker);
                return;
        }

        worker->suspect = worker_busy_with_cancelled(worker);
        if (worker->state == WORKER_READY)
                worker_rearm(worker);
        pool_dispatch(worker->pool);
}

void worker_drain(Worker *worker) {
        if (worker->state > WORKER_READY)
                return;

        if (worker->state == WORKER_STARTING)
                worker_stop(worker, /* impatient= */ true);
        else {
                worker_set_timer(worker, USEC_INFINITY);
                set_state(worker, WORKER_DRAINING);
        }
}

void worker_stop(Worker *worker, bool impatient) {
        if (worker->state == WORKER_EXITED || (worker->state == WORKER_STOPPING && !impatient))
                return;

        worker->asked_to_stop = worker->asked_to_stop || !worker->reason.message;
        channel_close_input(worker->channel);

        if (impatient) {
                worker->stop_step = 2;
                worker_set_timer(worker, USEC_INFINITY);
                worker->process->ops->signal(worker->process, SIGKILL);
        } else
                worker_set_timer(worker, usec_add(worker_now(worker), worker->config->timeouts.stop));

        set_state(worker, WORKER_STOPPING);
}

static int worker_open(Worker *worker, Launcher *launcher, const char *owner, Failure *failure) {
        int theirs[3] = { -EBADF, -EBADF, -EBADF }, ours[3] = { -EBADF, -EBADF, -EBADF }, r;

        r = ends_open(worker->config->transport, theirs, ours);
        if (r >= 0)
                r = channel_new(worker->event, TAKE_FD(ours[0]), TAKE_FD(ours[1]), TAKE_FD(ours[2]),
                                MIN(worker->config->limits.message, WORKER_LINE_MAX), worker->wire == &once_protocol,
                                worker->wire == &lines_protocol ? &lines_handlers : &channel_handlers, worker,
                                &worker->channel);
        if (r >= 0)
                r = launcher->ops->start(launcher,
                                         &(ProcessSpec){ .config = worker->config,
                                                         .owner = owner,
                                                         .id = worker->id,
                                                         .fds = { theirs[0], theirs[1], theirs[2] } },
                                         on_process_exit, worker, &worker->process, failure);

        for (int i = 0; i < 3; i++) {
                safe_close(theirs[i]);
                safe_close(ours[i]);
        }
        return r;
}

int worker_new(Pool *pool, sd_event *event, Launcher *launcher, ServerConfig *config, const char *owner, McpEra era,
               Worker **ret, Failure *failure) {
        Worker *worker = new0(Worker, 1);
        sd_id128_t id;
        int r;

        if (!worker)
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Out of memory");

        *worker = (Worker){
                .pool = pool,
                .event = sd_event_ref(event),
                .config = server_config_ref(config),
                .wire = server_config_wire(config),
                .era = config->era != MCP_ERA_AUTO ? config->era : era,
                .era_assumed = config->era == MCP_ERA_AUTO && era != MCP_ERA_AUTO,
                .retire_at = USEC_INFINITY,
        };
        TAILQ_INIT(&worker->requests);
        worker->started = worker->last_active = worker_now(worker);
        worker->started_realtime = worker->last_active_realtime = now_realtime(worker);

        r = sd_id128_randomize(&id);
        if (r >= 0) {
                sd_id128_to_string(id, worker->id);
                r = sd_event_add_time(event, &worker->timer, CLOCK_MONOTONIC, USEC_INFINITY, USEC_PER_MSEC, on_timer,
                                      worker);
        }
        if (r >= 0)
                r = worker_open(worker, launcher, owner, failure);
        if (r >= 0) {
                r = handshake_start(worker);
                if (r == -EPIPE)
                        r = 0; /* it has died already: its exit is on the way and says more */
        }
        if (r < 0) {
                if (r != -EREMOTEIO)
                        failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: %s", config->argv[0],
                                    strerror(-r));
                worker_free(worker);
                return -EREMOTEIO;
        }

        *ret = worker;
        return 0;
}

Worker *worker_free(Worker *worker) {
        if (!worker)
                return NULL;

        sd_event_source_disable_unref(worker->timer);
        worker_spill_done(worker);
        channel_free(worker->channel);
        process_free(worker->process);
        failure_done(&worker->reason);
        buffer_done(&worker->output);
        free(worker->exit_result);
        free(worker->server_info);
        free(worker->last_stray);
        for (size_t i = 0; i < WORKER_LAST_LINES; i++)
                free(worker->last_lines[i]);
        server_config_unref(worker->config);
        sd_event_unref(worker->event);
        free(worker);
        return NULL;
}
