#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

/* Ownership helpers, after systemd's conventions: a variable marked _cleanup_ is released when it leaves its
 * scope, and TAKE_PTR()/TAKE_FD() move what it owns out of it. */

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))

#define DEFINE_CLEANUP(type, function, name)                                                                           \
        static inline _unused_ void name(type *value) {                                                                \
                if (*value)                                                                                            \
                        function(*value);                                                                              \
        }

#define TAKE_PTR(pointer)                                                                                              \
        ({                                                                                                             \
                __typeof__(pointer) *_source = &(pointer);                                                             \
                __typeof__(pointer) _taken = *_source;                                                                 \
                *_source = NULL;                                                                                       \
                _taken;                                                                                                \
        })

#define TAKE_FD(fd)                                                                                                    \
        ({                                                                                                             \
                int *_source = &(fd);                                                                                  \
                int _taken = *_source;                                                                                 \
                *_source = -EBADF;                                                                                     \
                _taken;                                                                                                \
        })

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define new0(type, n) ((type *)calloc((n), sizeof(type)))

#define USEC_PER_SEC UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_INFINITY UINT64_MAX

/* glibc's <sys/queue.h> lacks the variant that allows the current element to be removed. */
#ifndef TAILQ_FOREACH_SAFE
#define TAILQ_FOREACH_SAFE(var, head, field, next)                                                                     \
        for ((var) = TAILQ_FIRST(head); (var) && ((next) = TAILQ_NEXT(var, field), 1); (var) = (next))
#endif

/* CLOCK_MONOTONIC as it is now, and not when this turn of the loop began */
static inline uint64_t clock_usec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
}

static inline void freep(void *pointer) {
        free(*(void **)pointer);
}

/* Closes fd unless it is negative, keeps errno, returns -EBADF so that the variable can be reset in place. */
static inline int safe_close(int fd) {
        if (fd >= 0) {
                int saved = errno;

                (void)close(fd);
                errno = saved;
        }

        return -EBADF;
}

static inline void closep(int *fd) {
        safe_close(*fd);
}

static inline bool streq(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

/* a + b, or USEC_INFINITY where that overflows */
static inline uint64_t usec_add(uint64_t a, uint64_t b) {
        return a > USEC_INFINITY - b ? USEC_INFINITY : a + b;
}
