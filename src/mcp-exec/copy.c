/* Standard input and output that the service can't poll, such as files and terminals: copied here. */

#include "mcp-exec/copy.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "mcp-exec/cli.h"
#include "mcp-exec/output.h"

/* One direction. Nothing more is read than there is room for, so that who doesn't read stops who writes. */
typedef struct Flow {
        int from, to;
        bool eof, broken; /* nothing more comes; nothing more is taken */
        size_t begin, end;
        char data[(size_t)64 << 10];
} Flow;

static size_t flow_size(const Flow *flow) {
        return flow->end - flow->begin;
}

static bool flow_done(const Flow *flow) {
        return flow->broken || (flow->eof && flow_size(flow) == 0);
}

static bool flow_wants_input(const Flow *flow) {
        return !flow->eof && !flow->broken && flow->end < sizeof(flow->data);
}

static bool flow_wants_output(const Flow *flow) {
        return !flow->broken && flow_size(flow) > 0;
}

static int flow_read(Flow *flow) {
        ssize_t n = read(flow->from, flow->data + flow->end, sizeof(flow->data) - flow->end);

        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 0 : -errno;
        flow->eof = n == 0;
        flow->end += n;
        return 0;
}

static int flow_write(Flow *flow) {
        const char *data = flow->data + flow->begin;
        size_t size = flow_size(flow);
        struct stat st;
        ssize_t n;

        n = send(flow->to, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK) {
                /* A pipe or terminal that is writable takes at least so much without blocking. */
                if (fstat(flow->to, &st) < 0 || !S_ISREG(st.st_mode))
                        size = MIN(size, (size_t)PIPE_BUF);
                n = write(flow->to, data, size);
        }
        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 0 : -errno;

        flow->begin += n;
        if (flow->begin == flow->end)
                flow->begin = flow->end = 0;
        else if (flow->begin >= sizeof(flow->data) / 2) {
                memmove(flow->data, flow->data + flow->begin, flow_size(flow));
                flow->end -= flow->begin;
                flow->begin = 0;
        }
        return 0;
}

static struct pollfd poll_for(int fd, short events, bool always) {
        return (struct pollfd){ .fd = events || always ? fd : -1, .events = events };
}

int status_copy_streams(int input, int output, int socket) {
        Flow *flows = new0(Flow, 2), *in = flows, *out = flows + 1;
        _cleanup_(closep) int fd = socket;
        int r, status = STATUS_OK;
        bool shut = false;

        if (!flows)
                out_of_memory();
        *in = (Flow){ .from = input, .to = fd };
        *out = (Flow){ .from = fd, .to = output };

        while (!flow_done(out)) {
                short to_socket = flow_wants_output(in) ? POLLOUT : 0, from_socket = flow_wants_input(out) ? POLLIN : 0;
                struct pollfd fds[] = {
                        poll_for(input, flow_wants_input(in) ? POLLIN : 0, false),
                        poll_for(fd, to_socket | from_socket, false),
                        poll_for(output, flow_wants_output(out) ? POLLOUT : 0, true), /* who reads it may go */
                };

                if (poll(fds, ELEMENTSOF(fds), -1) < 0) {
                        if (errno == EINTR)
                                continue;
                        status = fail(STATUS_LIMIT, "can't wait for input: %s", strerror(errno));
                        break;
                }

                if (fds[0].revents && (r = flow_read(in)) < 0) {
                        status = fail(STATUS_USAGE, "standard input can't be read: %s", strerror(-r));
                        in->eof = true;
                }
                if ((fds[1].revents & (POLLOUT | POLLERR | POLLHUP)) && flow_wants_output(in) && flow_write(in) < 0)
                        in->broken = true;
                if ((fds[1].revents & (POLLIN | POLLERR | POLLHUP)) && flow_wants_input(out) && flow_read(out) < 0)
                        out->eof = true;
                if (flow_wants_output(out) && fds[2].revents) {
                        r = flow_write(out);
                        if (r < 0 && r != -EPIPE)
                                status = fail(STATUS_USAGE, "can't write to standard output: %s", strerror(-r));
                        out->broken = r < 0;
                } else if (fds[2].revents & (POLLERR | POLLHUP | POLLNVAL))
                        out->broken = true;

                if (flow_done(in) && !shut) {
                        (void)shutdown(fd, SHUT_WR);
                        shut = true;
                }
        }

        if (status == STATUS_OK && !out->broken && !shut)
                status = fail(STATUS_SERVER, "the session was closed by the service");
        free(flows);
        return status;
}
