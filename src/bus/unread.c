/* What clients on the bus haven't read. dbus-daemon keeps it for them, and stops reading from the service where there
 * is too much (127 MiB or 64 descriptors by default): every caller would wait for the one who doesn't read. It is asked
 * how much that is. Where it may not be asked, clients are: who answers a ping has read what came before it. Other
 * buses don't tell; dbus-broker has limits of its own. */

#include "base/log.h"
#include "bus/errors.h"
#include "bus/message-size.h"
#include "bus/peers.h"

#define ASK_FROM ((uint64_t)1 << 20)    /* bytes that may wait for one, before which it isn't asked */
#define FEW ((uint64_t)1 << 16)         /* likewise where all clients together have much */
#define SIGNALS_MAX ((uint64_t)4 << 20) /* for one, until which it is sent signals */
#define DESCRIPTOR ((uint64_t)2 << 20)  /* bytes that one is taken for: the bus has room for 64 */
#define PATIENCE (5 * USEC_PER_SEC)     /* calls are held for so long: who sends many at a time reads a moment later */
#define PAUSE (USEC_PER_SEC / 20)
#define PAUSE_OF_ALL (USEC_PER_SEC / 2) /* between two questions about all that have more than a few */

/* An answer that waits until the bus has room for it */
typedef struct Answer {
        TAILQ_ENTRY(Answer) link;
        sd_bus_message *request, *reply;
        size_t bytes;
        uint64_t charged, since; /* bytes, descriptors included; usec, CLOCK_MONOTONIC */
} Answer;

static void set_unread(Peer *peer, uint64_t bytes) {
        peer->service->unread += bytes - peer->unread;
        peer->unread = bytes;
}

static uint64_t user_unread(const Service *service, const Client *client) {
        const Client *other;
        uint64_t sum = 0;

        TAILQ_FOREACH(other, &service->manager->clients, link)
                if (other->peer && other->uid == client->uid)
                        sum += ((const Peer *)other->peer)->unread;

        return sum;
}

/* Together it may be what one user alone may not have. */
static bool is_much(const Service *service) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;

        return service->unread > MIN(limits->unread_bytes_per_user, limits->unread_bytes);
}

typedef struct Excess {
        uint64_t bytes, limit;
        const char *whose, *key;
} Excess;

static Excess excess_of_all(const Service *service) {
        return (Excess){ service->unread, service->manager->quota.settings.limits.unread_bytes, "all connections",
                         "unread_bytes" };
}

/* Users count, not connections: one can have many, each with little. */
static bool has_too_much(const Service *service, const Client *client, Excess *ret) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        uint64_t own = ((const Peer *)client->peer)->unread, users;

        *ret = (Excess){ own, limits->unread_bytes_per_connection,
                         service->asks == ASKS_CLIENTS ? "this connection, which answers no ping" : "this connection",
                         "unread_bytes_per_connection" };
        if (own > limits->unread_bytes_per_connection)
                return true;
        if (!is_much(service))
                return false;

        users = user_unread(service, client);
        *ret = (Excess){ users, limits->unread_bytes_per_user, "this user's connections", "unread_bytes_per_user" };
        if (users > limits->unread_bytes_per_user)
                return true;

        *ret = excess_of_all(service);
        return service->unread > limits->unread_bytes && users > ASK_FROM;
}

static int refuse(sd_bus_error *error, const char *before, const Excess *excess) {
        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                 "%sessages of %llu bytes, a file descriptor counted as 2 MiB, wait on the bus to be "
                                 "read by %s: the limit is %llu (limits.%s in mcp-exec.json)",
                                 before, (unsigned long long)excess->bytes, excess->whose,
                                 (unsigned long long)excess->limit, excess->key);
}

static void ask_user(Service *service, const Client *client);

/* Answers. What is under way when nothing more is accepted comes all the same, and of several users it would be more
 * than the bus takes: it waits here. */

static int send_answer(Service *service, const Client *client, sd_bus_message *reply, size_t bytes, uint64_t charged) {
        int r = sd_bus_send(NULL, reply, NULL);

        if (r < 0)
                return r;

        unread_add(service, client, charged);
        turns_charge(service, client, bytes);
        return 1;
}

