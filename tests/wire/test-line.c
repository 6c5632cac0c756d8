#include "wire/line.h"

#include <stdio.h>

#include "base/macro.h"
#include "unit.h"

/* What a reader handed on, as text: a line is "L:<bytes>|", a line over the limit "O:<its pieces>|" */
typedef struct Log {
        Buffer text;
        size_t largest_line;
        bool in_oversized;
} Log;

static void add(Log *log, const char *data, size_t size) {
        assert_number(buffer_append(&log->text, data, size), 0);
}

static void on_line(void *userdata, const char *line, size_t size) {
        Log *log = userdata;

        assert_false(log->in_oversized);
        add(log, "L:", 2);
        add(log, line, size);
        add(log, "|", 1);
        log->largest_line = MAX(log->largest_line, size);
}

static void on_oversized(void *userdata, const char *piece, size_t size, bool last) {
        Log *log = userdata;

        if (!log->in_oversized)
                add(log, "O:", 2);
        log->in_oversized = !last;
        if (last) {
                assert_number(size, 0);
                add(log, "|", 1);
        } else
                add(log, piece, size);
}

static const LineHandlers handlers = { .line = on_line, .oversized = on_oversized };

static void feed(LineReader *reader, Log *log, const char *data, size_t size) {
        /* In memory of its own, which is gone afterwards: the reader may keep no pointer to it. */
        char *copy = malloc(size);

        assert_true(copy || size == 0);
        if (size > 0)
                memcpy(copy, data, size);
        assert_number(line_reader_feed(reader, copy, size, &handlers, log), 0);
        free(copy);
}

/* Feeds text in three pieces and flushes; what was handed on stays in log. */
static void run(Log *log, size_t limit, const char *text, size_t size, size_t first, size_t second) {
        LineReader reader = { .limit = limit };

        feed(&reader, log, text, first);
        feed(&reader, log, text + first, second - first);
        feed(&reader, log, text + second, size - second);
        line_reader_flush(&reader, &handlers, log);
        assert_false(log->in_oversized);
        assert_true(log->largest_line <= limit);
        line_reader_done(&reader);
}

static void check(size_t limit, const char *text, const char *wanted) {
        size_t size = strlen(text);

        for (size_t first = 0; first <= size; first++)
                for (size_t second = first; second <= size; second++) {
                        Log log = {};

                        run(&log, limit, text, size, first, second);
                        assert_bytes(buffer_data(&log.text), buffer_size(&log.text), wanted, strlen(wanted));
                        buffer_done(&log.text);
                }
}

static void test_lines(void) {
        check(100, "one\ntwo\n", "L:one|L:two|");
        check(100, "one\r\ntwo\r\n", "L:one|L:two|");
        check(100, "one\ntwo\r\nthree", "L:one|L:two|L:three|");
        check(100, "", "");
}

static void test_empty_lines(void) {
        check(100, "\n", "L:|");
        check(100, "\r\n", "L:|");
        check(100, "\n\n\r\na\n\n", "L:|L:|L:|L:a|L:|");
}

/* Only the one in front of the line's end belongs to it. */
static void test_carriage_returns(void) {
        check(100, "a\rb\nc\r\r\nd\n", "L:a\rb|L:c\r|L:d|");
        check(100, "\ra\n", "L:\ra|");
}

static void test_nul_bytes(void) {
        for (size_t first = 0; first <= 6; first++) {
                Log log = {};

                run(&log, 100, "a\0b\n\0\n", 6, first, 6);
                assert_bytes(buffer_data(&log.text), buffer_size(&log.text), "L:a\0b|L:\0|", 10);
                buffer_done(&log.text);
        }
}

static void test_limit(void) {
        check(4, "1234\n", "L:1234|");
        check(4, "12345\n", "O:12345|");
        check(4, "1234\n12345\n1234\n", "L:1234|O:12345|L:1234|");
        check(4, "12345\n\nab\n", "O:12345|L:|L:ab|");
        check(4, "1234567890123\n1234567890\nx\n", "O:1234567890123|O:1234567890|L:x|");
        check(4, "1234", "L:1234|");
        check(4, "12345", "O:12345|");
        check(4, "ab\n123456789", "L:ab|O:123456789|");
        check(1, "a\nbc\nd\n", "L:a|O:bc|L:d|");
        check(0, "\na\n\n", "L:|O:a|L:|");
}

