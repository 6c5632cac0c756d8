/* Who calls: asked of the bus once per connection, without waiting for it, and kept until the connection goes. */

#include "base/log.h"
#include "bus/errors.h"
#include "bus/service.h"

#define PENDING_MAX 64  /* messages of one connection that wait to learn whose they are */
#define UNKNOWN_MAX 256 /* connections of which that isn't known yet */

/* A connection that has called and isn't known yet */
typedef struct Peer {
        TAILQ_ENTRY(Peer) link;
        Service *service;
        char *name;
        sd_bus_slot *slot;
        sd_bus_message *pending[PENDING_MAX];
        unsigned n_pending;
} Peer;

static Peer *peer_free(Peer *peer) {
        TAILQ_REMOVE(&peer->service->unknown_peers, peer, link);
        peer->service->n_unknown--;
        for (unsigned i = 0; i < peer->n_pending; i++)
                sd_bus_message_unref(peer->pending[i]);
        sd_bus_slot_unref(peer->slot);
        free(peer->name);
        free(peer);
        return NULL;
}

static int read_credentials(sd_bus_message *message, Client *client) {
        const char *key;
        const void *data;
        size_t size;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &key);
                if (r < 0)
                        return r;

                if (streq(key, "UnixUserID")) {
                        r = sd_bus_message_read(message, "v", "u", &client->uid);
                        if (r < 0)
                                return r;
                } else if (streq(key, "UnixGroupIDs")) {
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
                        r = sd_bus_message_exit_container(message);
                        if (r < 0)
                                return r;
                } else {
                        r = sd_bus_message_skip(message, "v");
                        if (r < 0)
                                return r;
                }

                r = sd_bus_message_exit_container(message);
                if (r < 0)
                        return r;
        }

        return r < 0 ? r : client->uid == (uid_t)-1 ? -ENODATA : 0;
}

static void refuse_pending(Peer *peer, const char *why) {
        for (unsigned i = 0; i < peer->n_pending; i++)
                (void)sd_bus_reply_method_errorf(peer->pending[i], SD_BUS_ERROR_ACCESS_DENIED,
                                                 "The bus doesn't tell who calls: %s", why);
}

static int on_credentials(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Peer *peer = userdata;
        Service *service = peer->service;
        Client *client = NULL;
        int r;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                /* It has left: its calls were never started, and nobody waits for their answers. */
                refuse_pending(peer, sd_bus_message_get_error(reply)->message ?: "");
                goto finish;
        }

        client = client_new(peer->name);
        r = client ? read_credentials(reply, client) : -ENOMEM;
        if (r < 0) {
                refuse_pending(peer, strerror(-r));
                client_free(client);
                goto finish;
        }

        TAILQ_INSERT_HEAD(&service->manager->clients, client, link);
        for (unsigned i = 0; i < peer->n_pending; i++) {
                r = sd_bus_message_rewind(peer->pending[i], true);
                if (r >= 0)
                        r = sd_bus_enqueue_for_read(service->bus, peer->pending[i]);
                if (r < 0)
                        (void)sd_bus_reply_method_errno(peer->pending[i], r, NULL);
        }

finish:
        peer_free(peer);
        service_maybe_idle(service);
        return 0;
}

int peers_identify(Service *service, sd_bus_message *message, Client **ret, sd_bus_error *error) {
        const char *name = sd_bus_message_get_sender(message);
        Client *client;
        Peer *peer;
        int r;

        if (!name)
                return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "The message has no sender");

        client = manager_find_client(service->manager, name);
        if (client) {
                /* Those who call often are found first. */
                TAILQ_REMOVE(&service->manager->clients, client, link);
                TAILQ_INSERT_HEAD(&service->manager->clients, client, link);
                *ret = client;
                return 1;
        }

        TAILQ_FOREACH(peer, &service->unknown_peers, link)
                if (streq(peer->name, name))
                        break;

        if (!peer) {
                if (service->n_unknown >= UNKNOWN_MAX)
                        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                                 "Too many new connections call at once: the limit is %u", UNKNOWN_MAX);

                peer = new0(Peer, 1);
                if (!peer)
                        return -ENOMEM;
                peer->service = service;
                TAILQ_INSERT_TAIL(&service->unknown_peers, peer, link);
                service->n_unknown++;

                peer->name = strdup(name);
                r = peer->name ? sd_bus_call_method_async(service->bus, &peer->slot, "org.freedesktop.DBus",
                                                          "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                                          "GetConnectionCredentials", on_credentials, peer, "s", name)
                               : -ENOMEM;
                if (r < 0) {
                        peer_free(peer);
                        return r;
                }
        }

        if (peer->n_pending >= PENDING_MAX)
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "Too many calls of this connection wait for its first: the limit is %u",
                                         PENDING_MAX);

        peer->pending[peer->n_pending++] = sd_bus_message_ref(message);
        return 0;
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

int peers_authorize(Service *service, const Client *client, Action action, const char *server, sd_bus_error *error) {
        const Server *found = server ? manager_find_server(service->manager, server) : NULL;

        if (client->uid == service->uid || (client->uid == 0 && !service->options.user))
                return 0;

        if (service->options.user)
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                         "This service belongs to the user with uid %u", (unsigned)service->uid);

        if (action == ACTION_CALL && found && in_access_list(found->config, client))
                return 0;

        return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED, "The user with uid %u isn't allowed to %s%s",
                                 (unsigned)client->uid, action == ACTION_CALL ? "call server " : "manage this service",
                                 action == ACTION_CALL && server ? server : "");
}

static int on_name_lost(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        Service *service = userdata;
        const char *name, *old, *new;
        Client *client;

        if (sd_bus_message_read(message, "sss", &name, &old, &new) < 0 || *new || name[0] != ':')
                return 0;

        client = manager_find_client(service->manager, name);
        if (client) {
                log_debug("%s has left the bus", name);
                manager_client_gone(service->manager, client);
                service_maybe_idle(service);
        }

        return 0;
}

int peers_watch(Service *service) {
        return sd_bus_add_match(service->bus, NULL,
                                "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
                                "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg2=''",
                                on_name_lost, service);
}

void peers_done(Service *service) {
        Peer *peer;

        while ((peer = TAILQ_FIRST(&service->unknown_peers))) {
                refuse_pending(peer, "the service is leaving");
                peer_free(peer);
        }
}
