/* What clients on the bus haven't read. dbus-daemon keeps it for them, and stops reading from the service where there
 * is too much (127 MiB by default): every caller would wait for the one who doesn't read. It is asked how much that is.
 * Other buses don't tell; dbus-broker has limits of its own. */

#include "base/log.h"
#include "bus/errors.h"
#include "bus/message-size.h"
#include "bus/peers.h"

#define ASK_FROM ((uint64_t)1 << 20) /* bytes that may wait, before which it isn't asked */
#define CLIENT_MAX ((uint64_t)16 << 20)
#define USER_MAX ((uint64_t)32 << 20) /* of all connections of one user that have more than ASK_FROM */
#define ALL_MAX ((uint64_t)64 << 20)
#define PATIENCE (5 * USEC_PER_SEC) /* calls are held for so long: who sends many at a time reads a moment later */
#define PAUSE (USEC_PER_SEC / 20)

static uint64_t unread(const Peer *peer) {
        return peer->sent - peer->taken;
}

static bool has_too_much(const Service *service, const Client *client, uint64_t *ret_bytes, uint64_t *ret_limit) {
        uint64_t own = unread(client->peer), users = 0, all = 0;
        const Client *other;

        *ret_bytes = *ret_limit = 0;
        if (own <= ASK_FROM)
                return false;

        TAILQ_FOREACH(other, &service->manager->clients, link) {
                uint64_t bytes = other->peer ? unread(other->peer) : 0;

                if (bytes <= ASK_FROM)
                        continue;
                users += other->uid == client->uid ? bytes : 0;
                all += bytes;
        }

        *ret_bytes = own > CLIENT_MAX ? own : users > USER_MAX ? users : all;
        *ret_limit = own > CLIENT_MAX ? CLIENT_MAX : users > USER_MAX ? USER_MAX : ALL_MAX;
        return *ret_bytes > *ret_limit;
}

static int refuse(sd_bus_error *error, uint64_t bytes, uint64_t limit) {
        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                 "Answers of %llu bytes wait on the bus to be read by %s: the limit is %llu",
                                 (unsigned long long)bytes,
                                 limit == CLIENT_MAX ? "this connection"
                                 : limit == USER_MAX ? "this user's connections"
                                                     : "all connections",
                                 (unsigned long long)limit);
}

static void ask(Service *service, const Client *client);

static int on_pause(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        const Client *client = userdata;
        Peer *peer = client->peer;

        peer->again = sd_event_source_disable_unref(peer->again);
        ask(peer->service, client);
        return 0;
}

/* What waited to know how much it is goes on, waits for its caller to read, or is refused. */
static void decide(Service *service, const Client *client) {
        Peer *peer = client->peer;
        uint64_t bytes, limit;
        bool refused = has_too_much(service, client, &bytes, &limit);

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
                r = refused ? refuse(&error, bytes, limit) : peers_resume(service, message);
                if (r < 0)
                        (void)sd_bus_reply_method_errno(message, r, &error);
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

        /* The bus takes messages in their order: what was sent before the question it has taken. */
        peer->taken = peer->asked - MIN(outgoing, peer->asked - peer->taken);
        decide(service, client);
        service_maybe_idle(service);
        return 0;
}

static void ask(Service *service, const Client *client) {
        Peer *peer = client->peer;

        if (peer->statistics || peer->again || service->no_statistics)
                return;

        peer->asked = peer->sent;
        if (sd_bus_call_method_async(service->bus, &peer->statistics, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus.Debug.Stats", "GetConnectionStats", on_statistics,
                                     (void *)client, "s", client->name) < 0)
                peer->taken = peer->sent;
}

void unread_add(Service *service, const Client *client, size_t bytes) {
        Peer *peer = client->peer;

        if (!peer || peer->connection)
                return;

        peer->sent += bytes;
        if (service->no_statistics)
                peer->taken = peer->sent;
        else if (unread(peer) > ASK_FROM)
                ask(service, client);
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
        uint64_t bytes, limit;

        return !client->peer || !has_too_much(service, client, &bytes, &limit);
}

int unread_takes_calls(Service *service, sd_bus_message *message, const Client *client, sd_bus_error *error) {
        Peer *peer = client->peer;
        uint64_t bytes, limit;
        size_t size;
        int r;

        if (!has_too_much(service, client, &bytes, &limit))
                return 0;

        r = message_size(message, &size);
        if (r < 0)
                return r;
        if (peer->n_held == ELEMENTSOF(peer->held) ||
            (peer->n_held > 0 &&
             peer->held_bytes + size > service->manager->quota.settings.limits.queued_bytes_per_user))
                return refuse(error, bytes, limit);

        /* It may have read all of it since. */
        ask(service, client);
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

        peer->statistics = sd_bus_slot_unref(peer->statistics);
        peer->again = sd_event_source_disable_unref(peer->again);
        for (; peer->n_held > 0; service->n_unproven--) {
                sd_bus_message *message = peer->held[--peer->n_held];

                (void)sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The service is leaving");
                sd_bus_message_unref(message);
        }
}
