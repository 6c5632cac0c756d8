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

JsonPiece session_call_id(const SessionCall *call) {
        return (JsonPiece){ call->id, &call->request.params.traits };
}

/* Nothing of it counts any more; its memory stays for a moment. */
static void unlink_call(SessionCall *call, FailureCode code) {
        Session *session = call->session;

        TAILQ_REMOVE(&session->calls, call, link);
        session->n_displaced -= call->displaced;
        session->client->n_calls--;
        quota_release_call(&session->manager->quota, session->client->uid, call->bytes);
        if (call->request.kind == REQUEST_CALL)
                call_record(session->manager, session->client, call->server->name, call->method, call->tool,
                            call->started, failure_code_to_string(code));
}

static void free_call(SessionCall *call) {
        Session *session = call->session;
        Manager *manager = session->manager;

        session_ask_free(call);
        free(call->kept);
        free(call->tool);
        free(call);
        sessions_pump(manager);
        session_update(session);
        manager->handlers->maybe_idle(manager->userdata);
}

static JsonSlice error_code(const Outcome *outcome) {
        return json_get(outcome->error, "code");
}

static void pass_error_on(SessionCall *call, const Outcome *outcome, McpEra worker) {
        Buffer *output = session_output(call->session, /* notification= */ false);
        JsonPiece id = session_call_id(call), error = { outcome->error, &outcome->traits };
        int r = -EINVAL;

        if (!output)
                return;
        if (call->client.era == MCP_ERA_MODERN && worker == MCP_ERA_LEGACY && error_code(outcome).data &&
            rpc_error_is(outcome->error, RPC_URL_ELICITATION_NEEDED))
                r = mcp_append_url_elicitations(output, id, error);
        if (r == -EINVAL)
                r = rpc_append_remote_error(output, id, error, call->client.era);
        session_sent(call->session, r);
}

void session_call_pass_on(SessionCall *call, const Outcome *outcome) {
        JsonPiece id = session_call_id(call), result = { outcome->result, &outcome->traits };
        Session *session = call->session;
        Buffer *output;
        McpHello hello;
        int r;

        (void)session_hello(call->server, &hello);
        if (call->request.kind == REQUEST_NOTIFICATION)
                return;
        if (outcome->error.data) {
                pass_error_on(call, outcome, hello.era);
                return;
        }
        if (outcome->failure) {
                session_reply_failure(session, id, outcome->failure);
                return;
        }

        output = session_output(session, /* notification= */ false);
        if (!output)
                return;
        r = hello.era == call->client.era
                    ? rpc_append_result(output, id, result)
                    : mcp_append_client_result(output, id, call->method, result, hello.era, call->client.era,
                                               (JsonPiece){ mcp_hello_server_info(&hello), NULL });
        if (r == -EINVAL)
                session_reply_error(session, id, RPC_BROKER, "Server %s: its result is no object", call->server->name);
        else
                session_sent(session, r);
}

void session_call_finish(SessionCall *call, const Outcome *outcome) {
        unlink_call(call, outcome->failure ? outcome->failure->code : FAILURE_NONE);
        if (call->done)
                call->done(call, outcome);
        else
                session_call_pass_on(call, outcome);
        free_call(call);
}

/* Whether it has waited for as long as the queue lets it */
static bool is_late(const SessionCall *call) {
        const ServerConfig *config = call->server->server->config;

        return now_monotonic(call->session->manager) >=
               usec_add(call->started, usec_add(config->timeouts.start, config->timeouts.call));
}

static void on_done(Request *request, const Outcome *outcome) {
        SessionCall *call = (SessionCall *)((char *)request - offsetof(SessionCall, request));
        McpHello hello;

        if (outcome->failure && outcome->failure->code == FAILURE_LIMITS_EXCEEDED && request->sent == 0 &&
            request->kind == REQUEST_CALL && !is_late(call)) {
                call->displaced = true;
                call->session->n_displaced++;
                return;
        }

        /* The call may go on: the server, or the client, has to say something first. */
        (void)session_hello(call->server, &hello);
        if (session_ask_done(call, outcome))
                return;
        if (!outcome->failure && hello.era == MCP_ERA_MODERN && request->kind == REQUEST_CALL) {
                McpResultType type = mcp_result_type(outcome->result, hello.era);

                if (type == MCP_RESULT_TASK && call->client.era == MCP_ERA_MODERN)
                        session_task_created(call, mcp_task_created(outcome->result, hello.era));
                else if (call->client.era == MCP_ERA_LEGACY && type == MCP_RESULT_INPUT_REQUIRED) {
                        session_ask_legacy(call, outcome);
                        return;
                } else if (call->client.era == MCP_ERA_LEGACY && type != MCP_RESULT_COMPLETE) {
                        session_call_fail(call, RPC_BROKER,
                                          "The server's result is of a kind that this session's "
                                          "version of the protocol doesn't have");
                        return;
                }
        }

        session_call_finish(call, outcome);
}

void session_call_fail(SessionCall *call, int code, const char *message) {
        if (call->request.pool)
                pool_cancel(&call->request, message);
        unlink_call(call, FAILURE_PROTOCOL_ERROR);
        if (call->id.size > 0)
                session_reply_error(call->session, session_call_id(call), code, "%s", message);
        free_call(call);
}

