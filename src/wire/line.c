#include "wire/line.h"

#include <string.h>

#include "base/macro.h"

static void start_oversized(LineReader *reader, const LineHandlers *handlers, void *userdata) {
        reader->oversized = true;
        handlers->oversized(userdata, buffer_data(&reader->partial), buffer_size(&reader->partial), false);
        buffer_done(&reader->partial);
}

/* A whole line, which can be over the limit by the "\r" of its end, or by the byte for which that was waited for */
static void emit(LineReader *reader, const LineHandlers *handlers, void *userdata, const char *line, size_t size) {
        if (!reader->whole && size > 0 && line[size - 1] == '\r')
                size--;

        if (size <= reader->limit) {
                handlers->line(userdata, line, size);
                return;
        }

        handlers->oversized(userdata, line, size, false);
        handlers->oversized(userdata, "", 0, true);
}

int line_reader_feed(LineReader *reader, const char *data, size_t size, const LineHandlers *handlers, void *userdata) {
        while (size > 0) {
                const char *end = reader->whole ? NULL : memchr(data, '\n', size);
                size_t piece = end ? (size_t)(end - data) : size, held = buffer_size(&reader->partial);
                int r;

                if (!reader->oversized && held + piece > reader->limit + 1)
                        start_oversized(reader, handlers, userdata);

                if (reader->oversized) {
                        handlers->oversized(userdata, data, piece, false);
                        if (end) {
                                reader->oversized = false;
                                handlers->oversized(userdata, end, 0, true);
                        }
                } else if (end && held == 0)
                        emit(reader, handlers, userdata, data, piece);
                else {
                        r = buffer_append(&reader->partial, data, piece);
                        if (r < 0) {
                                buffer_done(&reader->partial);
                                return r;
                        }
                        if (end) {
                                emit(reader, handlers, userdata, buffer_data(&reader->partial),
                                     buffer_size(&reader->partial));
                                buffer_consume(&reader->partial, SIZE_MAX);
                        }
                }

                piece += end != NULL;
                data += piece;
                size -= piece;
        }

        return 0;
}

void line_reader_flush(LineReader *reader, const LineHandlers *handlers, void *userdata) {
        if (reader->oversized) {
                reader->oversized = false;
                handlers->oversized(userdata, "", 0, true);
        } else if (buffer_size(&reader->partial) > 0)
                emit(reader, handlers, userdata, buffer_data(&reader->partial), buffer_size(&reader->partial));

        buffer_done(&reader->partial);
}

void line_reader_done(LineReader *reader) {
        buffer_done(&reader->partial);
}
