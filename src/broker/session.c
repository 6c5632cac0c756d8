/* A session's life: how it is opened, what it may take, how it ends. */

#include <fcntl.h>
#include <stdio.h>
#include <systemd/sd-id128.h>

#include "base/cork.h"
#include "base/log.h"
#include "broker/aggregate.h"

#define JOINED_LINE_MAX ((size_t)16 << 20) /* what a server's limits are where its file says nothing */
#define JOINED_DEPTH 64

static void schedule(Manager *manager) {
        (void)sd_event_source_set_enabled(manager->sessions_source, SD_EVENT_ONESHOT);
}

void session_leave_pool(SessionServer *server) {
        ServerPool *server_pool = server->pool;
        SessionListen *listen;

        if (!server_pool)
                return;

        if (server->warming)
                pool_cancel(&server->warm_up, "the session has ended");
        server->warming = false;
        interests_leave(server_pool, server);
        TAILQ_FOREACH(listen, &server->session->listens, link)
                interests_leave(server_pool, listen);
        TAILQ_REMOVE(&server_pool->sessions, server, link);
        if (server_pool->starter == server)
                server_pool->starter = NULL;
        server->pool = NULL;
        pool_schedule(server_pool->pool);
}

/* What a pool does for it ends here, and is told to the servers. */
static void leave_servers(Session *session) {
        SessionCall *call;

        if (session->aggregate)
                aggregate_abandon(session);
        while ((call = TAILQ_FIRST(&session->calls)))
                session_call_cancel(call, "the session has ended");
        session_refuse_questions(session, "the session has ended");
        session_leave_tasks(session);
        while (!TAILQ_EMPTY(&session->listens))
                session_listen_free(TAILQ_FIRST(&session->listens));

        for (size_t i = 0; i < session->n_servers; i++)
                session_leave_pool(&session->servers[i]);
}

/* One of several is taken away: nothing of it is left in the session. */
static void lose_server(SessionServer *server, const char *reason) {
        Session *session = server->session;
        SessionCall *call, *next;

        TAILQ_FOREACH_SAFE(call, &session->calls, link, next)
                if (call->server == server)
                        session_call_fail(call, RPC_BROKER, reason);
        if (server->pool)
                session_forget_pool(session, server->pool, reason);
        session_leave_pool(server);
        failure_done(&server->cold);
        aggregate_server_gone(session, server);
        session_update(session); /* what waited for its start was answered */
}

static Session *session_free(Session *session) {
        Manager *manager = session->manager;
        SessionReply *reply;
        HeldLine *held;

        while ((reply = TAILQ_FIRST(&session->replies))) {
                TAILQ_REMOVE(&session->replies, reply, link);
                free(reply);
        }
        while ((held = TAILQ_FIRST(&session->held))) {
                TAILQ_REMOVE(&session->held, held, link);
                free(held);
        }
        stream_free(session->stream);
        aggregate_free(session);
        for (size_t i = 0; i < session->n_servers; i++) {
                failure_done(&session->servers[i].cold);
                free(session->servers[i].name);
        }
        for (size_t i = 0; i < SESSION_ELICITATIONS_MAX; i++)
                free(session->elicitations[i]);
        free(session->info);
        free(session->servers);
        free(session->reason);
        TAILQ_REMOVE(&manager->sessions, session, link);
        if (session->client) {
                quota_release_session(&manager->quota, session->client->uid);
                manager_client_gone(manager, session->client);
        }
        free(session);
        manager->handlers->maybe_idle(manager->userdata);
        return NULL;
}

void session_close(Session *session, const char *reason) {
        if (session->state == SESSION_CLOSED)
                return;

        session->state = SESSION_CLOSED;
        session->reason = strdup(reason);
        stream_set_reading(session->stream, false);
        schedule(session->manager);
}

