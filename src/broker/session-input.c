/* What a session's client says, line by line */

#include <stdio.h>

#include "broker/session-parts.h"

static const JsonTraits no_traits = {};

/* In the greeting of a legacy server stands the version that it speaks with the broker. What came after the client's
 * own version only adds to it. */
static JsonSlice choose_version(JsonSlice asked, JsonSlice spoken) {
        _cleanup_(freep) char *version = json_decode(asked), *other = json_decode(spoken);

        return version && other && mcp_legacy_version_supported(version) && strcmp(version, other) < 0 ? asked : spoken;
}

static int append_greeting(Buffer *buffer, const Buffer *greeting, JsonSlice asked) {
        JsonSlice text = { buffer_data(greeting), buffer_size(greeting) }, version = json_get(text, "protocolVersion");
        JsonSlice chosen = choose_version(asked, version);
        int r;

        if (!version.data)
                return buffer_append(buffer, text.data, text.size);

        r = buffer_append(buffer, text.data, version.data - text.data);
        if (r >= 0)
                r = buffer_append(buffer, chosen.data, chosen.size);
        if (r >= 0)
                r = buffer_append(buffer, version.data + version.size,
                                  text.data + text.size - (version.data + version.size));
        return r;
}

static void greet(Session *session, JsonSlice id, const Pool *pool, JsonSlice version) {
        Buffer text = {};

        session->initializing = false;
        if (buffer_size(&pool->greeting) == 0)
                session_reply_error(session, id, RPC_BROKER_ERROR, "What the server says of itself can't be kept");
        else if (append_greeting(&text, &pool->greeting, version) < 0)
                session_close(session, "out of memory");
        else {
                session->era = MCP_ERA_LEGACY;
                session_reply_result(session, id, (JsonSlice){ buffer_data(&text), buffer_size(&text) }, &no_traits);
        }
        buffer_done(&text);
}

static void initialize_done(SessionCall *call, const Outcome *outcome) {
        Session *session = call->session;

        session->initializing = false;
        if (outcome->failure)
                session_reply_failure(session, call->id, outcome->failure);
        else
                greet(session, call->id, call->server->pool->pool,
                      json_get(call->request.params.text, "protocolVersion"));
}

static int on_initialize(Session *session, const McpMessage *message, const McpParams *params, Failure *failure) {
        SessionServer *server = &session->servers[0];
        ServerPool *server_pool;

        if (session->era != MCP_ERA_AUTO || session->initializing) {
                session_reply_error(session, message->id, RPC_INVALID_REQUEST, "The session is initialized already");
                return 0;
        }
        if (!json_is(json_get(params->text, "protocolVersion"), '"'))
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "protocolVersion has to be a string");

        session->client->profile = mcp_profile_read(json_get(params->text, "capabilities"));
        if (session_get_pool(server, &server_pool) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        if (buffer_size(&server_pool->pool->greeting) > 0) {
                greet(session, message->id, server_pool->pool, json_get(params->text, "protocolVersion"));
                return 0;
        }

        session->initializing = true;
        return session_call_start(session,
                                  &(SessionCallSpec){ .server = server,
                                                      .kind = REQUEST_WARM_UP,
                                                      .id = message->id,
                                                      .method = "initialize",
                                                      .params = *params,
                                                      .done = initialize_done },
                                  failure);
}

static int on_ping(Session *session, const McpMessage *message, const McpParams *params _unused_,
                   Failure *failure _unused_) {
        session_reply_text(session, message->id, "{}");
        return 0;
}

/* What has no part of the broker in it */
static int forward(Session *session, const McpMessage *message, const McpParams *params, const char *method,
                   Failure *failure) {
        return session_call_start(
                session,
                &(SessionCallSpec){
                        .server = &session->servers[0], .id = message->id, .method = method, .params = *params },
                failure);
}

static const struct {
        const char *method;
        session_method_handler handler;
        bool early; /* also before the session is initialized */
} methods[] = {
        { "initialize", on_initialize, true },
        { "ping", on_ping, true },
};

static bool is_id(JsonSlice id) {
        if (id.size > SESSION_ID_MAX)
                return false;
        if (json_is(id, '"'))
                return true;
        for (size_t i = json_is(id, '-'); i < id.size; i++)
                if (id.data[i] < '0' || id.data[i] > '9')
                        return false;

        return id.size > 0;
}

