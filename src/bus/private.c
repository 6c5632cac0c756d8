/* The private socket: D-Bus without a bus between, for those who call often. Each connection has the same objects, and
 * speaks for the process that opened it, as the socket's credentials say. sd-bus is the server of each; what it leaves
 * open is closed here: who doesn't authenticate, sends half a message or one that is too large, or isn't one of the few
 * that a user may have. */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-id128.h>

#include "base/log.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/private.h"

#define SOCKET_NAME "bus" /* FileDescriptorName= of the socket unit */

#define ACCEPT_MAX 16 /* a turn of the loop */
#define AUTHENTICATE_TIME (10 * USEC_PER_SEC)

#define REFUSED_PAUSE (60 * USEC_PER_SEC) /* between two records of it */

#define FIRST_MESSAGES_MAX 64 /* a turn of the loop */
#define FDS_PER_CONNECTION 3
#define FDS_SHARE 2 /* connections have at most one in so many of the file descriptors there are */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* A connection of a user whose turn it isn't */
typedef struct Arrival {
        TAILQ_ENTRY(Arrival) link;
        int fd;
        uid_t uid;
} Arrival;

static Connection *connection_free(Connection *connection) {
        Service *service;

        if (!connection)
                return NULL;

        service = connection->service;
        TAILQ_REMOVE(&service->connections, connection, link);
        service->n_connections--;
        if (connection->client)
                peers_remove(service, connection->client);
        sd_event_source_disable_unref(connection->bytes_source);
        sd_event_source_disable_unref(connection->timer);
        sd_event_source_disable_unref(connection->connected_source);
        sd_event_source_disable_unref(connection->queue_source);
        sd_bus_close_unref(connection->bus);
        if (connection->heavy || connection->n_sent > 0)
                service_trim(service);
        safe_close(connection->fd);
        safe_close(connection->pidfd);
        free(connection->sent);
        free(connection);
        service_maybe_idle(service);
        return NULL;
}

/* Not at once: this is called from within what would be freed. */
void private_close_soon(Connection *connection, const char *why) {
        if (connection->closing)
                return;

        log_debug("%s: closed: %s", connection->client->name, why);
        connection->closing = true;
        (void)sd_event_source_set_time(connection->timer, 0);
        (void)sd_event_source_set_enabled(connection->timer, SD_EVENT_ONESHOT);
}

/* Who looks too early looks again later: the timer isn't moved with each message. */
void private_check_at(Connection *connection, uint64_t usec) {
        int enabled = SD_EVENT_OFF;
        uint64_t time = 0;

        (void)sd_event_source_get_enabled(connection->timer, &enabled);
        (void)sd_event_source_get_time(connection->timer, &time);
        if (connection->closing || (enabled != SD_EVENT_OFF && time <= usec))
                return;

        (void)sd_event_source_set_time(connection->timer, usec);
        (void)sd_event_source_set_enabled(connection->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Connection *connection = userdata;
        uint64_t now = service_now(connection->service);

        if (!connection->closing && sd_bus_is_ready(connection->bus) <= 0) {
                if (now >= usec_add(connection->accepted, AUTHENTICATE_TIME))
                        private_close_soon(connection, "it doesn't authenticate");
                else
                        private_check_at(connection, usec_add(connection->accepted, AUTHENTICATE_TIME));
        } else if (!connection->closing)
                private_input_check(connection);
        else
                connection_free(connection);

        return 0;
}

static void process_first_messages(Connection *connection);

/* A client may write its first messages without waiting for the end of the authentication. sd-bus has them in its
 * buffer then, and waits for more to come in before it looks there. That is over when it has read from the socket. */
static int on_connected(sd_event_source *source _unused_, void *userdata) {
        Connection *connection = userdata;
        int r = 1;

        for (unsigned i = 0; i < FIRST_MESSAGES_MAX && r > 0 && !connection->at_boundary && !connection->closing; i++)
                r = sd_bus_process(connection->bus, NULL);

        private_input_unseen(connection);
        if (r < 0)
                private_close_soon(connection, strerror(-r));
        else if (r > 0 && !connection->at_boundary && !connection->closing)
                process_first_messages(connection);
        return 0;
}

/* A new source each time: one that is enabled again is ahead of all others of its priority. */
static void process_first_messages(Connection *connection) {
        sd_event_source_disable_unref(connection->connected_source);
        connection->connected_source = NULL;
        if (sd_event_add_defer(connection->service->event, &connection->connected_source, on_connected, connection) < 0)
                private_close_soon(connection, "out of memory");
}

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Connection *connection = userdata;
        const char *destination = sd_bus_message_get_destination(message);
        bool resumed = connection->n_resumed > 0;
        size_t size = connection->size;
        uint8_t type = 0;
        int r;

        (void)sd_bus_message_get_type(message, &type);
        if (sd_bus_message_is_signal(message, "org.freedesktop.DBus.Local", "Disconnected") > 0) {
                private_close_soon(connection, "its client has left");
                return 1;
        }
        if (!connection->connected_source) {
                /* sd-bus itself, which says so first of all */
                private_input_authenticated(connection);
                process_first_messages(connection);
                return 1;
        }

        connection->greeted = true;
        private_input_message(connection);
        if (!private_reads(connection))
                private_close_soon(connection, "its client doesn't read");
        if (connection->closing || type != SD_BUS_MESSAGE_METHOD_CALL)
                return 1;

        if (destination && streq(destination, DBUS_NAME)) {
                r = private_answer_as_bus(connection, message, error);
                return r < 0 ? r : 1;
        }

        r = resumed ? 0 : turns_take(connection->service, message, connection->client, size, error);
        return r != 0 ? r : peers_enter(connection->service, message, connection->client, error);
}

