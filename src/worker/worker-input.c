/* What a worker is told: calls, and what stands beside them */

#include "wire/rpc.h"
#include "worker/pool.h"

/* Whether it can be told something beside its calls; what it doesn't read isn't collected without end. */
Buffer *worker_side_input(Worker *worker) {
        Buffer *input = channel_input(worker->channel);

        return worker->wire == &mcp_protocol && worker->state <= WORKER_DRAINING && input &&
                               buffer_size(input) <= worker->config->limits.message
                       ? input
                       : NULL;
}

void worker_answer(Worker *worker, JsonSlice id, JsonSlice result, JsonSlice error, const JsonTraits *traits) {
        Buffer *input = worker_side_input(worker);

        if (input)
                (void)worker_write(
                        worker,
                        result.data ? rpc_append_result(input, (JsonPiece){ id, NULL }, (JsonPiece){ result, traits })
                                    : rpc_append_remote_error(input, (JsonPiece){ id, NULL },
                                                              (JsonPiece){ error, traits }, MCP_ERA_LEGACY));
}

void worker_notify(Worker *worker, const char *method, const McpParams *params) {
        Buffer *input = worker_side_input(worker);

        if (input)
                (void)worker_write(worker, mcp_append_notification(input, method, params));
}

int worker_send(Worker *worker, Request *request) {
        Buffer *input = channel_input(worker->channel);
        uint64_t position = channel_appended(worker->channel), now;
        int r;

        if (!input)
                return -EPIPE;

        if (request->kind == REQUEST_CALL) {
                r = request->file ? worker_append_file_request(worker, request)
                                  : worker->wire->append_request(input, worker->last_id + 1, worker->era,
                                                                 request->method, &request->params);
                if (r >= 0)
                        request->id = ++worker->last_id;
        } else
                r = 0;

        r = worker_write(worker, r);
        if (r < 0)
                return r;

        worker_touch(worker);
        now = worker->last_active;
        if (request->kind != REQUEST_CALL) {
                pool_request_done(request, &(Outcome){});
                return 0;
        }

        if (worker->wire == &once_protocol)
                channel_finish_input(worker->channel);
        worker->calls++;
        TAILQ_REMOVE(&worker->pool->queue, request, link);
        worker->pool->n_queued--;
        worker->pool->n_pinned -= request->pinned != NULL;
        TAILQ_INSERT_TAIL(&worker->requests, request, link);
        worker->n_requests++;
        worker->pool->n_in_flight++;
        request->worker = worker;
        request->position = position;
        request->end = channel_appended(worker->channel);
        if (request->large)
                worker_set_spills(worker, true);
        request->sent = now;
        request->deadline_max = usec_add(now, worker->config->timeouts.call_max);
        request->deadline =
                request->held ? request->deadline_max
                              : MIN(usec_add(now, request_timeout(request, worker->config)), request->deadline_max);
        pool_watch_deadline(worker->pool, request->deadline);
        return 0;
}

void worker_tell(Worker *worker, const char *method, const char *params) {
        McpParams checked = { .text = { params, strlen(params) } };
        Buffer *input = channel_input(worker->channel);

        if (!input || worker->state != WORKER_READY ||
            worker_write(worker, mcp_append_request(input, worker->last_id + 1, worker->era, method, &checked)) < 0)
                return;

        worker->last_id++;
        worker->n_told++;
}