/* Whether the request is dealt with. False: it has to wait for others. */
static bool on_request(Session *session, const McpMessage *message, bool held) {
        _cleanup_(freep) char *method = json_decode(message->method);
        Failure failure = {};
        const char *reason;
        McpParams params;
        size_t i;
        int r;

        if (!is_id(message->id)) {
                session_reply_error(session, (JsonSlice){}, RPC_INVALID_REQUEST,
                                    "id has to be a string or an integer, of at most %zu bytes", SESSION_ID_MAX);
                return true;
        }
        if (session_find_call(session, message->id)) {
                session_reply_error(session, message->id, RPC_INVALID_REQUEST, "A request with this id is under way");
                return true;
        }
        if (!method || strlen(method) > SESSION_METHOD_MAX) {
                session_reply_error(session, message->id, RPC_METHOD_NOT_FOUND, "Method not found");
                return true;
        }
        if (mcp_params_locate(message->params, &message->traits, &params, &reason) < 0 ||
            params.token.size > SESSION_ID_MAX) {
                session_reply_error(session, message->id, RPC_INVALID_PARAMS, "params %s", reason);
                return true;
        }

        for (i = 0; i < ELEMENTSOF(methods); i++)
                if (streq(methods[i].method, method))
                        break;

        if (session->era == MCP_ERA_AUTO && (i >= ELEMENTSOF(methods) || !methods[i].early)) {
                session_reply_error(session, message->id, RPC_INVALID_REQUEST,
                                    "The session has to be initialized before %s", method);
                return true;
        }

        if (i < ELEMENTSOF(methods))
                r = methods[i].handler(session, message, &params, &failure);
        else if (!held && !TAILQ_EMPTY(&session->held))
                r = 1;
        else
                r = forward(session, message, &params, method, &failure);

        if (r < 0)
                session_reply_failure(session, message->id, &failure);
        failure_done(&failure);
        return r != 1;
}

static void on_cancelled(Session *session, JsonSlice params) {
        SessionCall *call = session_find_call(session, json_get(params, "requestId"));
        _cleanup_(freep) char *reason = json_decode(json_get(params, "reason"));

        if (call && call->request.kind == REQUEST_CALL)
                session_call_cancel(call, reason && strlen(reason) <= SESSION_ID_MAX ? reason : "cancelled");
}

static void on_notification(Session *session, const McpMessage *message) {
        _cleanup_(freep) char *method = json_decode(message->method);
        Failure failure = {};
        const char *reason;
        McpParams params;

        if (!method || strlen(method) > SESSION_METHOD_MAX || strncmp(method, "notifications/", 14) != 0 ||
            mcp_params_locate(message->params, &message->traits, &params, &reason) < 0)
                return;

        if (streq(method, "notifications/cancelled"))
                on_cancelled(session, message->params);
        else if (streq(method, "notifications/progress"))
                session_asked_progress(session, message->params, &message->traits);
        else if (session->era == MCP_ERA_LEGACY && !streq(method, "notifications/initialized"))
                (void)session_call_start(session,
                                         &(SessionCallSpec){ .server = &session->servers[0],
                                                             .kind = REQUEST_NOTIFICATION,
                                                             .method = method,
                                                             .params = params },
                                         &failure);
        failure_done(&failure);
}

/* False: the line has to wait */
static bool on_message(Session *session, const char *line, size_t size, bool held) {
        McpMessage message;
        JsonError error;
        int r;

        r = mcp_parse(line, size, session->depth, &message, &error);
        if (r < 0) {
                McpIdFinder finder = {};
                char number[24];

                mcp_id_finder_feed(&finder, line, size);
                (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)finder.number);
                session_reply_error(session, finder.found ? (JsonSlice){ number, strlen(number) } : (JsonSlice){},
                                    RPC_PARSE_ERROR, "Invalid JSON at byte %zu: %s", error.offset, error.reason);
                return true;
        }

        switch (message.kind) {
        case MCP_REQUEST:
                return on_request(session, &message, held);
        case MCP_NOTIFICATION:
                on_notification(session, &message);
                break;
        case MCP_RESULT:
        case MCP_ERROR:
                session_answered(session, &message);
                break;
        case MCP_NOISE:
                session_reply_error(session, is_id(message.id) && message.method.data ? message.id : (JsonSlice){},
                                    RPC_INVALID_REQUEST, "The line is no request, notification or response");
                break;
        }
        return true;
}

static void on_line(void *userdata, const char *line, size_t size) {
        Session *session = userdata;
        HeldLine *held;

        if (session->state == SESSION_CLOSED || size == 0 || on_message(session, line, size, /* held= */ false))
                return;

        held = malloc(sizeof(HeldLine) + size);
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

static void on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Session *session = userdata;
        McpIdFinder *finder = &session->oversized.mcp;
        char number[24];

        mcp_id_finder_feed(finder, piece, size);
        if (!last)
                return;

        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)finder->number);
        session_reply_error(session,
                            finder->found && !finder->answer ? (JsonSlice){ number, strlen(number) } : (JsonSlice){},
                            RPC_INVALID_REQUEST, "The line is longer than limits.message of the server");
        *finder = (McpIdFinder){};
}

const LineHandlers session_input = {
        .line = on_line,
        .oversized = on_oversized,
};

void session_pump(Session *session) {
        HeldLine *held;

        while ((held = TAILQ_FIRST(&session->held)) && session->state != SESSION_CLOSED &&
               on_message(session, held->data, held->size, /* held= */ true)) {
                TAILQ_REMOVE(&session->held, held, link);
                session->held_bytes -= held->size;
                free(held);
        }
        session_update(session);
}
