/* How sessions are opened: OpenSession hands out a socket, AttachSession takes the caller's own pipes or sockets. */

#include "broker/session.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "broker/stream.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

/* What a caller asks for, and the servers that it gets */
typedef struct Wanted {
        const char *name; /* "": several */
        char **names;     /* owned, as the strings in it are; NULL: all that it may use */
        Server **servers;
        size_t n_servers;
} Wanted;

static void wanted_done(Wanted *wanted) {
        strings_free(wanted->names);
        free(wanted->servers);
}

static int read_option(sd_bus_message *message, const char *key, Wanted *wanted, sd_bus_error *error) {
        if (!streq(key, "servers"))
                return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"), "There is no option %s", key);
        if (*wanted->name || wanted->names)
                return sd_bus_error_set(error, BUS_ERROR("InvalidArguments"),
                                        "The option servers is for a session on several, whose server is \"\"");

        return sd_bus_message_read_strv(message, &wanted->names);
}

/* An option that isn't known is an error, so that it can mean something later. */
static int read_options(sd_bus_message *message, Wanted *wanted, sd_bus_error *error) {
        const char *key;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &key);
                if (r >= 0 && !streq(key, "servers"))
                        return read_option(message, key, wanted, error);
                if (r >= 0)
                        r = sd_bus_message_enter_container(message, 'v', "as");
                if (r == -ENXIO)
                        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"),
                                                 "The option %s has to be an array of strings", key);
                if (r >= 0)
                        r = read_option(message, key, wanted, error);
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }

        return r < 0 ? r : sd_bus_message_exit_container(message);
}

/* There descriptors aren't passed, in neither direction (private.c). */
static int check_connection(const Service *service, sd_bus_error *error) {
        const Peer *peer = service->caller->peer;

        return peer && peer->connection ? sd_bus_error_set(error, BUS_ERROR("InvalidArguments"),
                                                           "The private socket passes no file descriptors: sessions "
                                                           "are opened on the bus")
                                        : 0;
}

static int find(Service *service, const char *name, const char *method, Server **ret, sd_bus_error *error) {
        Question question = { .server = name, .method = method };
        Failure failure = {};
        int r;

        r = manager_get_callable(service->manager, name, ret, &failure);
        if (r >= 0 && (*ret)->config->protocol != SERVER_PROTOCOL_MCP)
                r = failure_set(&failure, FAILURE_INVALID_ARGUMENTS,
                                "Server %s has no sessions: that is for MCP servers, and its protocol is %s", name,
                                server_protocol_to_string((*ret)->config->protocol));
        if (r >= 0)
                return 0;

        authorize_record(service, &question, failure.code);
        return bus_error_set_failure(error, &failure);
}

static int add(Wanted *wanted, unsigned n_max, Server *server, sd_bus_error *error) {
        for (size_t i = 0; i < wanted->n_servers; i++)
                if (wanted->servers[i] == server)
                        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"), "Server %s is named twice",
                                                 server->config->name);
        if (wanted->n_servers >= n_max)
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "A session can be on %u servers (limits.servers_per_session in "
                                         "mcp-exec.json): name those that are wanted (option servers)",
                                         n_max);

        wanted->servers[wanted->n_servers++] = server;
        return 0;
}

/* The servers, once the caller may use them: 1; 0: polkit is asked. Of all servers those count that it may use without
 * a confirmation. */
