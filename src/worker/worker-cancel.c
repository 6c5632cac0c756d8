/* Calls that are given up: how the worker is told, and what shows whether it heeds it. */

#include "worker/pool.h"

/* An answer to an earlier question proves nothing of this call, but has to come before it is asked anew. */
static void check_again(Worker *worker) {
        worker->ping_again = worker->ping_id > 0;
        worker_check(worker);
}

static bool must_answer(const Worker *worker) {
        const ServerConfig *config = worker->config;

        return !server_config_per_call(config) &&
               (config->pool.answers_cancel || (worker->wire != &mcp_protocol && config->pool.concurrency == 1));
}

/* It may answer before it reads that nobody waits any more. What comes later tells that it minds no cancel. Of too many
 * the one that was given up first is forgotten; false if the worker had to answer that. */
static bool remember(Worker *worker, uint64_t id) {
        GivenUp *place = &worker->given_up[0];
        bool forgets;

        for (size_t i = 1; i < WORKER_GIVEN_UP; i++)
                if (worker->given_up[i].until < place->until)
                        place = &worker->given_up[i];

        forgets = place->id > 0;
        *place = (GivenUp){ .id = id, .until = usec_add(worker_now(worker), worker->config->timeouts.stop) };
        if (worker->owed.id == 0 && must_answer(worker) && worker->state == WORKER_READY) {
                worker->owed = *place;
                worker_rearm(worker);
        }
        return !forgets || !must_answer(worker);
}

static GivenUp *find(Worker *worker, uint64_t id) {
        for (size_t i = 0; i < WORKER_GIVEN_UP; i++)
                if (worker->given_up[i].id == id && id > 0)
                        return &worker->given_up[i];

        return NULL;
}

uint64_t worker_owes_until(const Worker *worker) {
        return worker->owed.id > 0 ? worker->owed.until : USEC_INFINITY;
}

/* Of what it has to answer, only what was given up first is waited for: the others come after it. */
static void owe_next(Worker *worker) {
        GivenUp next = {};

        for (size_t i = 0; i < WORKER_GIVEN_UP; i++) {
                const GivenUp *given_up = &worker->given_up[i];

                if (given_up->id > 0 && (next.id == 0 || given_up->until < next.until))
                        next = *given_up;
        }
        worker->owed = worker->config->pool.answers_cancel ? next : (GivenUp){};
}

void worker_moved_while_owing(Worker *worker) {
        if (worker->owed.id > 0)
                worker->owed.until = usec_add(worker_now(worker), worker->config->timeouts.stop);
}

bool worker_busy_with_cancelled(const Worker *worker) {
        return worker->owed.id > 0 && worker->config->pool.concurrency == 1;
}

bool worker_heard_of(Worker *worker, uint64_t id, bool ended, bool went_on) {
        bool owed = id > 0 && worker->owed.id == id, ignored;
        GivenUp *given_up = find(worker, id);

        if (!given_up && !owed)
                return false;

        ignored = went_on && worker_now(worker) > (owed ? worker->owed.until : given_up->until);
        if (ended && given_up)
                *given_up = (GivenUp){};
        if (ended && owed) {
                owe_next(worker);
                worker->suspect = worker_busy_with_cancelled(worker);
                pool_schedule(worker->pool);
        }
        if (ignored && worker->state == WORKER_READY) {
                worker->let_go = "went on with a call that was cancelled";
                worker_drain(worker);
        }

        return true;
}

void worker_cancel(Worker *worker, Request *request, const char *reason) {
        Buffer *input = channel_input(worker->channel);
        bool mcp = worker->wire == &mcp_protocol, told, silent,
             one_by_one = server_config_per_call(worker->config) || !worker->wire->append_cancelled ||
                          (!mcp && worker->config->pool.concurrency == 1);

        TAILQ_REMOVE(&worker->requests, request, link);
        worker->n_requests--;
        request->worker = NULL;
        if (worker->state >= WORKER_STOPPING)
                return;

        /* One that has no words for it, or leaves unread what it was sent before, goes at once where its calls run one
         * at a time: the next would wait behind this one. */
        told = worker->wire->append_cancelled && input &&
               worker_write(worker, worker->wire->append_cancelled(input, request->id, reason)) >= 0;
        if (one_by_one && (!told || channel_blocked(worker->channel))) {
                worker->let_go = "can't be told that its call was cancelled";
                worker_stop(worker, /* impatient= */ true);
                return;
        }

        if (!remember(worker, request->id)) {
                worker->let_go = "didn't end calls that were cancelled";
                worker_drain(worker);
        }
        if (server_config_per_call(worker->config)) {
                worker_request_left(worker); /* which has it stopped: it has as long as any that is */
                return;
        }

        /* It said nothing for the whole time of a call. */
        silent = streq(reason, "timeout") &&
                 usec_add(worker->last_heard, worker->config->timeouts.call) <= worker_now(worker);

        if (mcp) {
                /* It may be busy with what nobody waits for. A sign of life is enough from one that takes calls side
                 * by side, if it hasn't been silent; the next call of one that takes them in turn would wait behind
                 * this one, so it has to prove first that it is free. */
                worker->suspect = worker->suspect || silent || worker->config->pool.concurrency == 1;
                check_again(worker);
        } else {
                /* One that has no ping gets no more before it says something: where its calls run one at a time, that
                 * this one has ended. */
                worker->suspect = worker->suspect || silent || one_by_one;
                if (worker->suspect && worker->n_requests == 0 && !must_answer(worker)) {
                        worker->let_go = "was silent for the whole time of a call";
                        worker_stop(worker, /* impatient= */ true);
                }
        }
        if (worker->state <= WORKER_DRAINING)
                worker_request_left(worker);
}
