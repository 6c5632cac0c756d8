/* Params that come from files, and results that go into them. */

#include <stdio.h>

#include "worker/pool.h"
#include "worker/worker.h"

#define LINE_HELD ((size_t)256 * 1024) /* of a line, while one can be an answer that goes into a file */
#define CHARGE_STEP ((uint64_t)1 << 20)

int worker_append_file_request(Worker *worker, Request *request) {
        const RequestFileLayout *layout = &request->file->layout;
        Buffer *input = channel_input(worker->channel);
        size_t before = buffer_size(input), n = 0;
        RequestFilePart parts[2];
        OutgoingForm form = layout->string && layout->escapes     ? OUTGOING_DECODED
                            : layout->newlines && !layout->string ? OUTGOING_ONE_LINE
                                                                  : OUTGOING_AS_IT_IS;
        Buffer tail = {};
        int r;

        r = worker->wire->append_around_file(input, &tail, worker->last_id + 1, worker->era, request->method,
                                             &request->params, layout, parts, &n);
        if (r >= 0)
                r = channel_append_file(worker->channel, request->file->file, parts, n, form, &tail);
        if (r < 0)
                buffer_truncate(input, before);
        buffer_done(&tail);
        return r;
}

/* While a worker reads what it is sent it isn't silent about it. */
void worker_on_moved(void *userdata) {
        Worker *worker = userdata;
        uint64_t now = worker_now(worker);
        Request *request;

        worker_moved_while_owing(worker);
        TAILQ_FOREACH(request, &worker->requests, link)
                if (request->file && !request->held && request->end >= channel_written(worker->channel))
                        request->deadline =
                                MIN(usec_add(now, request_timeout(request, worker->config)), request->deadline_max);
}

/* Whose the line is isn't known before its end: most likely one that may be so long. */
uint64_t worker_on_worked(void *userdata, uint64_t usec) {
        Worker *worker = userdata;
        Request *request;

        TAILQ_FOREACH(request, &worker->requests, link)
                if (request->large)
                        break;

        return worker->pool->handlers->worked(worker->pool->userdata, request, usec);
}

void worker_set_spills(Worker *worker, bool spills) {
        if (worker->spills == spills)
                return;

        worker->spills = spills;
        channel_hold_lines(worker->channel, spills ? LINE_HELD : SIZE_MAX);
}

bool worker_spills(const Worker *worker, bool last) {
        return worker->spill || (worker->spills && worker->oversized_size == 0 && !last);
}

/* Before its end an answer doesn't tell whose it is: only where all that can have such a one are of one user. */
static uid_t payer(const Worker *worker) {
        const Request *request;
        uid_t uid = (uid_t)-1;

        TAILQ_FOREACH(request, &worker->requests, link)
                if (request->large && uid == (uid_t)-1)
                        uid = request->uid;
                else if (request->large && request->uid != uid)
                        return (uid_t)-1;

        return uid;
}

/* In steps, so that it isn't asked for each piece */
static int charge(void *userdata, uint64_t bytes) {
        Worker *worker = userdata;
        uint64_t step;
        int r;

        /* A text takes more in JSON than it has itself. */
        if (worker->spilled - worker->spill_room + bytes > worker->config->limits.message)
                return -EMSGSIZE;

        if (bytes <= worker->spill_room) {
                worker->spill_room -= bytes;
                return 0;
        }

        if (worker->spilled == 0)
                worker->spill_payer = payer(worker);
        step = MAX(CHARGE_STEP, bytes);
        r = worker->pool->handlers->bytes_wanted(worker->pool->userdata, worker->spill_payer, step,
                                                 &worker->spill_failure);
        if (r < 0)
                return r;

        worker->spilled += step;
        worker->spill_room += step - bytes;
        return 0;
}

static void uncharge(Worker *worker) {
        if (worker->spilled > 0)
                worker->pool->handlers->bytes_gone(worker->pool->userdata, worker->spill_payer, worker->spilled);
        worker->spilled = worker->spill_room = 0;
}

void worker_spill_done(Worker *worker) {
        if (worker->spill)
                channel_widen(worker->channel, false);
        uncharge(worker);
        worker->spill = spill_free(worker->spill);
        failure_done(&worker->spill_failure);
        worker->oversized = (IdFinder){};
        worker->oversized_size = 0;
        worker->spill_error = 0;
}