/* Behind this nothing of it is left but its memory. */
static void end(Session *session) {
        Manager *manager = session->manager;

        leave_servers(session);
        log_debug("session %s: closed: %s", session->id,
                  session->reason && *session->reason ? session->reason : "its client has ended it");
        if (session->opener)
                manager->handlers->session_closed(manager->userdata, session->opener, session->id,
                                                  session->reason ?: "");
        session_free(session);
}

void session_update(Session *session) {
        if (session->state == SESSION_ENDED && session->n_taking == 0 && TAILQ_EMPTY(&session->calls) &&
            TAILQ_EMPTY(&session->held) && TAILQ_EMPTY(&session->replies) && !aggregate_waits(session) &&
            stream_unsent(session->stream) == 0)
                session_close(session, session->ending ?: "");

        stream_set_reading(session->stream, session->state == SESSION_OPEN && session->held_bytes <= SESSION_HELD_MAX &&
                                                    stream_unsent(session->stream) <= SESSION_UNSENT_SOFT);
}

/* Sessions take turns at what a limit has kept from them: one that got something comes last the next time. */
static void go_on(Session *session) {
        SessionList *sessions = &session->manager->sessions;
        unsigned n_calls = session->client->n_calls - session->n_displaced;

        if (session->n_displaced > 0)
                session_resubmit(session);
        if (!TAILQ_EMPTY(&session->held))
                session_pump(session);
        if (session->client->n_calls - session->n_displaced > n_calls) {
                TAILQ_REMOVE(sessions, session, link);
                TAILQ_INSERT_TAIL(sessions, session, link);
        }
}

static int on_loop(sd_event_source *source _unused_, void *userdata) {
        Manager *manager = userdata;
        const Session *last = TAILQ_LAST(&manager->sessions, SessionList);
        Session *session, *next;
        bool done = false;

        cork_begin();
        for (session = TAILQ_FIRST(&manager->sessions); session && !done; session = next) {
                done = session == last;
                next = TAILQ_NEXT(session, link);
                if (session->state == SESSION_CLOSED)
                        end(session);
                else if (session->n_displaced > 0 || !TAILQ_EMPTY(&session->held))
                        go_on(session);
        }
        cork_end();

        return 0;
}

void sessions_pump(Manager *manager) {
        const Session *session;

        TAILQ_FOREACH(session, &manager->sessions, link)
                if (!TAILQ_EMPTY(&session->held) || session->n_displaced > 0) {
                        schedule(manager);
                        return;
                }
}

static size_t unsent_of_user(const Session *session) {
        const Session *other;
        size_t sum = 0;

        TAILQ_FOREACH(other, &session->manager->sessions, link)
                if (other->client->uid == session->client->uid && other->state != SESSION_CLOSED)
                        sum += stream_unsent(other->stream);

        return sum;
}

Buffer *session_output(Session *session, bool notification) {
        size_t unsent = stream_unsent(session->stream);

        if (session->state == SESSION_CLOSED)
                return NULL;
        if (unsent <= SESSION_UNSENT_SOFT)
                return stream_output(session->stream);

        if (notification) {
                if (session->dropped++ == 0)
                        log_notice("session %s: its client doesn't read: notifications are left out", session->id);
                return NULL;
        }
        if (unsent > SESSION_UNSENT_HARD || unsent_of_user(session) > SESSION_UNSENT_USER) {
                session_close(session, "its client doesn't read");
                return NULL;
        }

        return stream_output(session->stream);
}

void session_sent(Session *session, int appended) {
        if (appended < 0)
                session_close(session, "out of memory");
        else
                stream_flush(session->stream);
        if (stream_unsent(session->stream) > SESSION_UNSENT_SOFT)
                session_update(session);
}

static void on_drained(void *userdata) {
        session_update(userdata);
}

static void on_ended(void *userdata) {
        Session *session = userdata;

        if (session->state != SESSION_OPEN)
                return;

        /* The last answers go first: with the last call that waits for its client the session closes. */
        session->state = SESSION_ENDED;
        session_end_listens(session);
        session_ask_end(session);
        session_refuse_questions(session, "the client has ended its session");
        session_update(session);
}

