/* status, logs: how the service and its servers are. */

#include "base/text.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

static const char *ago(uint64_t then) {
        uint64_t now = now_usec();

        return then == 0 ? "-" : format_duration(now > then ? now - then : 0);
}

static void add_number(Buffer *json, const char *text, uint64_t number) {
        must(buffer_append_string(json, text));
        must(buffer_append_number(json, number));
}

static void add_worker_json(Buffer *json, const WorkerState *worker) {
        add_json_string(json, "{\"id\":", worker->id);
        add_json_string(json, ",\"owner\":", worker->owner);
        add_json_string(json, ",\"state\":", worker->state);
        add_json_string(json, ",\"era\":", worker->era);
        add_json_string(json, ",\"protocolVersion\":", worker->version);
        add_json_string(json, ",\"serverInfo\":", worker->info);
        add_number(json, ",\"pid\":", worker->pid);
        add_number(json, ",\"startedUSec\":", worker->started);
        add_number(json, ",\"lastActiveUSec\":", worker->last_active);
        add_number(json, ",\"calls\":", worker->calls);
        add_number(json, ",\"callTimeUSec\":", worker->call_time);
        add_number(json, ",\"inFlight\":", worker->in_flight);
        add_number(json, ",\"lateAnswers\":", worker->late_answers);
        add_number(json, ",\"strayLines\":", worker->stray_lines);
        add_number(json, ",\"memory\":", worker_memory(worker->pid));
        must(buffer_append_string(json, "}"));
}

static void add_server_json(Buffer *json, const ServiceState *state, const ServerState *server) {
        bool first = true;

        add_json_string(json, "{\"name\":", server->name);
        add_json_string(json, ",\"description\":", server->description);
        add_json_string(json, ",\"state\":", server->state);
        add_json_string(json, ",\"scope\":", server->scope);
        add_json_string(json, ",\"era\":", server->era);
        add_json_string(json, ",\"file\":", server->file);
        add_number(json, ",\"inFlight\":", server->in_flight);
        add_number(json, ",\"queued\":", server->queued);
        must(buffer_append_string(json, ",\"workers\":["));
        for (size_t i = 0; i < state->n_workers; i++)
                if (streq(state->workers[i].server, server->name)) {
                        must(buffer_append_string(json, first ? "" : ","));
                        add_worker_json(json, &state->workers[i]);
                        first = false;
                }
        must(buffer_append_string(json, "]}"));
}

static void show_json(const ServiceState *state, const ServerState *server) {
        Buffer json = {};

        if (server)
                add_server_json(&json, state, server);
        else {
                add_json_string(&json, "{\"version\":", state->version);
                add_number(&json, ",\"workersRunning\":", state->workers_running);
                add_number(&json, ",\"callsInFlight\":", state->in_flight);
                must(buffer_append_string(&json, ",\"servers\":["));
                for (size_t i = 0; i < state->n_servers; i++) {
                        must(buffer_append_string(&json, i > 0 ? "," : ""));
                        add_server_json(&json, state, &state->servers[i]);
                }
                must(buffer_append_string(&json, "]}"));
        }

        put_json(stdout, (JsonSlice){ buffer_data(&json), buffer_size(&json) });
        buffer_done(&json);
}

static void show_service(const Cli *cli, const ServiceState *state) {
        static const char *const titles[] = { "SERVER", "STATE", "WORKERS", "IN FLIGHT", "QUEUED", "CALLS", "ACTIVE" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .right = 0x3c };

        printf("mcp-execd %s on %s: %zu server%s, %u worker%s, %u call%s in flight\n\n", state->version, cli->bus_name,
               state->n_servers, state->n_servers == 1 ? "" : "s", state->workers_running,
               state->workers_running == 1 ? "" : "s", state->in_flight, state->in_flight == 1 ? "" : "s");

        for (size_t i = 0; i < state->n_servers; i++) {
                const ServerState *server = &state->servers[i];
                uint64_t calls = 0, last = 0;
                unsigned workers = 0;

                for (size_t j = 0; j < state->n_workers; j++)
                        if (streq(state->workers[j].server, server->name)) {
                                workers++;
                                calls += state->workers[j].calls;
                                last = MAX(last, state->workers[j].last_active);
                        }

                table_add(&table, COLOR_BOLD, server->name);
                table_add(&table, state_color(server->state), server->state);
                table_addf(&table, COLOR_NONE, "%u", workers);
                table_addf(&table, COLOR_NONE, "%u", server->in_flight);
                table_addf(&table, COLOR_NONE, "%u", server->queued);
                table_addf(&table, COLOR_NONE, "%llu", (unsigned long long)calls);
                table_addf(&table, COLOR_NONE, "%s%s", ago(last), last ? " ago" : "");
        }

        if (table.n_cells > 0)
                table_print(&table, "");
        table_done(&table);
}

