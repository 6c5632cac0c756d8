/* The methods of a session's client: what the broker answers itself, and what goes to a pool */

#include "broker/aggregate.h"

/* A request and who asks */
typedef struct Ask {
        const RpcInput *input;
        const McpClient *client;
        const char *method;
        SessionServer *server;
        McpHello hello;
} Ask;

typedef int (*method_handler)(Session *session, const Ask *ask, Failure *failure);

static JsonPiece id_of(const Ask *ask) {
        return (JsonPiece){ ask->input->message.id, &ask->input->message.traits };
}

static int invalid(Failure *failure, const char *what) {
        return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s", what);
}

static int not_found(Session *session, const Ask *ask) {
        session_reply_error(session, id_of(ask), RPC_METHOD_NOT_FOUND, "Method not found");
        return 0;
}

static SessionCallSpec spec_of(const Ask *ask) {
        return (SessionCallSpec){
                .server = ask->server,
                .id = ask->input->message.id,
                .method = ask->method,
                .params = ask->input->params,
                .client = *ask->client,
        };
}

static void reply_built(Session *session, const Ask *ask, Buffer *result, int r) {
        if (r < 0)
                session_close(session, "out of memory");
        else
                session_reply_result(session, id_of(ask),
                                     (JsonPiece){ { buffer_data(result), buffer_size(result) }, NULL });
        buffer_done(result);
}

static int on_initialize(Session *session, const Ask *ask, Failure *failure) {
        const char *version, *reason;
        Buffer result = {};
        McpProfile profile;
        JsonSlice info;

        if (session->mcp.era != MCP_ERA_AUTO) {
                session_reply_error(session, id_of(ask), RPC_INVALID_REQUEST, "The session is initialized already");
                return 0;
        }
        if (mcp_read_initialize(ask->input->params.text, &version, &profile, &info, &reason) < 0)
                return invalid(failure, reason);

        session->mcp = (McpClient){
                .era = MCP_ERA_LEGACY,
                .version = version,
                .profile = profile,
                .level = _MCP_LEVEL_NONE,
        };
        if (info.data) {
                Buffer copy = {};

                if (json_append(&copy, info, &ask->input->message.traits) < 0) {
                        buffer_done(&copy);
                        return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
                }
                session->info = copy.data;
                session->mcp.info = (JsonSlice){ buffer_data(&copy), buffer_size(&copy) };
        }

        reply_built(session, ask, &result, mcp_append_initialize_result(&result, &ask->hello, version));
        return 0;
}

/* Before a worker is asked what it can do, it is decided which one: by what the client says that it can. */
static int prepare_initialize(Session *session, const Ask *ask, Failure *failure) {
        const char *version, *reason;
        McpProfile profile;
        JsonSlice info;

        if (session->mcp.era == MCP_ERA_AUTO) {
                if (mcp_read_initialize(ask->input->params.text, &version, &profile, &info, &reason) < 0)
                        return invalid(failure, reason);
                session->client->profile = mcp_profile_for(profile, MCP_ERA_LEGACY, MCP_ERA_LEGACY);
                /* The client may have tried the other way before. */
                for (size_t i = 0; i < session->n_servers; i++)
                        if (!session->servers[i].warming && TAILQ_EMPTY(&session->calls) &&
                            TAILQ_EMPTY(&session->listens))
                                session_leave_pool(&session->servers[i]);
        }

        return 0;
}

static int on_ping(Session *session, const Ask *ask, Failure *failure _unused_) {
        if (ask->client->era == MCP_ERA_MODERN)
                return not_found(session, ask);

        session_reply_text(session, id_of(ask), "{}");
        return 0;
}

static int on_discover(Session *session, const Ask *ask, Failure *failure _unused_) {
        Buffer result = {};

        if (ask->client->era != MCP_ERA_MODERN)
                return not_found(session, ask);

        reply_built(session, ask, &result, mcp_append_discover_result(&result, &ask->hello));
        return 0;
}

/* What the interests of the pool answer goes on to who asked. */
static void interest_done(void *userdata, const Outcome *outcome) {
        SessionReply *reply = userdata;
        Session *session = reply->session;
        JsonPiece id = { reply->id, &reply->traits };
        Buffer *output;

        if (!outcome->failure)
                session_reply_text(session, id, "{}");
        else if (!outcome->error.data)
                session_reply_failure(session, id, outcome->failure);
        else if ((output = session_output(session, /* notification= */ false)))
                session_sent(session,
                             rpc_append_remote_error(output, id, (JsonPiece){ outcome->error, &outcome->traits },
                                                     session->mcp.era));

        TAILQ_REMOVE(&session->replies, reply, link);
        free(reply);
        session_update(session);
}