void session_call_cancel(SessionCall *call, const char *reason) {
        if (call->request.pool)
                pool_cancel(&call->request, reason);
        unlink_call(call, FAILURE_CANCELLED);
        free_call(call);
}

SessionCall *session_call_of(Request *request) {
        return request->done == on_done ? (SessionCall *)((char *)request - offsetof(SessionCall, request)) : NULL;
}

/* The client knows its request by the token that it chose, the worker by one of the broker. */
static void on_progress(Request *request, JsonSlice params, const JsonTraits *traits) {
        SessionCall *call = (SessionCall *)((char *)request - offsetof(SessionCall, request));
        Buffer *output = session_output(call->session, /* notification= */ true);

        if (output && call->id.size > 0)
                session_sent(call->session, mcp_append_progress(output, (JsonPiece){ params, traits },
                                                                (JsonPiece){ call->token, &request->params.traits }));
}

static SessionCall *call_new(Session *session, const SessionCallSpec *spec) {
        size_t method = strlen(spec->method) + 1;
        SessionCall *call = malloc(sizeof(SessionCall) + method + spec->id.size + spec->params.token.size);

        if (!call)
                return NULL;

        *call = (SessionCall){
                .request = { .kind = spec->kind,
                             .uid = session->client->uid,
                             .caller = session->client,
                             .params = spec->params,
                             .pinned = spec->pinned,
                             .done = on_done,
                             .progress = on_progress },
                .session = session,
                .server = spec->server,
                .client = spec->client,
                .started = now_monotonic(session->manager),
                .bytes = spec->params.text.size,
                .done = spec->done,
        };
        call->request.params.client = &call->client;
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
        McpParams *params = &call->request.params;
        JsonSlice *slices[] = { &params->text, &params->meta, &params->name };
        const char *text = params->text.data;

        if (!text || call->kept)
                return 0;

        call->kept = malloc(params->text.size);
        if (!call->kept)
                return -ENOMEM;

        memcpy(call->kept, text, params->text.size);
        for (size_t i = 0; i < ELEMENTSOF(slices); i++)
                if (slices[i]->data)
                        slices[i]->data = call->kept + (slices[i]->data - text);
        return 0;
}

static bool has_to_keep(const SessionCall *call) {
        const Request *request = &call->request;

        return !request->worker || call->done || request->worker->config->idempotent ||
               channel_written(request->worker->channel) <= request->position ||
               (request->worker->era == MCP_ERA_MODERN && call->client.era == MCP_ERA_LEGACY &&
                mcp_method_asks(call->method));
}

static int submit(SessionCall *call, Pool *pool, Failure *failure) {
        int r;

        r = pool_submit(pool, &call->request, failure);
        if (r >= 0 && has_to_keep(call) && keep_params(call) < 0) {
                pool_cancel(&call->request, "out of memory");
                r = failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }
        if (r >= 0)
                call->request.params.token = call->token.size > 0 ? call->token : (JsonSlice){};
        return r;
}

/* Whether the tool was seen to ask its caller something */
static bool asks(const SessionCall *call) {
        const Server *server = call->server->server;

        for (size_t i = 0; i < ASKERS_MAX && call->tool && call->session->client->profile != 0; i++)
                if (server->askers[i] && streq(server->askers[i], call->tool))
                        return true;

        return false;
}

int session_call_start(Session *session, const SessionCallSpec *spec, Failure *failure) {
        Quota *quota = &session->manager->quota;
        ServerPool *server_pool;
        SessionCall *call;
        Server *server;
        int r;

        r = manager_get_callable(session->manager, spec->server->name, &server, failure);
        if (r < 0)
                return r;

        call = session_get_pool(spec->server, &server_pool) < 0 ? NULL : call_new(session, spec);
        if (!call)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (streq(call->method, "tools/call"))
                call->tool = json_decode(call->request.params.name);
        call->request.asks = asks(call);

        r = quota_charge_call(quota, session->client->uid, session->client->n_calls, call->bytes, failure);
        if (r >= 0) {
                TAILQ_INSERT_TAIL(&session->calls, call, link);
                session->client->n_calls++;
                r = submit(call, server_pool->pool, failure);
                if (r >= 0)
                        return 0;

                TAILQ_REMOVE(&session->calls, call, link);
                session->client->n_calls--;
                quota_release_call(quota, session->client->uid, call->bytes);
        }

        free(call->kept);
        free(call->tool);
        free(call);
        if (failure->code == FAILURE_LIMITS_EXCEEDED && spec->kind == REQUEST_CALL && quota->counts.calls > 0) {
                failure_done(failure);
                return 1;
        }

        return r;
}

void session_resubmit(Session *session) {
        SessionCall *call, *next;

        TAILQ_FOREACH_SAFE(call, &session->calls, link, next) {
                Failure failure = {};

                if (!call->displaced)
                        continue;
                if (session_call_repeat(call, &failure) >= 0) {
                        call->displaced = false;
                        session->n_displaced--;
                } else if (failure.code != FAILURE_LIMITS_EXCEEDED || is_late(call))
                        session_call_finish(call, &(Outcome){ .failure = &failure });
                else
                        next = NULL;
                failure_done(&failure);
        }
}

int session_call_repeat(SessionCall *call, Failure *failure) {
        return submit(call, call->server->pool->pool, failure);
}
