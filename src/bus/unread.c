/* What clients on the bus haven't read. dbus-daemon keeps it for them, and stops reading from the service where there
 * is too much (127 MiB by default): every caller would wait for the one who doesn't read. It is asked how much that is.
 * Other buses don't tell; dbus-broker has limits of its own. */

#include "base/log.h"
#include "bus/errors.h"
#include "bus/message-size.h"
#include "bus/peers.h"

#define ASK_FROM ((uint64_t)1 << 20)    /* bytes that may wait for one, before which it isn't asked */
#define FEW ((uint64_t)1 << 16)         /* likewise where all clients together have much */
#define SIGNALS_MAX ((uint64_t)4 << 20) /* for one, until which it is sent signals */
#define HELD_PER_USER_MAX 256           /* messages */
#define PATIENCE (5 * USEC_PER_SEC)     /* calls are held for so long: who sends many at a time reads a moment later */
#define PAUSE (USEC_PER_SEC / 20)
#define PAUSE_OF_ALL (USEC_PER_SEC / 2) /* between two questions about all that have more than a few */

static void set_unread(Peer *peer, uint64_t bytes) {
        peer->service->unread += bytes - peer->unread;
        peer->unread = bytes;
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

/* Users count, not connections: one can have many, each with little. */
static bool has_too_much(const Service *service, const Client *client, Excess *ret) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        uint64_t own = ((const Peer *)client->peer)->unread, users = 0;
        const Client *other;

        *ret = (Excess){ own, limits->unread_bytes_per_connection, "this connection", "unread_bytes_per_connection" };
        if (own > limits->unread_bytes_per_connection)
                return true;
        if (!is_much(service))
                return false;

        TAILQ_FOREACH(other, &service->manager->clients, link)
                if (other->peer && other->uid == client->uid)
                        users += ((const Peer *)other->peer)->unread;

        *ret = (Excess){ users, limits->unread_bytes_per_user, "this user's connections", "unread_bytes_per_user" };
        if (users > limits->unread_bytes_per_user)
                return true;

        *ret = (Excess){ service->unread, limits->unread_bytes, "all connections", "unread_bytes" };
        return service->unread > limits->unread_bytes && users > ASK_FROM;
}

static int refuse(sd_bus_error *error, const Excess *excess) {
        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                 "Messages of %llu bytes wait on the bus to be read by %s: the limit is %llu "
                                 "(limits.%s in mcp-exec.json)",
                                 (unsigned long long)excess->bytes, excess->whose, (unsigned long long)excess->limit,
                                 excess->key);
}

static void ask_user(Service *service, const Client *client);

static int on_pause(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        const Client *client = userdata;
        Peer *peer = client->peer;

        peer->again = sd_event_source_disable_unref(peer->again);
        ask_user(peer->service, client);
        return 0;
}

/* What waited to know how much it is goes on, waits for its caller to read, or is refused. */
static void decide(Service *service, const Client *client) {
        Peer *peer = client->peer;
        Excess excess;
        bool refused = has_too_much(service, client, &excess);

        if (refused && peer->n_held > 0 && service_now(service) < usec_add(peer->held_since, PATIENCE) &&
            sd_event_add_time_relative(service->event, &peer->again, CLOCK_MONOTONIC, PAUSE, 0, on_pause,
                                       (void *)client) >= 0)
                return;

        peer->held_bytes = 0;
        for (; peer->n_held > 0; service->n_unproven--) {
                sd_bus_error error = SD_BUS_ERROR_NULL;
                sd_bus_message *message = peer->held[0];
                int r;

                memmove(peer->held, peer->held + 1, --peer->n_held * sizeof(peer->held[0]));
                r = refused ? refuse(&error, &excess) : peers_resume(service, message);
                if (r < 0)
                        bus_answered(message, sd_bus_reply_method_errno(message, r, &error));
                sd_bus_error_free(&error);
                sd_bus_message_unref(message);
        }
}

