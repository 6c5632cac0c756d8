/* What clients on the bus haven't read. dbus-daemon keeps it for them, and stops reading from the service where there
 * is too much (127 MiB or 64 descriptors by default): every caller would wait for the one who doesn't read. It is asked
 * how much that is. Where it may not be asked, clients are: who answers a ping has read what came before it. Other
 * buses don't tell; dbus-broker has limits of its own. */

#include "bus/unread.h"

#include "bus/errors.h"
#include "bus/message-size.h"

#define SIGNALS_MAX ((uint64_t)8 << 20) /* bytes for one, until which it is sent signals */
#define PAUSE (USEC_PER_SEC / 20)

void unread_set(Peer *peer, uint64_t bytes) {
        peer->service->unread += bytes - peer->unread;
        peer->unread = bytes;
}

uint64_t unread_of_user(const Service *service, const Client *client, bool answers) {
        const Client *other;
        uint64_t sum = 0;

        TAILQ_FOREACH(other, &service->manager->clients, link) {
                const Peer *peer = other->peer;

                if (peer && other->uid == client->uid)
                        sum += peer->unread - (answers ? 0 : peer->answer_bytes);
        }

        return sum;
}

bool unread_is_much(const Service *service) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;

        return service->unread > MIN(limits->unread_bytes_per_user, limits->unread_bytes);
}

Excess unread_excess_of_all(const Service *service) {
        return (Excess){ service->unread, service->manager->quota.settings.limits.unread_bytes, "all connections",
                         "unread_bytes" };
}

/* Users count, not connections: one can have many, each with little. */
bool unread_is_too_much(const Service *service, const Client *client, Excess *ret) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        uint64_t own = ((const Peer *)client->peer)->unread, users;

        *ret = (Excess){ own, limits->unread_bytes_per_connection,
                         service->asks == ASKS_CLIENTS ? "this connection, which answers no ping" : "this connection",
                         "unread_bytes_per_connection" };
        if (service->asks == ASKS_NOTHING)
                return false;
        if (own > limits->unread_bytes_per_connection)
                return true;
        if (!unread_is_much(service))
                return false;

        users = unread_of_user(service, client, /* answers= */ true);
        *ret = (Excess){ users, limits->unread_bytes_per_user, "this user's connections", "unread_bytes_per_user" };
        if (users > limits->unread_bytes_per_user)
                return true;

        *ret = unread_excess_of_all(service);
        return service->unread > limits->unread_bytes && users > LITTLE;
}

int unread_refuse(sd_bus_error *error, const char *before, const Excess *excess) {
        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                 "%sessages of %llu bytes, a file descriptor counted as 2 MiB, wait on the bus to be "
                                 "read by %s: the limit is %llu (limits.%s in mcp-exec.json)",
                                 before, (unsigned long long)excess->bytes, excess->whose,
                                 (unsigned long long)excess->limit, excess->key);
}

static int on_pause(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        const Client *client = userdata;
        Peer *peer = client->peer;

        peer->again = sd_event_source_disable_unref(peer->again);
        unread_ask_user(peer->service, client);
        if (!peer->question)
                unread_decide(peer->service, client);
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

/* At once, where what is known is old already: who reads needn't wait. False where there is no memory. */
static bool ask_again(Service *service, const Client *client) {
        Peer *peer = client->peer;

        if (peer->since_asked > 0)
                unread_ask_user(service, client);

        return peer->question || sd_event_add_time_relative(service->event, &peer->again, CLOCK_MONOTONIC, PAUSE, 0,
                                                            on_pause, (void *)client) >= 0;
}

void unread_decide(Service *service, const Client *client) {
        Peer *peer = client->peer;
        Excess excess;
        bool refused, waits;

        answers_send(service, client, /* all= */ false);
        refused = unread_is_too_much(service, client, &excess);
        waits = refused && !TAILQ_EMPTY(&peer->held) && service_now(service) < usec_add(peer->held_since, PATIENCE);
        if ((waits || !TAILQ_EMPTY(&peer->answers)) && !ask_again(service, client)) {
                answers_send(service, client, /* all= */ true);
                waits = false;
        }
        if (waits)
                return;

        while (!TAILQ_EMPTY(&peer->held)) {
                sd_bus_error error = SD_BUS_ERROR_NULL;
                sd_bus_message *message = take_held(service, client);
                int r;

                r = refused ? unread_refuse(&error, "M", &excess) : peers_resume(service, message);
                if (r < 0)
                        bus_answered(message, sd_bus_reply_method_errno(message, r, &error));
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

        if (!unread_is_too_much(service, client, &excess))
                return 0;

        r = message_size(message, &size, error);
        if (r < 0)
                return r;

        /* It may have read all of it since. */
        unread_ask_user(service, client);
        if (!peer->question && !peer->again)
                return 0;

        if (quota_charge_waiting(&service->manager->quota, client->uid, size, &failure) < 0) {
                failure_done(&failure);
                return unread_refuse(error, "M", &excess);
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
        answers_forget(service, client);
        while (!TAILQ_EMPTY(&peer->held)) {
                sd_bus_message *message = take_held(service, client);

                (void)sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The service is leaving");
                sd_bus_message_unref(message);
        }
        unread_set(peer, 0);
}

bool unread_takes_signals(const Service *service, const Client *client) {
        const Peer *peer = client->peer;
        uint64_t bytes, descriptors;
        Excess excess;

        if (!peer || service->asks == ASKS_NOTHING)
                return true;

        /* Descriptors of which the bus hasn't said that they wait are no reason to leave out what isn't sent again. */
        descriptors = peer->descriptors_before + peer->descriptors_since;
        bytes = peer->unread - MIN(peer->unread, descriptors + peer->answer_bytes);
        return bytes <= FEW || (bytes <= SIGNALS_MAX && !unread_is_too_much(service, client, &excess));
}