/* Who has hardly anything to read gets what he has asked for. */
static bool has_room(const Service *service, const Client *client, uint64_t charged) {
        const Quota *quota = &service->manager->quota;
        uint64_t own;

        if (service->unread - quota->answer_bytes + charged <= quota->settings.limits.unread_bytes)
                return true;

        own = user_unread(service, client);
        return own <= FEW || own + charged <= ASK_FROM;
}

static Answer *answer_free(Service *service, const Client *client, Answer *answer) {
        Peer *peer = client->peer;

        TAILQ_REMOVE(&peer->answers, answer, link);
        service->n_unproven--;
        peer->answer_bytes -= answer->charged;
        set_unread(peer, peer->unread - MIN(answer->charged, peer->unread));
        quota_release_answer(&service->manager->quota, client->uid, answer->charged);
        sd_bus_message_unref(answer->request);
        sd_bus_message_unref(answer->reply);
        free(answer);
        return NULL;
}

static int drop(sd_bus_message *request, const Excess *excess) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        (void)refuse(&error, "The call was answered, and there is no room for the answer: m", excess);
        r = sd_bus_reply_method_error(request, &error);
        sd_bus_error_free(&error);
        return r < 0 ? r : 1;
}

static int hold_answer(Service *service, const Client *client, sd_bus_message *request, sd_bus_message *reply,
                       size_t bytes, uint64_t charged) {
        Peer *peer = client->peer;
        Excess excess = excess_of_all(service);
        Failure failure = {};
        Answer *answer;

        if (quota_charge_answer(&service->manager->quota, client->uid, charged, &failure) < 0) {
                failure_done(&failure);
                return drop(request, &excess);
        }
        answer = new0(Answer, 1);
        if (!answer) {
                quota_release_answer(&service->manager->quota, client->uid, charged);
                return -ENOMEM;
        }

        *answer = (Answer){ .request = sd_bus_message_ref(request),
                            .reply = sd_bus_message_ref(reply),
                            .bytes = bytes,
                            .charged = charged,
                            .since = service_now(service) };
        TAILQ_INSERT_TAIL(&peer->answers, answer, link);
        service->n_unproven++;
        peer->answer_bytes += charged;
        set_unread(peer, peer->unread + charged);
        ask_user(service, client);
        return 1;
}

int peers_reply(Service *service, sd_bus_message *request, sd_bus_message *reply, size_t bytes, unsigned n_fds) {
        sd_bus *bus = sd_bus_message_get_bus(request);
        const char *sender = sd_bus_message_get_sender(request);
        const Client *client = bus == service->bus && sender ? manager_find_client(service->manager, sender)
                                                             : private_client(service, bus);
        uint64_t charged = bytes + n_fds * DESCRIPTOR;
        int r;

        if (client && client->peer && bus == service->bus) {
                /* Without a question there is no end to waiting. */
                if (service->asks == ASKS_NOTHING || has_room(service, client, charged))
                        return send_answer(service, client, reply, bytes, charged);
                return hold_answer(service, client, request, reply, bytes, charged);
        }

        r = sd_bus_send(NULL, reply, NULL);
        if (r < 0)
                return r;

        private_sent(service, bus, bytes);
        if (client)
                turns_charge(service, client, bytes);
        return 1;
}

