/* What a caller may do. Root, the service's own user and those whom a server's file names aren't asked about; for all
 * others polkit decides (polkit(8)), which may take its time: the message is held meanwhile, and dispatched again with
 * the verdict. Errors, silence and nonsense from polkit are denials. */

#include <poll.h>
#include <stdio.h>

#include "base/log.h"
#include "broker/call.h"
#include "bus/errors.h"
#include "bus/peers.h"

#define POLKIT_NAME "org.freedesktop.PolicyKit1"
#define POLKIT_PATH "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE POLKIT_NAME ".Authority"
#define POLKIT_ALLOW_USER_INTERACTION UINT32_C(1)

#define WAIT (5 * USEC_PER_SEC)
#define WAIT_INTERACTIVE (120 * USEC_PER_SEC) /* somebody types a password */
#define VERDICT_TIME (5 * USEC_PER_SEC)       /* how long one is kept: the calls of an agent don't each ask */
#define VERDICTS_MAX 32
#define WAITING_MAX 64 /* messages of one client that wait for polkit */
#define TEXT_MAX 1024  /* of a detail */

/* The verdict on whether a client sees all: by what it looks at there is no difference. */
static const Question view = { .method = "view" };

/* One thing that polkit is asked */
typedef struct Ask {
        Action action;
        char *server, *method, *tool; /* "" for none */
} Ask;

typedef struct Verdict {
        TAILQ_ENTRY(Verdict) link;
        Ask ask;
        uint64_t until; /* usec, CLOCK_MONOTONIC */
        bool granted;
} Verdict;

/* A message that is held until all that it asks is granted */
typedef struct Check {
        TAILQ_ENTRY(Check) link;
        Service *service;
        Client *client;
        sd_bus_message *message;
        bool interactive;
        bool quiet;   /* a denial shows less, and is no error */
        bool granted; /* the message was put back into the queue */
        Ask *asks;
        size_t n_asks, next;
        sd_bus_slot *slot; /* of the question under way; NULL: another check asks the same */
        uint64_t cancellation;
} Check;

static const char *action_id(Action action) {
        switch (action) {
        case ACTION_CALL:
                return BUS_NAME ".call";
        case ACTION_EXECUTE_CODE:
                return BUS_NAME ".execute-code";
        case ACTION_USE_NETWORK:
                return BUS_NAME ".use-network";
        case ACTION_MANAGE:
                return BUS_NAME ".manage";
        }

        return BUS_NAME ".manage";
}

static void ask_done(Ask *ask) {
        free(ask->server);
        free(ask->method);
        free(ask->tool);
}

static int ask_init(Ask *ask, Action action, const Question *question) {
        *ask = (Ask){
                .action = action,
                .server = strdup(question->server ?: ""),
                .method = strdup(question->method ?: ""),
                .tool = strdup(question->tool ?: ""),
        };

        return ask->server && ask->method && ask->tool ? 0 : -ENOMEM;
}

static bool ask_equal(const Ask *a, const Ask *b) {
        return a->action == b->action && streq(a->server, b->server) && streq(a->method, b->method) &&
               streq(a->tool, b->tool);
}

static Verdict *verdict_free(Peer *peer, Verdict *verdict) {
        TAILQ_REMOVE(&peer->verdicts, verdict, link);
        peer->n_verdicts--;
        ask_done(&verdict->ask);
        free(verdict);
        return NULL;
}

static const Verdict *find_verdict(Service *service, const Peer *peer, Action action, const Question *question) {
        const Verdict *verdict;

        TAILQ_FOREACH(verdict, &peer->verdicts, link)
                if (verdict->ask.action == action && streq(verdict->ask.server, question->server ?: "") &&
                    streq(verdict->ask.method, question->method ?: "") &&
                    streq(verdict->ask.tool, question->tool ?: ""))
                        return verdict->until > service_now(service) ? verdict : NULL;

        return NULL;
}

static void keep_verdict(Service *service, Peer *peer, const Ask *ask, bool granted) {
        Verdict *verdict, *next;

        TAILQ_FOREACH_SAFE(verdict, &peer->verdicts, link, next)
                if (ask_equal(&verdict->ask, ask))
                        verdict_free(peer, verdict);
        if (peer->n_verdicts >= VERDICTS_MAX)
                verdict_free(peer, TAILQ_FIRST(&peer->verdicts));

        verdict = new0(Verdict, 1);
        if (!verdict)
                return;
        if (ask_init(&verdict->ask, ask->action, &(Question){ ask->server, ask->method, ask->tool }) < 0) {
                ask_done(&verdict->ask);
                free(verdict);
                return;
        }
        verdict->until = usec_add(service_now(service), VERDICT_TIME);
        verdict->granted = granted;
        TAILQ_INSERT_TAIL(&peer->verdicts, verdict, link);
        peer->n_verdicts++;
}

