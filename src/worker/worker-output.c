/* What a worker writes: its answers, requests and notifications, its stderr, and all that is none of these. */

#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/text.h"
#include "worker/pool.h"
#include "worker/worker.h"

#define LINE_SHOWN ((size_t)240)
#define OUTPUT_SHOWN ((size_t)1024)
#define ANSWER_ROOM ((size_t)64 * 1024) /* of answers to the worker's own requests that it doesn't read */
#define REQUEST_ID_MAX ((size_t)8192)

static Request *find_request(Worker *worker, uint64_t id) {
        Request *request;

        TAILQ_FOREACH(request, &worker->requests, link)
                if (request->id == id)
                        return request;

        return NULL;
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
        worker_finish(worker, request, &(Outcome){ .failure = &failure });
        failure_done(&failure);
}

void worker_on_stray(Worker *worker, const char *line, size_t size) {
        worker->stray_lines++;
        free(worker->last_stray);
        worker->last_stray = text_escape(line, MIN(size, LINE_SHOWN * 2), LINE_SHOWN);
        worker->pool->handlers->stray(worker->pool->userdata, worker, line, size);
}

static void on_answer(Worker *worker, const McpMessage *message) {
        Request *request = message->ours ? find_request(worker, message->number) : NULL;

        if (request) {
                if (message->kind == MCP_RESULT)
                        worker_finish(worker, request,
                                      &(Outcome){ .result = message->result, .traits = message->traits });
                else {
                        Failure failure = {};

                        failure_set_remote(&failure, worker->config->name, message->error);
                        worker_finish(
                                worker, request,
                                &(Outcome){ .failure = &failure,
                                            .error = worker->wire == &mcp_protocol ? message->error : (JsonSlice){},
                                            .traits = message->traits });
                        failure_done(&failure);
                }
        } else if (worker->state == WORKER_STARTING && message->ours)
                handshake_answer(worker, message);
        else if (message->ours && worker->ping_id && message->number == worker->ping_id) {
                worker_answered_ping(worker);
        } else if (message->ours && worker->listen_id && message->number == worker->listen_id)
                worker->listen_id = 0;
        else if (message->ours && worker_heard_of(worker, message->number, /* ended= */ true,
                                                  /* went_on= */ message->kind == MCP_RESULT))
                worker->late_answers++;
        else if (message->ours && worker->n_told > 0)
                worker->n_told--;
        else
                worker->late_answers++;
}

/* A legacy server's own request */
static void on_request(Worker *worker, const McpMessage *message, const char *line, size_t size) {
        Buffer *input = channel_input(worker->channel);

        if (worker->wire != &mcp_protocol || worker->era == MCP_ERA_MODERN || message->id.size > REQUEST_ID_MAX) {
                worker_on_stray(worker, line, size);
                return;
        }

        if (!input || buffer_size(input) > ANSWER_ROOM)
                return;

        if (json_equal(message->method, "ping"))
                (void)worker_write(worker, mcp_append_empty_result(input, message->id));
        else if (!worker->pool->handlers->request(worker->pool->userdata, worker, message))
                (void)worker_write(worker, mcp_append_method_not_found(input, message->id));
}

static void on_progress(Worker *worker, const McpMessage *message) {
        uint64_t token, now = worker_now(worker);
        Request *request = NULL;

        if (json_unsigned(json_get(message->params, "progressToken"), &token)) {
                request = find_request(worker, token);
                if (!request)
                        (void)worker_heard_of(worker, token, /* ended= */ false, /* went_on= */ true);
        }
        if (!request) {
                /* A task's, perhaps: these outlive the call that made them. */
                worker->pool->handlers->notification(worker->pool->userdata, worker, message->method, message->params,
                                                     &message->traits);
                return;
        }

        if (!request->held)
                request->deadline = MIN(usec_add(now, request_timeout(request, worker->config)), request->deadline_max);
        if (request->progress && request->params.token.data)
                request->progress(request, message->params, &message->traits);
}

static void on_notification(Worker *worker, const McpMessage *message) {
        if (json_equal(message->method, "notifications/progress"))
                on_progress(worker, message);
        else if (!json_equal(message->method, "notifications/subscriptions/acknowledged"))
                worker->pool->handlers->notification(worker->pool->userdata, worker, message->method, message->params,
                                                     &message->traits);
}

