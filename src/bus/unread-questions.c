/* How much clients on the bus haven't read: questions to the bus, or to them, and what follows for broadcasts. */

#include "base/log.h"
#include "bus/message-size.h"
#include "bus/unread.h"

#define ASK_FROM ((uint64_t)4 << 20)    /* bytes that may wait for one, before which it isn't asked */
#define PAUSE_OF_ALL (USEC_PER_SEC / 2) /* between two questions about all that have more than a few */

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
        if (bytes < peer->on_bus)
                peer->read_at = service_now(peer->service);
        peer->on_bus = bytes;
        peer->descriptors_before = 0;
        unread_set(peer, bytes + peer->since_asked + peer->answer_bytes);
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
        unread_decide(service, client);
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
        unread_decide(service, client);
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
        peer->descriptors_before += peer->descriptors_since;
        peer->descriptors_since = 0;
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

void unread_ask_user(Service *service, const Client *client) {
        if (unread_is_much(service))
                ask_all(service);
        ask(service, client);
}

void unread_add(Service *service, const Client *client, size_t bytes) {
        Peer *peer = client->peer;

        if (!peer || peer->connection || service->asks == ASKS_NOTHING)
                return;

        unread_set(peer, peer->unread + bytes);
        peer->since_asked += bytes;
        if (peer->unread > ASK_FROM)
                ask(service, client);
        if (unread_is_much(service)) {
                if (peer->unread > FEW)
                        ask(service, client);
                ask_all(service);
        }
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
        if (service->broadcasts.bytes > MIN(LITTLE, broadcasts_max(service) / 2))
                ask_own(service);
}