static int enter(Service *service, sd_bus_message *message, Wanted *wanted, const char *method, sd_bus_error *error) {
        unsigned n_max = service->manager->quota.settings.limits.servers_per_session;
        Question question = { .server = wanted->name, .method = method };
        Server *server;
        int r = 0;

        wanted->servers = new0(Server *, n_max);
        if (!wanted->servers)
                return -ENOMEM;

        if (*wanted->name) {
                r = find(service, wanted->name, method, &wanted->servers[0], error);
                wanted->n_servers = 1;
                return r < 0 ? r : authorize_use(service, message, wanted->servers[0], &question, 1, error);
        }

        for (char **name = wanted->names; name && *name && r >= 0; name++) {
                r = find(service, *name, method, &server, error);
                if (r >= 0)
                        r = add(wanted, n_max, server, error);
        }
        if (!wanted->names)
                TAILQ_FOREACH(server, &service->manager->servers, link)
                        if (r >= 0 && !server->gone && !server->config->disabled &&
                            server->config->protocol == SERVER_PROTOCOL_MCP)
                                r = add(wanted, n_max, server, error);
        if (r < 0)
                return r;

        return authorize_servers(service, message, wanted->servers, &wanted->n_servers, /* choose= */ !wanted->names,
                                 method, error);
}

int method_open_session(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        _cleanup_(closep) int theirs = -EBADF, input = -EBADF, output = -EBADF;
        _cleanup_(wanted_done) Wanted wanted = {};
        Service *service = userdata;
        Failure failure = {};
        const char *id;
        int ends[2], r;

        r = sd_bus_message_read(message, "s", &wanted.name);
        if (r >= 0)
                r = read_options(message, &wanted, error);
        if (r >= 0)
                r = check_connection(service, error);
        if (r < 0)
                return r;
        r = enter(service, message, &wanted, "OpenSession", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return -errno;
        theirs = ends[0];
        input = ends[1];
        output = fcntl(input, F_DUPFD_CLOEXEC, 3);
        if (output < 0)
                return -errno;

        r = session_open(service->manager,
                         &(SessionSpec){ .opener = service->caller,
                                         .servers = wanted.servers,
                                         .n_servers = wanted.n_servers,
                                         .joined = !*wanted.name,
                                         .all = !*wanted.name && !wanted.names,
                                         .input = TAKE_FD(input),
                                         .output = TAKE_FD(output) },
                         &id, &failure);
        if (r < 0)
                return bus_error_set_failure(error, &failure);

        /* Where the descriptor doesn't arrive, the session ends with it. */
        return peers_reply_fd(service, message, theirs);
}

int method_attach_session(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        _cleanup_(closep) int own_input = -EBADF, own_output = -EBADF;
        _cleanup_(wanted_done) Wanted wanted = {};
        Service *service = userdata;
        const char *id, *unfit;
        Failure failure = {};
        int input, output, r;

        r = sd_bus_message_read(message, "shh", &wanted.name, &input, &output);
        if (r >= 0)
                r = read_options(message, &wanted, error);
        if (r >= 0)
                r = check_connection(service, error);
        if (r < 0)
                return r;

        /* Whoever has the same pipe, or the same socket, can keep it locked in the kernel: a user could hold up the
         * service, and with it everybody. */
        if (service->caller->uid != service->uid && service->caller->uid != 0)
                return sd_bus_error_set(error, BUS_ERROR("InvalidArguments"),
                                        "Another user's pipes can't be attached: use OpenSession, and copy");
        unfit = stream_unfit(input, output);
        if (unfit)
                return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"),
                                         "The session can't be attached, %s: pipes and Unix stream sockets can be",
                                         unfit);
        r = enter(service, message, &wanted, "AttachSession", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        own_input = fcntl(input, F_DUPFD_CLOEXEC, 3);
        own_output = fcntl(output, F_DUPFD_CLOEXEC, 3);
        if (own_input < 0 || own_output < 0)
                return -errno;

        r = session_open(service->manager,
                         &(SessionSpec){ .opener = service->caller,
                                         .attached = true,
                                         .servers = wanted.servers,
                                         .n_servers = wanted.n_servers,
                                         .joined = !*wanted.name,
                                         .all = !*wanted.name && !wanted.names,
                                         .input = TAKE_FD(own_input),
                                         .output = TAKE_FD(own_output) },
                         &id, &failure);
        return r < 0 ? bus_error_set_failure(error, &failure) : sd_bus_reply_method_return(message, "s", id);
}
