#pragma once

#include <stdbool.h>

#include "base/buffer.h"

/* Cuts a stream of bytes into lines. One that is longer than limit is never held whole: its pieces are handed on
 * as they come, so that its receiver can learn whose it was. Zero-initialise it and set limit. */
typedef struct LineReader {
        size_t limit; /* in bytes, without the line's end */
        bool whole;   /* the stream is one line, whatever is in it */
        Buffer partial;
        bool oversized;
} LineReader;

typedef struct LineHandlers {
        /* A whole line without its "\n" or "\r\n". Valid during the call only. */
        void (*line)(void *userdata, const char *line, size_t size);
        /* A piece of a line over the limit; last is set, with size 0, at the line's end. */
        void (*oversized)(void *userdata, const char *piece, size_t size, bool last);
} LineHandlers;

/* 0, or -ENOMEM: bytes are lost then. */
int line_reader_feed(LineReader *reader, const char *data, size_t size, const LineHandlers *handlers, void *userdata);

/* At the end of the stream: hands on what stands behind the last line's end. */
void line_reader_flush(LineReader *reader, const LineHandlers *handlers, void *userdata);

void line_reader_done(LineReader *reader);
