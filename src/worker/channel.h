#pragma once

#include <systemd/sd-event.h>

#include "base/macro.h"
#include "wire/line.h"
#include "worker/outgoing-file.h"

/* A worker's three pipes: whole lines come out, bytes go in. Nothing here blocks, and nothing here knows what the
 * lines say. */
typedef struct Channel Channel;

typedef struct ChannelHandlers {
        LineHandlers output; /* the worker's stdout */
        /* After a read that ended within a line: what there is of it. last: there will be no more. NULL: nobody wants
         * to know, and what stands behind the last line's end is a line. */
        void (*unfinished)(void *userdata, const char *piece, size_t size, bool last);
        void (*diagnostic)(void *userdata, const char *line, size_t size); /* its stderr */
        void (*writable)(void *userdata);                                  /* all that was appended has left */
        void (*moved)(void *userdata);                                     /* a part of a file has; optional */
        /* A piece of a line over the limit was handed on, which took so long. Returns until when no more is read; usec,
         * CLOCK_MONOTONIC */
        uint64_t (*worked)(void *userdata, uint64_t usec);
        void (*closed)(void *userdata, const char *what); /* the worker closed "stdin" or "stdout" */
} ChannelHandlers;

/* Takes the fds (its own ends, non-blocking), also on failure. input and output may be two fds of one socket.
 * message_max: LineReader's limit; whole: all of the output is one line. */
int channel_new(sd_event *event, int input, int output, int diagnostics, size_t message_max, bool whole,
                const ChannelHandlers *handlers, void *userdata, Channel **ret);
Channel *channel_free(Channel *channel);
DEFINE_CLEANUP(Channel *, channel_free, channel_freep)

/* Append messages here, then flush. NULL once the input is closed. */
Buffer *channel_input(Channel *channel);

/* Puts parts of a file behind what was appended, and tail behind them; what is appended from now on comes behind that.
 * Only where no file is on its way. -ENOMEM: nothing was done. */
int channel_append_file(Channel *channel, MemoryFile *file, const RequestFilePart *parts, size_t n_parts,
                        OutgoingForm form, const Buffer *tail);

/* Lines that are longer are handed on in pieces from now on: so much is held of one. At most message_max */
void channel_hold_lines(Channel *channel, size_t size);

/* More in each read, and fewer of them, for as long as there is much to read. A user's pipes have 64 MiB together
 * (pipe(7)): it is not for always. Nothing happens to a socket. */
void channel_widen(Channel *channel, bool wide);

/* Writes as much as the pipe takes; the rest follows by itself. While a run of messages is handled (base/cork), it
 * waits for the others. Calls no handler. -EPIPE where the worker has closed its end: nothing can be written any more.
 */
int channel_flush(Channel *channel);

/* Whether bytes wait for the worker to read */
bool channel_blocked(const Channel *channel);

/* Bytes that were written and that it has not read, as far as that can be told */
uint64_t channel_unread(const Channel *channel);

/* Whether nothing that it wrote waits to be read: what comes next is the answer to what is asked now. */
bool channel_quiet(const Channel *channel);

/* Positions in the stream to the worker: behind what was appended, and behind what the pipe took. */
uint64_t channel_appended(const Channel *channel);
uint64_t channel_written(const Channel *channel);

/* The protocol's own way of asking a worker to leave */
void channel_close_input(Channel *channel);

/* Likewise, once all that was appended has left. */
void channel_finish_input(Channel *channel);

/* After the worker's end: hands on what it left in its pipes, the last unfinished line included. */
void channel_drain(Channel *channel);
