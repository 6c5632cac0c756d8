#include "broker/stream.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cork.h"

#define READ_SIZE ((size_t)64 * 1024)
#define HELD_MAX ((size_t)64 * 1024) /* what waits for others that leave with it */
#define LITTLE ((size_t)64 * 1024)   /* what is left unsent when there is room for more */

struct Stream {
        const StreamHandlers *handlers;
        void *userdata;

        int input_fd, output_fd;
        bool input_socket, output_socket;
        sd_event_source *input_source, *output_source; /* one descriptor twice has two sources */
        bool reading, ended, broken;

        Buffer output;
        sd_event_source *unread_timer; /* once something has waited to be read */
        uint64_t unread_timeout;       /* usec; 0: it may wait for ever */
        bool waiting;                  /* something does */
        uint64_t last_read;            /* when some of it was, or it began to wait; usec, CLOCK_MONOTONIC */
        Cork cork;
        LineReader lines;
};

/* One loop, one thread: what a read brings is handed on before the next, so that all streams can share this. */
static char read_buffer[READ_SIZE];

/* Without asking a file system, which may be a user's own program that doesn't answer */
static int type_of(int fd, mode_t *ret) {
        struct statx st;

        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
                return -errno;

        *ret = st.stx_mode & S_IFMT;
        return 0;
}

static bool is_stream_socket(int fd) {
        int domain = -1, type = -1;
        socklen_t size = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) >= 0 && domain == AF_UNIX &&
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) >= 0 && type == SOCK_STREAM;
}

static const char *end_unfit(int fd, bool input) {
        int flags = fcntl(fd, F_GETFL), mode = flags & O_ACCMODE;
        mode_t type;

        if (flags < 0 || (flags & O_PATH) || type_of(fd, &type) < 0)
                return input ? "in can't be used" : "out can't be used";
        if (type == S_IFSOCK)
                return is_stream_socket(fd) ? NULL
                       : input              ? "in is no Unix stream socket"
                                            : "out is no Unix stream socket";
        if (type != S_IFIFO)
                return input ? "in is neither a pipe nor a socket" : "out is neither a pipe nor a socket";
        if (input && mode == O_WRONLY)
                return "in can't be read";
        if (!input && mode == O_RDONLY)
                return "out can't be written";

        return NULL;
}

const char *stream_unfit(int input, int output) {
        return end_unfit(input, /* input= */ true) ?: end_unfit(output, /* input= */ false);
}

/* The only place that says what each end is waited for. The output is always watched, for its end. */
static void stream_update(Stream *stream) {
        if (stream->input_source)
                (void)sd_event_source_set_io_events(stream->input_source, EPOLLIN);
        if (stream->input_source)
                (void)sd_event_source_set_enabled(stream->input_source,
                                                  stream->reading && !stream->ended ? SD_EVENT_ON : SD_EVENT_OFF);
        if (stream->output_source)
                (void)sd_event_source_set_io_events(stream->output_source,
                                                    stream->broken || buffer_size(&stream->output) > 0 ? EPOLLOUT : 0);
}

void stream_set_reading(Stream *stream, bool reading) {
        if (stream->reading == reading)
                return;

        stream->reading = reading;
        stream_update(stream);
}

static uint64_t now(const Stream *stream) {
        uint64_t usec = 0;

        (void)sd_event_now(sd_event_source_get_event(stream->input_source), CLOCK_MONOTONIC, &usec);
        return usec;
}

