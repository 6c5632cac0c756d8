/* Requests of a session's client that pools have: from acceptance to the one answer */

#include "broker/call.h"
#include "broker/session-parts.h"

static uint64_t now_monotonic(const Manager *manager) {
        uint64_t usec = 0;

        (void)sd_event_now(manager->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

SessionCall *session_find_call(Session *session, JsonSlice id) {
        SessionCall *call;

        TAILQ_FOREACH(call, &session->calls, link)
                if (call->id.size == id.size && id.size > 0 && memcmp(call->id.data, id.data, id.size) == 0)
                        return call;

        return NULL;
}

/* Nothing of it counts any more; its memory stays for a moment. */
static void unlink_call(SessionCall *call, const char *outcome) {
        Session *session = call->session;

        TAILQ_REMOVE(&session->calls, call, link);
        session->client->n_calls--;
        quota_release_call(&session->manager->quota, session->client->uid, call->bytes);
        if (call->request.kind == REQUEST_CALL)
                call_record(session->manager, session->client, call->server->server->config->name, call->method,
                            call->tool, call->started, outcome);
}

static void free_call(SessionCall *call) {
        Manager *manager = call->session->manager;
        Session *session = call->session;

        free(call->kept);
        free(call->tool);
        free(call);
        sessions_pump(manager);
        session_update(session);
        manager->handlers->maybe_idle(manager->userdata);
}

static void on_done(Request *request, const Outcome *outcome) {
        SessionCall *call = (SessionCall *)((char *)request - offsetof(SessionCall, request));

        unlink_call(call, failure_code_to_string(outcome->failure ? outcome->failure->code : FAILURE_NONE));
        if (call->done)
                call->done(call, outcome);
        else
                session_reply_outcome(call->session, call->id, outcome);
        free_call(call);
}

void session_call_cancel(SessionCall *call, const char *reason) {
        pool_cancel(&call->request, reason);
        unlink_call(call, failure_code_to_string(FAILURE_CANCELLED));
        free_call(call);
}

/* The client knows its request by the token that it chose, the worker by one of the broker. */
static void on_progress(Request *request, JsonSlice params, const JsonTraits *traits) {
        SessionCall *call = (SessionCall *)((char *)request - offsetof(SessionCall, request));
        Buffer *output = session_output(call->session, /* notification= */ true);
        JsonSlice token = json_get(params, "progressToken");
        JsonSlice before = { params.data, token.data - params.data },
                  behind = { token.data + token.size, params.data + params.size - (token.data + token.size) };
        size_t size;
        int r;

        if (!output)
                return;

        size = buffer_size(output);
        r = buffer_append_string(output, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":");
        if (r >= 0)
                r = json_append(output, before, traits);
        if (r >= 0)
                r = buffer_append(output, call->token.data, call->token.size);
        if (r >= 0)
                r = json_append(output, behind, traits);
        if (r >= 0)
                r = buffer_append(output, "}\n", 2);
        if (r < 0)
                buffer_truncate(output, size);
        session_sent(call->session, r);
}

static SessionCall *call_new(Session *session, const SessionCallSpec *spec) {
        size_t method = strlen(spec->method) + 1;
        SessionCall *call = malloc(sizeof(SessionCall) + method + spec->id.size + spec->params.token.size);

        if (!call)
                return NULL;

        *call = (SessionCall){
                .request = { .kind = spec->kind,
                             .caller = session->client,
                             .params = spec->params,
                             .pinned = spec->pinned,
                             .done = on_done,
                             .progress = on_progress },
                .session = session,
                .server = spec->server,
                .started = now_monotonic(session->manager),
                .bytes = spec->params.text.size,
                .done = spec->done,
        };
        call->request.method = call->method = memcpy(call->data, spec->method, method);
        call->id = (JsonSlice){ call->data + method, spec->id.size };
        call->token = (JsonSlice){ call->id.data + call->id.size, spec->params.token.size };
        memcpy(call->data + method, spec->id.data ?: "", spec->id.size);
        memcpy(call->data + method + spec->id.size, spec->params.token.data ?: "", spec->params.token.size);
        return call;
}

/* The params stand in the line that is being read. They are copied where they may be wanted again: the request waits,
 * or no byte of it has been written and its worker may end, or it may be repeated. */
static int keep_params(SessionCall *call) {
        Request *request = &call->request;
        McpParams *params = &request->params;
        const char *text = params->text.data;
        const JsonSlice *slices[] = { &params->text, &params->meta, &params->name };

        if (!params->text.data)
                return 0;

        call->kept = malloc(params->text.size);
        if (!call->kept)
                return -ENOMEM;

        memcpy(call->kept, text, params->text.size);
        for (size_t i = 0; i < ELEMENTSOF(slices); i++)
                if (slices[i]->data)
                        ((JsonSlice *)slices[i])->data = call->kept + (slices[i]->data - text);
        return 0;
}

static bool has_to_keep(const SessionCall *call) {
        const Request *request = &call->request;

        return !request->worker || request->worker->config->idempotent ||
               channel_written(request->worker->channel) <= request->position;
}

int session_call_start(Session *session, const SessionCallSpec *spec, Failure *failure) {
        Quota *quota = &session->manager->quota;
        ServerPool *server_pool;
        SessionCall *call;
        Server *server;
        int r;

        r = manager_get_callable(session->manager, spec->server->server->config->name, &server, failure);
        if (r < 0)
                return r;

        call = session_get_pool(spec->server, &server_pool) < 0 ? NULL : call_new(session, spec);
        if (!call)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (streq(call->method, "tools/call"))
                call->tool = json_decode(call->request.params.name);

        r = quota_charge_call(quota, session->client->uid, session->client->n_calls, call->bytes, failure);
        if (r >= 0) {
                TAILQ_INSERT_TAIL(&session->calls, call, link);
                session->client->n_calls++;
                r = pool_submit(server_pool->pool, &call->request, failure);
                if (r >= 0 && has_to_keep(call) && keep_params(call) < 0) {
                        pool_cancel(&call->request, "out of memory");
                        r = failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
                }
                if (r >= 0) {
                        call->request.params.token = call->token.size > 0 ? call->token : (JsonSlice){};
                        return 0;
                }

                TAILQ_REMOVE(&session->calls, call, link);
                session->client->n_calls--;
                quota_release_call(quota, session->client->uid, call->bytes);
        }

        free(call->tool);
        free(call);
        if (failure->code == FAILURE_LIMITS_EXCEEDED && quota->calls > 0) {
                failure_done(failure);
                return 1;
        }

        return r;
}
