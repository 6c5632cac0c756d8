/* Asks polkit (polkit(8)), which may take its time. Errors, silence and nonsense of it are denials. */

#include "bus/polkit.h"

#include <poll.h>
#include <stdio.h>

#include "base/text.h"
#include "broker/call.h"
#include "bus/errors.h"
#include "bus/message-size.h"

#define POLKIT_NAME "org.freedesktop.PolicyKit1"
#define POLKIT_PATH "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE POLKIT_NAME ".Authority"
#define POLKIT_ALLOW_USER_INTERACTION UINT32_C(1)

/* How long one answer is waited for, and all the answers that one message needs. sd-bus callers give up after 25 s. */
#define WAIT (5 * USEC_PER_SEC)
#define WAIT_ALL (20 * USEC_PER_SEC)
#define WAIT_INTERACTIVE (120 * USEC_PER_SEC) /* somebody types a password */
#define WAIT_ALL_INTERACTIVE (240 * USEC_PER_SEC)

/* Questions of one user that are open. A bus allows few calls of one connection to be open (dbus-daemon: 128), and
 * those of which somebody is asked stay open for long. */
#define OPEN_PER_USER_MAX 16
#define OPEN_INTERACTIVE_PER_USER_MAX 4

#define SHOWN_MAX 256 /* bytes of what polkit says */

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

/* Takes the message into the user's account. */
static int charge(Service *service, uid_t uid, size_t bytes, sd_bus_error *error) {
        Quota *quota = &service->manager->quota;
        Failure failure = {};

        if (quota_charge_check(quota, uid, &failure) < 0)
                return bus_error_set_failure(error, &failure);
        if (quota_charge_waiting(quota, uid, bytes, &failure) < 0) {
                quota_release_check(quota, uid);
                return bus_error_set_failure(error, &failure);
        }

        return 0;
}

static void release(Service *service, uid_t uid, size_t bytes) {
        quota_release_waiting(&service->manager->quota, uid, bytes);
        quota_release_check(&service->manager->quota, uid);
}

static Check *check_free(Check *check) {
        if (!check)
                return NULL;

        if (check->client)
                TAILQ_REMOVE(&check->service->checks, check, link);
        check->service->n_checks--;
        release(check->service, check->uid, check->bytes);
        asks_free(check->asks, check->n_asks);
        sd_bus_slot_unref(check->slot);
        sd_bus_message_unref(check->message);
        free(check);
        return NULL;
}

static void record(const Check *check, const char *outcome) {
        const Ask *ask = &check->asks[MIN(check->next, check->n_asks - 1)];

        if (!check->quiet)
                call_record(check->service->manager, check->client, ask->server, ask->method, ask->tool, check->started,
                            outcome);
}

static void check_deny(Check *check, const char *name, const char *why) {
        const Ask *ask = &check->asks[check->next];

        record(check, "AccessDenied");
        bus_answered(check->message, sd_bus_reply_method_errorf(
                                             check->message, name,
                                             "The user with uid %u isn't allowed to do this%s%s: %s (polkit action %s)",
                                             (unsigned)check->client->uid, *ask->server ? " with server " : "",
                                             ask->server, why, action_id(ask->action)));
        check_free(check);
}

static void check_pass(Check *check) {
        int r;

        check->granted = true;
        r = peers_resume(check->service, check->message);
        if (r < 0) {
                bus_answered(check->message, r);
                check_free(check);
        }
}

/* Polkit isn't to be bothered any more, with what was cut short on this side. */
static void withdraw(Check *check) {
        sd_bus_message *m = NULL;
        char id[32];
        int r;

        if (!check->slot)
                return;

        check->slot = sd_bus_slot_unref(check->slot);
        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)check->cancellation);
        r = sd_bus_message_new_method_call(check->service->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                           "CancelCheckAuthorization");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", id);
        if (r >= 0)
                r = sd_bus_message_set_auto_start(m, false);
        if (r >= 0)
                r = sd_bus_message_set_expect_reply(m, false);
        if (r >= 0)
                (void)sd_bus_send(check->service->bus, m, NULL);
        sd_bus_message_unref(m);
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

static int on_verdict(sd_bus_message *reply, void *userdata, sd_bus_error *error);

static int ask_polkit(Check *check) {
        Service *service = check->service;
        const Ask *ask = &check->asks[check->next];
        uint64_t wait = check->interactive ? WAIT_INTERACTIVE : WAIT;
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
                                      MIN(wait, check->deadline - service_now(service)));
        sd_bus_message_unref(m);
        return r;
}

