#pragma once

#include <sys/queue.h>

#include "worker/launcher.h"

/* One thing that is wrong with a file, or one warning about it */
typedef struct Problem {
        TAILQ_ENTRY(Problem) link;
        char *file, *text; /* text starts with "LINE:COLUMN: " where there is a place */
} Problem;

typedef TAILQ_HEAD(ProblemList, Problem) ProblemList;

int problem_add(ProblemList *problems, const char *file, const char *format, ...) _printf_(3, 4);
void problems_clear(ProblemList *problems);

/* mcp-exec.json: the broker's own settings. Zero where the file doesn't say. */
typedef struct Settings {
        uint64_t idle_timeout; /* usec; USEC_INFINITY: never */
        bool idle_timeout_set;
        uint64_t keep_jobs;      /* usec: for so long a job is there when it is done */
        uint64_t unread_timeout; /* usec: for so long a session's client may read nothing of what waits; 0: for ever */
        int log_level;           /* 0: not said */
        int log_calls;           /* the level of the record that each call leaves; 0: not said */
        struct {
                unsigned calls_per_connection, calls_per_user, calls;
                unsigned workers_per_user, workers;
                unsigned sessions_per_user, sessions;
                uint64_t queued_bytes_per_user, queued_bytes;
                uint64_t message; /* one inline request or reply */
                unsigned jobs_per_user, jobs, finished_jobs_per_user;
                uint64_t payload_bytes_per_user, payload_bytes;
                uint64_t unread_bytes_per_connection, unread_bytes_per_user, unread_bytes;
                unsigned unread_answers_per_connection; /* of the private socket */
                unsigned waiting_messages_per_user, waiting_messages;
                unsigned polkit_checks_per_user, polkit_checks;
                unsigned new_connections, calls_per_new_connection;
                unsigned private_connections_per_user, private_connections;
                unsigned batch_items;
                unsigned servers_per_session, subscriptions_per_session, subscriptions_per_server;
        } limits;
} Settings;

void settings_init(Settings *settings); /* the defaults */

/* Reads the text of a file in servers.d. Returns the servers, an array of *ret_n, or -EBADMSG, or -ENOMEM, with what is
 * wrong added to problems; -ENOMEM. stem: the file's name without .json, the name of a server that doesn't say its own.
 */
int config_read_servers(const char *file, const char *stem, const char *text, size_t size, ProblemList *problems,
                        ServerConfig ***ret, size_t *ret_n);

/* Changes what the text of a mcp-exec.json says; untouched on failure, likewise. */
int config_read_settings(const char *file, const char *text, size_t size, ProblemList *problems, Settings *settings);

/* The configuration as it would run, as JSON: the environment by its names alone, for its values may be secrets.
 * launcher: the name of the way workers are started; path: the PATH that they get. NULL when out of memory. */
char *config_describe(const ServerConfig *config, const char *launcher, const char *path);

/* The same with the sandbox in which that launcher would run it */
char *config_describe_worker(const ServerConfig *config, const Launcher *launcher);
