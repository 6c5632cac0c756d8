#pragma once

#include "base/macro.h"

#define SIZES 3
#define SUBJECTS 9

typedef enum Kind {
        PIPE_PARAMS,
        PIPE_TOOL,
        PEER,
        BUS,
        CALL,
        CALL_TOOL,
        CALL_PRIVATE,
        EVERYTHING_PIPE,
        EVERYTHING_TOOL,
} Kind;

/* What was measured of one subject in one way. Microseconds a call. */
typedef struct Series {
        double *rounds; /* one figure for each round: its median, or, with calls in flight, its average */
        unsigned n_rounds;
        double *samples; /* all single calls, sorted by series_finish(); none with calls in flight */
        size_t n_samples;
} Series;

typedef struct Report {
        unsigned rounds;
        bool has_everything;
        const size_t *sizes;
        const char *names[SUBJECTS];
        Series sync[SUBJECTS][SIZES], flood[SUBJECTS];
        double memory_warm_mib, memory_after_mib;
        unsigned warm_workers;
} Report;

double median(const double *values, size_t n);

void report_print(Report *report);
void report_print_json(Report *report);