static bool may_open(const Check *check) {
        const Check *other;
        unsigned n = 0;

        TAILQ_FOREACH(other, &check->service->checks, link)
                n += other->slot && other->interactive == check->interactive &&
                     other->client->uid == check->client->uid;

        return n < (check->interactive ? OPEN_INTERACTIVE_PER_USER_MAX : OPEN_PER_USER_MAX);
}

static void conclude(Check *asker, bool granted, const char *name, const char *why);

/* Asks what a check has to know next, or has it wait for its turn. */
static void check_ask(Check *check) {
        int r;

        check->queued = false;
        if (service_now(check->service) >= check->deadline)
                conclude(check, /* granted= */ false, SD_BUS_ERROR_ACCESS_DENIED, "polkit takes too long");
        else if (!may_open(check))
                check->queued = true;
        else if ((r = ask_polkit(check)) < 0)
                conclude(check, /* granted= */ false, SD_BUS_ERROR_ACCESS_DENIED, strerror(-r));
}

/* Whether a check asks this, in the same way: what polkit says is for all of them. */
static bool asks_same(const Check *check, const Check *other) {
        return other != check && other->client == check->client && !other->granted &&
               other->interactive == check->interactive &&
               ask_equal(&other->asks[other->next], &check->asks[check->next]);
}

/* Goes on to what isn't known yet; or lets the message pass. */
static void check_go_on(Check *check) {
        const Check *other;

        for (; check->next < check->n_asks; check->next++) {
                const Ask *ask = &check->asks[check->next];
                const Question question = ask_question(ask);
                int verdict = verdict_find(check->service, check->client, ask->action, &question);

                if (verdict < 0 || (verdict == 0 && !check->quiet))
                        break;
                check->asks[check->next].granted = verdict > 0;
        }

        if (check->next == check->n_asks) {
                check_pass(check);
                return;
        }

        TAILQ_FOREACH(other, &check->service->checks, link)
                if ((other->slot || other->queued) && asks_same(check, other))
                        return;

        check_ask(check);
}

static void check_conclude(Check *check, bool granted, const char *name, const char *why) {
        check->slot = sd_bus_slot_unref(check->slot);
        check->queued = false;
        if (granted || check->quiet) {
                check->asks[check->next].granted = granted;
                check->next++;
                check_go_on(check);
        } else
                check_deny(check, name, why);
}

/* The one that asked goes last, for the question is its own. */
static void conclude(Check *asker, bool granted, const char *name, const char *why) {
        Service *service = asker->service;
        Check *check, *next;

        if (granted || asker->quiet)
                verdict_keep(service, asker->client, &asker->asks[asker->next], granted);

        TAILQ_FOREACH_SAFE(check, &service->checks, link, next)
                if (asks_same(asker, check))
                        check_conclude(check, granted, name, why);
        check_conclude(asker, granted, name, why);
}

static Check *find_turn(Service *service) {
        Check *check;

        TAILQ_FOREACH(check, &service->checks, link)
                if (check->queued && may_open(check))
                        return check;

        return NULL;
}

/* Questions are open no more: asks what has waited for that, the longest first. */
static void take_turns(Service *service) {
        Check *check;

        while ((check = find_turn(service)))
                check_ask(check);
}

/* The process that a private connection was opened by is still the same: its number wasn't given to another one while
 * polkit looked at it. */
static bool process_is_there(const Connection *connection) {
        return poll(&(struct pollfd){ .fd = connection->pidfd, .events = POLLIN }, 1, 0) == 0;
}

static int on_verdict(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Check *check = userdata;
        Service *service = check->service;
        const Connection *connection = ((Peer *)check->client->peer)->connection;
        const sd_bus_error *failed = sd_bus_message_get_error(reply);
        const char *name = SD_BUS_ERROR_ACCESS_DENIED, *why = "it was denied";
        _cleanup_(freep) char *said = NULL, *text = NULL;
        int authorized = 0, challenge = 0;

        if (failed) {
                /* The time is up, and polkit may still be asking somebody. */
                if (sd_bus_error_has_name(failed, SD_BUS_ERROR_NO_REPLY) ||
                    sd_bus_error_has_name(failed, SD_BUS_ERROR_TIMEOUT))
                        withdraw(check);
                said = text_escape(failed->message ?: "", strlen(failed->message ?: ""), SHOWN_MAX);
                if (asprintf(&text, "polkit can't be asked: %s", said ?: "?") < 0)
                        text = NULL;
                why = text ?: "polkit can't be asked";
        } else if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") <= 0 ||
                   sd_bus_message_read(reply, "bb", &authorized, &challenge) <= 0) {
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
        take_turns(service);
        service_maybe_idle(service);
        return 0;
}