DEFINE_ANSWERED(on_message);

static int read_groups(int fd, Client *client) {
        socklen_t size = 0;

        (void)getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size);
        client->gids = malloc(size + 1);
        if (!client->gids)
                return -ENOMEM;
        if (size > 0 && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, client->gids, &size) < 0)
                return -errno;

        client->n_gids = size / sizeof(gid_t);
        return 0;
}

/* Who opened the connection. The group of the credentials counts as well as the others. */
static int identify(Connection *connection, int fd) {
        socklen_t size = sizeof(struct ucred), pidfd_size = sizeof(connection->pidfd);
        struct ucred credentials;
        gid_t *gids;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return -errno;
        /* Where the kernel knows the process, and has no pidfd for it, it has exited: its number may be another's. */
        if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &connection->pidfd, &pidfd_size) < 0)
                connection->pidfd = errno == ENOPROTOOPT ? pidfd_open(credentials.pid, 0) : -EBADF;

        connection->pid = credentials.pid;
        connection->client->uid = credentials.uid;
        r = read_groups(fd, connection->client);
        if (r < 0)
                return r;

        gids = reallocarray(connection->client->gids, connection->client->n_gids + 1, sizeof(gid_t));
        if (!gids)
                return -ENOMEM;
        gids[connection->client->n_gids++] = credentials.gid;
        connection->client->gids = gids;
        return 0;
}

static unsigned arrivals_of(const Service *service, uid_t uid) {
        const Arrival *arrival;
        unsigned n = 0;

        TAILQ_FOREACH(arrival, &service->arrivals, link)
                n += arrival->uid == uid;

        return n;
}

static unsigned connections_of(const Service *service, uid_t uid) {
        const Connection *connection;
        unsigned n = arrivals_of(service, uid);

        TAILQ_FOREACH(connection, &service->connections, link)
                n += connection->client && connection->client->uid == uid;

        return n;
}

/* Takes fd, also on failure. */
static int start_bus(Connection *connection, int fd) {
        Service *service = connection->service;
        sd_id128_t id;
        int r;

        r = sd_bus_new(&connection->bus);
        if (r >= 0)
                r = sd_bus_set_fd(connection->bus, fd, fd);
        if (r < 0) {
                safe_close(fd);
                return r;
        }

        r = sd_id128_randomize(&id);
        if (r >= 0)
                r = sd_bus_set_server(connection->bus, /* b= */ true, id);
        /* No method takes file descriptors, and sd-bus takes any number of them with a message that doesn't end. */
        if (r >= 0)
                r = sd_bus_negotiate_fds(connection->bus, /* b= */ false);
        if (r >= 0)
                r = sd_bus_set_sender(connection->bus, OWN_NAME); /* by which clients know whose a signal is */
        if (r >= 0)
                r = sd_bus_set_connected_signal(connection->bus, /* b= */ true);
        if (r >= 0)
                r = sd_bus_add_filter(connection->bus, NULL, answered_on_message, connection);
        if (r >= 0)
                r = objects_register(service, connection->bus);
        if (r >= 0)
                r = sd_bus_start(connection->bus);
        if (r >= 0)
                r = private_input_watch(connection);
        if (r >= 0)
                r = sd_bus_attach_event(connection->bus, service->event, SD_EVENT_PRIORITY_NORMAL);
        return r;
}

/* Who isn't let in can't be told: the administrator is, once in a while. */
static void note_limit(Service *service, const char *what, unsigned limit, const char *key) {
        uint64_t now = service_now(service);

        if (service->refused_connection && now < usec_add(service->refused_connection, REFUSED_PAUSE))
                return;

        service->refused_connection = now;
        log_notice("a connection to the private socket was refused: too many %s: the limit is %u (limits.%s in "
                   "mcp-exec.json)",
                   what, limit, key);
}

