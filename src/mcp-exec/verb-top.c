/* top: servers at work, a table that is drawn anew. */

#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <time.h>

#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

#define DELAY USEC_PER_SEC
#define SNAPSHOT_TIME (USEC_PER_SEC / 2)

/* What a worker had done when it was looked at before */
typedef struct Before {
        char *id;
        uint64_t answers, call_time, cpu;
} Before;

typedef struct Top {
        Cli *cli;
        Before *before;
        size_t n_before;
        uint64_t when; /* the look before, monotonic; 0: none */
} Top;

static struct termios normal;

static uint64_t monotonic_usec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}

static const Before *find_before(const Top *top, const char *id) {
        for (size_t i = 0; i < top->n_before; i++)
                if (streq(top->before[i].id, id))
                        return &top->before[i];

        return NULL;
}

static uint64_t answers(const WorkerState *worker) {
        return worker->calls - MIN(worker->calls, (uint64_t)worker->in_flight);
}

/* What grew, also where a process has gone meanwhile and took its share along */
static uint64_t grown(uint64_t now, uint64_t before) {
        return now - MIN(now, before);
}

static void remember(Top *top, const ServiceState *state, uint64_t when) {
        for (size_t i = 0; i < top->n_before; i++)
                free(top->before[i].id);
        free(top->before);

        top->before = new0(Before, state->n_workers + 1);
        if (!top->before)
                out_of_memory();
        for (size_t i = 0; i < state->n_workers; i++) {
                top->before[i] = (Before){ strdup(state->workers[i].id), answers(&state->workers[i]),
                                           state->workers[i].call_time, worker_cpu(state->workers[i].pid) };
                if (!top->before[i].id)
                        out_of_memory();
        }
        top->n_before = state->n_workers;
        top->when = when;
}

/* A row a server: what its workers did since the look before, or since they started. */
static void add_server(const Top *top, const ServiceState *state, const ServerState *server, uint64_t elapsed,
                       Table *table) {
        uint64_t calls = 0, memory = 0, recent = 0, call_time = 0, cpu = 0;
        unsigned workers = 0;

        for (size_t i = 0; i < state->n_workers; i++) {
                const WorkerState *worker = &state->workers[i];
                const Before *before;

                if (!streq(worker->server, server->name))
                        continue;
                before = find_before(top, worker->id);
                workers++;
                calls += worker->calls;
                memory += worker_memory(worker->pid);
                recent += grown(answers(worker), before ? before->answers : 0);
                call_time += grown(worker->call_time, before ? before->call_time : 0);
                cpu += grown(worker_cpu(worker->pid), before ? before->cpu : 0);
        }

        table_add(table, COLOR_BOLD, server->name);
        table_add(table, state_color(server->state), server->state);
        table_addf(table, COLOR_NONE, "%u", workers);
        table_addf(table, COLOR_NONE, "%llu", (unsigned long long)calls);
        if (elapsed > 0 && workers > 0) {
                table_addf(table, COLOR_NONE, "%.1f", (double)recent * USEC_PER_SEC / elapsed);
                table_addf(table, COLOR_NONE, "%.0f%%", (double)cpu * 100 / elapsed);
        } else {
                table_add(table, COLOR_NONE, "-");
                table_add(table, COLOR_NONE, "-");
        }
        table_add(table, COLOR_NONE, recent > 0 ? format_duration(call_time / recent) : "-");
        table_addf(table, COLOR_NONE, "%u", server->in_flight);
        table_addf(table, COLOR_NONE, "%u", server->queued);
        table_add(table, COLOR_NONE, memory > 0 ? format_bytes(memory) : "-");
}

static int show(Top *top, bool redraw) {
        static const char *const titles[] = { "SERVER", "STATE",   "PROCS",  "CALLS", "CALLS/S",
                                              "CPU",    "LATENCY", "ACTIVE", "QUEUE", "MEMORY" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .right = 0x3fc };
        ServiceState state;
        uint64_t now;
        int status;

        status = status_fetch_state(top->cli, &state);
        if (status != STATUS_OK)
                return status;

        now = monotonic_usec();
        for (size_t i = 0; i < state.n_servers; i++)
                add_server(top, &state, &state.servers[i], top->when ? now - top->when : 0, &table);

        if (redraw)
                (void)fputs("\x1b[H\x1b[J", stdout);
        printf("mcp-execd %s on %s: %u workers, %u calls in flight%s\n\n", state.version, top->cli->bus_name,
               state.workers_running, state.in_flight, redraw ? "; q quits" : "");
        table_print(&table, "");
        (void)fflush(stdout);

        remember(top, &state, now);
        table_done(&table);
        state_done(&state);
        return STATUS_OK;
}

/* Without a picture that moves, the rates are those of half a second. */
static int show_once(Top *top) {
        ServiceState state;
        int status;

        status = status_fetch_state(top->cli, &state);
        if (status != STATUS_OK)
                return status;
        remember(top, &state, monotonic_usec());
        state_done(&state);

        (void)usleep(SNAPSHOT_TIME);
        return show(top, /* redraw= */ false);
}

static void leave_screen(void) {
        static const char sequence[] = "\x1b[?25h";

        (void)tcsetattr(STDIN_FILENO, TCSANOW, &normal);
        if (write(STDOUT_FILENO, sequence, sizeof(sequence) - 1) < 0)
                return; /* the terminal is gone */
}

static void on_signal(int number) {
        leave_screen();
        (void)signal(number, SIG_DFL);
        (void)raise(number);
}

static int watch(Top *top) {
        struct termios raw;
        int status = STATUS_OK;

        (void)tcgetattr(STDIN_FILENO, &normal);
        raw = normal;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        (void)signal(SIGINT, on_signal);
        (void)signal(SIGTERM, on_signal);
        (void)signal(SIGHUP, on_signal);
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        (void)fputs("\x1b[?25l", stdout);

        while (status == STATUS_OK) {
                struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
                char key = 0;
                int r;

                status = show(top, /* redraw= */ true);
                r = status == STATUS_OK ? poll(&input, 1, DELAY / USEC_PER_MSEC) : 0;
                if (r > 0 && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 4))
                        break;
        }

        (void)fflush(stdout);
        leave_screen();
        return status;
}

int verb_top(Cli *cli, int argc _unused_, char *argv[]) {
        Top top = { .cli = cli };
        int status;

        /* Programs make their own rates of counters. */
        if (cli->json)
                return verb_status(cli, 1, argv);

        status = status_connect(cli);
        if (status == STATUS_OK)
                status = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? watch(&top) : show_once(&top);

        for (size_t i = 0; i < top.n_before; i++)
                free(top.before[i].id);
        free(top.before);
        return status;
}