static void on_broken(void *userdata) {
        session_close(userdata, "");
}

static void on_unread(void *userdata) {
        session_close(userdata, "its client doesn't read (unread_timeout)");
}

static const StreamHandlers *stream_handlers(void) {
        static StreamHandlers handlers;

        handlers = (StreamHandlers){
                .input = session_input,
                .drained = on_drained,
                .ended = on_ended,
                .broken = on_broken,
                .unread = on_unread,
        };
        return &handlers;
}

int session_get_pool(SessionServer *server, ServerPool **ret) {
        int r;

        if (!server->pool) {
                r = server_get_pool(server->server, server->session->client, ret);
                if (r < 0)
                        return r;
                server->pool = *ret;
                TAILQ_INSERT_TAIL(&server->pool->sessions, server, link);
                if (server->session->aggregate)
                        aggregate_joined(server);
        }

        *ret = server->pool;
        return 0;
}

bool session_hello(const SessionServer *server, McpHello *ret) {
        const Pool *pool = server->pool ? server->pool->pool : NULL;

        *ret = (McpHello){ .name = server->name };
        if (!pool)
                return false;

        ret->era = pool->era;
        ret->result.text = (JsonSlice){ buffer_data(&pool->greeting), buffer_size(&pool->greeting) };
        return ret->result.text.size > 0;
}

static int make_client(Session *session, const Client *opener) {
        _cleanup_(freep) char *name = NULL;
        Client *client;

        if (asprintf(&name, "session:%s", session->id) < 0) {
                name = NULL;
                return -ENOMEM;
        }

        client = client_new(name);
        if (!client)
                return -ENOMEM;

        client->uid = opener->uid;
        client->gids = new0(gid_t, opener->n_gids + 1);
        if (!client->gids) {
                client_free(client);
                return -ENOMEM;
        }
        memcpy(client->gids, opener->gids ?: client->gids, opener->n_gids * sizeof(gid_t));
        client->n_gids = opener->n_gids;
        TAILQ_INSERT_TAIL(&session->manager->clients, client, link);
        session->client = client;
        for (size_t i = 0; i < session->n_servers; i++)
                if (client_note_server(client, session->servers[i].server) < 0)
                        return -ENOMEM;

        return 0;
}

/* What a client may write in a line, and how deep, is what its servers may. */
static size_t take_limits(Session *session) {
        size_t line_max = session->aggregate ? JOINED_LINE_MAX : 0;

        session->depth = session->aggregate ? JOINED_DEPTH : 0;
        for (size_t i = 0; i < session->n_servers; i++) {
                const ServerConfig *config = session->servers[i].server->config;

                line_max = MAX(line_max, MIN(config->limits.message, WORKER_LINE_MAX));
                session->depth = MAX(session->depth, config->limits.depth);
        }

        return line_max;
}

static int fill(Session *session, const SessionSpec *spec, int input, int output, Failure *failure) {
        sd_id128_t id;
        int r;

        session->n_servers = spec->n_servers;
        r = spec->joined ? aggregate_new(session, spec->all) : 0;
        session->servers = new0(SessionServer, (session->aggregate ? session->aggregate->room : spec->n_servers) + 1);
        if (!session->servers) {
                session->n_servers = 0;
                r = -ENOMEM;
        }
        for (size_t i = 0; i < session->n_servers && r >= 0; i++) {
                session->servers[i] = (SessionServer){ .session = session,
                                                       .server = spec->servers[i],
                                                       .name = strdup(spec->servers[i]->config->name) };
                r = session->servers[i].name ? 0 : -ENOMEM;
        }
        if (r >= 0)
                r = sd_id128_randomize(&id);
        if (r >= 0) {
                sd_id128_to_string(id, session->id);
                r = stream_new(session->manager->event, input, output, take_limits(session),
                               session->manager->quota.settings.unread_timeout, stream_handlers(), session,
                               &session->stream);
        } else {
                safe_close(input);
                safe_close(output);
        }
        if (r == -EACCES)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "The pipes belong to another user: use OpenSession, and copy");
        if (r == -ENXIO)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "Nobody reads what is written to out");
        if (r >= 0)
                r = make_client(session, spec->opener);
        return r < 0 ? failure_set(failure, FAILURE_UNAVAILABLE, "The session can't be opened: %s", strerror(-r)) : 0;
}