/* n: the user's connections, with the new one */
static bool has_too_many(Service *service, unsigned n) {
        unsigned limit = service->manager->quota.settings.limits.private_connections_per_user;

        if (n > limit)
                note_limit(service, "connections of one user", limit, "private_connections_per_user");
        return n > limit;
}

/* Takes fd, also on failure. */
static int connection_new(Service *service, int fd) {
        Connection *connection = new0(Connection, 1);
        Client *client;
        char name[40];
        int r;

        if (!connection) {
                safe_close(fd);
                return -ENOMEM;
        }

        *connection = (Connection){ .service = service, .pidfd = -EBADF, .fd = -EBADF };
        TAILQ_INSERT_TAIL(&service->connections, connection, link);
        service->n_connections++;

        /* In the form of a unique name. A bus begins its own with 1. */
        (void)snprintf(name, sizeof(name), ":0.%llu", (unsigned long long)++service->last_connection);
        connection->accepted = service_now(service);
        connection->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        client = connection->client = client_new(name);
        r = connection->fd < 0 ? -errno : !client ? -ENOMEM : identify(connection, fd);
        if (r >= 0 && service->options.user && client->uid != service->uid)
                r = -EPERM;
        if (r >= 0 && has_too_many(service, connections_of(service, client->uid)))
                r = -EUSERS;
        if (r < 0) {
                connection->client = client_free(client);
                safe_close(fd);
        } else {
                r = peers_add(service, client, connection);
                if (r < 0) {
                        connection->client = NULL;
                        safe_close(fd);
                }
        }
        if (r >= 0)
                r = sd_event_add_time(service->event, &connection->timer, CLOCK_MONOTONIC,
                                      usec_add(connection->accepted, AUTHENTICATE_TIME), USEC_PER_SEC, on_timer,
                                      connection);
        if (r >= 0)
                r = sd_event_source_set_priority(connection->timer, PRIVATE_PRIORITY);
        if (r >= 0)
                r = start_bus(connection, fd);
        if (r < 0) {
                connection_free(connection);
                return r;
        }

        turns_charge_connection(service, client);
        log_debug("%s: a connection of uid %u", client->name, (unsigned)client->uid);
        return 0;
}

static void take_arrival(Service *service, Arrival *arrival) {
        int r;

        TAILQ_REMOVE(&service->arrivals, arrival, link);
        service->n_connections--;
        r = connection_new(service, arrival->fd);
        if (r < 0)
                log_debug("a connection was refused: %s", strerror(-r));
        free(arrival);
}

static int take_arrivals_at(Service *service, uint64_t usec);

static int on_rested(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Service *service = userdata;
        uint64_t now = service_now(service), next = USEC_INFINITY;
        Arrival *arrival, *behind;

        /* Each may have those of its user wait again. */
        TAILQ_FOREACH_SAFE(arrival, &service->arrivals, link, behind) {
                uint64_t until = turns_connection_waits(service, arrival->uid);

                if (until > now)
                        next = MIN(next, until);
                else
                        take_arrival(service, arrival);
        }
        return next == USEC_INFINITY ? 0 : take_arrivals_at(service, next);
}

