/* stdio: a session for the program that started this one. The service takes standard input and output over, so that
 * no process stands between the two; this one stays as long as the session does, because it is what its parent watches.
 * Where the service can't use them, their bytes are copied (copy.c). */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include "bus/errors.h"
#include "mcp-exec/copy.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"
#include "wire/line.h"
#include "wire/mcp.h"

#define REQUEST_MAX ((size_t)256 << 10)
#define REQUEST_PATIENCE (5 * USEC_PER_SEC)

static bool can_hand_over(int fd) {
        struct stat st;

        return fstat(fd, &st) >= 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
}

static int call_for_session(Cli *cli, const char *member, char *servers[], sd_bus_error *error, sd_bus_message **ret) {
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, member);
        bool one = servers[0] && !servers[1];
        int r;

        r = sd_bus_message_append(message, "s", one ? servers[0] : "");
        if (r >= 0 && streq(member, "AttachSession"))
                r = sd_bus_message_append(message, "hh", STDIN_FILENO, STDOUT_FILENO);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "{sv}");
        if (r >= 0 && servers[0] && !one) {
                r = sd_bus_message_open_container(message, 'e', "sv");
                if (r >= 0)
                        r = sd_bus_message_append(message, "s", "servers");
                if (r >= 0)
                        r = sd_bus_message_open_container(message, 'v', "as");
                if (r >= 0)
                        r = sd_bus_message_append_strv(message, servers);
                if (r >= 0)
                        r = sd_bus_message_close_container(message);
                if (r >= 0)
                        r = sd_bus_message_close_container(message);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(message);
        if (r == -EINVAL)
                r = sd_bus_error_set(error, BUS_ERROR("InvalidArguments"), "a server's name is no UTF-8 text");
        else if (r >= 0)
                r = call_and_wait(cli, message, cli->timeout, error, ret);

        sd_bus_message_unref(message);
        return r;
}

/* A session that the service serves on our pipes */
typedef struct Attached {
        const char *service, *id;
        bool closed;
        char *reason;
} Attached;

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        const char *id, *reason, *sender = sd_bus_message_get_sender(message);
        Attached *attached = userdata;

        /* Anybody on the bus may send us signals. */
        if (!sd_bus_message_is_signal(message, BUS_NAME, "SessionClosed") ||
            (attached->service && (!sender || !streq(sender, attached->service))) ||
            sd_bus_message_read(message, "ss", &id, &reason) < 0 || !streq(id, attached->id))
                return 0;

        attached->closed = true;
        free(attached->reason);
        attached->reason = strdup(reason);
        return 1;
}

static int on_service_gone(sd_bus_track *track _unused_, void *userdata) {
        Attached *attached = userdata;

        if (!attached->closed)
                attached->reason = strdup("the service has left or crashed");
        attached->closed = true;
        return 0;
}

