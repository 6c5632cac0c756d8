/* What a call through the broker costs, beside the least that its parts cost: a pipe to the same worker, a bare sd-bus
 * echo peer to peer, and one through the same bus; and the same call through the private socket. tests/bench/run
 * prepares all that it needs.
 *
 * Everything is measured in turns, in many short rounds, so that a noisy machine disturbs all alike. Each answer is
 * compared with what it has to be; a wrong one, and nothing else, ends the run with a failure. */

#include <getopt.h>
#include <stdio.h>

#include "report.h"
#include "subject.h"

#define BROKER "org.example.McpExec"
#define BROKER_PATH "/org/example/McpExec"
#define FLOOD_CALLS 200
#define WARM_WORKERS_MAX 64

static const size_t sizes[SIZES] = { 100, 10 * 1000, 500 * 1000 };
static const unsigned burst[SIZES] = { 20, 10, 2 }; /* calls of one subject in one round */
#define EVERYTHING_BURST 10

typedef struct Options {
        const char *worker, *node, *everything, *private_address;
        unsigned rounds, warm, calls;
        bool json, only_private;
} Options;

typedef struct Bench {
        const Options *options;
        Subject subjects[SUBJECTS];
        Payload payloads[SIZES], flood_payloads[WINDOW];
        Report report;
} Bench;

static int fail(const char *what, int error) {
        fprintf(stderr, "bench: %s: %s\n", what, strerror(-error));
        return error;
}

static int open_subjects(Bench *bench) {
        const Options *o = bench->options;
        Subject *s = bench->subjects;
        int r;

        for (Kind kind = 0; kind < SUBJECTS; kind++)
                s[kind].input_fd = s[kind].output_fd = -EBADF;

        r = subject_open_peer(s + PEER);
        if (r >= 0)
                r = subject_open_bus_echo(s + BUS);
        if (r >= 0)
                r = subject_open_echo_worker(s + PIPE_PARAMS, o->worker, /* tool= */ false);
        if (r >= 0)
                r = subject_open_echo_worker(s + PIPE_TOOL, o->worker, /* tool= */ true);
        if (r >= 0)
                r = subject_open_broker(s + CALL, "echo", "Call", "echo/params");
        if (r >= 0)
                r = subject_open_broker(s + CALL_TOOL, "echo", "CallTool", "echo");
        if (r >= 0)
                r = subject_open_private(s + CALL_PRIVATE, o->private_address, "echo");
        if (r >= 0 && o->everything) {
                r = subject_open_everything(s + EVERYTHING_PIPE, o->node, o->everything);
                if (r >= 0)
                        r = subject_open_broker(s + EVERYTHING_TOOL, "everything", "CallTool", "echo");
                s[EVERYTHING_TOOL].name = "everything, CallTool";
                s[EVERYTHING_TOOL].expected = everything_expected;
        }

        for (Kind kind = 0; kind < SUBJECTS; kind++)
                bench->report.names[kind] = s[kind].name;
        return r;
}

static int new_payloads(Bench *bench) {
        int r = 0;

        for (unsigned size = 0; size < SIZES && r >= 0; size++)
                r = payload_new(sizes[size], bench->payloads + size);
        for (unsigned i = 0; i < WINDOW && r >= 0; i++)
                r = payload_new(sizes[0], bench->flood_payloads + i);
        return r;
}

/* The first call of a burst pays for what the others have pushed out of the caches, and isn't counted. */
static int measure_sync(Bench *bench, Kind kind, unsigned size, unsigned calls) {
        Series *series = &bench->report.sync[kind][size];
        double *samples;
        uint64_t nsec;
        int r;

        if (!series->samples) {
                series->rounds = new0(double, bench->options->rounds);
                series->samples = new0(double, (size_t)bench->options->rounds *calls);
                if (!series->rounds || !series->samples)
                        return -ENOMEM;
        }

        samples = series->samples + series->n_samples;
        for (unsigned i = 0; i <= calls; i++) {
                r = subject_call(bench->subjects + kind, bench->payloads + size, &nsec);
                if (r < 0)
                        return r;
                if (i > 0)
                        samples[i - 1] = (double)nsec / 1e3;
        }

        series->n_samples += calls;
        series->rounds[series->n_rounds++] = median(samples, calls);
        return 0;
}

