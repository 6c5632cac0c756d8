#include "worker/channel.h"

#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cork.h"

#define READ_SIZE ((size_t)64 * 1024)
#define DRAIN_MAX ((size_t)16 << 20) /* a grandchild that holds the pipe could write for ever */
#define DIAGNOSTIC_MAX ((size_t)8192)
#define HELD_MAX ((size_t)64 * 1024) /* what waits for others that leave with it */

struct Channel {
        const ChannelHandlers *handlers;
        void *userdata;

        int input_fd, output_fd, diagnostics_fd;
        bool socket; /* the first two are one */
        sd_event_source *input_source, *output_source, *diagnostics_source;

        Buffer input;
        Cork cork;
        bool finishing; /* nothing more will be appended */
        uint64_t written;
        LineReader lines, diagnostics;
};

/* One loop, one thread: what a read brings is parsed before the next, so that all channels can share this. */
static char read_buffer[READ_SIZE];

/* The only place that says what each fd is waited for. The input is always watched: EPOLLERR tells that the
 * worker closed its end. */
static void channel_update(Channel *channel) {
        if (channel->input_source)
                (void)sd_event_source_set_io_events(channel->input_source,
                                                    buffer_size(&channel->input) > 0 ? EPOLLOUT : 0);
}

static void close_end(sd_event_source **source, int *fd) {
        *source = sd_event_source_disable_unref(*source);
        *fd = safe_close(*fd);
}

static void input_closed(Channel *channel) {
        if (channel->socket && channel->input_fd >= 0)
                (void)shutdown(channel->input_fd, SHUT_WR);
        close_end(&channel->input_source, &channel->input_fd);
        buffer_done(&channel->input);
}

static int write_input(Channel *channel) {
        while (buffer_size(&channel->input) > 0) {
                ssize_t n = write(channel->input_fd, buffer_data(&channel->input), buffer_size(&channel->input));

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        if (errno == EAGAIN)
                                break;
                        return -EPIPE;
                }

                channel->written += n;
                buffer_consume(&channel->input, n);
        }

        if (channel->finishing && buffer_size(&channel->input) == 0)
                input_closed(channel);
        else
                channel_update(channel);
        return 0;
}

int channel_flush(Channel *channel) {
        if (buffer_size(&channel->input) < HELD_MAX && cork_hold(&channel->cork))
                return 0;

        return write_input(channel);
}

/* That the worker has closed its end is told from the loop. */
static void on_uncorked(void *userdata) {
        Channel *channel = userdata;

        if (write_input(channel) < 0)
                channel_update(channel);
}

static int on_input(sd_event_source *source _unused_, int fd _unused_, uint32_t revents, void *userdata) {
        Channel *channel = userdata;
        bool broken = revents & (EPOLLERR | EPOLLHUP);

        if (!broken && write_input(channel) < 0)
                broken = true;

        if (broken) {
                input_closed(channel);
                channel->handlers->closed(channel->userdata, "stdin");
        } else if (buffer_size(&channel->input) == 0)
                channel->handlers->writable(channel->userdata);

        return 0;
}

/* Reads once. 0 at the end of the stream, -EAGAIN where nothing is there. */
static ssize_t read_once(int fd) {
        for (;;) {
                ssize_t n = read(fd, read_buffer, sizeof(read_buffer));

                if (n >= 0)
                        return n;
                if (errno != EINTR)
                        return errno == EAGAIN ? -EAGAIN : 0;
        }
}

static void tell_unfinished(Channel *channel, bool last) {
        const Buffer *partial = &channel->lines.partial;

        if (channel->handlers->unfinished && buffer_size(partial) > 0)
                channel->handlers->unfinished(channel->userdata, buffer_data(partial), buffer_size(partial), last);
}

static void end_output(Channel *channel) {
        if (channel->handlers->unfinished) {
                tell_unfinished(channel, /* last= */ true);
                buffer_done(&channel->lines.partial);
        }
        line_reader_flush(&channel->lines, &channel->handlers->output, channel->userdata);
}

static int on_output(sd_event_source *source _unused_, int fd, uint32_t revents _unused_, void *userdata) {
        Channel *channel = userdata;
        ssize_t n = read_once(fd);
        int r = -EPIPE;

        if (n == -EAGAIN)
                return 0;

        if (n > 0) {
                cork_begin();
                r = line_reader_feed(&channel->lines, read_buffer, n, &channel->handlers->output, channel->userdata);
                cork_end();
        }
        if (r >= 0) {
                tell_unfinished(channel, /* last= */ false);
                return 0;
        }

        /* The end, or no memory for a line of which a part is lost now: either way no answer can be trusted. */
        end_output(channel);
        close_end(&channel->output_source, &channel->output_fd);
        channel->handlers->closed(channel->userdata, "stdout");
        return 0;
}

static void diagnostic_line(void *userdata, const char *line, size_t size) {
        Channel *channel = userdata;

        if (size > 0)
                channel->handlers->diagnostic(channel->userdata, line, size);
}

