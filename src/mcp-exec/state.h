#pragma once

#include "mcp-exec/cli.h"

/* What the service's objects say of servers and workers, read at once. Texts are the reply's. */

typedef struct WorkerState {
        const char *path, *id, *server, *owner, *state, *era, *version, *info;
        uint32_t pid, in_flight;
        uint64_t started, last_active, calls, call_time, late_answers, stray_lines;
} WorkerState;

typedef struct ServerState {
        const char *path, *name, *description, *state, *scope, *era, *file;
        uint32_t in_flight, queued;
} ServerState;

typedef struct JobInfo {
        const char *path, *id, *server, *method, *tool, *state;
        uint64_t started, finished, result_size;
} JobInfo;

typedef struct ServiceState {
        sd_bus_message *reply, *root_reply;
        const char *version;
        uint32_t workers_running, in_flight;
        ServerState *servers; /* sorted by name */
        WorkerState *workers; /* the oldest first */
        JobInfo *jobs;        /* likewise */
        size_t n_servers, n_workers, n_jobs;
} ServiceState;

int status_fetch_state(Cli *cli, ServiceState *ret);
void state_done(ServiceState *state);

const ServerState *state_server(const ServiceState *state, const char *name);
int status_no_server(const ServiceState *state, const char *name);

/* What a worker and its children take (processes.c), as of the last processes_read(): resident memory in bytes,
 * processor time in microseconds; 0 where it isn't known. */
void processes_read(void);
uint64_t worker_memory(uint32_t pid);
uint64_t worker_cpu(uint32_t pid);

/* Wall clock */
uint64_t now_usec(void);

/* The journal (journal.c): a server's lines. whole: also what the service says of it. *ret_n: how many there are;
 * may be NULL. */
int status_show_journal(Cli *cli, const char *server, bool whole, unsigned lines, bool follow, unsigned *ret_n);