static int measure_flood(Bench *bench, Kind kind) {
        Series *series = bench->report.flood + kind;
        uint64_t nsec;
        int r;

        if (!series->rounds) {
                series->rounds = new0(double, bench->options->rounds);
                if (!series->rounds)
                        return -ENOMEM;
        }

        r = subject_flood(bench->subjects + kind, bench->flood_payloads, FLOOD_CALLS, &nsec);
        if (r < 0)
                return r;

        series->rounds[series->n_rounds++] = (double)nsec / 1e3 / FLOOD_CALLS;
        return 0;
}

static int measure_round(Bench *bench) {
        static const Kind flooded[] = { PIPE_PARAMS, PEER, BUS, CALL, CALL_PRIVATE };
        int r;

        for (unsigned size = 0; size < SIZES; size++)
                for (Kind kind = PIPE_PARAMS; kind <= CALL_PRIVATE; kind++) {
                        r = measure_sync(bench, kind, size, burst[size]);
                        if (r < 0)
                                return r;
                }

        for (Kind kind = EVERYTHING_PIPE; bench->report.has_everything && kind <= EVERYTHING_TOOL; kind++) {
                r = measure_sync(bench, kind, 0, EVERYTHING_BURST);
                if (r < 0)
                        return r;
        }

        for (size_t i = 0; i < ELEMENTSOF(flooded); i++) {
                r = measure_flood(bench, flooded[i]);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int private_memory(pid_t pid, double *ret_mib) {
        unsigned long long kib, sum = 0;
        char path[64], line[256];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
        file = fopen(path, "re");
        if (!file)
                return fail(path, -errno);

        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "Private_Clean: %llu", &kib) == 1 || sscanf(line, "Private_Dirty: %llu", &kib) == 1)
                        sum += kib;

        (void)fclose(file);
        *ret_mib = (double)sum / 1024;
        return 0;
}

static int get_broker_pid(sd_bus *bus, pid_t *ret) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        uint32_t pid;
        int r;

        r = sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                               "GetConnectionUnixProcessID", NULL, &reply, "s", BROKER);
        if (r >= 0)
                r = sd_bus_message_read(reply, "u", &pid);
        if (r >= 0)
                *ret = (pid_t)pid;
        return r;
}

static int for_warm_servers(sd_bus *bus, const char *member, unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
                char server[32];
                int r;

                (void)snprintf(server, sizeof(server), "warm%02u", i);
                r = sd_bus_call_method(bus, BROKER, BROKER_PATH, BROKER, member, &error, NULL, "s", server);
                if (r < 0)
                        return fail(error.message ?: member, r);
        }

        return 0;
}

/* Without its workers, its memory would say nothing. */
static int check_workers(sd_bus *bus, unsigned n) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        uint32_t running;
        int r;

        r = sd_bus_get_property_trivial(bus, BROKER, BROKER_PATH, BROKER, "WorkersRunning", &error, 'u', &running);
        if (r < 0)
                return fail(error.message ?: "WorkersRunning", r);
        if (running < n) {
                fprintf(stderr, "bench: only %u of %u warm workers are running\n", running, n);
                return -ENODATA;
        }

        return 0;
}

static int measure_memory(Bench *bench, double *ret_mib) {
        sd_bus *bus = bench->subjects[CALL].bus;
        unsigned warm = bench->options->warm;
        pid_t pid = 0;
        int r;

        r = for_warm_servers(bus, "StartServer", warm);
        if (r >= 0)
                r = check_workers(bus, warm);
        if (r >= 0)
                r = get_broker_pid(bus, &pid);
        if (r >= 0)
                r = private_memory(pid, ret_mib);
        if (r >= 0)
                r = for_warm_servers(bus, "StopServer", warm);
        return r;
}