static Request *find_request(Worker *worker, const McpMessage *message) {
        Request *request;

        if (message->ours)
                TAILQ_FOREACH(request, &worker->requests, link)
                        if (request->id == message->number)
                                return request;

        return NULL;
}

/* A result that is to be there in memory after all: somebody else's, who takes no file */
static void on_small_result(Worker *worker, McpMessage *message, SpillLine *line) {
        uint64_t size = memory_file_size(line->file);
        Buffer bytes = {};
        ssize_t n = -ENOMEM;

        if (buffer_reserve(&bytes, size + 1) >= 0)
                n = memory_file_read(line->file, 0, bytes.data, size);
        if (n >= 0) {
                message->result = (JsonSlice){ bytes.data, (size_t)n };
                message->traits = line->traits;
                worker_on_message(worker, message, buffer_data(&line->rest), buffer_size(&line->rest));
        } else
                worker_fail(worker, FAILURE_UNAVAILABLE, "its answer can't be read: %s", strerror((int)-n));
        buffer_done(&bytes);
}

static void on_result(Worker *worker, McpMessage *message, SpillLine *line) {
        Request *request = find_request(worker, message);

        if (request && request->large)
                worker_finish(worker, request, &(Outcome){ .file = &line->file, .traits = line->traits });
        else if (memory_file_size(line->file) <= MIN(worker->config->limits.message, WORKER_LINE_MAX))
                on_small_result(worker, message, line);
        else {
                IdFinder finder = {};

                id_finder_feed(&finder, buffer_data(&line->rest), buffer_size(&line->rest));
                if (!worker_fail_asker(worker, &finder, FAILURE_TOO_LARGE,
                                       "its answer is too large to be held: CallFd and StartJob take such a one"))
                        worker->late_answers++;
        }
}

/* An answer of which something went into the file that isn't its result, but stands in it: put together again. */
static void on_other_line(Worker *worker, SpillLine *line) {
        const char *text = buffer_data(&line->rest);
        uint64_t size = memory_file_size(line->file);
        Buffer whole = {};
        IdFinder finder = {};
        ssize_t n = -ENOMEM;

        if (size + buffer_size(&line->rest) > MIN(worker->config->limits.message, WORKER_LINE_MAX)) {
                id_finder_feed(&finder, text, buffer_size(&line->rest));
                if (!worker_fail_asker(worker, &finder, FAILURE_TOO_LARGE,
                                       "its answer is too large to be held, and its result stands beside others in it"))
                        worker->late_answers++;
                return;
        }

        if (buffer_append(&whole, text, line->at) >= 0 && buffer_reserve(&whole, size) >= 0)
                n = memory_file_read(line->file, 0, whole.data + whole.end, size);
        if (n >= 0) {
                whole.end += (size_t)n;
                n = buffer_append(&whole, text + line->at + 1, buffer_size(&line->rest) - line->at - 1);
        }
        if (n >= 0)
                worker_on_line(worker, buffer_data(&whole), buffer_size(&whole));
        else
                worker_fail(worker, FAILURE_UNAVAILABLE, "its answer can't be read: %s", strerror((int)-n));
        buffer_done(&whole);
}

/* What went by is a whole line, of which the result may stand in a file. */
static void on_spilled(Worker *worker, SpillLine *line) {
        const char *text = buffer_data(&line->rest);
        size_t size = buffer_size(&line->rest);
        McpMessage message;
        JsonError error;

        /* The charge is the receiver's from now on. */
        worker_spill_done(worker);

        if (!line->file || worker->wire->parse(text, size, worker->config->limits.depth, &message, &error) < 0)
                worker_on_line(worker, text, size);
        else if (message.kind == MCP_RESULT && message.result.data == text + line->at)
                on_result(worker, &message, line);
        else if (worker->wire->result_parent)
                on_other_line(worker, line);
        else
                worker_on_line(worker, text, size);
}