/* A line that is no message, but may be the attempt of an answer: its call would wait for its deadline otherwise. */
bool worker_fail_asker(Worker *worker, const IdFinder *finder, FailureCode code, const char *why) {
        Request *request;
        uint64_t id;

        if (worker->wire->found_id && !worker->wire->found_id(finder, &id))
                return false;

        request = worker->wire->found_id ? find_request(worker, id) : TAILQ_FIRST(&worker->requests);
        if (!request)
                return worker->wire->found_id &&
                       worker_heard_of(worker, id, /* ended= */ true, /* went_on= */ code == FAILURE_TOO_LARGE);

        finish_failed(worker, request, code, "%s", why);
        return true;
}

/* What nothing asked for tells that the worker and the broker aren't of one mind about what answers what. But a process
 * that has one call can't answer another's. */
static void on_unasked(Worker *worker, const char *text, size_t size) {
        _cleanup_(freep) char *shown = text_escape(text, MIN(size, LINE_SHOWN), LINE_SHOWN);

        if (server_config_per_call(worker->config))
                worker_on_stray(worker, text, size);
        else if (worker->state < WORKER_STOPPING)
                worker_fail(worker, FAILURE_PROTOCOL_ERROR, "it wrote a line that nothing asked for: %s", shown ?: "");
}

static void remember_last_line(Worker *worker, char *text) {
        free(worker->last_lines[0]);
        memmove(worker->last_lines, worker->last_lines + 1, sizeof(worker->last_lines) - sizeof(char *));
        worker->last_lines[WORKER_LAST_LINES - 1] = text;
}

/* The beginning of a line that may never come to its end: no answer is sent to the worker meanwhile that could be put
 * behind it, and what was cut off by the worker's end isn't given to a caller. */
void worker_on_unfinished(void *userdata, const char *piece, size_t size, bool last) {
        Worker *worker = userdata;
        _cleanup_(freep) char *shown = NULL;
        char *words;

        if (TAILQ_EMPTY(&worker->requests)) {
                if (!last)
                        on_unasked(worker, piece, size);
                return;
        }
        if (!last)
                return;

        shown = text_escape(piece, MIN(size, LINE_SHOWN), LINE_SHOWN);
        if (asprintf(&words, "(a line without its end) %s", shown ?: "") >= 0)
                remember_last_line(worker, words);
}

/* A line that answers the one request under way, and says nothing of it */
static void on_plain_line(Worker *worker, const char *line, size_t size) {
        Request *request = TAILQ_FIRST(&worker->requests);
        Outcome outcome = {};
        Buffer scratch = {};

        if (!request) {
                on_unasked(worker, line, size);
                return;
        }

        if (plain_result(line, size, worker->config->limits.depth, &scratch, &outcome.result, &outcome.traits) < 0)
                finish_failed(worker, request, FAILURE_UNAVAILABLE, "out of memory");
        else
                worker_finish(worker, request, &outcome);
        buffer_done(&scratch);
}

