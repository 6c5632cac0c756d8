/* What a session's client says, line by line */

#include "broker/aggregate.h"
#include "wire/meta.h"

static JsonPiece id_of(const RpcInput *input) {
        return (JsonPiece){ input->message.id, &input->message.traits };
}

/* Who asks, by the request itself or by what initialize said. False: it was refused. */
static bool identify(Session *session, const RpcInput *input, const char *method, McpClient *ret) {
        const char *reason = NULL;
        Buffer *output;
        int code;

        *ret = session->mcp;
        if (session->mcp.era == MCP_ERA_LEGACY || streq(method, "initialize") ||
            (session->mcp.era == MCP_ERA_AUTO && streq(method, "ping") && !mcp_is_modern_request(&input->params)))
                return true;

        if (session->mcp.era == MCP_ERA_AUTO && !mcp_is_modern_request(&input->params) &&
            !streq(method, "server/discover")) {
                session_reply_error(
                        session, id_of(input), RPC_INVALID_REQUEST,
                        "Before %s comes initialize; or the request says in its _meta which version it is of", method);
                return false;
        }

        *ret = (McpClient){ .era = MCP_ERA_MODERN, .version = MCP_VERSION_MODERN };
        code = mcp_read_modern(&input->params, &ret->profile, &ret->level, &reason);
        if (code == 0) {
                if (session->client->profile == 0)
                        session->client->profile = mcp_profile_for(ret->profile, MCP_ERA_MODERN, MCP_ERA_LEGACY);
                if (!streq(method, "server/discover"))
                        session->mcp = *ret;
                return true;
        }

        if (code == RPC_UNSUPPORTED_VERSION && (output = session_output(session, /* notification= */ false)))
                session_sent(session, mcp_append_unsupported(output, id_of(input),
                                                             (JsonPiece){ json_get(input->params.meta, META_VERSION),
                                                                          &input->message.traits }));
        else if (code != RPC_UNSUPPORTED_VERSION)
                session_reply_error(session, id_of(input), code, "%s", reason ?: "Invalid _meta");
        return false;
}

/* Whether the request is dealt with. False: it has to wait for others. */
static bool on_request(Session *session, const RpcInput *input, bool held) {
        _cleanup_(freep) char *method = rpc_method_name(input->message.method);
        JsonSlice id = input->message.id;
        Failure failure = {};
        McpClient client;
        int r;

        if (!method) {
                session_reply_error(session, id_of(input), RPC_INTERNAL_ERROR, "Out of memory");
                return true;
        }
        if (session_find_call(session, id) || session_find_listen(session, id) || aggregate_has_request(session, id)) {
                session_reply_error(session, id_of(input), RPC_INVALID_REQUEST, "A request with this id is under way");
                return true;
        }
        if (!held && !TAILQ_EMPTY(&session->held) && !streq(method, "ping"))
                return false;
        if (!identify(session, input, method, &client))
                return true;

        r = session_method(session, input, &client, method, &failure);
        if (r < 0)
                session_reply_failure(session, id_of(input), &failure);
        failure_done(&failure);
        return r != 1;
}

static void drop_held(Session *session, HeldLine *held) {
        TAILQ_REMOVE(&session->held, held, link);
        session->held_bytes -= held->size;
        free(held);
}

static void on_cancelled(Session *session, const RpcInput *input) {
        JsonSlice id = json_get(input->message.params, "requestId");
        _cleanup_(freep) char *reason = json_decode(json_get(input->message.params, "reason"));
        SessionListen *listen = session_find_listen(session, id);
        SessionCall *call = session_find_call(session, id);
        HeldLine *held, *next;

        /* A task has its own way of being cancelled, and initialize can't be. */
        if (call)
                session_call_cancel(call, reason && strlen(reason) <= RPC_ID_MAX ? reason : "cancelled");
        else if (listen)
                session_listen_free(listen);
        else if (aggregate_has_request(session, id))
                aggregate_cancel(session, id);
        else if (!session->pumping)
                TAILQ_FOREACH_SAFE(held, &session->held, link, next) {
                        RpcInput waiting;

                        rpc_read(held->data, held->size, session->depth, &waiting);
                        if (waiting.message.id.size == id.size &&
                            memcmp(waiting.message.id.data, id.data, id.size) == 0)
                                drop_held(session, held);
                }
}

