/* How sessions are opened: OpenSession hands out a socket, AttachSession takes the caller's own pipes or sockets. */

#include "broker/session.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "broker/stream.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

#define OPTIONS_MAX 16

/* No option is known yet; one that isn't is an error, so that it can mean something later. */
static int read_options(sd_bus_message *message, sd_bus_error *error) {
        const char *key;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        if (r < 0)
                return r;
        r = sd_bus_message_enter_container(message, 'e', "sv");
        if (r < 0)
                return r;
        if (r == 0)
                return sd_bus_message_exit_container(message);

        r = sd_bus_message_read(message, "s", &key);
        if (r < 0)
                return r;
        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"), "There is no option %s", key);
}

/* There descriptors aren't passed, in neither direction (private.c). */
static int check_connection(const Service *service, sd_bus_error *error) {
        const Peer *peer = service->caller->peer;

        return peer && peer->connection ? sd_bus_error_set(error, BUS_ERROR("InvalidArguments"),
                                                           "The private socket passes no file descriptors: sessions "
                                                           "are opened on the bus")
                                        : 0;
}

/* The server, once the caller may use it: 1; 0: polkit is asked. */
static int enter(Service *service, sd_bus_message *message, const char *name, const char *method, Server **ret,
                 sd_bus_error *error) {
        Question question = { .server = name, .method = method };
        Failure failure = {};
        int r;

        r = manager_get_callable(service->manager, name, ret, &failure);
        if (r >= 0 && (*ret)->config->protocol != SERVER_PROTOCOL_MCP)
                r = failure_set(&failure, FAILURE_INVALID_ARGUMENTS,
                                "Server %s has no sessions: that is for MCP servers, and its protocol is %s", name,
                                server_protocol_to_string((*ret)->config->protocol));
        if (r < 0) {
                authorize_record(service, &question, failure.code);
                return bus_error_set_failure(error, &failure);
        }

        return authorize_use(service, message, *ret, &question, 1, error);
}

int method_open_session(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        _cleanup_(closep) int theirs = -EBADF, input = -EBADF, output = -EBADF;
        Service *service = userdata;
        const char *name, *id;
        Failure failure = {};
        Server *server;
        int ends[2], r;

        r = sd_bus_message_read(message, "s", &name);
        if (r >= 0)
                r = read_options(message, error);
        if (r >= 0)
                r = check_connection(service, error);
        if (r < 0)
                return r;
        r = enter(service, message, name, "OpenSession", &server, error);
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
                                         .servers = &server,
                                         .n_servers = 1,
                                         .input = TAKE_FD(input),
                                         .output = TAKE_FD(output) },
                         &id, &failure);
        if (r < 0)
                return bus_error_set_failure(error, &failure);

        /* Where the descriptor doesn't arrive, the session ends with it. */
        return sd_bus_reply_method_return(message, "h", theirs);
}

int method_attach_session(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        _cleanup_(closep) int own_input = -EBADF, own_output = -EBADF;
        Service *service = userdata;
        const char *name, *id, *unfit;
        Failure failure = {};
        int input, output, r;
        Server *server;

        r = sd_bus_message_read(message, "shh", &name, &input, &output);
        if (r >= 0)
                r = read_options(message, error);
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
        r = enter(service, message, name, "AttachSession", &server, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        own_input = fcntl(input, F_DUPFD_CLOEXEC, 3);
        own_output = fcntl(output, F_DUPFD_CLOEXEC, 3);
        if (own_input < 0 || own_output < 0)
                return -errno;

        r = session_open(service->manager,
                         &(SessionSpec){ .opener = service->caller,
                                         .attached = true,
                                         .servers = &server,
                                         .n_servers = 1,
                                         .input = TAKE_FD(own_input),
                                         .output = TAKE_FD(own_output) },
                         &id, &failure);
        return r < 0 ? bus_error_set_failure(error, &failure) : sd_bus_reply_method_return(message, "s", id);
}