static int read_outgoing(sd_bus_message *reply, uint64_t *ret) {
        const char *key;
        uint32_t value;
        int r;

        r = sd_bus_message_enter_container(reply, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
                r = sd_bus_message_read(reply, "s", &key);
                if (r >= 0 && streq(key, "OutgoingBytes")) {
                        r = sd_bus_message_read(reply, "v", "u", &value);
                        *ret = value;
                        return r;
                }
                if (r >= 0)
                        r = sd_bus_message_skip(reply, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(reply);
        }

        return r < 0 ? r : -ENODATA;
}

/* It has left, which its other news tell. */
static bool is_about_name(sd_bus_message *reply) {
        return sd_bus_message_is_method_error(reply, SD_BUS_ERROR_NAME_HAS_NO_OWNER);
}

static int on_statistics(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Client *client = userdata;
        Peer *peer = client->peer;
        Service *service = peer->service;
        uint64_t outgoing = 0;

        peer->statistics = sd_bus_slot_unref(peer->statistics);
        if (sd_bus_message_is_method_error(reply, NULL) ? !is_about_name(reply) : read_outgoing(reply, &outgoing) < 0) {
                log_debug("the bus doesn't tell what its clients haven't read");
                service->no_statistics = true;
                outgoing = 0;
        }

        /* The bus takes messages in their order: what was sent before the question it has counted. What others have
         * sent is in it as well. */
        set_unread(peer, service->no_statistics ? 0 : outgoing + peer->since_asked);
        decide(service, client);
        service_maybe_idle(service);
        return 0;
}

static void ask(Service *service, const Client *client) {
        Peer *peer = client->peer;

        if (peer->statistics || peer->again || service->no_statistics)
                return;

        peer->since_asked = 0;
        if (sd_bus_call_method_async(service->bus, &peer->statistics, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus.Debug.Stats", "GetConnectionStats", on_statistics,
                                     (void *)client, "s", client->name) < 0)
                set_unread(peer, 0);
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

        if (!peer || peer->connection || service->no_statistics)
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

void peers_sent(Service *service, sd_bus_message *request, size_t bytes) {
        sd_bus *bus = sd_bus_message_get_bus(request);
        const char *sender = sd_bus_message_get_sender(request);
        const Client *client = bus == service->bus && sender ? manager_find_client(service->manager, sender) : NULL;

        private_sent(service, bus, bytes);
        if (client)
                unread_add(service, client, bytes);
        else
                client = private_client(service, bus);
        if (client)
                turns_charge(service, client, bytes);
}

bool unread_takes_signals(const Service *service, const Client *client) {
        const Peer *peer = client->peer;
        Excess excess;

        return !peer ||
               (peer->unread <= SIGNALS_MAX && (peer->unread <= FEW || !has_too_much(service, client, &excess)));
}

/* Whether one more message of so many bytes may be held */
static bool has_room(const Service *service, const Client *client, size_t size) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        uint64_t users = 0, all = 0;
        const Client *other;
        unsigned n = 0;

        TAILQ_FOREACH(other, &service->manager->clients, link) {
                const Peer *peer = other->peer;

                if (!peer)
                        continue;
                all += peer->held_bytes;
                users += other->uid == client->uid ? peer->held_bytes : 0;
                n += other->uid == client->uid ? peer->n_held : 0;
        }

        return n < HELD_PER_USER_MAX && (users == 0 || users + size <= limits->queued_bytes_per_user) &&
               (all == 0 || all + size <= limits->queued_bytes);
}

int unread_takes_calls(Service *service, sd_bus_message *message, const Client *client, sd_bus_error *error) {
        Peer *peer = client->peer;
        Excess excess;
        size_t size;
        int r;

        if (!has_too_much(service, client, &excess))
                return 0;

        r = message_size(message, &size);
        if (r < 0)
                return r;
        if (peer->n_held == ELEMENTSOF(peer->held) || !has_room(service, client, size))
                return refuse(error, &excess);

        /* It may have read all of it since. */
        ask_user(service, client);
        if (!peer->statistics && !peer->again)
                return 0;

        if (peer->n_held == 0)
                peer->held_since = service_now(service);
        peer->held[peer->n_held++] = sd_bus_message_ref(message);
        peer->held_bytes += size;
        service->n_unproven++;
        return 1;
}

void unread_forget(Service *service, const Client *client) {
        Peer *peer = client->peer;

        set_unread(peer, 0);
        peer->statistics = sd_bus_slot_unref(peer->statistics);
        peer->again = sd_event_source_disable_unref(peer->again);
        for (; peer->n_held > 0; service->n_unproven--) {
                sd_bus_message *message = peer->held[--peer->n_held];

                (void)sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The service is leaving");
                sd_bus_message_unref(message);
        }
}
