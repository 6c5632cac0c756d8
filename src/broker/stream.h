#pragma once

#include <systemd/sd-event.h>

#include "base/macro.h"
#include "wire/line.h"

/* The two ends of a session: lines come in, bytes go out. Nothing here blocks, and nothing here knows what the lines
 * say. */
typedef struct Stream Stream;

typedef struct StreamHandlers {
        LineHandlers input;
        void (*drained)(void *userdata); /* little is left of what waited to be read by the other side */
        void (*ended)(void *userdata);   /* the other side writes no more */
        void (*broken)(void *userdata);  /* it reads no more */
        void (*unread)(void *userdata);  /* it has read nothing for as long as it may */
} StreamHandlers;

/* Why descriptors can't be a session's, as a phrase; NULL: they can. */
const char *stream_unfit(int input, int output);

/* Takes ends of pipes or stream sockets, also on failure; they may be one socket. Pipes are opened anew, so that nobody
 * else has a say in whether they block: -EACCES where they are another user's. line_max: LineReader's limit;
 * unread_timeout: usec, 0: what is written may wait for ever. */
int stream_new(sd_event *event, int input, int output, size_t line_max, uint64_t unread_timeout,
               const StreamHandlers *handlers, void *userdata, Stream **ret);
Stream *stream_free(Stream *stream);

/* Append here, then flush. */
Buffer *stream_output(Stream *stream);

/* Writes as much as goes; the rest follows by itself. While a run of messages is handled (base/cork), it waits for the
 * others. Calls no handler: a broken stream is told from the loop. */
void stream_flush(Stream *stream);

/* Bytes that wait for the other side to read */
size_t stream_unsent(const Stream *stream);

/* Whether more is read. What was read already is handed on all the same. */
void stream_set_reading(Stream *stream, bool reading);

DEFINE_CLEANUP(Stream *, stream_free, stream_freep)