static void withdraw(Check *check) {
        char id[32];

        if (!check->slot)
                return;

        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)check->cancellation);
        check->slot = sd_bus_slot_unref(check->slot);
        (void)sd_bus_call_method_async(check->service->bus, NULL, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CancelCheckAuthorization", NULL, NULL, "s", id);
}

static Check *check_free(Check *check) {
        Peer *peer = check->client->peer;

        TAILQ_REMOVE(&peer->checks, check, link);
        check->service->n_checks--;
        peer->n_waiting--;
        for (size_t i = 0; i < check->n_asks; i++)
                ask_done(&check->asks[i]);
        free(check->asks);
        sd_bus_slot_unref(check->slot);
        sd_bus_message_unref(check->message);
        free(check);
        return NULL;
}

static void record_denial(Service *service, const Client *client, const Ask *ask) {
        call_record(service->manager, client, ask->server, ask->method, ask->tool, "AccessDenied");
}

static void check_deny(Check *check, const char *name, const char *why) {
        const Ask *ask = &check->asks[check->next];

        record_denial(check->service, check->client, ask);
        (void)sd_bus_reply_method_errorf(check->message, name,
                                         "The user with uid %u isn't allowed to do this%s%s: %s (polkit action %s)",
                                         (unsigned)check->client->uid, *ask->server ? " with server " : "", ask->server,
                                         why, action_id(ask->action));
        check_free(check);
}

static void check_go_on(Check *check);

static void check_conclude(Check *check, bool granted, const char *name, const char *why) {
        check->slot = sd_bus_slot_unref(check->slot);
        if (granted || check->quiet) {
                check->next++;
                check_go_on(check);
        } else
                check_deny(check, name, why);
}

/* What polkit says holds for all checks of the client that ask the same in the same way; the one that asked goes last,
 * for the question is its own. */
static void conclude(Check *asker, bool granted, const char *name, const char *why) {
        Service *service = asker->service;
        Peer *peer = asker->client->peer;
        const Ask *asked = &asker->asks[asker->next];
        Check *check, *next;

        if (granted || asker->quiet)
                keep_verdict(service, peer, asked, granted);

        TAILQ_FOREACH_SAFE(check, &peer->checks, link, next)
                if (check != asker && !check->granted && check->interactive == asker->interactive &&
                    ask_equal(&check->asks[check->next], asked))
                        check_conclude(check, granted, name, why);
        check_conclude(asker, granted, name, why);
        service_maybe_idle(service);
}

/* The process that a private connection was opened by is still the same: its number wasn't given to another one while
 * polkit looked at it. */
static bool process_is_there(const Connection *connection) {
        return poll(&(struct pollfd){ .fd = connection->pidfd, .events = POLLIN }, 1, 0) == 0;
}

static int on_verdict(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Check *check = userdata;
        const Connection *connection = ((Peer *)check->client->peer)->connection;
        const sd_bus_error *failed = sd_bus_message_get_error(reply);
        const char *name = SD_BUS_ERROR_ACCESS_DENIED, *why = "it was denied";
        int authorized = 0, challenge = 0;
        char text[256];

        if (failed) {
                /* Also when the time is up, and polkit may still be asking somebody */
                withdraw(check);
                (void)snprintf(text, sizeof(text), "polkit can't be asked: %s", failed->message ?: "?");
                why = text;
        } else if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
                   sd_bus_message_read(reply, "bb", &authorized, &challenge) < 0) {
                authorized = challenge = 0;
                why = "polkit's answer can't be read";
        } else if (authorized && connection && !process_is_there(connection)) {
                authorized = 0;
                why = "the process that asks has exited";
        } else if (!authorized && challenge && !check->interactive) {
                name = SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED;
                why = "somebody has to confirm it, and the call doesn't allow asking";
        }

        conclude(check, authorized, name, why);
        return 0;
}

static int append_subject(sd_bus_message *m, const Client *client) {
        const Peer *peer = client->peer;

        /* polkit takes the pidfd where it knows how to (124), pid and uid otherwise; see process_is_there(). With a
         * start time of 0 it looks that up itself. */
        if (peer->connection)
                return peer->connection->pidfd < 0
                               ? -ESRCH
                               : sd_bus_message_append(m, "(sa{sv})", "unix-process", 4, "pid", "u",
                                                       (uint32_t)peer->connection->pid, "start-time", "t", UINT64_C(0),
                                                       "uid", "i", (int32_t)client->uid, "pidfd", "h",
                                                       peer->connection->pidfd);

        return sd_bus_message_append(m, "(sa{sv})", "system-bus-name", 1, "name", "s", client->name);
}