/* To a legacy server; a modern one wants none. */
static void forward_notification(Session *session, SessionServer *server, const RpcInput *input, const char *method) {
        Failure failure = {};
        McpHello hello;

        if (server->gone || !session_hello(server, &hello) || hello.era != MCP_ERA_LEGACY)
                return;
        /* Of several servers those that don't run are told nothing, and not started for it. */
        if (session->aggregate && server->pool->pool->n_workers == 0)
                return;

        if (streq(method, "notifications/roots/list_changed"))
                session_roots_changed(server);
        (void)session_call_start(
                session,
                &(SessionCallSpec){
                        .server = server, .kind = REQUEST_NOTIFICATION, .method = method, .params = input->params },
                &failure);
        failure_done(&failure);
}

static void on_notification(Session *session, const RpcInput *input) {
        _cleanup_(freep) char *method = rpc_method_name(input->message.method);

        if (!method)
                return;

        if (streq(method, "notifications/cancelled"))
                on_cancelled(session, input);
        else if (streq(method, "notifications/progress"))
                session_asked_progress(session, input->message.params, &input->message.traits);
        else if (session->mcp.era == MCP_ERA_LEGACY && !streq(method, "notifications/initialized") &&
                 strncmp(method, "notifications/", strlen("notifications/")) == 0)
                for (size_t i = 0; i < session->n_servers; i++)
                        forward_notification(session, &session->servers[i], input, method);
}

/* False: the line has to wait */
static bool on_text(Session *session, const char *text, size_t size, bool held) {
        RpcInput input;

        rpc_read(text, size, session->depth, &input);
        switch (input.kind) {
        case RPC_REQUEST:
                return on_request(session, &input, held);
        case RPC_NOTIFICATION:
                on_notification(session, &input);
                break;
        case RPC_ANSWER:
                session_answered(session, &input.message);
                break;
        case RPC_WRONG:
                session_reply_error(session, (JsonPiece){ input.id, &input.message.traits }, input.code,
                                    "%s (at byte %zu)", input.reason, input.offset);
                break;
        case RPC_NOISE:
        case RPC_BATCH: /* not inside of another */
                break;
        }

        return true;
}

static void hold(Session *session, const char *line, size_t size) {
        HeldLine *held = malloc(sizeof(HeldLine) + size);

        if (!held) {
                session_close(session, "out of memory");
                return;
        }

        held->size = size;
        memcpy(held->data, line, size);
        TAILQ_INSERT_TAIL(&session->held, held, link);
        session->held_bytes += size;
        session_update(session);
}

static void take(Session *session, const char *text, size_t size, bool again) {
        /* It can bring the answer that the session waited for before it has its own. */
        session->n_taking++;
        if (session->state != SESSION_CLOSED && !on_text(session, text, size, /* held= */ again))
                hold(session, text, size);
        session->n_taking--;
}

void session_take_again(Session *session, const char *text, size_t size) {
        take(session, text, size, /* again= */ true);
}

static void on_line(void *userdata, const char *line, size_t size) {
        Session *session = userdata;
        const char *position = NULL;
        JsonSlice element;

        while (size > 0 && (*line == ' ' || *line == '\t' || *line == '\r')) {
                line++;
                size--;
        }

        /* A batch, which one revision had: its requests are answered one by one. */
        if (size > 0 && line[0] == '[') {
                RpcInput input;

                rpc_read(line, size, session->depth, &input);
                if (input.kind == RPC_BATCH) {
                        while (json_next_element((JsonSlice){ line, size }, &position, &element))
                                take(session, element.data, element.size, /* again= */ false);
                        return;
                }
        }

        take(session, line, size, /* again= */ false);
}

static void on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Session *session = userdata;
        JsonPiece id = {};
        RpcKind kind;

        id_finder_feed(&session->oversized, piece, size);
        if (!last)
                return;

        kind = rpc_found_id(&session->oversized, &id.text);
        if (kind != RPC_ANSWER)
                session_reply_error(session, id, RPC_INVALID_REQUEST,
                                    "The line is longer than the server's limits.message");
        session->oversized = (IdFinder){};
}

const LineHandlers session_input = {
        .line = on_line,
        .oversized = on_oversized,
};

void session_pump(Session *session) {
        HeldLine *held;

        if (session->pumping)
                return;

        session->pumping = true;
        while ((held = TAILQ_FIRST(&session->held)) && session->state != SESSION_CLOSED &&
               on_text(session, held->data, held->size, /* held= */ true))
                drop_held(session, held);
        session->pumping = false;

        for (size_t i = 0; i < session->n_servers; i++)
                if (!session->servers[i].warming)
                        failure_done(&session->servers[i].cold);
        session_update(session);
}
