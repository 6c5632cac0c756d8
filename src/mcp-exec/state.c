#include "mcp-exec/state.h"

#include <stdio.h>
#include <time.h>

#include "base/text.h"
#include "bus/errors.h"
#include "mcp-exec/output.h"

/* Where a property goes */
typedef struct Field {
        const char *name;
        char type;
        size_t offset;
} Field;

static const Field root_fields[] = {
        { "Version", 's', offsetof(ServiceState, version) },
        { "WorkersRunning", 'u', offsetof(ServiceState, workers_running) },
        { "CallsInFlight", 'u', offsetof(ServiceState, in_flight) },
        {},
};

static const Field server_fields[] = {
        { "Name", 's', offsetof(ServerState, name) },
        { "Description", 's', offsetof(ServerState, description) },
        { "State", 's', offsetof(ServerState, state) },
        { "Scope", 's', offsetof(ServerState, scope) },
        { "Era", 's', offsetof(ServerState, era) },
        { "ConfigurationFile", 's', offsetof(ServerState, file) },
        { "CallsInFlight", 'u', offsetof(ServerState, in_flight) },
        { "QueuedCalls", 'u', offsetof(ServerState, queued) },
        {},
};

static const Field worker_fields[] = {
        { "Id", 's', offsetof(WorkerState, id) },
        { "Server", 's', offsetof(WorkerState, server) },
        { "Owner", 's', offsetof(WorkerState, owner) },
        { "Pid", 'u', offsetof(WorkerState, pid) },
        { "StartedTimestamp", 't', offsetof(WorkerState, started) },
        { "State", 's', offsetof(WorkerState, state) },
        { "Era", 's', offsetof(WorkerState, era) },
        { "ProtocolVersion", 's', offsetof(WorkerState, version) },
        { "ServerInfo", 's', offsetof(WorkerState, info) },
        { "LastActiveTimestamp", 't', offsetof(WorkerState, last_active) },
        { "Calls", 't', offsetof(WorkerState, calls) },
        { "CallTimeUSec", 't', offsetof(WorkerState, call_time) },
        { "InFlight", 'u', offsetof(WorkerState, in_flight) },
        { "LateAnswers", 't', offsetof(WorkerState, late_answers) },
        { "StrayLines", 't', offsetof(WorkerState, stray_lines) },
        {},
};

static const Field job_fields[] = {
        { "Id", 's', offsetof(JobInfo, id) },
        { "Server", 's', offsetof(JobInfo, server) },
        { "Method", 's', offsetof(JobInfo, method) },
        { "Tool", 's', offsetof(JobInfo, tool) },
        { "State", 's', offsetof(JobInfo, state) },
        { "StartedTimestamp", 't', offsetof(JobInfo, started) },
        { "FinishedTimestamp", 't', offsetof(JobInfo, finished) },
        { "ResultSize", 't', offsetof(JobInfo, result_size) },
        {},
};

