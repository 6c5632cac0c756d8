/* What workers say unasked: to the sessions that it concerns, and to no other */

#include "broker/aggregate.h"

typedef struct News {
        ServerPool *pool;
        Worker *worker;
        JsonPiece method, params;
} News;

static void send_plain(Session *session, const News *news) {
        Buffer *output = session_output(session, /* notification= */ true);

        if (output)
                session_sent(session, rpc_append_notification(output, news->method, news->params, NULL, 0));
}

static void send_subscribed(const SessionListen *listen, const News *news) {
        Buffer *output = listen->announced ? session_output(listen->session, /* notification= */ true) : NULL;

        if (output)
                session_sent(listen->session, mcp_append_subscribed(output, news->method, news->params,
                                                                    (JsonPiece){ listen->id, &listen->traits }));
}

/* Of a server that wants to be listened to, the broker's own subscription stands in the message. */
static void send_unsubscribed(Session *session, const News *news) {
        Buffer *output = session_output(session, /* notification= */ true);

        if (output)
                session_sent(session, mcp_append_subscribed(output, news->method, news->params, (JsonPiece){}));
}

static void on_list_changed(SessionServer *server, const News *news) {
        unsigned list = mcp_list_changed(news->method.text);
        SessionListen *listen;

        if (server->session->aggregate)
                aggregate_list_changed(server, list);
        if (server->session->mcp.era == MCP_ERA_LEGACY)
                send_unsubscribed(server->session, news);
        TAILQ_FOREACH(listen, &server->session->listens, link)
                if (listen->filter.lists & list)
                        send_subscribed(listen, news);
}

static void on_resource_updated(SessionServer *server, const News *news) {
        _cleanup_(freep) char *uri = json_decode(json_get(news->params.text, "uri"));
        SessionListen *listen;

        if (!uri)
                return;

        if (interests_want_resource(news->pool, server, uri))
                send_unsubscribed(server->session, news);
        TAILQ_FOREACH(listen, &server->session->listens, link)
                if (interests_want_resource(news->pool, listen, uri))
                        send_subscribed(listen, news);
}

/* Between a legacy client and a legacy server the level is the connection's. Otherwise it is each request's, and what
 * is said belongs to one: to a session that has such a request under way, and never to its neighbours. */
static bool wants_log(const SessionServer *server, const News *news, McpLevel level) {
        const SessionCall *call;

        if (server->session->mcp.era == MCP_ERA_LEGACY && server->pool->pool->era == MCP_ERA_LEGACY)
                return interests_want_log(server->pool, server, level);

        TAILQ_FOREACH(call, &server->session->calls, link)
                if (call->request.worker == news->worker && call->client.level >= 0 && level >= call->client.level)
                        return true;

        return false;
}

static void on_log(SessionServer *server, const News *news) {
        if (wants_log(server, news, mcp_level_read(json_get(news->params.text, "level"))))
                send_plain(server->session, news);
}

static void on_task(SessionServer *server, const News *news) {
        SessionTask *task = session_find_task(server->session,
                                              mcp_task_of_notification(news->method.text, news->params.text), NULL);

        if (!task || task->worker != news->worker)
                return;

        session_task_watch(server->session, news->params.text, /* asked= */ false);
        send_plain(server->session, news);
}

/* A task goes on reporting its progress when the call that made it has been answered. */
static void on_progress(SessionServer *server, const News *news) {
        SessionTask *task;
        uint64_t token;

        if (!json_unsigned(json_get(news->params.text, "progressToken"), &token))
                return;

        TAILQ_FOREACH(task, &server->session->tasks, link)
                if (!task->clients && task->worker == news->worker && task->progress == token && task->token.size > 0) {
                        Buffer *output = session_output(server->session, /* notification= */ true);

                        if (output)
                                session_sent(server->session, mcp_append_progress(output, news->params,
                                                                                  (JsonPiece){ task->token, NULL }));
                }
}

static void on_elicited(SessionServer *server, const News *news) {
        _cleanup_(freep) char *id = json_decode(json_get(news->params.text, "elicitationId"));

        for (size_t i = 0; i < SESSION_ELICITATIONS_MAX && id; i++)
                if (server->session->elicitations[i] && streq(server->session->elicitations[i], id)) {
                        send_plain(server->session, news);
                        return;
                }
}

static void on_other(SessionServer *server, const News *news) {
        if (server->session->mcp.era == MCP_ERA_LEGACY && server->pool->pool->era == MCP_ERA_LEGACY)
                send_plain(server->session, news);
}

void sessions_notification(ServerPool *server_pool, Worker *worker, JsonSlice method, JsonSlice params,
                           const JsonTraits *traits) {
        static const struct {
                const char *method;
                void (*handler)(SessionServer *server, const News *news);
        } handlers[] = {
                { "notifications/progress", on_progress },
                { "notifications/resources/updated", on_resource_updated },
                { "notifications/message", on_log },
                { "notifications/tasks/status", on_task },
                { "notifications/tasks", on_task },
                { "notifications/elicitation/complete", on_elicited },
                { "notifications/tools/list_changed", on_list_changed },
                { "notifications/prompts/list_changed", on_list_changed },
                { "notifications/resources/list_changed", on_list_changed },
                { NULL, on_other },
        };
        const News news = { server_pool, worker, { method, traits }, { params, traits } };
        SessionServer *server, *next;
        size_t i = 0;

        while (handlers[i].method && !json_equal(method, handlers[i].method))
                i++;

        TAILQ_FOREACH_SAFE(server, &server_pool->sessions, link, next)
                if (server->session->state != SESSION_CLOSED && server->session->mcp.era != MCP_ERA_AUTO)
                        handlers[i].handler(server, &news);
}
