#include "worker/channel.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cork.h"

#define READ_SIZE ((size_t)512 * 1024)
#define READ_MIN ((size_t)16 * 1024)
#define READ_TIME ((uint64_t)100) /* usec, for which a piece of a long line may keep others waiting */
#define PIPE_SIZE (64 * 1024)
#define WIDE_PIPE_SIZE (1024 * 1024)
#define DRAIN_MAX ((size_t)16 << 20) /* a grandchild that holds the pipe could write for ever */
#define DIAGNOSTIC_MAX ((size_t)8192)
#define HELD_MAX ((size_t)64 * 1024) /* what waits for others that leave with it */

struct Channel {
        const ChannelHandlers *handlers;
        void *userdata;

        int input_fd, output_fd, diagnostics_fd;
        bool socket; /* the first two are one */
        sd_event_source *input_source, *output_source, *diagnostics_source;

        Buffer input, behind; /* behind: what is written when the file has been */
        OutgoingFile *file;
        bool pipe; /* its input is one */
        bool wide_input;
        size_t message_max;
        Cork cork;
        bool finishing; /* nothing more will be appended */
        uint64_t written;
        LineReader lines, diagnostics;
        size_t read_size;        /* of the next piece of a line over the limit; 0: as much as there is */
        sd_event_source *rested; /* when its output is read again, where it isn't now */
};

/* One loop, one thread: what a read brings is parsed before the next, so that all channels can share this. */
static char read_buffer[READ_SIZE];

static bool has_input(const Channel *channel) {
        return buffer_size(&channel->input) > 0 || channel->file;
}

/* The only place that says what each fd is waited for. The input is always watched: EPOLLERR tells that the
 * worker closed its end. */
static void channel_update(Channel *channel) {
        if (channel->input_source)
                (void)sd_event_source_set_io_events(channel->input_source, has_input(channel) ? EPOLLOUT : 0);
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
        buffer_done(&channel->behind);
        channel->file = outgoing_file_free(channel->file);
}

/* A user's pipes have 64 MiB together (pipe(7)), so none is wide for always. One that is full can't become narrow. */
static void set_wide_input(Channel *channel, bool wide) {
        if (channel->pipe && channel->input_fd >= 0 && wide != channel->wide_input &&
            fcntl(channel->input_fd, F_SETPIPE_SZ, wide ? WIDE_PIPE_SIZE : PIPE_SIZE) >= 0)
                channel->wide_input = wide;
}

/* 0: it is written; -EAGAIN; -EPIPE */
static int flush_buffer(Channel *channel) {
        while (buffer_size(&channel->input) > 0) {
                ssize_t n = write(channel->input_fd, buffer_data(&channel->input), buffer_size(&channel->input));

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return errno == EAGAIN ? -EAGAIN : -EPIPE;
                }

                channel->written += n;
                buffer_consume(&channel->input, n);
        }

        return 0;
}

/* 0: all of it is written, and what was appended since stands in input; likewise. A file that can't be read any more is
 * as bad as a worker that doesn't read: its line is cut off. */
static int flush_file(Channel *channel) {
        ssize_t n = outgoing_file_write(channel->file, channel->input_fd, channel->pipe);

        if (n < 0)
                return n == -EAGAIN ? -EAGAIN : -EPIPE;
        channel->written += (uint64_t)n;
        if (outgoing_file_left(channel->file) > 0)
                return -EAGAIN;

        channel->file = outgoing_file_free(channel->file);
        buffer_done(&channel->input);
        channel->input = channel->behind;
        channel->behind = (Buffer){};
        return 0;
}

static int write_input(Channel *channel) {
        int r;

        if (!channel->file)
                set_wide_input(channel, false);

        r = flush_buffer(channel);
        if (r >= 0 && channel->file) {
                r = flush_file(channel);
                if (r >= 0)
                        r = flush_buffer(channel);
        }
        if (r == -EPIPE)
                return r;

        if (channel->finishing && !has_input(channel))
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
        bool broken = revents & (EPOLLERR | EPOLLHUP), file = channel->file;
        uint64_t written = channel->written;

        if (!broken && write_input(channel) < 0)
                broken = true;
        if (!broken && file && channel->written > written && channel->handlers->moved)
                channel->handlers->moved(channel->userdata);

        if (broken) {
                input_closed(channel);
                channel->handlers->closed(channel->userdata, "stdin");
        } else if (!has_input(channel))
                channel->handlers->writable(channel->userdata);

        return 0;
}

/* Reads once. 0 at the end of the stream, -EAGAIN where nothing is there. */
static ssize_t read_once(int fd, size_t size) {
        for (;;) {
                ssize_t n = read(fd, read_buffer, size);

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
                channel->lines.oversized = false; /* likewise no line */
        }
        line_reader_flush(&channel->lines, &channel->handlers->output, channel->userdata);
}

static int on_rested(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Channel *channel = userdata;

        if (channel->output_source)
                (void)sd_event_source_set_enabled(channel->output_source, SD_EVENT_ON);
        return 0;
}