/* The limit is without the line's end, also where that is "\r\n". */
static void test_limit_with_carriage_return(void) {
        check(4, "123\r\n", "L:123|");
        check(4, "1234\r\n", "L:1234|");
        check(4, "1234\r\n1234\n", "L:1234|L:1234|");
        check(0, "\r\n", "L:|");
}

/* A '\r' at the limit that turns out to be no line's end counts. */
static void test_limit_inside_carriage_return(void) {
        check(4, "123\r5\n", "O:123\r5|");
        check(4, "1234\r6\n", "O:1234\r6|");
        check(4, "123\r6\nab\n", "O:123\r6|L:ab|");
}

/* However a stream is split, the same comes out. */
static void test_every_split(void) {
        static const char text[] =
                "\n{\"id\":1}\r\n12345678\n123456789\n\r\nlonger than the limit\r\nab\r\r\n\xff\x80\n1234567\r8\n"
                "12345678\r\nend\r";
        Log whole = {};

        run(&whole, 8, text, strlen(text), strlen(text), strlen(text));
        for (size_t first = 0; first <= strlen(text); first++)
                for (size_t second = first; second <= strlen(text); second++) {
                        Log log = {};

                        run(&log, 8, text, strlen(text), first, second);
                        assert_bytes(buffer_data(&log.text), buffer_size(&log.text), buffer_data(&whole.text),
                                     buffer_size(&whole.text));
                        buffer_done(&log.text);
                }
        buffer_done(&whole.text);
}

static void test_byte_by_byte(void) {
        static const char text[] = "one\r\n\ntwelve bytes\ntwo\n";
        LineReader reader = { .limit = 5 };
        Log log = {};

        for (size_t i = 0; i < strlen(text); i++)
                feed(&reader, &log, text + i, 1);
        assert_bytes(buffer_data(&log.text), buffer_size(&log.text), "L:one|L:|O:twelve bytes|L:two|", 30);
        line_reader_flush(&reader, &handlers, &log);
        assert_number(buffer_size(&log.text), 30);
        line_reader_done(&reader);
        buffer_done(&log.text);
}

/* A line over the limit is handed on as it comes and never held. */
static void test_oversized_is_not_held(void) {
        LineReader reader = { .limit = 1000 };
        static char block[4096];
        Log log = {};

        memset(block, 'x', sizeof(block));
        for (int i = 1; i <= 1000; i++) {
                feed(&reader, &log, block, sizeof(block));
                assert_number(buffer_size(&log.text), 2 + i * sizeof(block));
                assert_number(buffer_size(&reader.partial), 0);
        }
        assert_true(log.in_oversized);
        feed(&reader, &log, "\nok\n", 4);
        assert_number(buffer_size(&log.text), 2 + 1000 * sizeof(block) + 1 + 5);
        line_reader_done(&reader);
        buffer_done(&log.text);
}

/* At the end of the stream each thing is said once, and the reader can be used again. */
static void test_flush(void) {
        LineReader reader = { .limit = 4 };
        Log log = {};

        line_reader_flush(&reader, &handlers, &log);
        assert_number(buffer_size(&log.text), 0);

        feed(&reader, &log, "ab", 2);
        line_reader_flush(&reader, &handlers, &log);
        line_reader_flush(&reader, &handlers, &log);
        feed(&reader, &log, "123456", 6);
        line_reader_flush(&reader, &handlers, &log);
        line_reader_flush(&reader, &handlers, &log);
        feed(&reader, &log, "c\n", 2);
        line_reader_flush(&reader, &handlers, &log);
        assert_bytes(buffer_data(&log.text), buffer_size(&log.text), "L:ab|O:123456|L:c|", 18);
        line_reader_done(&reader);
        buffer_done(&log.text);
}

/* Whose reader goes away in the middle of a line hears nothing of it. */
static void test_done(void) {
        LineReader reader = { .limit = 100 };
        Log log = {};

        feed(&reader, &log, "half a li", 9);
        line_reader_done(&reader);
        line_reader_done(&reader);
        assert_number(buffer_size(&log.text), 0);
        buffer_done(&log.text);
}

int main(void) {
        test_lines();
        test_empty_lines();
        test_carriage_returns();
        test_nul_bytes();
        test_limit();
        test_limit_inside_carriage_return();
        test_every_split();
        test_byte_by_byte();
        test_oversized_is_not_held();
        test_flush();
        test_done();
        test_limit_with_carriage_return();
        return 0;
}