static void show_field(const char *name, const char *text) {
        _cleanup_(freep) char *clean = text_escape(text, strlen(text), 4096);

        if (*text)
                printf("%11s: %s\n", name, clean ?: "");
}

static void show_workers(const ServiceState *state, const char *server) {
        static const char *const titles[] = { "PID",       "STATE",  "UPTIME", "CALLS",
                                              "IN FLIGHT", "MEMORY", "ACTIVE", "OWNER" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .right = 0x39 };
        const char *info = "", *version = "";

        for (size_t i = 0; i < state->n_workers; i++) {
                const WorkerState *worker = &state->workers[i];
                uint64_t memory = worker_memory(worker->pid);

                if (!streq(worker->server, server))
                        continue;
                if (*worker->info) {
                        info = worker->info;
                        version = worker->version;
                }
                table_addf(&table, COLOR_BOLD, "%u", worker->pid);
                table_add(&table, state_color(worker->state), worker->state);
                table_add(&table, COLOR_NONE, ago(worker->started));
                table_addf(&table, COLOR_NONE, "%llu", (unsigned long long)worker->calls);
                table_addf(&table, COLOR_NONE, "%u", worker->in_flight);
                table_add(&table, COLOR_NONE, memory > 0 ? format_bytes(memory) : "-");
                table_addf(&table, COLOR_NONE, "%s ago", ago(worker->last_active));
                table_add(&table, COLOR_NONE, worker->owner);
        }

        show_field("Speaks", version);
        show_field("Is", info);
        if (table.n_cells > 0) {
                (void)fputc('\n', stdout);
                table_print(&table, "  ");
        }
        table_done(&table);
}

static int show_server(Cli *cli, const ServiceState *state, const ServerState *server) {
        _cleanup_(freep) char *description = one_line(server->description);
        Color color = state_color(server->state);

        printf("%s●%s %s%s%s%s", color_on(color), color_off(color), color_on(COLOR_BOLD), server->name,
               color_off(COLOR_BOLD), *description ? " - " : "");
        put_wrapped(description, strlen(description), text_width(server->name) + (*description ? 5 : 2), 2);
        printf("      State: %s%s%s\n", color_on(color), server->state, color_off(color));
        if (streq(server->state, "failing"))
                printf("             It ended too often to be started now. mcp-exec restart %s\n"
                       "             has it tried at once, and mcp-exec tools %s says why it fails.\n",
                       server->name, server->name);
        show_field("File", server->file);
        printf("      Scope: %s\n", server->scope);
        printf("        Era: %s\n", server->era);
        printf("      Calls: %u in flight, %u queued\n", server->in_flight, server->queued);
        show_workers(state, server->name);

        (void)fputc('\n', stdout);
        (void)fflush(stdout);
        return status_show_journal(cli, server->name, /* whole= */ true, cli->lines, /* follow= */ false, NULL);
}

int verb_status(Cli *cli, int argc, char *argv[]) {
        const ServerState *server = NULL;
        ServiceState state;
        int status;

        status = status_fetch_state(cli, &state);
        if (status != STATUS_OK)
                return status;

        if (argc > 1) {
                server = state_server(&state, argv[1]);
                if (!server)
                        status = status_no_server(&state, argv[1]);
        }
        if (status == STATUS_OK && cli->json)
                show_json(&state, server);
        else if (status == STATUS_OK && server)
                status = show_server(cli, &state, server);
        else if (status == STATUS_OK)
                show_service(cli, &state);

        state_done(&state);
        return status;
}

/* The service isn't needed for the past of its servers. Where there is none, it may know a name that was meant. */
int verb_logs(Cli *cli, int argc _unused_, char *argv[]) {
        ServiceState state;
        unsigned n;
        int status;

        if (!text_is_name(argv[1]))
                return fail(STATUS_UNKNOWN, "%s can't be a server's name; mcp-exec list shows the servers", argv[1]);

        status = status_show_journal(cli, argv[1], /* whole= */ false, cli->lines, cli->follow, &n);
        if (status != STATUS_OK || n > 0)
                return status;

        output_silence(true);
        status = status_fetch_state(cli, &state);
        output_silence(false);
        if (status != STATUS_OK)
                return STATUS_OK;

        status = state_server(&state, argv[1]) ? STATUS_OK : status_no_server(&state, argv[1]);
        if (status == STATUS_OK && !cli->quiet)
                note("mcp-exec: the journal has no lines of %s that you may see", argv[1]);
        state_done(&state);
        return status;
}