/* a{sv} into a structure; what isn't known is skipped. */
static int read_properties(sd_bus_message *message, const Field *fields, void *target) {
        const char *name;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                const Field *field = fields;
                const char *contents;
                char type;

                r = sd_bus_message_read(message, "s", &name);
                if (r >= 0)
                        r = sd_bus_message_peek_type(message, &type, &contents);
                if (r < 0)
                        return r;
                while (field->name && !streq(field->name, name))
                        field++;
                if (field->name && contents[0] == field->type && contents[1] == 0)
                        r = sd_bus_message_read(message, "v", contents, (char *)target + field->offset);
                else
                        r = sd_bus_message_skip(message, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }

        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static void *grow(void *array, size_t n, size_t size) {
        /* At 0, 16, 32, 64, ... elements */
        if (n == 0 || (n >= 16 && (n & (n - 1)) == 0)) {
                array = realloc(array, MAX(n * 2, (size_t)16) * size);
                if (!array)
                        out_of_memory();
        }

        return array;
}

static int read_interface(ServiceState *state, const char *path, const char *interface) {
        if (streq(interface, BUS_NAME ".Server")) {
                state->servers = grow(state->servers, state->n_servers, sizeof(ServerState));
                state->servers[state->n_servers] = (ServerState){ path, "", "", "", "", "", "", 0, 0 };
                return read_properties(state->reply, server_fields, &state->servers[state->n_servers++]);
        }

        if (streq(interface, BUS_NAME ".Worker")) {
                state->workers = grow(state->workers, state->n_workers, sizeof(WorkerState));
                state->workers[state->n_workers] = (WorkerState){ .path = path,
                                                                  .id = "",
                                                                  .server = "",
                                                                  .owner = "",
                                                                  .state = "",
                                                                  .era = "",
                                                                  .version = "",
                                                                  .info = "" };
                return read_properties(state->reply, worker_fields, &state->workers[state->n_workers++]);
        }

        if (streq(interface, BUS_NAME ".Job")) {
                state->jobs = grow(state->jobs, state->n_jobs, sizeof(JobInfo));
                state->jobs[state->n_jobs] =
                        (JobInfo){ .path = path, .id = "", .server = "", .method = "", .tool = "", .state = "" };
                return read_properties(state->reply, job_fields, &state->jobs[state->n_jobs++]);
        }

        return sd_bus_message_skip(state->reply, "a{sv}");
}

static int read_objects(ServiceState *state) {
        const char *path, *interface;
        int r;

        r = sd_bus_message_enter_container(state->reply, 'a', "{oa{sa{sv}}}");
        while (r >= 0 && (r = sd_bus_message_enter_container(state->reply, 'e', "oa{sa{sv}}")) > 0) {
                r = sd_bus_message_read(state->reply, "o", &path);
                if (r >= 0)
                        r = sd_bus_message_enter_container(state->reply, 'a', "{sa{sv}}");
                while (r >= 0 && (r = sd_bus_message_enter_container(state->reply, 'e', "sa{sv}")) > 0) {
                        r = sd_bus_message_read(state->reply, "s", &interface);
                        if (r >= 0)
                                r = read_interface(state, path, interface);
                        if (r >= 0)
                                r = sd_bus_message_exit_container(state->reply);
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(state->reply);
                if (r >= 0)
                        r = sd_bus_message_exit_container(state->reply);
        }

        return r;
}

/* The root object manages the others, and is not among them. */
static int read_root(Cli *cli, ServiceState *state, sd_bus_error *error) {
        sd_bus_message *message = new_call(cli, BUS_PATH, "org.freedesktop.DBus.Properties", "GetAll");
        int r;

        r = sd_bus_message_append(message, "s", BUS_NAME);
        if (r >= 0)
                r = sd_bus_call(cli->bus, message, cli->timeout, error, &state->root_reply);
        if (r >= 0)
                r = read_properties(state->root_reply, root_fields, state);
        sd_bus_message_unref(message);
        return r;
}

static int compare_servers(const void *a, const void *b) {
        return strcmp(((const ServerState *)a)->name, ((const ServerState *)b)->name);
}

static int compare_workers(const void *a, const void *b) {
        const WorkerState *one = a, *other = b;

        return one->started < other->started ? -1 : one->started > other->started;
}

static int compare_jobs(const void *a, const void *b) {
        const JobInfo *one = a, *other = b;

        return one->started < other->started ? -1 : one->started > other->started;
}

int status_fetch_state(Cli *cli, ServiceState *ret) {
        ServiceState state = { .version = "" };
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *message;
        int r, status;

        status = status_connect(cli);
        if (status != STATUS_OK)
                return status;

        message = new_call(cli, BUS_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
        r = sd_bus_call(cli->bus, message, cli->timeout, &error, &state.reply);
        sd_bus_message_unref(message);
        if (r >= 0)
                r = read_root(cli, &state, &error);
        if (r < 0) {
                status = status_bus_error(cli, &error, r);
                sd_bus_error_free(&error);
                state_done(&state);
                return status;
        }

        r = read_objects(&state);
        if (r < 0) {
                state_done(&state);
                return fail(STATUS_UNREACHABLE, "the service's answer can't be read: %s", strerror(-r));
        }

        if (state.n_servers > 0)
                qsort(state.servers, state.n_servers, sizeof(ServerState), compare_servers);
        if (state.n_workers > 0)
                qsort(state.workers, state.n_workers, sizeof(WorkerState), compare_workers);
        if (state.n_jobs > 0)
                qsort(state.jobs, state.n_jobs, sizeof(JobInfo), compare_jobs);
        processes_read();
        *ret = state;
        return STATUS_OK;
}

void state_done(ServiceState *state) {
        free(state->servers);
        free(state->workers);
        free(state->jobs);
        sd_bus_message_unref(state->reply);
        sd_bus_message_unref(state->root_reply);
        *state = (ServiceState){};
}

const ServerState *state_server(const ServiceState *state, const char *name) {
        for (size_t i = 0; i < state->n_servers; i++)
                if (streq(state->servers[i].name, name))
                        return &state->servers[i];

        return NULL;
}

int status_no_server(const ServiceState *state, const char *name) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < state->n_servers; i++)
                text_nearer(name, state->servers[i].name, &best, &nearest);

        if (nearest)
                return fail(STATUS_UNKNOWN, "no server is named %s: did you mean %s?", name, nearest);
        return fail(STATUS_UNKNOWN, "no server is named %s; mcp-exec list shows the servers", name);
}

uint64_t now_usec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}
