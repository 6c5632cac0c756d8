#pragma once

#include <stdbool.h>
#include <stdint.h>

/* When to stop starting what crashes again and again: burst crashes within interval close it for 30 s, and each time
 * that it crashes at once when it is opened again for 30 s more, up to 300 s. Times are in microseconds, of one
 * clock. Zero-initialised has seen nothing. */
typedef struct CrashPolicy {
        uint64_t *times; /* a ring of the last burst crashes */
        unsigned burst, n_crashes;
        unsigned n_trips;        /* how often in a row it closed */
        bool probation;          /* after that, the next crash is the next trip */
        uint64_t crashed;        /* the last time */
        uint64_t retry_at;       /* closed until then */
        uint64_t remember_until; /* until then its crashes count */
} CrashPolicy;

/* burst 0: never closes. Without memory for the ring, a crash is not counted. */
void crash_policy_note(CrashPolicy *policy, unsigned burst, uint64_t interval, uint64_t now);

bool crash_policy_closed(const CrashPolicy *policy, uint64_t now);

/* One is ready since then, or was until now: what was before that doesn't count where it ran for interval. One that
 * others crashed beside proves nothing. */
void crash_policy_ran(CrashPolicy *policy, uint64_t interval, uint64_t since, uint64_t now);

/* It ran long enough, or was changed, or somebody wants it tried. */
void crash_policy_forget(CrashPolicy *policy);

void crash_policy_done(CrashPolicy *policy);