int check_start(Service *service, sd_bus_message *message, bool quiet, Ask *asks, size_t n_asks, size_t n_granted,
                sd_bus_error *error) {
        bool interactive = !quiet && sd_bus_message_get_allow_interactive_authorization(message) > 0;
        const Check *before = check_passed(service, message, quiet);
        Client *client = service->caller;
        Check *check;
        size_t bytes;
        int r;

        r = message_size(message, &bytes, error);
        if (r >= 0)
                r = charge(service, client->uid, bytes, error);
        check = r < 0 ? NULL : new0(Check, 1);
        if (!check) {
                if (r >= 0)
                        release(service, client->uid, bytes);
                if (!quiet)
                        call_record(service->manager, client, asks[n_granted].server, asks[n_granted].method,
                                    asks[n_granted].tool, /* started= */ 0,
                                    failure_code_to_string(FAILURE_LIMITS_EXCEEDED));
                asks_free(asks, n_asks);
                return r < 0 ? r : -ENOMEM;
        }

        *check = (Check){
                .service = service,
                .client = client,
                .message = sd_bus_message_ref(message),
                .uid = client->uid,
                .bytes = bytes,
                .interactive = interactive,
                .quiet = quiet,
                .asks = asks,
                .n_asks = n_asks,
                .next = n_granted,
                .started = before ? before->started : service_now(service),
                .deadline = before ? before->deadline
                                   : usec_add(service_now(service), interactive ? WAIT_ALL_INTERACTIVE : WAIT_ALL),
        };
        TAILQ_INSERT_TAIL(&service->checks, check, link);
        service->n_checks++;
        check_go_on(check);
        return 0;
}

/* The message is dispatched again */

const Check *check_passed(Service *service, sd_bus_message *message, bool quiet) {
        return service->passed && service->passed->message == message && service->passed->quiet == quiet
                       ? service->passed
                       : NULL;
}

void check_done(Service *service) {
        service->passed = check_free(service->passed);
}

/* Also where its handler has failed before it came to ask, nothing of the check is left behind. */
static int on_dispatched(sd_event_source *source _unused_, void *userdata) {
        Service *service = userdata;

        check_done(service);
        service_maybe_idle(service);
        return 0;
}

void authorize_enter(Service *service, sd_bus_message *message) {
        Check *check;

        check_done(service);
        TAILQ_FOREACH(check, &service->checks, link)
                if (check->message == message && check->granted)
                        break;
        if (!check)
                return;

        TAILQ_REMOVE(&service->checks, check, link);
        check->client = NULL;
        service->passed = check;
        (void)sd_event_source_set_enabled(service->passed_source, SD_EVENT_ONESHOT);
}

/* Clients, and the service, leave */

void authorize_forget(Service *service, Client *client) {
        Check *check, *next;

        TAILQ_FOREACH_SAFE(check, &service->checks, link, next)
                if (check->client == client) {
                        record(check, failure_code_to_string(FAILURE_CANCELLED));
                        withdraw(check);
                        check_free(check);
                }
        verdicts_forget(client);
        take_turns(service);
}

void authorize_refuse(Service *service) {
        Check *check;

        check_done(service);
        while ((check = TAILQ_FIRST(&service->checks))) {
                record(check, "AccessDenied");
                bus_answered(check->message, sd_bus_reply_method_errorf(check->message, SD_BUS_ERROR_ACCESS_DENIED,
                                                                        "The service is leaving"));
                withdraw(check);
                check_free(check);
        }
}

int authorize_init(Service *service) {
        int r;

        TAILQ_INIT(&service->checks);
        r = sd_event_add_defer(service->event, &service->passed_source, on_dispatched, service);
        if (r >= 0)
                r = sd_event_source_set_enabled(service->passed_source, SD_EVENT_OFF);
        return r < 0 ? r : sd_event_source_set_priority(service->passed_source, SD_EVENT_PRIORITY_IMPORTANT);
}