static SessionReply *reply_new(Session *session, const Ask *ask) {
        JsonSlice id = ask->input->message.id;
        SessionReply *reply = malloc(sizeof(SessionReply) + id.size);

        if (!reply)
                return NULL;

        *reply = (SessionReply){ .session = session, .traits = ask->input->message.traits };
        reply->id = (JsonSlice){ memcpy(reply->data, id.data, id.size), id.size };
        TAILQ_INSERT_TAIL(&session->replies, reply, link);
        return reply;
}

static int on_set_level(Session *session, const Ask *ask, Failure *failure) {
        McpLevel level = mcp_level_read(json_get(ask->input->params.text, "level"));
        SessionReply *reply;
        int r;

        if (ask->client->era != MCP_ERA_LEGACY || !mcp_hello_has(&ask->hello, "logging", NULL))
                return not_found(session, ask);
        if (level < 0)
                return invalid(failure, "level is none of the levels");

        reply = reply_new(session, ask);
        if (!reply)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        session->mcp.level = level;
        r = interests_set_level(ask->server->pool, ask->server, level, (InterestReply){ interest_done, reply },
                                failure);
        if (r < 0) {
                TAILQ_REMOVE(&session->replies, reply, link);
                free(reply);
        }
        return r;
}

static int on_subscribe(Session *session, const Ask *ask, Failure *failure) {
        _cleanup_(freep) char *uri = json_decode(json_get(ask->input->params.text, "uri"));
        SessionReply *reply;
        int r;

        if (ask->client->era != MCP_ERA_LEGACY || !mcp_hello_has(&ask->hello, "resources", "subscribe"))
                return not_found(session, ask);
        if (!uri)
                return invalid(failure, "uri has to be a string");

        reply = reply_new(session, ask);
        if (!reply)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        r = interests_subscribe(ask->server->pool, ask->server, uri, (InterestReply){ interest_done, reply }, failure);
        if (r < 0) {
                TAILQ_REMOVE(&session->replies, reply, link);
                free(reply);
        }
        return r;
}

static int on_unsubscribe(Session *session, const Ask *ask, Failure *failure) {
        _cleanup_(freep) char *uri = json_decode(json_get(ask->input->params.text, "uri"));

        if (ask->client->era != MCP_ERA_LEGACY || !mcp_hello_has(&ask->hello, "resources", "subscribe"))
                return not_found(session, ask);
        if (!uri)
                return invalid(failure, "uri has to be a string");

        interests_unsubscribe(ask->server->pool, ask->server, uri);
        session_reply_text(session, id_of(ask), "{}");
        return 0;
}

static int on_listen(Session *session, const Ask *ask, Failure *failure) {
        if (ask->client->era != MCP_ERA_MODERN)
                return not_found(session, ask);

        return session_listen(session, ask->server, &ask->hello, ask->input->message.id, &ask->input->params, failure);
}

static void tools_listed(SessionCall *call, const Outcome *outcome) {
        if (!outcome->failure && call->server->pool)
                lists_seen(call->server->pool, call->request.params.text, outcome->result, &outcome->traits);
        session_call_pass_on(call, outcome);
}

static int on_other(Session *session, const Ask *ask, Failure *failure) {
        SessionCallSpec spec = spec_of(ask);
        const char *reason = "Method not found";
        int code, r;

        code = mcp_forwardable(ask->method, ask->client->era, ask->hello.era, &reason);
        if (code != 0) {
                session_reply_error(session, id_of(ask), code, "%s", reason);
                return 0;
        }

        if (ask->client->era == MCP_ERA_MODERN && mcp_method_of_tasks(ask->method) &&
            !(ask->client->profile & MCP_PROFILE_EXTENSION_TASKS)) {
                Buffer *output = session_output(session, /* notification= */ false);

                if (output)
                        session_sent(session,
                                     mcp_append_missing_capability(output, id_of(ask), MCP_PROFILE_EXTENSION_TASKS));
                return 0;
        }

        if (ask->client->era == MCP_ERA_MODERN && ask->hello.era == MCP_ERA_LEGACY) {
                r = session_ask_retried(session, ask->input, failure);
                if (r != 0)
                        return r < 0 ? r : 0;
        }

        if (mcp_method_of_tasks(ask->method) || mcp_task_wanted(spec.params.text))
                return session_method_of_tasks(session, &spec, failure);

        if (streq(ask->method, list_method(LIST_TOOLS)))
                spec.done = tools_listed;
        return session_call_start(session, &spec, failure);
}