static int append_details(sd_bus_message *m, const Ask *ask) {
        const char *const details[][2] = { { "server", ask->server },
                                           { "method", ask->method },
                                           { "tool", ask->tool } };
        int r;

        r = sd_bus_message_open_container(m, 'a', "{ss}");
        for (size_t i = 0; i < ELEMENTSOF(details) && r >= 0; i++)
                if (*details[i][1])
                        r = sd_bus_message_append(m, "{ss}", details[i][0], details[i][1]);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int ask_polkit(Check *check) {
        Service *service = check->service;
        const Ask *ask = &check->asks[check->next];
        sd_bus_message *m = NULL;
        char id[32];
        int r;

        check->cancellation = ++service->last_check;
        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)check->cancellation);

        r = sd_bus_message_new_method_call(service->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                           "CheckAuthorization");
        if (r >= 0)
                r = append_subject(m, check->client);
        if (r >= 0)
                r = sd_bus_message_append(m, "s", action_id(ask->action));
        if (r >= 0)
                r = append_details(m, ask);
        if (r >= 0)
                r = sd_bus_message_append(m, "us", check->interactive ? POLKIT_ALLOW_USER_INTERACTION : 0, id);
        if (r >= 0)
                r = sd_bus_call_async(service->bus, &check->slot, m, on_verdict, check,
                                      check->interactive ? WAIT_INTERACTIVE : WAIT);
        sd_bus_message_unref(m);
        return r;
}

/* Asks the next question, or lets the message pass. */
static void check_go_on(Check *check) {
        Peer *peer = check->client->peer;
        const Check *other;
        int r;

        while (check->next < check->n_asks) {
                const Ask *ask = &check->asks[check->next];
                const Verdict *verdict = find_verdict(check->service, peer, ask->action,
                                                      &(Question){ ask->server, ask->method, ask->tool });

                if (!verdict || !(verdict->granted || check->quiet))
                        break;
                check->next++;
        }

        if (check->next == check->n_asks) {
                check->granted = true;
                peers_resume(check->service, check->message);
                return;
        }

        TAILQ_FOREACH(other, &peer->checks, link)
                if (other->slot && other->interactive == check->interactive &&
                    ask_equal(&other->asks[other->next], &check->asks[check->next]))
                        return;

        r = ask_polkit(check);
        if (r < 0)
                check_deny(check, SD_BUS_ERROR_ACCESS_DENIED, strerror(-r));
}

/* 1: the message may pass; 0: it is held; negative with error set. Takes asks. */
static int check_start(Service *service, sd_bus_message *message, bool quiet, Ask *asks, size_t n_asks,
                       sd_bus_error *error) {
        Client *client = service->caller;
        Peer *peer = client->peer;
        Check *check;

        if (peer->n_waiting >= WAITING_MAX || !(check = new0(Check, 1))) {
                for (size_t i = 0; i < n_asks; i++)
                        ask_done(&asks[i]);
                free(asks);
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "Too many calls of this connection wait to be authorised: the limit is %u",
                                         WAITING_MAX);
        }

        *check = (Check){
                .service = service,
                .client = client,
                .message = sd_bus_message_ref(message),
                .interactive = !quiet && sd_bus_message_get_allow_interactive_authorization(message) > 0,
                .quiet = quiet,
                .asks = asks,
                .n_asks = n_asks,
        };
        TAILQ_INSERT_TAIL(&peer->checks, check, link);
        peer->n_waiting++;
        service->n_checks++;
        check_go_on(check);
        return 0;
}

/* Whether message was held before, and all that it asked was granted */
static bool take_granted(Client *client, sd_bus_message *message) {
        Check *check;

        TAILQ_FOREACH(check, &((Peer *)client->peer)->checks, link)
                if (check->message == message) {
                        check_free(check);
                        return true;
                }

        return false;
}

static bool all_powerful(const Service *service, const Client *client) {
        return service->options.user || client->uid == service->uid || client->uid == 0;
}

static bool in_access_list(const ServerConfig *config, const Client *client) {
        for (size_t i = 0; i < config->access.n_uids; i++)
                if (config->access.uids[i] == client->uid)
                        return true;

        for (size_t i = 0; i < config->access.n_gids; i++)
                for (size_t j = 0; j < client->n_gids; j++)
                        if (config->access.gids[i] == client->gids[j])
                                return true;

        return false;
}

