#include "worker/worker.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "base/text.h"
#include "worker/pool.h"

#define PING_TIMEOUT (5 * USEC_PER_SEC)
#define HANG_UP_GRACE (USEC_PER_SEC / 5) /* a process that closed its pipes has this long to exit */
#define WEIGH_INTERVAL USEC_PER_SEC
#define LINE_SHOWN ((size_t)240)
#define ANSWER_ROOM ((size_t)64 * 1024) /* of answers to the worker's own requests that it doesn't read */
#define REQUEST_ID_MAX ((size_t)8192)
#define OVERSIZED_FACTOR 16 /* a line over so many times limits.message has no end */

static const McpParams no_params = {};

const char *worker_state_to_string(WorkerState state) {
        static const char *const names[] = {
                [WORKER_STARTING] = "starting", [WORKER_READY] = "ready",   [WORKER_DRAINING] = "draining",
                [WORKER_STOPPING] = "stopping", [WORKER_EXITED] = "exited",
        };

        return names[state];
}

static uint64_t now_monotonic(Worker *worker) {
        uint64_t usec = 0;

        (void)sd_event_now(worker->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static uint64_t now_realtime(Worker *worker) {
        uint64_t usec = 0;

        (void)sd_event_now(worker->event, CLOCK_REALTIME, &usec);
        return usec;
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

/* When the timer of a ready worker has to look again. It is not moved at each call: it fires at what was the next
 * time then, looks at what has happened since, and is set anew. */
static void rearm(Worker *worker) {
        const ServerConfig *config = worker->config;
        uint64_t next = worker->retire_at;

        if (worker->ping_id)
                next = MIN(next, worker->ping_deadline);
        else if (config->keep_alive.check_interval > 0)
                next = MIN(next,
                           usec_add(MAX(worker->last_check, worker->last_active), config->keep_alive.check_interval));
        if (config->keep_alive.timeout > 0)
                next = MIN(next, usec_add(worker->last_active, config->keep_alive.timeout));

        worker_set_timer(worker, next);
}

void worker_became_ready(Worker *worker) {
        worker->step = HANDSHAKE_DONE;
        worker->pool->n_relaunches = 0;
        worker->ready_since = worker->last_active = worker->last_check = now_monotonic(worker);
        if (worker->config->recycle.calls > 0)
                worker->calls_max = jitter(worker->config->recycle.calls);
        worker->retire_at = worker->config->recycle.lifetime > 0
                                    ? usec_add(worker->started, jitter(worker->config->recycle.lifetime))
                                    : USEC_INFINITY;
        rearm(worker);
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
        worker_set_timer(worker, usec_add(now_monotonic(worker), HANG_UP_GRACE));
        if (worker->state == WORKER_READY)
                set_state(worker, WORKER_DRAINING);
        pool_schedule(worker->pool);
}

int worker_write(Worker *worker, int appended) {
        int r = appended;

        if (r >= 0)
                r = channel_flush(worker->channel);
        if (r == -EPIPE)
                hang_up(worker, "stdin");

        return r;
}

bool worker_available(const Worker *worker) {
        unsigned concurrency = server_config_per_call(worker->config) ? 1 : worker->config->pool.concurrency;

        return worker->state == WORKER_READY && worker->n_requests < concurrency && !worker->suspect &&
               !channel_blocked(worker->channel) && !(server_config_per_call(worker->config) && worker->calls > 0);
}

int worker_send(Worker *worker, Request *request) {
        Buffer *input = channel_input(worker->channel);
        uint64_t position = channel_appended(worker->channel), now;
        int r;

        if (!input)
                return -EPIPE;

        if (request->kind == REQUEST_CALL) {
                r = mcp_append_request(input, worker->last_id + 1, worker->era, request->method, &request->params);
                if (r >= 0)
                        request->id = ++worker->last_id;
        } else
                r = 0;

        r = worker_write(worker, r);
        if (r < 0)
                return r;

        now = worker->last_active = now_monotonic(worker);
        worker->last_active_realtime = now_realtime(worker);
        if (request->kind != REQUEST_CALL) {
                pool_request_done(request, &(Outcome){});
                return 0;
        }

        worker->calls++;
        TAILQ_REMOVE(&worker->pool->queue, request, link);
        worker->pool->n_queued--;
        TAILQ_INSERT_TAIL(&worker->requests, request, link);
        worker->n_requests++;
        worker->pool->n_in_flight++;
        request->worker = worker;
        request->position = position;
        request->deadline_max = usec_add(now, worker->config->timeouts.call_max);
        request->deadline = MIN(usec_add(now, worker->config->timeouts.call), request->deadline_max);
        pool_watch_deadline(worker->pool, request->deadline);
        return 0;
}

static Request *find_request(Worker *worker, uint64_t id) {
        Request *request;

        TAILQ_FOREACH(request, &worker->requests, link)
                if (request->id == id)
                        return request;

        return NULL;
}

static void weigh(Worker *worker) {
        uint64_t now = now_monotonic(worker);

        if (worker->config->recycle.memory == 0 || now - worker->last_weighed < WEIGH_INTERVAL)
                return;

        worker->last_weighed = now;
        if (worker->process->ops->memory(worker->process) > worker->config->recycle.memory)
                worker->worn_out = true;
}

/* After each request that left the worker, by an answer or without one */
static void request_left(Worker *worker) {
        worker->last_active = now_monotonic(worker);
        worker->last_active_realtime = now_realtime(worker);

        if (worker->calls_max > 0 && worker->calls >= worker->calls_max)
                worker->worn_out = true;
        weigh(worker);

        if (server_config_per_call(worker->config))
                worker_drain(worker);
        else if (worker->worn_out || worker->state != WORKER_READY)
                pool_schedule(worker->pool);
        else
                pool_dispatch(worker->pool);
}

static void finish(Worker *worker, Request *request, const Outcome *outcome) {
        pool_request_done(request, outcome);
        request_left(worker);
}

static void finish_failed(Worker *worker, Request *request, FailureCode code, const char *format, ...) _printf_(4, 5);
static void finish_failed(Worker *worker, Request *request, FailureCode code, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        Failure failure = {};
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);

        failure_set(&failure, code, "Server %s: %s", worker->config->name, n < 0 ? "" : text);
        finish(worker, request, &(Outcome){ .failure = &failure });
        failure_done(&failure);
}

static void stray(Worker *worker, const char *line, size_t size) {
        worker->stray_lines++;
        free(worker->last_stray);
        worker->last_stray = text_escape(line, MIN(size, LINE_SHOWN * 2), LINE_SHOWN);
        worker->pool->handlers->stray(worker->pool->userdata, worker, line, size);
}

static void on_answer(Worker *worker, const McpMessage *message) {
        Request *request = message->ours ? find_request(worker, message->number) : NULL;

        if (request) {
                if (message->kind == MCP_RESULT)
                        finish(worker, request, &(Outcome){ .result = message->result, .traits = message->traits });
                else {
                        Failure failure = {};

                        failure_set_remote(&failure, worker->config->name, message->error);
                        finish(worker, request, &(Outcome){ .failure = &failure });
                        failure_done(&failure);
                }
        } else if (worker->state == WORKER_STARTING && message->ours)
                handshake_answer(worker, message);
        else if (message->ours && worker->ping_id && message->number == worker->ping_id) {
                worker->ping_id = 0;
                worker->suspect = false;
                worker->last_check = now_monotonic(worker);
                rearm(worker);
                pool_dispatch(worker->pool);
        } else if (message->ours && worker->listen_id && message->number == worker->listen_id)
                worker->listen_id = 0;
        else
                worker->late_answers++;
}

/* A legacy server's own request. Nothing was declared that it could ask for, so that a ping alone has an answer. */
static void on_request(Worker *worker, const McpMessage *message, const char *line, size_t size) {
        Buffer *input = channel_input(worker->channel);

        if (worker->era == MCP_ERA_MODERN || message->id.size > REQUEST_ID_MAX) {
                stray(worker, line, size);
                return;
        }

        if (!input || buffer_size(input) > ANSWER_ROOM)
                return;

        (void)worker_write(worker, json_equal(message->method, "ping")
                                           ? mcp_append_empty_result(input, message->id)
                                           : mcp_append_method_not_found(input, message->id));
}

static void on_progress(Worker *worker, const McpMessage *message) {
        uint64_t token, now = now_monotonic(worker);
        Request *request = NULL;

        if (json_unsigned(json_get(message->params, "progressToken"), &token))
                request = find_request(worker, token);
        if (!request)
                return;

        request->deadline = MIN(usec_add(now, worker->config->timeouts.call), request->deadline_max);
        if (request->progress && request->params.token.data)
                request->progress(request, message->params, &message->traits);
}

static void on_notification(Worker *worker, const McpMessage *message) {
        if (json_equal(message->method, "notifications/progress"))
                on_progress(worker, message);
        else if (!json_equal(message->method, "notifications/cancelled") &&
                 !json_equal(message->method, "notifications/subscriptions/acknowledged"))
                worker->pool->handlers->notification(worker->pool->userdata, worker, message->method, message->params,
                                                     &message->traits);
}

/* A line that is no message, but may be the attempt of an answer: its call would wait for its deadline otherwise. */
static bool fail_asker(Worker *worker, const McpIdFinder *finder, FailureCode code, const char *why) {
        Request *request;
        uint64_t id;

        if (!mcp_id_finder_result(finder, &id))
                return false;

        request = find_request(worker, id);
        if (!request)
                return false;

        finish_failed(worker, request, code, "%s", why);
        return true;
}

static void on_line(void *userdata, const char *line, size_t size) {
        Worker *worker = userdata;
        McpMessage message;
        JsonError error;
        int r;

        r = mcp_parse(line, size, worker->config->limits.depth, &message, &error);
        if (r < 0) {
                McpIdFinder finder = {};
                char why[200];

                (void)snprintf(why, sizeof(why), "its answer is no valid JSON: %s at byte %zu%s", error.reason,
                               error.offset, r == -E2BIG ? " (limits.depth)" : "");
                mcp_id_finder_feed(&finder, line, size);
                if (!fail_asker(worker, &finder, FAILURE_PROTOCOL_ERROR, why))
                        stray(worker, line, size);
                return;
        }

        switch (message.kind) {
        case MCP_RESULT:
        case MCP_ERROR:
                on_answer(worker, &message);
                break;
        case MCP_REQUEST:
                on_request(worker, &message, line, size);
                break;
        case MCP_NOTIFICATION:
                on_notification(worker, &message);
                break;
        case MCP_NOISE: {
                Request *request = message.ours && !message.method.data ? find_request(worker, message.number) : NULL;

                if (request)
                        finish_failed(worker, request, FAILURE_PROTOCOL_ERROR,
                                      "its answer has not exactly one of result and error: %.*s",
                                      (int)MIN(size, LINE_SHOWN), line);
                else
                        stray(worker, line, size);
                break;
        }
        }
}

static void on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Worker *worker = userdata;
        uint64_t limit = worker->config->limits.message;
        char why[200];

        mcp_id_finder_feed(&worker->oversized, piece, size);
        worker->oversized_size += size;
        (void)snprintf(why, sizeof(why), "it wrote a line of %s%llu bytes, and limits.message is %llu",
                       last ? "" : "more than ", (unsigned long long)worker->oversized_size, (unsigned long long)limit);

        if (last) {
                if (!fail_asker(worker, &worker->oversized, FAILURE_TOO_LARGE, why))
                        stray(worker, why, strlen(why));
                worker->oversized = (McpIdFinder){};
                worker->oversized_size = 0;
        } else if (worker->oversized_size / OVERSIZED_FACTOR > limit && worker->state < WORKER_STOPPING)
                worker_fail(worker, FAILURE_PROTOCOL_ERROR, "%s", why);
}

static void on_diagnostic(void *userdata, const char *line, size_t size) {
        Worker *worker = userdata;

        free(worker->last_lines[0]);
        memmove(worker->last_lines, worker->last_lines + 1, sizeof(worker->last_lines) - sizeof(char *));
        worker->last_lines[WORKER_LAST_LINES - 1] = text_escape(line, size, LINE_SHOWN);
        worker->pool->handlers->diagnostic(worker->pool->userdata, worker, line, size);
}

static void on_writable(void *userdata) {
        Worker *worker = userdata;

        pool_dispatch(worker->pool);
}

static void on_closed(void *userdata, const char *what) {
        Worker *worker = userdata;

        hang_up(worker, what);
}

static const ChannelHandlers channel_handlers = {
        .output = { .line = on_line, .oversized = on_oversized },
        .diagnostic = on_diagnostic,
        .writable = on_writable,
        .closed = on_closed,
};

static void on_process_exit(void *userdata, const siginfo_t *exit) {
        Worker *worker = userdata;

        worker->exit = *exit;
        channel_drain(worker->channel);
        worker_set_timer(worker, USEC_INFINITY);
        set_state(worker, WORKER_EXITED);
}

static void stop_step(Worker *worker) {
        switch (worker->stop_step++) {
        case 0:
                worker->process->ops->signal(worker->process, SIGTERM);
                worker_set_timer(worker, usec_add(now_monotonic(worker), worker->config->timeouts.stop));
                break;
        case 1:
                worker->process->ops->signal(worker->process, SIGKILL);
                break;
        }
}

static void on_ready_timer(Worker *worker) {
        const ServerConfig *config = worker->config;
        uint64_t now = now_monotonic(worker);
        bool idle = worker->n_requests == 0;

        if (now >= worker->retire_at) {
                worker->worn_out = true;
                worker->retire_at = USEC_INFINITY;
                pool_schedule(worker->pool);
        }

        if (worker->ping_id && now >= worker->ping_deadline) {
                /* One that is busy may well answer afterwards. */
                if (idle) {
                        worker->pool->prestart = true;
                        worker_fail(worker, FAILURE_WORKER_DIED, "it didn't answer a ping");
                        return;
                }
                worker->ping_deadline = usec_add(now, PING_TIMEOUT);
        }

        if (idle && config->keep_alive.timeout > 0 &&
            now >= usec_add(worker->last_active, config->keep_alive.timeout)) {
                if (worker->pool->n_workers > config->pool.min) {
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
                rearm(worker);
}

static int on_timer(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Worker *worker = userdata;

        switch (worker->state) {
        case WORKER_STARTING:
                if (worker->hung_up)
                        worker_fail(worker, FAILURE_HANDSHAKE_FAILED, "it closed its %s before the handshake was done",
                                    worker->hung_up);
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

        if (worker->ping_id || worker->state != WORKER_READY || !input)
                return;

        worker->ping_id = ++worker->last_id;
        worker->ping_deadline = usec_add(now_monotonic(worker), PING_TIMEOUT);
        (void)worker_write(worker,
                           mcp_append_request(input, worker->ping_id, worker->era,
                                              worker->era == MCP_ERA_MODERN ? "server/discover" : "ping", &no_params));
        if (worker->state == WORKER_READY)
                rearm(worker);
}

void worker_cancel(Worker *worker, Request *request, const char *reason) {
        Buffer *input = channel_input(worker->channel);

        TAILQ_REMOVE(&worker->requests, request, link);
        worker->n_requests--;
        request->worker = NULL;
        if (worker->state >= WORKER_STOPPING)
                return;

        if (server_config_per_call(worker->config)) {
                worker_stop(worker, /* impatient= */ true);
                return;
        }

        if (input)
                (void)worker_write(worker, mcp_append_cancelled(input, request->id, reason));

        /* It may be busy with what nobody waits for. A sign of life is enough from one that takes calls side by
         * side; the next call of one that takes them in turn would wait behind this one, so it has to prove first
         * that it is free. */
        worker->suspect = worker->suspect || worker->config->pool.concurrency == 1;
        worker_check(worker);
        if (worker->state == WORKER_READY)
                request_left(worker);
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
                worker_set_timer(worker, usec_add(now_monotonic(worker), worker->config->timeouts.stop));

        set_state(worker, WORKER_STOPPING);
}

char *worker_describe_exit(const Worker *worker) {
        _cleanup_(freep) char *how = NULL;
        Buffer words = {};
        int r = 0;

        if (worker->state != WORKER_EXITED)
                how = strdup("");
        else if (worker->exit.si_code == CLD_EXITED) {
                if (asprintf(&how, "exited with status %d", worker->exit.si_status) < 0)
                        how = NULL;
        } else if (asprintf(&how, "was killed by signal SIG%s", sigabbrev_np(worker->exit.si_status) ?: "?") < 0)
                how = NULL;
        if (!how)
                return NULL;

        r = buffer_append_string(&words, how);
        for (size_t i = 0, n = 0; i < WORKER_LAST_LINES; i++)
                if (worker->last_lines[i] && r >= 0) {
                        r = buffer_append_string(&words, n++ == 0 ? "; its last words: " : " / ");
                        if (r >= 0)
                                r = buffer_append_string(&words, worker->last_lines[i]);
                }
        if (r >= 0)
                r = buffer_append(&words, "", 1);
        if (r < 0) {
                buffer_done(&words);
                return NULL;
        }

        return words.data;
}

/* Three pipes: the worker's ends in theirs, ours in ours, all close-on-exec; ours don't block. */
static int open_pipes(int theirs[3], int ours[3]) {
        for (int i = 0; i < 3; i++) {
                int ends[2], reading = i == 0;

                if (pipe2(ends, O_CLOEXEC) < 0)
                        return -errno;
                theirs[i] = ends[reading ? 0 : 1];
                ours[i] = ends[reading ? 1 : 0];
                if (fcntl(ours[i], F_SETFL, O_NONBLOCK) < 0)
                        return -errno;
        }

        return 0;
}

static int worker_open(Worker *worker, Launcher *launcher, const char *owner, Failure *failure) {
        int theirs[3] = { -EBADF, -EBADF, -EBADF }, ours[3] = { -EBADF, -EBADF, -EBADF }, r;

        r = open_pipes(theirs, ours);
        if (r >= 0)
                r = channel_new(worker->event, TAKE_FD(ours[0]), TAKE_FD(ours[1]), TAKE_FD(ours[2]),
                                worker->config->limits.message, &channel_handlers, worker, &worker->channel);
        if (r >= 0)
                r = launcher->ops->start(launcher,
                                         &(ProcessSpec){ .config = worker->config,
                                                         .owner = owner,
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
                .era = config->era != MCP_ERA_AUTO ? config->era : era,
                .era_assumed = config->era == MCP_ERA_AUTO && era != MCP_ERA_AUTO,
                .retire_at = USEC_INFINITY,
        };
        TAILQ_INIT(&worker->requests);
        worker->started = worker->last_active = now_monotonic(worker);
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
        channel_free(worker->channel);
        process_free(worker->process);
        failure_done(&worker->reason);
        free(worker->server_info);
        free(worker->last_stray);
        for (size_t i = 0; i < WORKER_LAST_LINES; i++)
                free(worker->last_lines[i]);
        server_config_unref(worker->config);
        sd_event_unref(worker->event);
        free(worker);
        return NULL;
}