char *worker_describe_exit(const Worker *worker) {
        _cleanup_(freep) char *how = NULL;
        bool exited = worker->exit_code == CLD_EXITED;
        Buffer words = {};
        char status[16];
        int r = 0;

        (void)snprintf(status, sizeof(status), "%d", worker->exit_status);
        if (worker->state != WORKER_EXITED)
                how = strdup("");
        else if (worker->exit_code == 0)
                how = strdup("could not be started");
        else if (asprintf(&how, "%s%s%s%s%s", exited ? "exited with status " : "was killed by signal SIG",
                          exited ? status : sigabbrev_np(worker->exit_status) ?: "?", worker->exit_result ? " (" : "",
                          worker->exit_result ?: "", worker->exit_result ? ")" : "") < 0)
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

/* What a command printed, for an error's text */
static char *shown_output(const Worker *worker) {
        char start[OUTPUT_SHOWN];
        size_t size = worker->spill ? spill_start(worker->spill, start, sizeof(start)) : 0;

        if (size > 0)
                return text_escape(start, size, OUTPUT_SHOWN);
        return buffer_size(&worker->output) > 0
                       ? text_escape(buffer_data(&worker->output), MIN(buffer_size(&worker->output), OUTPUT_SHOWN),
                                     OUTPUT_SHOWN)
                       : NULL;
}

void worker_conclude(Worker *worker) {
        Request *request = TAILQ_FIRST(&worker->requests);
        _cleanup_(freep) char *how = NULL, *printed = NULL;
        Outcome outcome = {};
        Buffer scratch = {};

        if (!request || worker->reason.message || worker->exit_code == 0 || worker->asked_to_stop)
                return;
        if (worker->exit_code != CLD_EXITED && worker->config->idempotent && !request->retried)
                return; /* it is sent once more */

        if (worker->exit_code != CLD_EXITED || worker->exit_status != 0) {
                how = worker_describe_exit(worker);
                printed = shown_output(worker);
                finish_failed(worker, request, worker->exit_code == CLD_EXITED ? FAILURE_REMOTE : FAILURE_WORKER_DIED,
                              "%s %s%s%s", worker->config->command, how ?: "failed", printed ? "; its output: " : "",
                              printed ?: "");
        } else if (worker->spill)
                worker_spill_end(worker);
        else if (plain_result(buffer_data(&worker->output) ?: "", buffer_size(&worker->output),
                              worker->config->limits.depth, &scratch, &outcome.result, &outcome.traits) < 0)
                finish_failed(worker, request, FAILURE_UNAVAILABLE, "out of memory");
        else
                worker_finish(worker, request, &outcome);
        buffer_done(&scratch);
}

void worker_on_message(Worker *worker, const McpMessage *message, const char *line, size_t size) {
        switch (message->kind) {
        case MCP_RESULT:
        case MCP_ERROR:
                on_answer(worker, message);
                break;
        case MCP_REQUEST:
                on_request(worker, message, line, size);
                break;
        case MCP_NOTIFICATION:
                on_notification(worker, message);
                break;
        case MCP_NOISE: {
                bool answers = message->ours && !message->method.data;
                Request *request = answers ? find_request(worker, message->number) : NULL;

                if (request)
                        finish_failed(worker, request, FAILURE_PROTOCOL_ERROR,
                                      "its answer is neither a result nor an error: %.*s", (int)MIN(size, LINE_SHOWN),
                                      line);
                else if (!answers || !worker_heard_of(worker, message->number, /* ended= */ true, /* went_on= */ false))
                        worker_on_stray(worker, line, size);
                break;
        }
        }
}

void worker_on_line(void *userdata, const char *line, size_t size) {
        Worker *worker = userdata;
        McpMessage message;
        JsonError error;
        int r;

        if (worker->wire == &once_protocol) {
                if (buffer_append(&worker->output, line, size) < 0)
                        worker_fail(worker, FAILURE_UNAVAILABLE, "out of memory");
                return;
        }
        if (!worker->wire->parse) {
                on_plain_line(worker, line, size);
                return;
        }

        worker->last_heard = worker_now(worker);
        if (worker->wire != &mcp_protocol) {
                /* A sign of life, as an answer to a ping is */
                if (worker->suspect)
                        pool_schedule(worker->pool);
                worker->suspect = worker_busy_with_cancelled(worker);
        }

        r = worker->wire->parse(line, size, worker->config->limits.depth, &message, &error);
        if (r < 0) {
                IdFinder finder = {};
                char why[200];

                (void)snprintf(why, sizeof(why), "its answer is no valid JSON: %s at byte %zu%s", error.reason,
                               error.offset, r == -E2BIG ? " (limits.depth)" : "");
                id_finder_feed(&finder, line, size);
                if (!worker_fail_asker(worker, &finder, FAILURE_PROTOCOL_ERROR, why))
                        worker_on_stray(worker, line, size);
                return;
        }

        worker_on_message(worker, &message, line, size);
}

void worker_on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Worker *worker = userdata;
        uint64_t limit = MIN(worker->config->limits.message, WORKER_LINE_MAX);
        char why[200];

        if (worker_spills(worker, last)) {
                worker_spill(worker, piece, size, last);
                return;
        }

        if (!worker->wire->parse) {
                if (worker->state < WORKER_STOPPING &&
                    !(worker->calls > 0 && TAILQ_EMPTY(&worker->requests) && server_config_per_call(worker->config)))
                        worker_fail(worker, FAILURE_TOO_LARGE, "it wrote more than limits.message, which is %llu bytes",
                                    (unsigned long long)limit);
                return;
        }

        id_finder_feed(&worker->oversized, piece, size);
        worker->oversized_size += size;
        (void)snprintf(why, sizeof(why), "it wrote a line of %s%llu bytes, and limits.message is %llu",
                       last ? "" : "more than ", (unsigned long long)worker->oversized_size, (unsigned long long)limit);

        if (last) {
                if (!worker_fail_asker(worker, &worker->oversized, FAILURE_TOO_LARGE, why))
                        worker_on_stray(worker, why, strlen(why));
                worker->oversized = (IdFinder){};
                worker->oversized_size = 0;
        } else if (worker->oversized_size / WORKER_OVERSIZED_FACTOR > limit && worker->state < WORKER_STOPPING)
                worker_fail(worker, FAILURE_PROTOCOL_ERROR, "%s", why);
}

void worker_on_diagnostic(void *userdata, const char *line, size_t size) {
        Worker *worker = userdata;

        remember_last_line(worker, text_escape(line, size, LINE_SHOWN));
        worker->pool->handlers->diagnostic(worker->pool->userdata, worker, line, size);
}
