#include "report.h"

#include <stdio.h>

#define CALL_TARGET 1.3
#define PRIVATE_TARGET 0.75
#define EVERYTHING_TARGET_USEC 150.0
#define MEMORY_TARGET_MIB 4.0

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

double median(const double *values, size_t n) {
        _cleanup_(freep) double *sorted = new0(double, n + 1);

        if (!sorted || n == 0)
                return 0;

        memcpy(sorted, values, n * sizeof(double));
        qsort(sorted, n, sizeof(double), compare);
        return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static double p99(Series *series) {
        if (series->n_samples == 0)
                return 0;

        qsort(series->samples, series->n_samples, sizeof(double), compare);
        return series->samples[series->n_samples * 99 / 100];
}

static double middle(const Series *series) {
        return median(series->rounds, series->n_rounds);
}

/* The median over the rounds of what is computed within each of them, so that noise which lasts longer than a round
 * hits both sides of a ratio. */
static double over_rounds(const Series *a, const Series *b, const Series *c, double (*compute)(double, double, double),
                          double *ret_quartiles) {
        _cleanup_(freep) double *values = new0(double, a->n_rounds + 1);

        if (!values)
                return 0;

        for (unsigned i = 0; i < a->n_rounds; i++)
                values[i] = compute(a->rounds[i], b->rounds[i], c->rounds[i]);
        if (ret_quartiles) {
                qsort(values, a->n_rounds, sizeof(double), compare);
                ret_quartiles[0] = values[a->n_rounds / 4];
                ret_quartiles[1] = values[a->n_rounds * 3 / 4];
        }
        return median(values, a->n_rounds);
}

static double ratio_to_sum(double a, double b, double c) {
        return a / (b + c);
}

static double more_than_sum(double a, double b, double c) {
        return a - b - c;
}

static double ratio(double a, double b, double c _unused_) {
        return a / b;
}

static double difference(double a, double b, double c _unused_) {
        return a - b;
}

static double sync_ratio(Report *report, Kind kind, unsigned size, double *ret_quartiles) {
        return over_rounds(&report->sync[kind][size], &report->sync[BUS][size],
                           &report->sync[kind == CALL ? PIPE_PARAMS : PIPE_TOOL][size], ratio_to_sum, ret_quartiles);
}

static double flood_ratio(Report *report, Kind kind, Kind to) {
        return over_rounds(&report->flood[kind], &report->flood[to], &report->flood[to], ratio, NULL);
}

static double private_ratio(Report *report, unsigned size, double *ret_quartiles) {
        const Series *series = &report->sync[CALL][size];

        return over_rounds(&report->sync[CALL_PRIVATE][size], series, series, ratio, ret_quartiles);
}

/* What the broker adds to server-everything, and by how much that is more than a round trip through the bus */
static double overhead(Report *report) {
        return over_rounds(&report->sync[EVERYTHING_TOOL][0], &report->sync[EVERYTHING_PIPE][0],
                           &report->sync[EVERYTHING_PIPE][0], difference, NULL);
}

static double overhead_beyond_bus(Report *report, double *ret_quartiles) {
        return over_rounds(&report->sync[EVERYTHING_TOOL][0], &report->sync[EVERYTHING_PIPE][0], &report->sync[BUS][0],
                           more_than_sum, ret_quartiles);
}

#define TARGETS_MAX 4

typedef struct Target {
        const char *key, *text;
        double figure, limit, quartiles[2]; /* of the rounds' own figures; 0 where there is only one */
} Target;

static size_t targets(Report *report, Target ret[TARGETS_MAX]) {
        Target *target = ret;

        *target = (Target){ "call_ratio", "sync Call, 100 B: times (bus echo + pipe echo)", .limit = CALL_TARGET };
        target->figure = sync_ratio(report, CALL, 0, target->quartiles);
        target++;

        *target = (Target){ "private_ratio", "sync Call, 100 B, through the private socket: times through the bus",
                            .limit = PRIVATE_TARGET };
        target->figure = private_ratio(report, 0, target->quartiles);
        target++;

        if (report->has_everything) {
                *target = (Target){ "everything_beyond_bus_usec",
                                    "CallTool on server-everything: µs beyond its pipes and a bus round trip",
                                    .limit = EVERYTHING_TARGET_USEC };
                target->figure = overhead_beyond_bus(report, target->quartiles);
                target++;
        }

        *target++ = (Target){ "memory_mib", "private memory of the broker with its warm workers: MiB",
                              .figure = report->memory_warm_mib, .limit = MEMORY_TARGET_MIB };
        return (size_t)(target - ret);
}

static void print_size(size_t size) {
        char text[32];

        (void)snprintf(text, sizeof(text), size < 1000 ? "%zu B" : "%zu KB", size < 1000 ? size : size / 1000);
        printf("%20s", text);
}

static void print_sync(Report *report) {
        printf("%-26s", "one call at a time, µs");
        for (unsigned size = 0; size < SIZES; size++)
                print_size(report->sizes[size]);
        printf("\n%-25s", "");
        for (unsigned size = 0; size < SIZES; size++)
                printf("%12s%8s", "median", "p99");
        printf("\n");

        for (Kind kind = 0; kind < (report->has_everything ? SUBJECTS : EVERYTHING_PIPE); kind++) {
                printf("  %-23s", report->names[kind]);
                for (unsigned size = 0; size < SIZES && report->sync[kind][size].n_rounds > 0; size++)
                        printf("%12.1f%8.0f", middle(&report->sync[kind][size]), p99(&report->sync[kind][size]));
                printf("\n");
        }

        for (Kind kind = CALL; kind <= CALL_TOOL; kind++) {
                char label[32];

                (void)snprintf(label, sizeof(label), "%s / (bus + pipe)", report->names[kind]);
                printf("  %-23s", label);
                for (unsigned size = 0; size < SIZES; size++)
                        printf("%12.2f%8s", sync_ratio(report, kind, size, NULL), "");
                printf("\n");
        }
        printf("  %-23s", "private socket / bus");
        for (unsigned size = 0; size < SIZES; size++)
                printf("%12.2f%8s", private_ratio(report, size, NULL), "");
        printf("\n");
        if (report->has_everything)
                printf("  everything, overhead: %.1f µs, next to %.1f µs for one round trip through the bus\n",
                       overhead(report), middle(&report->sync[BUS][0]));
}

static void print_flood(Report *report) {
        static const Kind kinds[] = { PIPE_PARAMS, PEER, BUS, CALL, CALL_PRIVATE };

        printf("\n%-26s%11s%20s\n", "16 calls in flight, 100 B", "calls/s", "µs a call");
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                double usec = middle(&report->flood[kinds[i]]);

                printf("  %-23s%12.0f%20.1f\n", report->names[kinds[i]], 1e6 / usec, usec);
        }
        printf("  %-23s%32.2f\n", "Call / bus", flood_ratio(report, CALL, BUS));
        printf("  %-23s%32.2f\n", "private socket / bus", flood_ratio(report, CALL_PRIVATE, CALL));
}

