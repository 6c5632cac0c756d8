/* Who calls, on the bus: asked of it once per connection, without waiting for it, and kept until the connection goes.
 */

#include "bus/peers.h"

#include "base/log.h"
#include "broker/job.h"
#include "bus/errors.h"
#include "bus/message-size.h"

#define CALLS_UNCHECKED 8  /* under way, up to which the descriptors that come along aren't looked at */
#define OBJECTS_SIZE 16384 /* bytes that an answer about objects is taken for: some have more, most less */

/* A connection that has called and isn't known yet */
typedef struct Stranger {
        TAILQ_ENTRY(Stranger) link;
        Service *service;
        char *name;
        sd_bus_slot *slot;
        sd_bus_message **pending; /* that wait to learn whose they are */
        unsigned n_pending;
        size_t bytes; /* of these */
} Stranger;

static Stranger *stranger_free(Stranger *stranger) {
        TAILQ_REMOVE(&stranger->service->strangers, stranger, link);
        stranger->service->n_strangers--;
        for (unsigned i = 0; i < stranger->n_pending; i++)
                sd_bus_message_unref(stranger->pending[i]);
        sd_bus_slot_unref(stranger->slot);
        free(stranger->pending);
        free(stranger->name);
        free(stranger);
        return NULL;
}

int peers_add(Service *service, Client *client, Connection *connection) {
        Peer *peer = new0(Peer, 1);

        if (!peer) {
                client_free(client);
                return -ENOMEM;
        }

        peer->service = service;
        peer->connection = connection;
        TAILQ_INIT(&peer->verdicts);
        TAILQ_INIT(&peer->answers);
        TAILQ_INIT(&peer->held);
        client->peer = peer;
        if (turns_add(service, client) < 0) {
                client->peer = NULL;
                free(peer);
                client_free(client);
                return -ENOMEM;
        }

        TAILQ_INSERT_HEAD(&service->manager->clients, client, link);
        return 0;
}

static void forget(Service *service, Client *client, bool answer) {
        Peer *peer = client->peer;

        authorize_forget(service, client);
        if (peer)
                turns_remove(service, client, answer);
        if (peer && peer->connection)
                peer->connection->client = NULL;
        if (peer)
                unread_forget(service, client);
        client->peer = NULL;
        free(peer);
        if (service->caller == client)
                service->caller = NULL;
}

void peers_remove(Service *service, Client *client) {
        log_debug("%s has left", client->name);
        forget(service, client, /* answer= */ false);
        manager_client_gone(service->manager, client);
        service_maybe_idle(service);
}

sd_bus *peers_bus(const Service *service, const Client *client) {
        const Peer *peer = client->peer;

        return !peer ? NULL : peer->connection ? peer->connection->bus : service->bus;
}

int peers_process_queue(Service *service, sd_event_source **source, sd_event_handler_t handler, void *userdata) {
        int enabled = SD_EVENT_OFF;

        if (*source)
                (void)sd_event_source_get_enabled(*source, &enabled);
        if (enabled != SD_EVENT_OFF)
                return 0;

        /* A new one each time: one that is enabled again is ahead of all others of its priority. */
        *source = sd_event_source_disable_unref(*source);
        return sd_event_add_defer(service->event, source, handler, userdata);
}

static int on_queue(sd_event_source *source _unused_, void *userdata) {
        Service *service = userdata;
        uint64_t n = 0;
        int r;

        r = sd_bus_process(service->bus, NULL);
        (void)sd_bus_get_n_queued_read(service->bus, &n);
        if (r >= 0 && n > 0)
                r = peers_process_queue(service, &service->queue_source, on_queue, service);
        return r < 0 ? sd_event_exit(service->event, r) : 0;
}

static int enqueue(Service *service, sd_bus *bus, sd_bus_message *message) {
        int r = sd_bus_message_rewind(message, true);

        if (r >= 0)
                r = sd_bus_enqueue_for_read(bus, message);
        if (r < 0)
                return r;

        if (bus == service->bus)
                service->n_resumed++;
        else
                private_resumed(service, bus);
        return 0;
}

int peers_resume(Service *service, sd_bus_message *message) {
        sd_bus *bus = sd_bus_message_get_bus(message);
        int r = enqueue(service, bus, message);

        if (r >= 0 && bus == service->bus)
                (void)peers_process_queue(service, &service->queue_source, on_queue, service);
        return r;
}

int peers_dispatch(Service *service, sd_bus_message *message) {
        sd_bus *bus = sd_bus_message_get_bus(message);
        uint64_t n = 1;
        int r = enqueue(service, bus, message);

        if (r < 0)
                return r;

        /* It may have something to write, and such, before it comes to that. */
        for (unsigned i = 0; r >= 0 && n > 0 && i < 4; i++) {
                if (bus == service->bus)
                        r = sd_bus_process(bus, NULL);
                else
                        private_process(service, bus);
                (void)sd_bus_get_n_queued_read(bus, &n);
        }
        if (r < 0)
                (void)sd_event_exit(service->event, r);
        else if (n > 0 && bus == service->bus)
                (void)peers_process_queue(service, &service->queue_source, on_queue, service);
        return 0;
}