/* Or earlier */
static int take_arrivals_at(Service *service, uint64_t usec) {
        sd_event_source *timer = service->arrivals_timer;
        int enabled = SD_EVENT_OFF;
        uint64_t time = 0;

        if (!timer)
                return sd_event_add_time(service->event, &service->arrivals_timer, CLOCK_MONOTONIC, usec, 1, on_rested,
                                         service);

        (void)sd_event_source_get_enabled(timer, &enabled);
        (void)sd_event_source_get_time(timer, &time);
        if (enabled == SD_EVENT_OFF || time > usec)
                (void)sd_event_source_set_time(timer, usec);
        return sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

/* 0: it waits, and fd is taken; -EALREADY: it is its turn */
static int wait_for_turn(Service *service, int fd) {
        socklen_t size = sizeof(struct ucred);
        struct ucred credentials;
        Arrival *arrival;
        uint64_t until;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return -errno;

        until = turns_connection_waits(service, credentials.uid);
        if (until <= service_now(service) && arrivals_of(service, credentials.uid) == 0)
                return -EALREADY;
        if (has_too_many(service, connections_of(service, credentials.uid) + 1))
                return -EUSERS;

        r = take_arrivals_at(service, until);
        if (r < 0)
                return r;

        arrival = new0(Arrival, 1);
        if (!arrival)
                return -ENOMEM;

        *arrival = (Arrival){ .fd = fd, .uid = credentials.uid };
        TAILQ_INSERT_TAIL(&service->arrivals, arrival, link);
        service->n_connections++;
        return 0;
}

/* Others need file descriptors as well: workers have three. */
static unsigned connections_max(const Service *service) {
        struct rlimit limit = { .rlim_cur = RLIM_INFINITY };

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        return MIN(service->manager->quota.settings.limits.private_connections,
                   limit.rlim_cur / FDS_SHARE / FDS_PER_CONNECTION);
}

/* Where no file descriptor is left, connections are turned away with the one that is kept for this: they would wake the
 * loop for ever otherwise. */
static void turn_away(Service *service, int fd) {
        service->reserve_fd = safe_close(service->reserve_fd);
        safe_close(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
        service->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int on_connection(sd_event_source *source _unused_, int fd, uint32_t events _unused_, void *userdata) {
        Service *service = userdata;

        for (unsigned i = 0; i < ACCEPT_MAX; i++) {
                int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

                if (accepted < 0) {
                        if (errno == EMFILE || errno == ENFILE)
                                turn_away(service, fd);
                        return 0;
                }

                if (service->n_connections >= connections_max(service)) {
                        note_limit(service, "connections", connections_max(service), "private_connections");
                        safe_close(accepted);
                        continue;
                }
                r = wait_for_turn(service, accepted);
                if (r == -EALREADY)
                        r = connection_new(service, accepted);
                else if (r < 0)
                        safe_close(accepted);
                if (r < 0)
                        log_debug("a connection was refused: %s", strerror(-r));
        }

        return 0;
}

static int listen_on(Service *service, int fd) {
        int flags = fcntl(fd, F_GETFL), r;

        if (service->listen_source)
                return -EEXIST;
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;

        r = sd_event_add_io(service->event, &service->listen_source, fd, EPOLLIN, on_connection, service);
        if (r >= 0)
                r = sd_event_source_set_io_fd_own(service->listen_source, true);
        if (r >= 0)
                service->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return r;
}

int private_listen(Service *service) {
        char **names = NULL;
        int n, r = 0;

        n = sd_listen_fds_with_names(/* unset_environment= */ true, &names);
        for (int i = 0; i < n; i++) {
                int fd = SD_LISTEN_FDS_START + i;

                r = streq(names[i], SOCKET_NAME) && sd_is_socket_unix(fd, SOCK_STREAM, /* listening= */ 1, NULL, 0) > 0
                            ? listen_on(service, fd)
                            : -ENOTSOCK;
                if (r < 0) {
                        log_warning("the file descriptor named %s can't be served: %s", names[i], strerror(-r));
                        safe_close(fd);
                }
        }
        strings_free(names);
        return n < 0 ? n : 0;
}

void private_pause(Service *service) {
        Arrival *arrival, *next;

        if (service->listen_source)
                (void)sd_event_source_set_enabled(service->listen_source, SD_EVENT_OFF);
        TAILQ_FOREACH_SAFE(arrival, &service->arrivals, link, next)
                take_arrival(service, arrival);
}

void private_done(Service *service) {
        Connection *connection, *next;
        Arrival *arrival;

        while ((arrival = TAILQ_FIRST(&service->arrivals))) {
                TAILQ_REMOVE(&service->arrivals, arrival, link);
                safe_close(arrival->fd);
                free(arrival);
        }
        service->arrivals_timer = sd_event_source_disable_unref(service->arrivals_timer);
        TAILQ_FOREACH_SAFE(connection, &service->connections, link, next)
                connection_free(connection);
        service->listen_source = sd_event_source_disable_unref(service->listen_source);
        service->reserve_fd = safe_close(service->reserve_fd);
}

static Connection *find_connection(const Service *service, const sd_bus *bus) {
        Connection *connection;

        TAILQ_FOREACH(connection, &service->connections, link)
                if (connection->bus == bus)
                        return connection;

        return NULL;
}

const Client *private_client(const Service *service, const sd_bus *bus) {
        const Connection *connection = find_connection(service, bus);

        return connection ? connection->client : NULL;
}

bool private_reading_paused(const Connection *connection) {
        return !sd_bus_get_event(connection->bus);
}

/* Of the loop it is only its reading that matters: what is written waits for a moment, if the socket is full. */
void private_pause_reading(Connection *connection, bool pause) {
        bool paused = private_reading_paused(connection);
        int r = 0;

        if (pause && !paused)
                r = sd_bus_detach_event(connection->bus);
        else if (!pause && paused) {
                r = sd_bus_attach_event(connection->bus, connection->service->event, SD_EVENT_PRIORITY_NORMAL);
                private_input_resumed(connection);
        }
        if (r < 0)
                private_close_soon(connection, strerror(-r));
}

void private_resumed(Service *service, sd_bus *bus) {
        Connection *connection = find_connection(service, bus);

        if (connection)
                connection->n_resumed++;
}

void private_process(Service *service, sd_bus *bus) {
        Connection *connection = find_connection(service, bus);

        if (connection)
                private_input_process(connection);
}
