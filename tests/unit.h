#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Assertions for the unit tests and fuzz targets: each prints its place and what it saw, and aborts. They stay when
 * NDEBUG is set. */

static inline void assert_failed(const char *file, int line, const char *expression) {
        fprintf(stderr, "%s:%d: %s\n", file, line, expression);
        abort();
}

static inline void assert_numbers(const char *file, int line, const char *expression, long long got, long long wanted) {
        if (got == wanted)
                return;

        fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", file, line, expression, got, wanted);
        abort();
}

/* Any bytes, so that a failure can be read: what isn't printable ASCII as \xNN */
static inline void print_bytes(const char *data, size_t size) {
        for (size_t i = 0; i < size && i < 2000; i++)
                if (data[i] >= 0x20 && data[i] < 0x7f)
                        fputc(data[i], stderr);
                else
                        fprintf(stderr, "\\x%02x", (unsigned char)data[i]);
        fprintf(stderr, " (%zu bytes)\n", size);
}

static inline void assert_byte_runs(const char *file, int line, const char *expression, const char *got,
                                    size_t got_size, const char *wanted, size_t wanted_size) {
        if (got_size == wanted_size && (got_size == 0 || (got && memcmp(got, wanted, got_size) == 0)))
                return;

        fprintf(stderr, "%s:%d: %s differs\n   is: ", file, line, expression);
        print_bytes(got ? got : "", got_size);
        fprintf(stderr, "  not: ");
        print_bytes(wanted, wanted_size);
        abort();
}

#define assert_true(expression) ((expression) ? (void)0 : assert_failed(__FILE__, __LINE__, #expression " is false"))
#define assert_false(expression) (!(expression) ? (void)0 : assert_failed(__FILE__, __LINE__, #expression " is true"))
#define assert_number(got, wanted) assert_numbers(__FILE__, __LINE__, #got, (long long)(got), (long long)(wanted))
#define assert_bytes(got, got_size, wanted, wanted_size)                                                               \
        assert_byte_runs(__FILE__, __LINE__, #got, (got), (got_size), (wanted), (wanted_size))
#define assert_string(got, wanted)                                                                                     \
        do {                                                                                                           \
                const char *_got = (got), *_wanted = (wanted);                                                         \
                if (!_got)                                                                                             \
                        assert_failed(__FILE__, __LINE__, #got " is NULL");                                            \
                else                                                                                                   \
                        assert_bytes(_got, strlen(_got), _wanted, strlen(_wanted));                                    \
        } while (0)
