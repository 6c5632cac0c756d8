#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/line.h"

/* The first byte is the limit, the second says how many of the following bytes are the sizes of feeds, used in turns;
 * the rest is the stream. */

typedef struct Event {
        bool oversized, open;
        Buffer bytes;
} Event;

typedef struct Log {
        size_t limit, n;
        Event *events;
} Log;

static Event *add(Log *log) {
        log->events = realloc(log->events, (log->n + 1) * sizeof(Event));
        assert_true(log->events);
        log->events[log->n] = (Event){};
        return &log->events[log->n++];
}

static Event *open_event(Log *log) {
        return log->n > 0 && log->events[log->n - 1].open ? &log->events[log->n - 1] : NULL;
}

static void on_line(void *userdata, const char *line, size_t size) {
        Log *log = userdata;

        assert_true(!open_event(log));
        assert_true(size <= log->limit);
        assert_number(buffer_append(&add(log)->bytes, line, size), 0);
}

static void on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Log *log = userdata;
        Event *event = open_event(log);

        if (!event) {
                assert_false(last);
                event = add(log);
                event->oversized = event->open = true;
        }
        assert_true(!last || size == 0);
        assert_number(buffer_append(&event->bytes, piece, size), 0);
        event->open = !last;
}

static const LineHandlers handlers = { .line = on_line, .oversized = on_oversized };

/* The next event is what this line, without its '\n', should have become. */
static void check_line(const Log *log, size_t *at, const char *line, size_t size) {
        size_t content = size - (size > 0 && line[size - 1] == '\r');
        const Event *event;

        assert_true(*at < log->n);
        event = &log->events[(*at)++];
        assert_number(event->oversized, content > log->limit);
        assert_false(event->open);
        /* The '\r' at the end of one that is over the limit may be handed on or not. */
        if (event->oversized && buffer_size(&event->bytes) == size)
                content = size;
        assert_bytes(buffer_data(&event->bytes), buffer_size(&event->bytes), line, content);
}

static void check_log(const Log *log, const char *stream, size_t size) {
        size_t at = 0;

        while (size > 0) {
                const char *end = memchr(stream, '\n', size);
                size_t length = end ? (size_t)(end - stream) : size;

                check_line(log, &at, stream, length);
                length += end != NULL;
                stream += length;
                size -= length;
        }
        assert_number(at, log->n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *stream;
        LineReader reader = {};
        Log log = {};
        size_t n_sizes, rest;

        if (size < 2)
                return 0;

        reader.limit = log.limit = data[0];
        n_sizes = MIN((size_t)data[1], size - 2);
        stream = (const char *)data + 2 + n_sizes;
        rest = size - 2 - n_sizes;

        for (size_t fed = 0, i = 0; fed < rest; i++) {
                size_t n = n_sizes > 0 && data[2 + i % n_sizes] > 0 ? data[2 + i % n_sizes] : rest;
                char *piece;

                n = MIN(n, rest - fed);
                piece = malloc(n);
                assert_true(piece);
                memcpy(piece, stream + fed, n);
                assert_number(line_reader_feed(&reader, piece, n, &handlers, &log), 0);
                free(piece);
                fed += n;
                /* No more than a line and half of its end is held. */
                assert_true(buffer_size(&reader.partial) <= reader.limit + 1);
        }
        line_reader_flush(&reader, &handlers, &log);
        check_log(&log, stream, rest);
        line_reader_done(&reader);

        for (size_t i = 0; i < log.n; i++)
                buffer_done(&log.events[i].bytes);
        free(log.events);
        return 0;
}