static int read_groups(sd_bus_message *message, Client *client) {
        const void *data;
        size_t size;
        int r;

        r = sd_bus_message_enter_container(message, 'v', "au");
        if (r < 0)
                return r;
        r = sd_bus_message_read_array(message, 'u', &data, &size);
        if (r < 0)
                return r;

        free(client->gids);
        client->gids = malloc(size + 1);
        if (!client->gids)
                return -ENOMEM;
        memcpy(client->gids, data, size);
        client->n_gids = size / sizeof(gid_t);
        return sd_bus_message_exit_container(message);
}

static int read_credentials(sd_bus_message *message, Client *client) {
        const char *key;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &key);
                if (r >= 0)
                        r = streq(key, "UnixUserID")     ? sd_bus_message_read(message, "v", "u", &client->uid)
                            : streq(key, "UnixGroupIDs") ? read_groups(message, client)
                                                         : sd_bus_message_skip(message, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
                if (r < 0)
                        return r;
        }

        return r < 0 ? r : client->uid == (uid_t)-1 ? -ENODATA : 0;
}

static void refuse_pending(Stranger *stranger, const char *why) {
        for (unsigned i = 0; i < stranger->n_pending; i++)
                bus_answered(stranger->pending[i],
                             sd_bus_reply_method_errorf(stranger->pending[i], SD_BUS_ERROR_ACCESS_DENIED,
                                                        "The bus doesn't tell who calls: %s", why));
}

static int on_credentials(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Stranger *stranger = userdata;
        Service *service = stranger->service;
        Client *client = NULL;
        int r;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                /* It has left: its calls were never started, and nobody waits for their answers. */
                refuse_pending(stranger, sd_bus_message_get_error(reply)->message ?: "");
                jobs_client_gone(service->manager, stranger->name);
                goto finish;
        }

        client = client_new(stranger->name);
        r = client ? read_credentials(reply, client) : -ENOMEM;
        if (r >= 0)
                r = peers_add(service, TAKE_PTR(client), /* connection= */ NULL);
        client_free(client);
        if (r < 0) {
                refuse_pending(stranger, strerror(-r));
                goto finish;
        }

        /* They go on in turn with those of others. */
        client = manager_find_client(service->manager, stranger->name);
        turns_charge_connection(service, client);
        for (unsigned i = 0; i < stranger->n_pending; i++) {
                sd_bus_error refusal = SD_BUS_ERROR_NULL;

                r = turns_wait(service, stranger->pending[i], client, &refusal);
                if (r < 0)
                        bus_answered(stranger->pending[i],
                                     sd_bus_reply_method_errno(stranger->pending[i], r, &refusal));
                sd_bus_error_free(&refusal);
        }

finish:
        stranger_free(stranger);
        service_maybe_idle(service);
        return 0;
}

/* The messages of one may take what one user's calls may, and those of all as much as all calls. The first one is as
 * large as it is. Whose they are isn't known: they are counted beside those that wait of users. */
static int check_room(const Service *service, const Stranger *stranger, size_t bytes, Failure *failure) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        const Stranger *other;
        uint64_t n_all = 0, all = 0;

        TAILQ_FOREACH(other, &service->strangers, link) {
                n_all += other->n_pending;
                all += other->bytes;
        }

        if (stranger->n_pending >= limits->calls_per_new_connection)
                return quota_exceeded(failure, "calls of this connection wait to learn whose it is",
                                      limits->calls_per_new_connection, "calls_per_new_connection");
        if (n_all >= limits->waiting_messages)
                return quota_exceeded(failure, "calls of new connections are waiting", limits->waiting_messages,
                                      "waiting_messages");
        if (stranger->bytes > 0 && stranger->bytes + bytes > limits->queued_bytes_per_user)
                return quota_exceeded(failure, "bytes of calls of this connection wait to learn whose it is",
                                      limits->queued_bytes_per_user, "queued_bytes_per_user");
        if (all > 0 && all + bytes > limits->queued_bytes)
                return quota_exceeded(failure, "bytes of calls of new connections are waiting", limits->queued_bytes,
                                      "queued_bytes");
        return 0;
}

static int stranger_hold(Stranger *stranger, sd_bus_message *message, size_t bytes) {
        sd_bus_message **pending = reallocarray(stranger->pending, stranger->n_pending + 1, sizeof(*pending));

        if (!pending)
                return -ENOMEM;

        stranger->pending = pending;
        stranger->pending[stranger->n_pending++] = sd_bus_message_ref(message);
        stranger->bytes += bytes;
        return 1;
}

static Stranger *find_stranger(Service *service, const char *name) {
        Stranger *stranger;

        TAILQ_FOREACH(stranger, &service->strangers, link)
                if (streq(stranger->name, name))
                        return stranger;

        return NULL;
}