int peers_reply_text(Service *service, sd_bus_message *request, const char *text) {
        sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(request, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", text);
        if (r >= 0)
                r = peers_reply(service, request, reply, strlen(text), /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

int peers_reply_fd(Service *service, sd_bus_message *request, int fd) {
        sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(request, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "h", fd);
        if (r >= 0)
                r = peers_reply(service, request, reply, /* bytes= */ 0, /* n_fds= */ 1);
        sd_bus_message_unref(reply);
        return r;
}

/* Sends what there is room for, and drops what has waited for too long without its client reading anything, or
 * everything. */
static void send_answers(Service *service, const Client *client, bool all) {
        Peer *peer = client->peer;
        Answer *answer, *next;

        TAILQ_FOREACH_SAFE(answer, &peer->answers, link, next) {
                sd_bus_message *request = sd_bus_message_ref(answer->request),
                               *reply = sd_bus_message_ref(answer->reply);
                bool late = service_now(service) >= usec_add(MAX(answer->since, peer->read_at), PATIENCE);
                size_t bytes = answer->bytes;
                uint64_t charged = answer->charged;
                Excess excess = excess_of_all(service);

                if (service->asks == ASKS_NOTHING || has_room(service, client, charged)) {
                        answer_free(service, client, answer);
                        bus_answered(request, send_answer(service, client, reply, bytes, charged));
                } else if (late || all) {
                        answer_free(service, client, answer);
                        bus_answered(request, drop(request, &excess));
                }
                sd_bus_message_unref(request);
                sd_bus_message_unref(reply);
        }
}

/* Calls */

static int on_pause(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        const Client *client = userdata;
        Peer *peer = client->peer;

        peer->again = sd_event_source_disable_unref(peer->again);
        ask_user(peer->service, client);
        return 0;
}

/* Takes the first one; the message is the caller's. */
static sd_bus_message *take_held(Service *service, const Client *client) {
        Peer *peer = client->peer;
        Waiting *waiting = TAILQ_FIRST(&peer->held);
        sd_bus_message *message = waiting->message;

        TAILQ_REMOVE(&peer->held, waiting, link);
        service->n_unproven--;
        quota_release_waiting(&service->manager->quota, client->uid, waiting->bytes);
        free(waiting);
        return message;
}

/* What waited to know how much it is goes on, waits for its client to read, or is refused. */
static void decide(Service *service, const Client *client) {
        Peer *peer = client->peer;
        Excess excess;
        bool refused, waits;

        send_answers(service, client, /* all= */ false);
        refused = has_too_much(service, client, &excess);
        waits = refused && !TAILQ_EMPTY(&peer->held) && service_now(service) < usec_add(peer->held_since, PATIENCE);
        if ((waits || !TAILQ_EMPTY(&peer->answers)) &&
            sd_event_add_time_relative(service->event, &peer->again, CLOCK_MONOTONIC, PAUSE, 0, on_pause,
                                       (void *)client) < 0) {
                send_answers(service, client, /* all= */ true);
                waits = false;
        }
        if (waits)
                return;

        while (!TAILQ_EMPTY(&peer->held)) {
                sd_bus_error error = SD_BUS_ERROR_NULL;
                sd_bus_message *message = take_held(service, client);
                int r;

                r = refused ? refuse(&error, "M", &excess) : peers_resume(service, message);
                if (r < 0)
                        (void)sd_bus_reply_method_errno(message, r, &error);
                sd_bus_error_free(&error);
                sd_bus_message_unref(message);
        }
}

int unread_takes_calls(Service *service, sd_bus_message *message, const Client *client, sd_bus_error *error) {
        Peer *peer = client->peer;
        Failure failure = {};
        Waiting *waiting;
        Excess excess;
        size_t size;
        int r;

        if (!has_too_much(service, client, &excess))
                return 0;

        r = message_size(message, &size, error);
        if (r < 0)
                return r;

        /* It may have read all of it since. */
        ask_user(service, client);
        if (!peer->question && !peer->again)
                return 0;

        if (quota_charge_waiting(&service->manager->quota, client->uid, size, &failure) < 0) {
                failure_done(&failure);
                return refuse(error, "M", &excess);
        }
        waiting = new0(Waiting, 1);
        if (!waiting) {
                quota_release_waiting(&service->manager->quota, client->uid, size);
                return -ENOMEM;
        }

        *waiting = (Waiting){ .message = sd_bus_message_ref(message), .bytes = size };
        if (TAILQ_EMPTY(&peer->held))
                peer->held_since = service_now(service);
        TAILQ_INSERT_TAIL(&peer->held, waiting, link);
        service->n_unproven++;
        return 1;
}

void unread_forget(Service *service, const Client *client) {
        Peer *peer = client->peer;

        peer->question = sd_bus_slot_unref(peer->question);
        peer->again = sd_event_source_disable_unref(peer->again);
        while (!TAILQ_EMPTY(&peer->answers)) {
                (void)sd_bus_send(NULL, TAILQ_FIRST(&peer->answers)->reply, NULL);
                answer_free(service, client, TAILQ_FIRST(&peer->answers));
        }
        while (!TAILQ_EMPTY(&peer->held)) {
                sd_bus_message *message = take_held(service, client);

                (void)sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The service is leaving");
                sd_bus_message_unref(message);
        }
        set_unread(peer, 0);
}

/* Questions */

static int read_number(sd_bus_message *reply, uint64_t *ret) {
        uint32_t value;
        int r = sd_bus_message_read(reply, "v", "u", &value);

        *ret = r < 0 ? 0 : value;
        return r;
}

static int read_statistics(sd_bus_message *reply, const char *bytes_key, uint64_t *ret_bytes, const char *fds_key,
                           uint64_t *ret_fds) {
        bool found = false;
        const char *key;
        int r;

        *ret_bytes = *ret_fds = 0;
        r = sd_bus_message_enter_container(reply, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
                r = sd_bus_message_read(reply, "s", &key);
                if (r >= 0) {
                        found = found || streq(key, bytes_key);
                        r = streq(key, bytes_key) ? read_number(reply, ret_bytes)
                            : streq(key, fds_key) ? read_number(reply, ret_fds)
                                                  : sd_bus_message_skip(reply, "v");
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(reply);
        }

        return r < 0 ? r : found ? 0 : -ENODATA;
}

/* The bus takes messages in their order: what was sent before the question it has counted. What others have sent is in
 * it as well. */
static void note_on_bus(Peer *peer, uint64_t bytes) {
        if (bytes + peer->since_asked + peer->answer_bytes < peer->unread)
                peer->read_at = service_now(peer->service);
        set_unread(peer, bytes + peer->since_asked + peer->answer_bytes);
}

static void ask(Service *service, const Client *client);

/* It doesn't tell us; or it knows no such question, as dbus-daemon does when it was built so. dbus-broker says that
 * this isn't implemented. */
static void ask_otherwise(Service *service, const sd_bus_error *error) {
        bool denied = error && (sd_bus_error_has_name(error, SD_BUS_ERROR_ACCESS_DENIED) ||
                                sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_INTERFACE) ||
                                sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_METHOD));

        if (service->asks == ASKS_BUS && denied) {
                log_notice("the bus doesn't tell this service what its clients haven't read: they are asked "
                           "themselves, and who has 16 MiB (limits.unread_bytes_per_connection) without answering a "
                           "ping is refused");
                service->asks = ASKS_CLIENTS;
                return;
        }

        if (denied)
                log_warning("neither the bus nor its clients can be asked what these haven't read: one that doesn't "
                            "read may hold up all");
        service->asks = ASKS_NOTHING;
}

static int on_statistics(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Client *client = userdata;
        Peer *peer = client->peer;
        Service *service = peer->service;
        const sd_bus_error *failed = sd_bus_message_get_error(reply);
        uint64_t bytes = 0, fds = 0;

        peer->question = sd_bus_slot_unref(peer->question);
        /* One that has left has nothing to read, which its other news tell. */
        if (!(failed && sd_bus_error_has_name(failed, SD_BUS_ERROR_NAME_HAS_NO_OWNER)) &&
            (failed || read_statistics(reply, "OutgoingBytes", &bytes, "OutgoingFDs", &fds) < 0)) {
                if (service->asks == ASKS_BUS)
                        ask_otherwise(service, failed);
                if (service->asks == ASKS_CLIENTS)
                        ask(service, client);
                if (peer->question)
                        return 0;
        }

        note_on_bus(peer, bytes + fds * DESCRIPTOR);
        decide(service, client);
        service_maybe_idle(service);
        return 0;
}

/* Whatever it says, it has read what was sent before. */
static int on_pong(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Client *client = userdata;
        Peer *peer = client->peer;
        Service *service = peer->service;
        const char *sender = sd_bus_message_get_sender(reply);

        peer->question = sd_bus_slot_unref(peer->question);
        if (sd_bus_message_is_method_error(reply, SD_BUS_ERROR_ACCESS_DENIED) && sender &&
            streq(sender, "org.freedesktop.DBus"))
                ask_otherwise(service, sd_bus_message_get_error(reply));
        if (service->asks == ASKS_NOTHING || (sender && streq(sender, client->name)))
                note_on_bus(peer, 0);
        decide(service, client);
        service_maybe_idle(service);
        return 0;
}

static int ask_client(Service *service, const Client *client) {
        sd_bus_message *ping = NULL;
        int r;

        r = sd_bus_message_new_method_call(service->bus, &ping, client->name, "/", "org.freedesktop.DBus.Peer", "Ping");
        if (r >= 0)
                r = sd_bus_call_async(service->bus, &((Peer *)client->peer)->question, ping, on_pong, (void *)client,
                                      PATIENCE);
        sd_bus_message_unref(ping);
        return r;
}

static void ask(Service *service, const Client *client) {
        Peer *peer = client->peer;
        int r;

        if (peer->question || peer->again || service->asks == ASKS_NOTHING)
                return;

        peer->since_asked = 0;
        r = service->asks == ASKS_CLIENTS
                    ? ask_client(service, client)
                    : sd_bus_call_method_async(service->bus, &peer->question, "org.freedesktop.DBus",
                                               "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats",
                                               "GetConnectionStats", on_statistics, (void *)client, "s", client->name);
        if (r < 0)
                note_on_bus(peer, 0);
}

/* About all that may have much, once in a while */
static void ask_all(Service *service) {
        uint64_t now = service_now(service);
        const Client *client;

        if (now < service->unread_asked + PAUSE_OF_ALL)
                return;

        service->unread_asked = now;
        TAILQ_FOREACH(client, &service->manager->clients, link)
                if (client->peer && ((const Peer *)client->peer)->unread > FEW)
                        ask(service, client);
}

/* The client's own answer comes last, and finds what is known of the others. */
static void ask_user(Service *service, const Client *client) {
        if (is_much(service))
                ask_all(service);
        ask(service, client);
}

void unread_add(Service *service, const Client *client, size_t bytes) {
        Peer *peer = client->peer;

        if (!peer || peer->connection || service->asks == ASKS_NOTHING)
                return;

        set_unread(peer, peer->unread + bytes);
        peer->since_asked += bytes;
        if (peer->unread > ASK_FROM)
                ask(service, client);
        if (is_much(service)) {
                if (peer->unread > FEW)
                        ask(service, client);
                ask_all(service);
        }
}

bool unread_takes_signals(const Service *service, const Client *client) {
        const Peer *peer = client->peer;
        Excess excess;

        return !peer ||
               (peer->unread <= SIGNALS_MAX && (peer->unread <= FEW || !has_too_much(service, client, &excess)));
}

/* Broadcasts. Whoever listens has them, also one of whom nothing is known. What the bus holds of the service's, and
 * isn't its clients', is these. */

static uint64_t broadcasts_max(const Service *service) {
        return service->manager->quota.settings.limits.unread_bytes / 2;
}

static int on_own_statistics(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Service *service = userdata;
        uint64_t bytes = 0, fds = 0, clients = 0;
        const Client *client;

        service->broadcasts.question = sd_bus_slot_unref(service->broadcasts.question);
        if (!sd_bus_message_is_method_error(reply, NULL))
                (void)read_statistics(reply, "IncomingBytes", &bytes, "IncomingFDs", &fds);

        /* Of those that weren't asked a moment ago too much may be thought. */
        TAILQ_FOREACH(client, &service->manager->clients, link) {
                const Peer *peer = client->peer;

                clients += peer && peer->unread > FEW ? peer->unread - peer->answer_bytes : 0;
        }

        service->broadcasts.bytes = bytes - MIN(bytes, clients) + service->broadcasts.since_asked;
        return 0;
}

static void ask_own(Service *service) {
        uint64_t now = service_now(service);
        const char *name;

        if (service->asks != ASKS_BUS || service->broadcasts.question ||
            now < service->broadcasts.asked + PAUSE_OF_ALL || sd_bus_get_unique_name(service->bus, &name) < 0)
                return;

        ask_all(service);
        service->broadcasts.asked = now;
        service->broadcasts.since_asked = 0;
        (void)sd_bus_call_method_async(service->bus, &service->broadcasts.question, "org.freedesktop.DBus",
                                       "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats",
                                       "GetConnectionStats", on_own_statistics, service, "s", name);
}

bool unread_takes_broadcasts(Service *service) {
        if (service->broadcasts.bytes <= broadcasts_max(service))
                return true;

        ask_own(service);
        return service->asks != ASKS_BUS;
}

void unread_add_broadcast(Service *service, sd_bus_message *signal) {
        size_t bytes = UNREAD_MESSAGE;

        (void)message_size(signal, &bytes, /* error= */ NULL);
        service->broadcasts.bytes += bytes;
        service->broadcasts.since_asked += bytes;
        if (service->broadcasts.bytes > MIN(ASK_FROM, broadcasts_max(service) / 2))
                ask_own(service);
}