int session_open(Manager *manager, const SessionSpec *spec, const char **ret_id, Failure *failure) {
        Session *session = new0(Session, 1);
        int r;

        r = session ? quota_charge_session(&manager->quota, spec->opener->uid, failure)
                    : failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (r < 0) {
                safe_close(spec->input);
                safe_close(spec->output);
                free(session);
                return r;
        }

        *session = (Session){
                .manager = manager,
                .opener = spec->attached ? spec->opener : NULL,
        };
        TAILQ_INIT(&session->calls);
        TAILQ_INIT(&session->held);
        TAILQ_INIT(&session->questions);
        TAILQ_INIT(&session->tasks);
        TAILQ_INIT(&session->replies);
        TAILQ_INIT(&session->listens);
        TAILQ_INSERT_TAIL(&manager->sessions, session, link);

        r = fill(session, spec, spec->input, spec->output, failure);
        if (r < 0) {
                if (!session->client)
                        quota_release_session(&manager->quota, spec->opener->uid);
                session_free(session);
                return r;
        }

        log_debug("session %s: opened by uid %u on %s%s", session->id, (unsigned)session->client->uid,
                  session->n_servers > 0 ? session->servers[0].name : "nothing",
                  session->n_servers > 1 ? " and others" : "");
        *ret_id = session->id;
        return 0;
}

unsigned sessions_open(const Manager *manager, uid_t viewer) {
        const Session *session;
        unsigned n = 0;

        TAILQ_FOREACH(session, &manager->sessions, link)
                n += viewer == QUOTA_EVERYBODY || session->client->uid == viewer;

        return n;
}

int sessions_init(Manager *manager) {
        int r;

        r = sd_event_add_defer(manager->event, &manager->sessions_source, on_loop, manager);
        if (r < 0)
                return r;

        return sd_event_source_set_enabled(manager->sessions_source, SD_EVENT_OFF);
}

void sessions_done(Manager *manager) {
        Session *session;

        while ((session = TAILQ_FIRST(&manager->sessions))) {
                session_close(session, "the service is leaving");
                end(session);
        }
        manager->sessions_source = sd_event_source_disable_unref(manager->sessions_source);
}

void sessions_drain(Manager *manager) {
        Session *session;

        TAILQ_FOREACH(session, &manager->sessions, link) {
                if (session->state == SESSION_OPEN)
                        session->ending = "the service is leaving";
                on_ended(session);
        }
}

void sessions_client_gone(Manager *manager, Client *client) {
        Session *session;

        TAILQ_FOREACH(session, &manager->sessions, link)
                if (session->opener == client) {
                        session->opener = NULL;
                        session_close(session, "who attached it has left");
                }
}

void sessions_server_gone(Server *server, const char *reason) {
        Session *session;

        TAILQ_FOREACH(session, &server->manager->sessions, link)
                for (size_t i = 0; i < session->n_servers; i++)
                        if (session->servers[i].gone || session->servers[i].server != server)
                                continue;
                        else if (session->aggregate && session->state != SESSION_CLOSED)
                                lose_server(&session->servers[i], reason);
                        else
                                session_close(session, reason);
}

void sessions_server_came(Server *server) {
        Session *session;

        TAILQ_FOREACH(session, &server->manager->sessions, link)
                if (session->aggregate && session->state != SESSION_CLOSED)
                        aggregate_server_came(session, server);
}
