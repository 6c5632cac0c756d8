#pragma once

#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "base/macro.h"

#define WINDOW 16 /* calls in flight */

/* {"message":"NUMBERxxxx..."}: the parameters of a call. Each call has another number, so that no answer fits two. */
typedef struct Payload {
        char *text;
        size_t size;
} Payload;

int payload_new(size_t size, Payload *ret);

/* What is to be found in an answer: prefix, the payload less so many bytes at both ends, suffix */
typedef struct Expected {
        const char *prefix;
        size_t skip_front, skip_back;
        const char *suffix;
} Expected;

/* One thing to measure: a worker at the ends of two pipes, or a method at the end of a bus connection. */
typedef struct Subject {
        const char *name;
        pid_t pid; /* of the child behind it, or 0 */

        /* pipes */
        int input_fd, output_fd;
        const char *request_head; /* the envelope as the broker writes it; takes the id */
        const char *request_tail;
        const char *answer_prefix; /* what stands in the answer's line in front of the result, takes the id */
        const char *answer_suffix; /* and behind it */
        uint64_t last_id;
        char *line;
        size_t line_allocated, line_end, line_next;

        /* bus */
        sd_bus *bus;
        const char *destination, *path, *interface, *member;
        const char *server, *method; /* NULL: the member takes the payload alone */

        Expected expected;
} Subject;

/* Each opens one subject; strings are not copied. Children are forked before anything else is opened. */
int subject_open_peer(Subject *subject);
int subject_open_bus_echo(Subject *subject);
int subject_open_broker(Subject *subject, const char *server, const char *member, const char *method);
int subject_open_private(Subject *subject, const char *address, const char *server);
int subject_open_echo_worker(Subject *subject, const char *path, bool tool);
int subject_open_everything(Subject *subject, const char *node, const char *script);
void subject_close(Subject *subject);

/* What server-everything answers to its tool echo */
extern const Expected everything_expected;

/* One call and its answer. *ret_nsec is the time from its first byte to the answer in hand. -EBADMSG where that is not
 * the right answer; all failures are explained on stderr. */
int subject_call(Subject *subject, Payload *payload, uint64_t *ret_nsec);

/* So many calls, WINDOW of them in flight; *ret_nsec is the time for all. payloads: one for each in flight. */
int subject_flood(Subject *subject, Payload payloads[WINDOW], unsigned calls, uint64_t *ret_nsec);