/* A piece of a line that is too long for one record becomes a record of its own. */
static void diagnostic_piece(void *userdata, const char *piece, size_t size, bool last _unused_) {
        for (size_t i = 0; i < size; i += DIAGNOSTIC_MAX)
                diagnostic_line(userdata, piece + i, MIN(size - i, DIAGNOSTIC_MAX));
}

static const LineHandlers diagnostic_handlers = {
        .line = diagnostic_line,
        .oversized = diagnostic_piece,
};

static int on_diagnostics(sd_event_source *source _unused_, int fd, uint32_t revents _unused_, void *userdata) {
        Channel *channel = userdata;
        ssize_t n = read_once(fd);

        if (n == -EAGAIN)
                return 0;

        if (n > 0)
                (void)line_reader_feed(&channel->diagnostics, read_buffer, n, &diagnostic_handlers, channel);
        else {
                line_reader_flush(&channel->diagnostics, &diagnostic_handlers, channel);
                close_end(&channel->diagnostics_source, &channel->diagnostics_fd);
        }

        return 0;
}

static bool is_socket(int fd) {
        struct stat st;

        return fstat(fd, &st) >= 0 && S_ISSOCK(st.st_mode);
}

int channel_new(sd_event *event, int input, int output, int diagnostics, size_t message_max, bool whole,
                const ChannelHandlers *handlers, void *userdata, Channel **ret) {
        _cleanup_(channel_freep) Channel *channel = new0(Channel, 1);
        int r;

        if (!channel) {
                safe_close(input);
                safe_close(output);
                safe_close(diagnostics);
                return -ENOMEM;
        }

        *channel = (Channel){
                .handlers = handlers,
                .userdata = userdata,
                .input_fd = input,
                .output_fd = output,
                .diagnostics_fd = diagnostics,
                .lines = { .limit = message_max, .whole = whole },
                .diagnostics.limit = DIAGNOSTIC_MAX,
                .socket = is_socket(input),
                .cork = { on_uncorked, channel },
        };

        r = sd_event_add_io(event, &channel->input_source, input, 0, on_input, channel);
        if (r < 0)
                return r;
        r = sd_event_add_io(event, &channel->output_source, output, EPOLLIN, on_output, channel);
        if (r < 0)
                return r;
        r = sd_event_add_io(event, &channel->diagnostics_source, diagnostics, EPOLLIN, on_diagnostics, channel);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(channel);
        return 0;
}

Channel *channel_free(Channel *channel) {
        if (!channel)
                return NULL;

        cork_forget(&channel->cork);
        close_end(&channel->input_source, &channel->input_fd);
        close_end(&channel->output_source, &channel->output_fd);
        close_end(&channel->diagnostics_source, &channel->diagnostics_fd);
        buffer_done(&channel->input);
        line_reader_done(&channel->lines);
        line_reader_done(&channel->diagnostics);
        free(channel);
        return NULL;
}

Buffer *channel_input(Channel *channel) {
        return channel->input_fd >= 0 ? &channel->input : NULL;
}

/* A socket's FIONREAD tells what it has for us; what it holds of ours is SIOCOUTQ's to say. */
static int unread_request(const Channel *channel) {
        return channel->socket ? SIOCOUTQ : FIONREAD;
}

bool channel_quiet(const Channel *channel) {
        int n = 0;

        return channel->output_fd < 0 || ioctl(channel->output_fd, FIONREAD, &n) < 0 || n == 0;
}

bool channel_blocked(const Channel *channel) {
        return buffer_size(&channel->input) > 0 && !channel->cork.waiting;
}

uint64_t channel_unread(const Channel *channel) {
        int n = 0;

        if (channel->input_fd < 0 || ioctl(channel->input_fd, unread_request(channel), &n) < 0)
                return 0;

        return buffer_size(&channel->input) + n;
}

uint64_t channel_appended(const Channel *channel) {
        return channel->written + buffer_size(&channel->input);
}

uint64_t channel_written(const Channel *channel) {
        return channel->written;
}

void channel_close_input(Channel *channel) {
        if (channel->input_fd >= 0)
                input_closed(channel);
}

void channel_finish_input(Channel *channel) {
        channel->finishing = true;
        if (channel->input_fd >= 0 && buffer_size(&channel->input) == 0)
                input_closed(channel);
}

void channel_drain(Channel *channel) {
        for (size_t total = 0; channel->diagnostics_fd >= 0 && total < DRAIN_MAX; total += READ_SIZE) {
                ssize_t n = read_once(channel->diagnostics_fd);

                if (n <= 0)
                        break;
                (void)line_reader_feed(&channel->diagnostics, read_buffer, n, &diagnostic_handlers, channel);
        }
        line_reader_flush(&channel->diagnostics, &diagnostic_handlers, channel);

        for (size_t total = 0; channel->output_fd >= 0 && total < DRAIN_MAX; total += READ_SIZE) {
                ssize_t n = read_once(channel->output_fd);

                if (n <= 0 || line_reader_feed(&channel->lines, read_buffer, n, &channel->handlers->output,
                                               channel->userdata) < 0)
                        break;
        }
        end_output(channel);
}