/* For a look at the broker with strace or perf: calls of one kind only, whose processes are named. */
static int only_call(Bench *bench) {
        Subject *subject = bench->subjects + (bench->options->only_private ? CALL_PRIVATE : CALL);
        uint64_t nsec;
        pid_t pid;
        int r;

        r = subject_call(subject, bench->payloads, &nsec);
        if (r >= 0)
                r = get_broker_pid(bench->subjects[CALL].bus, &pid);
        if (r < 0)
                return r;

        printf("%d\n", (int)pid);
        (void)fflush(stdout);
        (void)getchar();
        for (unsigned i = 0; i < bench->options->calls && r >= 0; i++)
                r = subject_call(subject, bench->payloads, &nsec);
        return r;
}

static int run(Bench *bench) {
        Report *report = &bench->report;
        int r;

        r = open_subjects(bench);
        if (r >= 0)
                r = new_payloads(bench);
        if (r >= 0 && bench->options->calls > 0)
                return only_call(bench);

        if (r >= 0)
                r = measure_memory(bench, &report->memory_warm_mib);
        for (unsigned i = 0; i < bench->options->rounds && r >= 0; i++)
                r = measure_round(bench);
        if (r >= 0)
                r = measure_memory(bench, &report->memory_after_mib);
        if (r < 0)
                return r;

        if (bench->options->json)
                report_print_json(report);
        else
                report_print(report);
        return 0;
}

static int usage(void) {
        fputs("usage: bench --worker=PATH --private=ADDRESS [--node=PATH --everything=SCRIPT] [--rounds=N] [--warm=N] "
              "[--json]\n"
              "       bench --worker=PATH --private=ADDRESS --calls=N [--only-private]: prints the broker's pid, waits "
              "for a line, makes N Calls of 100 B\n",
              stderr);
        return EXIT_FAILURE;
}

int main(int argc, char *argv[]) {
        static const struct option long_options[] = {
                { "worker", required_argument, NULL, 'w' },
                { "node", required_argument, NULL, 'n' },
                { "everything", required_argument, NULL, 'e' },
                { "rounds", required_argument, NULL, 'r' },
                { "warm", required_argument, NULL, 'm' },
                { "calls", required_argument, NULL, 'c' },
                { "private", required_argument, NULL, 'p' },
                { "only-private", no_argument, NULL, 'o' },
                { "json", no_argument, NULL, 'j' },
                {},
        };
        Options options = { .rounds = 60, .warm = 16 };
        Bench bench = { .options = &options };
        int c, r;

        while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
                switch (c) {
                case 'w':
                        options.worker = optarg;
                        break;
                case 'n':
                        options.node = optarg;
                        break;
                case 'e':
                        options.everything = optarg;
                        break;
                case 'r':
                        options.rounds = (unsigned)atoi(optarg);
                        break;
                case 'm':
                        options.warm = (unsigned)atoi(optarg);
                        break;
                case 'c':
                        options.calls = (unsigned)atoi(optarg);
                        break;
                case 'p':
                        options.private_address = optarg;
                        break;
                case 'o':
                        options.only_private = true;
                        break;
                case 'j':
                        options.json = true;
                        break;
                default:
                        return usage();
                }
        if (!options.worker || !options.private_address || (options.everything && !options.node) ||
            options.rounds < 1 || options.warm > WARM_WORKERS_MAX || optind < argc)
                return usage();

        bench.report = (Report){
                .rounds = options.rounds,
                .has_everything = options.everything,
                .sizes = sizes,
                .warm_workers = options.warm,
        };
        r = run(&bench);
        for (Kind kind = 0; kind < SUBJECTS; kind++)
                subject_close(bench.subjects + kind);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
