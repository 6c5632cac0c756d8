#include "broker/call.h"

#define WINDOW 32                           /* items under way at a time */
#define RESULTS_MAX_BYTES ((size_t)8 << 20) /* of all together: they travel in one message */

struct Batch {
        Manager *manager;
        Client *client;
        const char *server;
        BatchItem *items;
        size_t n_items, next, n_done, bytes;
        unsigned n_running;
        bool abandoned, pumping;
        bool stopped; /* somebody stopped the server: the rest would start it again */
        void (*done)(void *userdata, const BatchItem *items, size_t n_items);
        void *userdata;
};

typedef struct BatchCall {
        Batch *batch;
        BatchItem *item;
} BatchCall;

static void batch_pump(Batch *batch);

static void item_done(Batch *batch, BatchItem *item) {
        item->done = true;
        batch->n_done++;
}

static void take_outcome(Batch *batch, BatchItem *item, const Outcome *outcome) {
        size_t limit = batch->manager->quota.settings.limits.message;
        Buffer text = {};

        if (outcome->failure) {
                failure_copy(&item->failure, outcome->failure);
                batch->stopped = batch->stopped || outcome->failure->code == FAILURE_CANCELLED;
                return;
        }

        if (outcome->result.size > limit || batch->bytes + outcome->result.size > RESULTS_MAX_BYTES) {
                failure_set(&item->failure, FAILURE_TOO_LARGE,
                            "The result has %zu bytes; the limit is %zu for one (limits.message in mcp-exec.json) and "
                            "%zu for all of a batch",
                            outcome->result.size, limit, RESULTS_MAX_BYTES);
                return;
        }

        if (json_append(&text, outcome->result, &outcome->traits) < 0 || buffer_append(&text, "", 1) < 0) {
                buffer_done(&text);
                failure_set(&item->failure, FAILURE_UNAVAILABLE, "Out of memory");
                return;
        }

        batch->bytes += outcome->result.size;
        item->result = text.data;
}

static void on_done(Call *call, const Outcome *outcome) {
        BatchCall *batch_call = call->userdata;
        Batch *batch = batch_call->batch;
        BatchItem *item = batch_call->item;

        free(batch_call);
        batch->n_running--;
        if (outcome)
                take_outcome(batch, item, outcome);
        else
                batch->abandoned = true;
        item_done(batch, item);
        batch_pump(batch);
}

static void batch_free(Batch *batch) {
        for (size_t i = 0; i < batch->n_items; i++) {
                failure_done(&batch->items[i].failure);
                free(batch->items[i].result);
        }
        free(batch->items);
        free(batch);
}

/* Starts what can be started. An item that a limit keeps out waits while others of the batch are under way: its turn
 * comes when one of them is done. */
static void batch_pump(Batch *batch) {
        if (batch->pumping)
                return;

        batch->pumping = true;
        while (batch->next < batch->n_items && batch->n_running < WINDOW && !batch->abandoned) {
                BatchItem *item = &batch->items[batch->next];
                BatchCall *batch_call = new0(BatchCall, 1);
                Failure failure = {};
                int r;

                if (batch->stopped)
                        r = failure_set(&failure, FAILURE_CANCELLED, "Server %s was stopped during the batch",
                                        batch->server);
                else if (batch_call) {
                        *batch_call = (BatchCall){ batch, item };
                        r = call_start(batch->manager, batch->client,
                                       &(CallSpec){ .kind = REQUEST_CALL,
                                                    .server = batch->server,
                                                    .method = item->method,
                                                    .params = item->params,
                                                    .done = on_done,
                                                    .userdata = batch_call },
                                       &failure);
                } else
                        r = failure_set(&failure, FAILURE_UNAVAILABLE, "Out of memory");

                if (r >= 0) {
                        batch->n_running++;
                        batch->next++;
                        continue;
                }

                free(batch_call);
                if (failure.code == FAILURE_LIMITS_EXCEEDED && batch->n_running > 0) {
                        failure_done(&failure);
                        break;
                }

                call_record(batch->manager, batch->client, batch->server, item->method, /* tool= */ NULL,
                            /* started= */ 0, failure_code_to_string(failure.code));
                batch->next++;
                item->failure = failure;
                item_done(batch, item);
        }
        batch->pumping = false;

        if (batch->n_running == 0 && (batch->n_done == batch->n_items || batch->abandoned)) {
                batch->done(batch->userdata, batch->abandoned ? NULL : batch->items, batch->n_items);
                batch_free(batch);
        }
}

int batch_start(Manager *manager, Client *client, const char *server, BatchItem *items, size_t n_items,
                void (*done)(void *userdata, const BatchItem *items, size_t n_items), void *userdata,
                Failure *failure) {
        Server *found;
        Batch *batch;
        int r;

        r = manager_get_callable(manager, server, &found, failure);
        batch = r < 0 ? NULL : new0(Batch, 1);
        if (!batch) {
                free(items);
                return r < 0 ? r : failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }

        *batch = (Batch){
                .manager = manager,
                .client = client,
                .server = server,
                .items = items,
                .n_items = n_items,
                .done = done,
                .userdata = userdata,
        };
        batch_pump(batch);
        return 0;
}