/* Fires at what was due when it was set, as others here: what is written doesn't move it. */
static int on_unread(sd_event_source *source, uint64_t usec _unused_, void *userdata) {
        Stream *stream = userdata;
        uint64_t due = usec_add(stream->last_read, stream->unread_timeout);

        if (buffer_size(&stream->output) == 0 || stream->broken)
                return 0;
        if (now(stream) >= due) {
                stream->handlers->unread(stream->userdata);
                return 0;
        }

        (void)sd_event_source_set_time(source, due);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

static void watch_unread(Stream *stream) {
        sd_event *event = sd_event_source_get_event(stream->input_source);
        uint64_t due = usec_add(stream->last_read, stream->unread_timeout);
        int enabled = SD_EVENT_OFF;

        if (stream->unread_timeout == 0)
                return;
        if (!stream->unread_timer) {
                (void)sd_event_add_time(event, &stream->unread_timer, CLOCK_MONOTONIC, due, USEC_PER_SEC, on_unread,
                                        stream);
                return;
        }

        (void)sd_event_source_get_enabled(stream->unread_timer, &enabled);
        if (enabled != SD_EVENT_OFF)
                return;
        (void)sd_event_source_set_time(stream->unread_timer, due);
        (void)sd_event_source_set_enabled(stream->unread_timer, SD_EVENT_ONESHOT);
}

static ssize_t write_once(Stream *stream) {
        const char *data = buffer_data(&stream->output);
        size_t size = buffer_size(&stream->output);

        return stream->output_socket ? send(stream->output_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                     : write(stream->output_fd, data, size);
}

static void write_output(Stream *stream) {
        bool waited = buffer_size(&stream->output) > 0, moved = false;

        while (buffer_size(&stream->output) > 0 && !stream->broken) {
                ssize_t n = write_once(stream);

                if (n >= 0) {
                        buffer_consume(&stream->output, n);
                        moved = true;
                } else if (errno == EAGAIN)
                        break;
                else if (errno != EINTR)
                        stream->broken = true;
        }

        moved = moved || !stream->waiting;
        stream->waiting = buffer_size(&stream->output) > 0 && !stream->broken;
        if (stream->waiting && moved)
                stream->last_read = now(stream);
        if (stream->waiting)
                watch_unread(stream);
        if (waited && (buffer_size(&stream->output) > 0 || stream->broken))
                stream_update(stream);
}

void stream_flush(Stream *stream) {
        if (buffer_size(&stream->output) >= HELD_MAX || !cork_hold(&stream->cork))
                write_output(stream);
}

static void on_uncorked(void *userdata) {
        Stream *stream = userdata;

        write_output(stream);
        if (!stream->broken && buffer_size(&stream->output) <= LITTLE)
                stream->handlers->drained(stream->userdata);
}

static int on_output(sd_event_source *source _unused_, int fd _unused_, uint32_t revents, void *userdata) {
        Stream *stream = userdata;

        if (revents & (EPOLLERR | EPOLLHUP))
                stream->broken = true;
        write_output(stream);
        stream_update(stream);

        if (stream->broken) {
                stream->output_source = sd_event_source_disable_unref(stream->output_source);
                stream->handlers->broken(stream->userdata);
        } else if (buffer_size(&stream->output) <= LITTLE)
                stream->handlers->drained(stream->userdata);

        return 0;
}

static int on_input(sd_event_source *source _unused_, int fd, uint32_t revents _unused_, void *userdata) {
        Stream *stream = userdata;
        ssize_t n = stream->input_socket ? recv(fd, read_buffer, sizeof(read_buffer), MSG_DONTWAIT)
                                         : read(fd, read_buffer, sizeof(read_buffer));
        int r = -EPIPE;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;

        if (n > 0) {
                cork_begin();
                r = line_reader_feed(&stream->lines, read_buffer, n, &stream->handlers->input, stream->userdata);
                cork_end();
        }
        if (r >= 0)
                return 0;

        stream->ended = true;
        stream_update(stream);
        line_reader_flush(&stream->lines, &stream->handlers->input, stream->userdata);
        stream->handlers->ended(stream->userdata);
        return 0;
}

/* Sockets are told not to block with each call. A pipe can't be, and the flag that says so belongs to whoever else has
 * it too: a description of our own does not. */
static int own_end(int fd, bool input) {
        char path[64];
        int own;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, (input ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        return own < 0 ? -errno : own;
}

static int take_end(int *fd, bool input, bool *ret_socket) {
        mode_t type;
        int own, r;

        r = type_of(*fd, &type);
        if (r < 0)
                return r;

        *ret_socket = type == S_IFSOCK;
        if (*ret_socket)
                return 0;

        own = own_end(*fd, input);
        if (own < 0)
                return own;

        safe_close(*fd);
        *fd = own;
        return 0;
}

int stream_new(sd_event *event, int input, int output, size_t line_max, uint64_t unread_timeout,
               const StreamHandlers *handlers, void *userdata, Stream **ret) {
        _cleanup_(stream_freep) Stream *stream = new0(Stream, 1);
        int r;

        if (!stream) {
                safe_close(input);
                safe_close(output);
                return -ENOMEM;
        }

        *stream = (Stream){
                .handlers = handlers,
                .userdata = userdata,
                .input_fd = input,
                .output_fd = output,
                .reading = true,
                .lines.limit = line_max,
                .unread_timeout = unread_timeout,
                .cork = { .flush = on_uncorked, .userdata = stream },
        };

        r = take_end(&stream->input_fd, /* input= */ true, &stream->input_socket);
        if (r >= 0)
                r = take_end(&stream->output_fd, /* input= */ false, &stream->output_socket);
        if (r >= 0)
                r = sd_event_add_io(event, &stream->input_source, stream->input_fd, EPOLLIN, on_input, stream);
        if (r >= 0)
                r = sd_event_add_io(event, &stream->output_source, stream->output_fd, 0, on_output, stream);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(stream);
        return 0;
}

Stream *stream_free(Stream *stream) {
        if (!stream)
                return NULL;

        cork_forget(&stream->cork);
        sd_event_source_disable_unref(stream->input_source);
        sd_event_source_disable_unref(stream->output_source);
        sd_event_source_disable_unref(stream->unread_timer);
        safe_close(stream->input_fd);
        safe_close(stream->output_fd);
        buffer_done(&stream->output);
        line_reader_done(&stream->lines);
        free(stream);
        return NULL;
}

Buffer *stream_output(Stream *stream) {
        return &stream->output;
}

size_t stream_unsent(const Stream *stream) {
        return buffer_size(&stream->output);
}