void report_print(Report *report) {
        Target list[TARGETS_MAX];
        size_t n = targets(report, list);

        printf("%u rounds; ratios are medians of each round's own\n\n", report->rounds);
        print_sync(report);
        print_flood(report);
        printf("\nprivate memory of the broker with %u warm workers: %.2f MiB; after all calls: %.2f MiB\n\n",
               report->warm_workers, report->memory_warm_mib, report->memory_after_mib);

        for (size_t i = 0; i < n; i++) {
                const Target *target = list + i;

                printf("%s  %s: %.2f (target: at most %g", target->figure <= target->limit ? "PASS" : "FAIL",
                       target->text, target->figure, target->limit);
                if (target->quartiles[1] > 0)
                        printf("; half of the rounds: %.2f to %.2f", target->quartiles[0], target->quartiles[1]);
                printf(")\n");
        }
}

void report_print_json(Report *report) {
        const char *comma = "";
        Target list[TARGETS_MAX];
        size_t n = targets(report, list);

        printf("{\"rounds\":%u,\"sync\":[", report->rounds);
        for (Kind kind = 0; kind < SUBJECTS; kind++)
                for (unsigned size = 0; size < SIZES; size++) {
                        Series *series = &report->sync[kind][size];

                        if (series->n_rounds == 0)
                                continue;
                        printf("%s{\"name\":\"%s\",\"bytes\":%zu,\"median_usec\":%.2f,\"p99_usec\":%.2f}", comma,
                               report->names[kind], report->sizes[size], middle(series), p99(series));
                        comma = ",";
                }

        comma = "";
        printf("],\"in_flight\":[");
        for (Kind kind = 0; kind < SUBJECTS; kind++)
                if (report->flood[kind].n_rounds > 0) {
                        printf("%s{\"name\":\"%s\",\"calls_per_second\":%.0f}", comma, report->names[kind],
                               1e6 / middle(&report->flood[kind]));
                        comma = ",";
                }

        comma = "";
        printf("],\"ratios\":[");
        for (Kind kind = CALL; kind <= CALL_TOOL; kind++)
                for (unsigned size = 0; size < SIZES; size++) {
                        printf("%s{\"name\":\"%s\",\"bytes\":%zu,\"ratio\":%.3f}", comma, report->names[kind],
                               report->sizes[size], sync_ratio(report, kind, size, NULL));
                        comma = ",";
                }
        for (unsigned size = 0; size < SIZES; size++)
                printf("%s{\"name\":\"%s\",\"bytes\":%zu,\"ratio\":%.3f}", comma, report->names[CALL_PRIVATE],
                       report->sizes[size], private_ratio(report, size, NULL));
        printf("],\"in_flight_ratio\":%.3f,\"in_flight_private_ratio\":%.3f", flood_ratio(report, CALL, BUS),
               flood_ratio(report, CALL_PRIVATE, CALL));
        if (report->has_everything)
                printf(",\"everything_overhead_usec\":%.2f", overhead(report));
        printf(",\"memory_mib\":{\"workers\":%u,\"warm\":%.3f,\"after\":%.3f},\"targets\":[", report->warm_workers,
               report->memory_warm_mib, report->memory_after_mib);
        for (size_t i = 0; i < n; i++)
                printf("%s{\"name\":\"%s\",\"figure\":%.3f,\"quartiles\":[%.3f,%.3f],\"limit\":%g,\"pass\":%s}",
                       i > 0 ? "," : "", list[i].key, list[i].figure, list[i].quartiles[0], list[i].quartiles[1],
                       list[i].limit, list[i].figure <= list[i].limit ? "true" : "false");
        printf("]}\n");
}
