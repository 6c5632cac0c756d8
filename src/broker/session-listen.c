/* A modern client's subscriptions/listen. The broker listens for all of a pool's sessions together (interests.c), and
 * gives to each what it asked for, under the id that it asked with. */

#include "broker/aggregate.h"

SessionListen *session_find_listen(const Session *session, JsonSlice id) {
        SessionListen *listen;

        TAILQ_FOREACH(listen, &session->listens, link)
                if (listen->id.size == id.size && id.size > 0 && memcmp(listen->id.data, id.data, id.size) == 0)
                        return listen;

        return NULL;
}

void session_listen_free(SessionListen *listen) {
        for (size_t i = 0; i < listen->session->n_servers; i++)
                if (listen->session->servers[i].pool)
                        interests_leave(listen->session->servers[i].pool, listen);
        TAILQ_REMOVE(&listen->session->listens, listen, link);
        listen->session->n_listens--;
        free(listen->text);
        free(listen);
}

void session_end_listens(Session *session) {
        SessionListen *listen;

        while ((listen = TAILQ_FIRST(&session->listens))) {
                Buffer *output = session_output(session, /* notification= */ false);

                if (output)
                        session_sent(session,
                                     mcp_append_listen_end(output, (JsonPiece){ listen->id, &listen->traits }));
                session_listen_free(listen);
        }
}

/* The first message of a subscription says what is listened to. */
static void acknowledge(SessionListen *listen) {
        Buffer *output = session_output(listen->session, /* notification= */ false);

        listen->announced = true;
        if (output)
                session_sent(
                        listen->session,
                        mcp_append_acknowledged(output, (JsonPiece){ listen->id, &listen->traits }, &listen->filter));
}

static void subscribed(void *userdata, const Outcome *outcome) {
        SessionListen *listen = userdata;

        listen->n_due--;
        if (outcome->failure) {
                session_reply_failure(listen->session, (JsonPiece){ listen->id, &listen->traits }, outcome->failure);
                session_listen_free(listen);
        } else if (listen->n_due == 0 && !listen->announced)
                acknowledge(listen);
}

/* Keeps the filter and the id, which stand in the line that is being read. */
static SessionListen *listen_new(Session *session, SessionServer *server, JsonSlice id, const McpFilter *filter,
                                 const JsonTraits *traits) {
        size_t uris = filter->uris.text.size, tasks = filter->task_ids.text.size;
        SessionListen *listen = new0(SessionListen, 1);
        char *text = malloc(id.size + uris + tasks + 1);

        if (!listen || !text) {
                free(listen);
                free(text);
                return NULL;
        }

        *listen = (SessionListen){
                .session = session,
                .server = server,
                .filter.lists = filter->lists,
                .traits = *traits,
                .text = text,
        };
        memcpy(text, id.data, id.size);
        listen->id = (JsonSlice){ text, id.size };
        if (uris > 0) {
                memcpy(text + id.size, filter->uris.text.data, uris);
                listen->filter.uris = (JsonPiece){ { text + id.size, uris }, &listen->traits };
        }
        if (tasks > 0) {
                memcpy(text + id.size + uris, filter->task_ids.text.data, tasks);
                listen->filter.task_ids = (JsonPiece){ { text + id.size + uris, tasks }, &listen->traits };
        }

        TAILQ_INSERT_TAIL(&session->listens, listen, link);
        session->n_listens++;
        return listen;
}

/* uri is none of the servers': nobody will ever tell of it. */
static int subscribe(SessionListen *listen, const char *uri, Failure *failure) {
        SessionServer *server = listen->server ?: aggregate_find_resource(listen->session, uri);
        ServerPool *server_pool;

        if (server && session_get_pool(server, &server_pool) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (server)
                return interests_subscribe(server_pool, listen, uri, (InterestReply){ subscribed, listen }, failure);

        listen->n_due--;
        return 0;
}

int session_listen(Session *session, SessionServer *server, const McpHello *hello, JsonSlice id,
                   const McpParams *params, Failure *failure) {
        const char *position = NULL, *reason;
        SessionListen *listen;
        JsonSlice element;
        McpFilter filter;
        int r = 0;

        if (mcp_filter_read(params->text, &params->traits, &filter, &reason) < 0)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s", reason);
        if (session->n_listens >= SESSION_LISTENS_MAX)
                return failure_set(failure, FAILURE_UNAVAILABLE, "A session may have %d subscriptions at a time",
                                   SESSION_LISTENS_MAX);

        mcp_filter_limit(&filter, json_get(hello->result.text, "capabilities"), hello->era);
        listen = listen_new(session, server, id, &filter, &params->traits);
        if (!listen)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        /* One more than there are, so that none is the last before all have been asked for. */
        listen->n_due = 1;
        while (json_next_element(listen->filter.uris.text, &position, &element) && r >= 0) {
                _cleanup_(freep) char *uri = json_decode(element);

                listen->n_due++;
                r = uri ? subscribe(listen, uri, failure) : failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        }
        if (r < 0) {
                session_listen_free(listen);
                return r;
        }

        if (--listen->n_due == 0)
                acknowledge(listen);
        /* It was held while its client ended the session. */
        if (session->state == SESSION_ENDED)
                session_end_listens(session);
        return 0;
}