/* A piece of n bytes was handed on. Where nobody waits for anything else the next one is as large as it can be. */
static void rest(Channel *channel, size_t n, uint64_t before) {
        uint64_t now = clock_usec(), took = MAX(now - before, 1U), until;
        int r;

        until = channel->handlers->worked(channel->userdata, took);
        channel->read_size = 0;
        if (until <= now)
                return;

        channel->read_size = MIN(MAX(n * READ_TIME / took, READ_MIN), READ_SIZE);
        if (!channel->rested)
                r = sd_event_add_time(sd_event_source_get_event(channel->output_source), &channel->rested,
                                      CLOCK_MONOTONIC, until, 1, on_rested, channel);
        else {
                (void)sd_event_source_set_time(channel->rested, until);
                r = sd_event_source_set_enabled(channel->rested, SD_EVENT_ONESHOT);
        }
        if (r >= 0)
                (void)sd_event_source_set_enabled(channel->output_source, SD_EVENT_OFF);
}

static int on_output(sd_event_source *source _unused_, int fd, uint32_t revents _unused_, void *userdata) {
        Channel *channel = userdata;
        bool long_line = channel->lines.oversized;
        uint64_t before = long_line ? clock_usec() : 0;
        ssize_t n = read_once(fd, long_line && channel->read_size > 0 ? channel->read_size : READ_SIZE);
        int r = -EPIPE;

        if (n == -EAGAIN)
                return 0;

        /* It writes, so it may have read all that it was sent. */
        if (!channel->file)
                set_wide_input(channel, false);
        if (n > 0) {
                cork_begin();
                r = line_reader_feed(&channel->lines, read_buffer, n, &channel->handlers->output, channel->userdata);
                cork_end();
        }
        if (r >= 0) {
                tell_unfinished(channel, /* last= */ false);
                if (long_line && channel->output_source)
                        rest(channel, (size_t)n, before);
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
        ssize_t n = read_once(fd, READ_SIZE);

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

static mode_t file_type(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : st.st_mode & S_IFMT;
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
                .message_max = message_max,
                .lines = { .limit = message_max, .whole = whole },
                .diagnostics.limit = DIAGNOSTIC_MAX,
                .socket = file_type(input) == S_IFSOCK,
                .pipe = file_type(input) == S_IFIFO,
                .cork = { .flush = on_uncorked, .userdata = channel },
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
        sd_event_source_disable_unref(channel->rested);
        buffer_done(&channel->input);
        buffer_done(&channel->behind);
        outgoing_file_free(channel->file);
        line_reader_done(&channel->lines);
        line_reader_done(&channel->diagnostics);
        free(channel);
        return NULL;
}

Buffer *channel_input(Channel *channel) {
        if (channel->input_fd < 0)
                return NULL;

        return channel->file ? &channel->behind : &channel->input;
}

int channel_append_file(Channel *channel, MemoryFile *file, const RequestFilePart *parts, size_t n_parts,
                        OutgoingForm form, const Buffer *tail) {
        int r;

        r = buffer_append(&channel->behind, buffer_data(tail), buffer_size(tail));
        if (r >= 0)
                r = outgoing_file_new(file, parts, n_parts, form, &channel->file);
        if (r < 0)
                buffer_done(&channel->behind);
        else if (outgoing_file_left(channel->file) > WIDE_PIPE_SIZE)
                set_wide_input(channel, true);
        return r;
}

void channel_hold_lines(Channel *channel, size_t size) {
        channel->lines.limit = MIN(size, channel->message_max);
}

void channel_widen(Channel *channel, bool wide) {
        if (channel->output_fd >= 0)
                (void)fcntl(channel->output_fd, F_SETPIPE_SZ, wide ? WIDE_PIPE_SIZE : PIPE_SIZE);
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
        return channel->file || (buffer_size(&channel->input) > 0 && !channel->cork.waiting);
}

uint64_t channel_unread(const Channel *channel) {
        int n = 0;

        if (channel->input_fd < 0 || ioctl(channel->input_fd, unread_request(channel), &n) < 0)
                return 0;

        return channel_appended(channel) - channel->written + n;
}

uint64_t channel_appended(const Channel *channel) {
        return channel->written + buffer_size(&channel->input) + buffer_size(&channel->behind) +
               (channel->file ? outgoing_file_left(channel->file) : 0);
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
        if (channel->input_fd >= 0 && !has_input(channel))
                input_closed(channel);
}

void channel_drain(Channel *channel) {
        for (size_t total = 0; channel->diagnostics_fd >= 0 && total < DRAIN_MAX; total += READ_SIZE) {
                ssize_t n = read_once(channel->diagnostics_fd, READ_SIZE);

                if (n <= 0)
                        break;
                (void)line_reader_feed(&channel->diagnostics, read_buffer, n, &diagnostic_handlers, channel);
        }
        line_reader_flush(&channel->diagnostics, &diagnostic_handlers, channel);

        for (size_t total = 0; channel->output_fd >= 0 && total < DRAIN_MAX; total += READ_SIZE) {
                ssize_t n = read_once(channel->output_fd, READ_SIZE);

                if (n <= 0 || line_reader_feed(&channel->lines, read_buffer, n, &channel->handlers->output,
                                               channel->userdata) < 0)
                        break;
        }
        end_output(channel);
}
