/* top: servers at work, a table that is drawn anew. */

#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <time.h>

#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

#define DELAY USEC_PER_SEC
#define SNAPSHOT_TIME (USEC_PER_SEC / 2)
#define LINES_AROUND 4 /* the head, and the cursor's own */

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

/* What a server's workers did since the look before, or since they started */
typedef struct Row {
        const ServerState *server;
        uint64_t calls, memory, recent, call_time, cpu;
        unsigned workers;
} Row;

static Row make_row(const Top *top, const ServiceState *state, const ServerState *server) {
        Row row = { .server = server };

        for (size_t i = 0; i < state->n_workers; i++) {
                const WorkerState *worker = &state->workers[i];
                const Before *before;

                if (!streq(worker->server, server->name))
                        continue;
                before = find_before(top, worker->id);
                row.workers++;
                row.calls += worker->calls;
                row.memory += worker_memory(worker->pid);
                row.recent += grown(answers(worker), before ? before->answers : 0);
                row.call_time += grown(worker->call_time, before ? before->call_time : 0);
                row.cpu += grown(worker_cpu(worker->pid), before ? before->cpu : 0);
        }

        return row;
}

/* Those that work stand first, then those that could, and all by their names. */
static int compare_rows(const void *a, const void *b) {
        const Row *left = a, *right = b;
        bool left_works = left->recent > 0 || left->server->in_flight > 0 || left->server->queued > 0;
        bool right_works = right->recent > 0 || right->server->in_flight > 0 || right->server->queued > 0;

        if (left_works != right_works)
                return left_works ? -1 : 1;
        if (!left->workers != !right->workers)
                return left->workers ? -1 : 1;
        return strcmp(left->server->name, right->server->name);
}

static void add_row(const Row *row, uint64_t elapsed, Table *table) {
        const ServerState *server = row->server;

        table_add(table, COLOR_BOLD, server->name);
        table_add(table, state_color(server->state), server->state);
        table_addf(table, COLOR_NONE, "%u", row->workers);
        table_addf(table, COLOR_NONE, "%llu", (unsigned long long)row->calls);
        if (elapsed > 0 && row->workers > 0) {
                table_addf(table, COLOR_NONE, "%.1f", (double)row->recent * USEC_PER_SEC / elapsed);
                table_addf(table, COLOR_NONE, "%.0f%%", (double)row->cpu * 100 / elapsed);
        } else {
                table_add(table, COLOR_NONE, "-");
                table_add(table, COLOR_NONE, "-");
        }
        table_add(table, COLOR_NONE, row->recent > 0 ? format_duration(row->call_time / row->recent) : "-");
        table_addf(table, COLOR_NONE, "%u", server->in_flight);
        table_addf(table, COLOR_NONE, "%u", server->queued);
        table_add(table, COLOR_NONE, row->memory > 0 ? format_bytes(row->memory) : "-");
}

static int show(Top *top, bool redraw) {
        static const char *const titles[] = { "SERVER", "STATE",   "PROCS", "CALLS", "CALLS/S",
                                              "CPU",    "LATENCY", "BUSY",  "QUEUE", "MEMORY" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .right = 0x3fc, .cut = true };
        ServiceState state;
        size_t n_shown;
        uint64_t now;
        Row *rows;
        int status;

        status = status_fetch_state(top->cli, &state);
        if (status != STATUS_OK)
                return status;

        now = monotonic_usec();
        rows = new0(Row, state.n_servers + 1);
        if (!rows)
                out_of_memory();
        for (size_t i = 0; i < state.n_servers; i++)
                rows[i] = make_row(top, &state, &state.servers[i]);
        qsort(rows, state.n_servers, sizeof(*rows), compare_rows);

        n_shown = state.n_servers;
        if (redraw && n_shown + LINES_AROUND > output_height())
                n_shown = output_height() > LINES_AROUND + 1 ? output_height() - LINES_AROUND - 1 : 1;
        for (size_t i = 0; i < n_shown; i++)
                add_row(&rows[i], top->when ? now - top->when : 0, &table);
        free(rows);

        if (redraw)
                (void)fputs("\x1b[H\x1b[J", stdout);
        printf("mcp-execd %s on %s: %u worker%s, %u call%s in flight%s\n\n", state.version, top->cli->bus_name,
               state.workers_running, state.workers_running == 1 ? "" : "s", state.in_flight,
               state.in_flight == 1 ? "" : "s", redraw ? "; q quits" : "");
        table_print(&table, "");
        if (n_shown < state.n_servers)
                printf("%zu more\n", state.n_servers - n_shown);
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