/* The questions that have no verdict yet, for each of the actions. 1: there are none. */
static int authorize(Service *service, sd_bus_message *message, const Action *actions, size_t n_actions,
                     const Question *questions, size_t n_questions, sd_bus_error *error) {
        Peer *peer = service->caller->peer;
        Ask *asks;
        size_t n = 0;

        if (take_granted(service->caller, message))
                return 1;

        asks = new0(Ask, n_actions * n_questions);
        if (!asks)
                return -ENOMEM;

        for (size_t i = 0; i < n_questions; i++)
                for (size_t j = 0; j < n_actions; j++) {
                        const Verdict *verdict = find_verdict(service, peer, actions[j], &questions[i]);
                        bool asked = verdict && verdict->granted;

                        if (asked)
                                continue;
                        if (ask_init(&asks[n++], actions[j], &questions[i]) < 0) {
                                while (n > 0)
                                        ask_done(&asks[--n]);
                                free(asks);
                                return -ENOMEM;
                        }
                }

        if (n == 0) {
                free(asks);
                return 1;
        }

        return check_start(service, message, /* quiet= */ false, asks, n, error);
}

bool authorize_asks(Service *service, const Server *server) {
        return !all_powerful(service, service->caller) && !in_access_list(server->config, service->caller);
}

int authorize_use(Service *service, sd_bus_message *message, const Server *server, const Question *questions,
                  size_t n_questions, sd_bus_error *error) {
        const ServerConfig *config = server->config;
        Action actions[2];
        size_t n = 0;

        if (!authorize_asks(service, server) || n_questions == 0)
                return 1;

        for (size_t i = 0; i < n_questions; i++)
                if (strlen(questions[i].method ?: "") > TEXT_MAX || strlen(questions[i].tool ?: "") > TEXT_MAX)
                        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"),
                                                 "method and tool have at most %d bytes", TEXT_MAX);

        actions[n++] = config->executor ? ACTION_EXECUTE_CODE : ACTION_CALL;
        if (service->launcher->ops->has_network(config))
                actions[n++] = ACTION_USE_NETWORK;
        return authorize(service, message, actions, n, questions, n_questions, error);
}

int authorize_manage(Service *service, sd_bus_message *message, const Question *question, sd_bus_error *error) {
        if (all_powerful(service, service->caller))
                return 1;

        return authorize(service, message, &(const Action){ ACTION_MANAGE }, 1, question, 1, error);
}

/* Whether there are workers that uid doesn't see anyway */
static bool others_have_workers(Service *service, uid_t uid) {
        const ServerPool *server_pool;
        const Server *server;

        TAILQ_FOREACH(server, &service->manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        if (!server_pool_visible(server_pool, uid))
                                return true;

        return false;
}

int authorize_view(Service *service, sd_bus_message *message) {
        Client *client = service->caller;
        Ask *ask;

        if (all_powerful(service, client) || take_granted(client, message) ||
            !others_have_workers(service, client->uid) || find_verdict(service, client->peer, ACTION_MANAGE, &view))
                return 1;

        ask = new0(Ask, 1);
        if (!ask || ask_init(ask, ACTION_MANAGE, &view) < 0) {
                free(ask);
                return 1;
        }

        return check_start(service, message, /* quiet= */ true, ask, 1, /* error= */ NULL) < 0 ? 1 : 0;
}

uid_t authorize_sees(Service *service, const Client *client) {
        const Verdict *verdict;

        if (all_powerful(service, client))
                return QUOTA_EVERYBODY;

        verdict = client->peer ? find_verdict(service, client->peer, ACTION_MANAGE, &view) : NULL;
        return verdict && verdict->granted ? QUOTA_EVERYBODY : client->uid;
}

uid_t authorize_viewer(Service *service, sd_bus *bus) {
        if (service->audience)
                return *service->audience;

        return sd_bus_get_current_message(bus) && service->caller ? authorize_sees(service, service->caller)
                                                                  : QUOTA_EVERYBODY;
}

void authorize_forget(Service *service _unused_, Client *client) {
        Peer *peer = client->peer;
        Check *check;

        if (!peer)
                return;

        while ((check = TAILQ_FIRST(&peer->checks))) {
                withdraw(check);
                check_free(check);
        }
        while (!TAILQ_EMPTY(&peer->verdicts))
                verdict_free(peer, TAILQ_FIRST(&peer->verdicts));
}

void authorize_refuse(Service *service _unused_, Client *client) {
        Peer *peer = client->peer;
        Check *check, *next;

        if (!peer)
                return;

        TAILQ_FOREACH_SAFE(check, &peer->checks, link, next) {
                (void)sd_bus_reply_method_errorf(check->message, SD_BUS_ERROR_ACCESS_DENIED, "The service is leaving");
                withdraw(check);
                check_free(check);
        }
}