/* Whose answer it was, and what is wrong with it */
static void on_failed(Worker *worker, const IdFinder *finder, int error) {
        JsonError wrong = spill_error(worker->spill);
        FailureCode code = FAILURE_UNAVAILABLE;
        char why[400];

        if (error == -EBADMSG || error == -E2BIG) {
                code = FAILURE_PROTOCOL_ERROR;
                (void)snprintf(why, sizeof(why), "its answer is no valid JSON: %s at byte %zu%s", wrong.reason,
                               wrong.offset, error == -E2BIG ? " (limits.depth)" : "");
        } else if (error == -EPROTO) {
                code = FAILURE_PROTOCOL_ERROR;
                (void)snprintf(why, sizeof(why), "its answer has two results");
        } else if (error == -EILSEQ) {
                code = FAILURE_PROTOCOL_ERROR;
                (void)snprintf(why, sizeof(why), "its answer is JSON up to byte %zu, and not behind it: %s",
                               wrong.offset, wrong.reason);
        } else if (error == -EMSGSIZE && worker->oversized_size <= worker->config->limits.message) {
                code = FAILURE_TOO_LARGE;
                (void)snprintf(why, sizeof(why), "its text takes more than limits.message as JSON, which is %llu bytes",
                               (unsigned long long)worker->config->limits.message);
        } else if (error == -EMSGSIZE) {
                code = FAILURE_TOO_LARGE;
                (void)snprintf(why, sizeof(why), "it wrote a line of %llu bytes, and limits.message is %llu",
                               (unsigned long long)worker->oversized_size,
                               (unsigned long long)worker->config->limits.message);
        } else if (worker->spill_failure.code != FAILURE_NONE) {
                code = worker->spill_failure.code;
                (void)snprintf(why, sizeof(why), "%s", failure_message(&worker->spill_failure));
        } else
                (void)snprintf(why, sizeof(why), "its answer can't be held: %s", strerror(-error));

        worker_spill_done(worker);
        if (!worker_fail_asker(worker, finder, code, why))
                worker_on_stray(worker, why, strlen(why));
}

/* The line is the answer, and says of nobody whose. */
static void on_text(Worker *worker, SpillLine *line) {
        Request *request = TAILQ_FIRST(&worker->requests);

        worker_spill_done(worker);
        if (request)
                worker_finish(worker, request, &(Outcome){ .file = &line->file, .traits = line->traits });
        else
                worker->late_answers++;
}

static void on_end(Worker *worker) {
        IdFinder finder = worker->oversized;
        SpillLine line = {};
        int r = worker->spill_error;

        if (r == 0) {
                r = spill_finish(worker->spill, &line);
                if (r == -EBADMSG)
                        spill_find_id(worker->spill, &finder);
                else if (r < 0)
                        id_finder_feed(&finder, buffer_data(&line.rest), buffer_size(&line.rest));
        }

        if (r < 0)
                on_failed(worker, &finder, r);
        else if (worker->wire->parse)
                on_spilled(worker, &line);
        else
                on_text(worker, &line);
        spill_line_done(&line);
}

void worker_spill_end(Worker *worker) {
        on_end(worker);
}

void worker_spill(Worker *worker, const char *piece, size_t size, bool last) {
        uint64_t limit = worker->config->limits.message;
        size_t used = 0;

        if (!worker->spill) {
                if (spill_new(worker->wire, worker->config->limits.depth, MIN(limit, WORKER_LINE_MAX), charge, worker,
                              &worker->spill) < 0) {
                        worker_fail(worker, FAILURE_UNAVAILABLE, "out of memory");
                        return;
                }
                channel_widen(worker->channel, true);
        }

        worker->oversized_size += size;
        if (!worker->wire->parse && worker->oversized_size > limit) {
                if (worker->state < WORKER_STOPPING)
                        worker_fail(worker, FAILURE_TOO_LARGE, "it wrote more than limits.message, which is %llu bytes",
                                    (unsigned long long)limit);
                return;
        }
        if (worker->spill_error == 0 && worker->oversized_size > limit)
                spill_drop_result(worker->spill, -EMSGSIZE);
        if (worker->spill_error == 0) {
                worker->spill_error = spill_feed(worker->spill, piece, size, &used);
                if (worker->spill_error < 0)
                        spill_find_id(worker->spill, &worker->oversized);
        }
        if (worker->spill_error < 0)
                id_finder_feed(&worker->oversized, piece + used, size - used);
        /* What was given up is charged no longer, though the line may be long in coming to its end. */
        if (!spill_holds(worker->spill))
                uncharge(worker);

        /* What a command has written counts when it is known how it ended. */
        if (last && worker->wire != &once_protocol)
                on_end(worker);
        else if (last)
                return;
        else if (worker->oversized_size / WORKER_OVERSIZED_FACTOR > limit && worker->state < WORKER_STOPPING)
                worker_fail(worker, FAILURE_PROTOCOL_ERROR, "it wrote a line of more than %llu bytes",
                            (unsigned long long)worker->oversized_size);
}