/* The other ends have to see it when the service closes what it was given. */
static int drop_standard_streams(void) {
        _cleanup_(closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        return null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 ? 0 : -errno;
}

static int status_wait(Cli *cli, sd_bus_message *reply) {
        Attached attached = { .service = sd_bus_message_get_sender(reply) };
        sd_bus_track *track = NULL;
        int r, status = STATUS_OK;

        r = sd_bus_message_read(reply, "s", &attached.id);
        if (r >= 0)
                r = drop_standard_streams();
        if (r >= 0)
                r = sd_bus_add_filter(cli->bus, NULL, on_message, &attached);
        /* On a private socket the connection's end says it. */
        if (r >= 0 && attached.service) {
                r = sd_bus_track_new(cli->bus, &track, on_service_gone, &attached);
                if (r >= 0)
                        r = sd_bus_track_add_name(track, attached.service);
        }

        while (r >= 0 && !attached.closed) {
                r = sd_bus_process(cli->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(cli->bus, UINT64_MAX);
                if (r == -EINTR)
                        r = 0;
        }

        if (!attached.closed)
                status = fail(STATUS_UNREACHABLE, "the session has ended with the connection to %s: %s", cli->bus_name,
                              strerror(-r));
        else if (attached.reason && *attached.reason)
                status = fail(STATUS_SERVER, "the session was closed: %s", attached.reason);
        sd_bus_track_unref(track);
        free(attached.reason);
        return status;
}

static int status_copy(Cli *cli, sd_bus_message *reply) {
        int fd, r;

        r = sd_bus_message_read(reply, "h", &fd);
        if (r < 0)
                return fail(STATUS_UNREACHABLE, "the service answers OpenSession with something else: %s",
                            strerror(-r));

        /* The socket is all that the session needs. */
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return fail(STATUS_LIMIT, "the session's socket can't be used: %s", strerror(errno));
        cli->bus = sd_bus_flush_close_unref(cli->bus);
        return status_copy_streams(STDIN_FILENO, STDOUT_FILENO, fd);
}

/* The first request's id, if one comes in time */
typedef struct FirstRequest {
        Buffer id;
        bool found;
} FirstRequest;

static void on_line(void *userdata, const char *line, size_t size) {
        FirstRequest *first = userdata;
        McpMessage message;

        if (!first->found && mcp_parse(line, size, JSON_DEPTH_MAX, &message, NULL) >= 0 &&
            message.kind == MCP_REQUEST) {
                must(buffer_append(&first->id, message.id.data, message.id.size));
                first->found = true;
        }
}

static void on_oversized(void *userdata _unused_, const char *piece _unused_, size_t size _unused_,
                         bool last _unused_) {
}

/* What stands on stderr is often lost, while the answer to the first request is shown to the user. So that is answered
 * with what was told there. */
static void answer_first_request(void) {
        static const LineHandlers handlers = { on_line, on_oversized };
        uint64_t deadline = now_usec() + REQUEST_PATIENCE, now;
        LineReader reader = { .limit = REQUEST_MAX };
        FirstRequest first = {};
        const char *text, *name;
        Buffer answer = {};
        char piece[4096];
        ssize_t n = 1;

        if (isatty(STDIN_FILENO) || isatty(STDOUT_FILENO))
                return;

        while (n > 0 && !first.found && (now = now_usec()) < deadline) {
                struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

                if (poll(&input, 1, (deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC) <= 0)
                        break;
                n = read(STDIN_FILENO, piece, sizeof(piece));
                if (n > 0)
                        must(line_reader_feed(&reader, piece, n, &handlers, &first));
        }

        if (first.found) {
                text = last_failure(&name);
                must(buffer_append_string(&answer, "{\"jsonrpc\":\"2.0\",\"id\":"));
                must(buffer_append(&answer, buffer_data(&first.id), buffer_size(&first.id)));
                must(buffer_append_string(&answer, ",\"error\":{\"code\":-32000,\"message\":"));
                must(json_append_quoted(&answer, text, strlen(text)));
                must(buffer_append_string(&answer, ",\"data\":{\"source\":\"mcp-exec\",\"error\":\""));
                must(buffer_append_string(&answer, strchr(name, '.') ? "" : BUS_ERROR("")));
                must(buffer_append_string(&answer, name));
                must(buffer_append_string(&answer, "\"}}}\n"));
                (void)fwrite(buffer_data(&answer), 1, buffer_size(&answer), stdout);
                (void)fflush(stdout);
        }

        buffer_done(&first.id);
        buffer_done(&answer);
        line_reader_done(&reader);
}

static int status_open_session(Cli *cli, char *servers[], bool *ret_attached, sd_bus_message **ret) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        bool attach = can_hand_over(STDIN_FILENO) && can_hand_over(STDOUT_FILENO);
        int r = -EINVAL, status;

        status = status_connect_bus(cli);
        if (status != STATUS_OK)
                return status;

        /* An app has no terminal where one could be asked, but may have a desktop. */
        cli->ask = true;
        if (attach)
                r = call_for_session(cli, "AttachSession", servers, &error, ret);
        if (!attach || sd_bus_error_has_name(&error, BUS_ERROR("InvalidArguments"))) {
                sd_bus_error_free(&error);
                attach = false;
                r = call_for_session(cli, "OpenSession", servers, &error, ret);
        }
        if (r < 0)
                status = status_bus_error(cli, &error, r);

        *ret_attached = attach;
        sd_bus_error_free(&error);
        return status;
}

int verb_stdio(Cli *cli, int argc _unused_, char *argv[]) {
        sd_bus_message *reply = NULL;
        bool attached;
        int status;

        /* Also where there is no server to be named: argv is terminated by NULL. */
        (void)signal(SIGPIPE, SIG_IGN);
        status = status_open_session(cli, argv + 1, &attached, &reply);
        if (status != STATUS_OK)
                answer_first_request();
        else
                status = attached ? status_wait(cli, reply) : status_copy(cli, reply);

        sd_bus_message_unref(reply);
        return status;
}