static const struct {
        const char *method;
        method_handler handler;
        method_handler prepare; /* runs before it is known what the server is; or NULL */
        bool alone;             /* nothing has to be known of the server */
} methods[] = {
        { "initialize", on_initialize, prepare_initialize, false },
        { "ping", on_ping, NULL, true },
        { "server/discover", on_discover, NULL, false },
        { "logging/setLevel", on_set_level, NULL, false },
        { "resources/subscribe", on_subscribe, NULL, false },
        { "resources/unsubscribe", on_unsubscribe, NULL, false },
        { "subscriptions/listen", on_listen, NULL, false },
        { NULL, on_other, NULL, false },
};

static void warmed_up(Request *request, const Outcome *outcome) {
        SessionServer *server = (SessionServer *)((char *)request - offsetof(SessionServer, warm_up));
        McpHello hello;

        server->warming = false;
        if (outcome->failure)
                failure_copy(&server->cold, outcome->failure);
        else if (!session_hello(server, &hello))
                failure_set(&server->cold, FAILURE_PROTOCOL_ERROR, "Server %s says nothing of itself that can be kept",
                            server->name);
        if (server->session->aggregate)
                aggregate_warmed(server);
        session_pump(server->session);
}

/* Finds out what the server is and can, by a worker that is started where there is none. 0: it is known; 1: later */
static int get_hello(Session *session, SessionServer *server, McpHello *ret, Failure *failure) {
        ServerPool *server_pool;
        Server *found;
        int r;

        if (session_hello(server, ret))
                return 0;
        if (server->warming)
                return 1;
        if (server->cold.code != FAILURE_NONE) {
                failure_copy(failure, &server->cold);
                return -EREMOTEIO;
        }

        r = manager_get_callable(session->manager, server->name, &found, failure);
        if (r < 0)
                return r;
        if (session_get_pool(server, &server_pool) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (session_hello(server, ret))
                return 0;

        server->warm_up = (Request){
                .kind = REQUEST_WARM_UP,
                .uid = session->client->uid,
                .caller = session->client,
                .method = "",
                .done = warmed_up,
        };
        r = pool_submit(server_pool->pool, &server->warm_up, failure);
        if (r < 0)
                return r;

        server->warming = true;
        if (server_pool->pool->n_workers == 0)
                server_pool->starter = server;
        return 1;
}

/* A session on several servers is one to its client: what it is, and which of them is meant. */
static int on_joined(Session *session, Ask *ask, method_handler handler, bool alone, Failure *failure) {
        RpcInput routed = *ask->input;
        Buffer text = {};
        int r;

        r = aggregate_route(session, &routed, ask->client, ask->method, &ask->server, &ask->hello, &text, failure);
        if (r == 0 && ask->server && !alone)
                r = get_hello(session, ask->server, &ask->hello, failure);
        if (r == 1 && ask->server && ask->server->warming)
                r = aggregate_wait(session, ask->input, ask->method, ask->server, failure);
        if (r == 0) {
                ask->input = &routed;
                r = handler(session, ask, failure);
        }

        buffer_done(&text);
        return r == AGGREGATE_DONE ? 0 : r;
}

int session_method(Session *session, const RpcInput *input, const McpClient *client, const char *method,
                   Failure *failure) {
        Ask ask = { .input = input, .client = client, .method = method, .server = &session->servers[0] };
        size_t i = 0;
        int r;

        while (methods[i].method && !streq(methods[i].method, method))
                i++;

        r = methods[i].prepare ? methods[i].prepare(session, &ask, failure) : 0;
        if (r >= 0 && session->aggregate)
                return on_joined(session, &ask, methods[i].handler, methods[i].alone, failure);
        if (r >= 0 && !methods[i].alone)
                r = get_hello(session, ask.server, &ask.hello, failure);
        if (r != 0)
                return r;

        return methods[i].handler(session, &ask, failure);
}