static int stranger_new(Service *service, const char *name, Stranger **ret) {
        Stranger *stranger = new0(Stranger, 1);
        int r;

        if (!stranger)
                return -ENOMEM;
        stranger->service = service;
        TAILQ_INSERT_TAIL(&service->strangers, stranger, link);
        service->n_strangers++;

        stranger->name = strdup(name);
        r = stranger->name ? sd_bus_call_method_async(service->bus, &stranger->slot, "org.freedesktop.DBus",
                                                      "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                                      "GetConnectionCredentials", on_credentials, stranger, "s", name)
                           : -ENOMEM;
        if (r < 0) {
                stranger_free(stranger);
                return r;
        }

        *ret = stranger;
        return 0;
}

void peers_meet(Service *service, const char *name) {
        Stranger *stranger;

        if (service->n_strangers < service->manager->quota.settings.limits.new_connections &&
            !find_stranger(service, name))
                (void)stranger_new(service, name, &stranger);
}

static int hold(Service *service, sd_bus_message *message, const char *name, sd_bus_error *error) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        Failure failure = {};
        Stranger *stranger;
        size_t bytes;
        int r;

        r = message_size(message, &bytes, error);
        if (r < 0)
                return r;

        stranger = find_stranger(service, name);
        if (!stranger && service->n_strangers >= limits->new_connections) {
                (void)quota_exceeded(&failure, "new connections call at once", limits->new_connections,
                                     "new_connections");
                return bus_error_set_failure(error, &failure);
        }
        if (!stranger) {
                r = stranger_new(service, name, &stranger);
                if (r < 0)
                        return r;
        }

        r = check_room(service, stranger, bytes, &failure);
        return r < 0 ? bus_error_set_failure(error, &failure) : stranger_hold(stranger, message, bytes);
}

/* What shows objects, and with them perhaps those of other users */
static bool looks_at_objects(sd_bus_message *message) {
        const char *interface = sd_bus_message_get_interface(message);

        /* sd-bus serves no call that doesn't name its interface. */
        return interface && (streq(interface, "org.freedesktop.DBus.Properties") ||
                             streq(interface, "org.freedesktop.DBus.ObjectManager") ||
                             streq(interface, "org.freedesktop.DBus.Introspectable"));
}

int peers_enter(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error) {
        Connection *connection = ((Peer *)client->peer)->connection;
        int r;

        service->caller = client;
        authorize_enter(service, message);
        if (service->options.user && client->uid != service->uid)
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                         "This service belongs to the user with uid %u", (unsigned)service->uid);

        r = connection ? private_takes_calls(connection, error) : unread_takes_calls(service, message, client, error);
        if (r != 0)
                return r;

        /* A call keeps its message. */
        if (service->manager->quota.counts.calls >= CALLS_UNCHECKED) {
                r = message_check_descriptors(error);
                if (r < 0)
                        return r;
        }

        /* Also errors, which nothing else counts */
        unread_add(service, client, looks_at_objects(message) ? OBJECTS_SIZE : UNREAD_MESSAGE);
        return looks_at_objects(message) && authorize_view(service, message) == 0 ? 1 : 0;
}

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        const char *name = sd_bus_message_get_sender(message);
        uint8_t type = 0;
        bool resumed = service->n_resumed > 0;
        Client *client;
        size_t size;
        int r;

        service->n_resumed -= resumed;
        size = resumed ? 0 : turns_count(service);
        (void)sd_bus_message_get_type(message, &type);
        if (type != SD_BUS_MESSAGE_METHOD_CALL)
                return 0;
        if (!name)
                return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "The message has no sender");

        client = manager_find_client(service->manager, name);
        if (!client)
                return hold(service, message, name, error);

        /* Those who call often are found first. */
        TAILQ_REMOVE(&service->manager->clients, client, link);
        TAILQ_INSERT_HEAD(&service->manager->clients, client, link);
        r = resumed ? 0 : turns_take(service, message, client, size, error);
        return r != 0 ? r : peers_enter(service, message, client, error);
}

DEFINE_ANSWERED(on_message);

static int on_name_lost(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        Service *service = userdata;
        const char *name, *old, *new, *sender = sd_bus_message_get_sender(message);
        Client *client;

        /* On a bus anybody can send a signal to us alone, and sd-bus takes it for what a match with a well-known sender
         * asks for. */
        if (!sender || !streq(sender, "org.freedesktop.DBus"))
                return 0;
        if (sd_bus_message_read(message, "sss", &name, &old, &new) < 0 || *new || name[0] != ':')
                return 0;

        client = manager_find_client(service->manager, name);
        if (client)
                peers_remove(service, client);

        return 0;
}

int peers_watch(Service *service) {
        int r;

        r = sd_bus_add_filter(service->bus, NULL, answered_on_message, service);
        if (r < 0)
                return r;

        return sd_bus_add_match(service->bus, NULL,
                                "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
                                "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg2=''",
                                on_name_lost, service);
}

void peers_done(Service *service) {
        Stranger *stranger;
        Client *client;

        while ((stranger = TAILQ_FIRST(&service->strangers))) {
                refuse_pending(stranger, "the service is leaving");
                stranger_free(stranger);
        }

        authorize_refuse(service);
        TAILQ_FOREACH(client, &service->manager->clients, link)
                forget(service, client, /* answer= */ true);
}
