#pragma once

#include <systemd/sd-bus.h>

#include "worker/failure.h"
#include "worker/server-config.h"

/* A worker as a transient unit of systemd: the message that starts it, for whoever may send it. */

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER "org.freedesktop.systemd1.Manager"

/* The one that may do it for the broker of the system bus */
#define LAUNCHER_NAME "org.example.McpExec.Launcher"
#define LAUNCHER_PATH "/org/example/McpExec/Launcher"

/* Whom it does it for */
#define BROKER_USER "mcp-exec"
#define BROKER_UNIT "mcp-exec.service"

#define TRANSIENT_ID_SIZE 32 /* lower-case hex digits */
#define TRANSIENT_NAME_MAX 64
#define TRANSIENT_PREFIX "mcp-exec-worker-"

typedef struct TransientSpec {
        const ServerConfig *config;
        const char *owner;      /* the pool's */
        const char *id;         /* the worker's */
        const int *fds;         /* its stdin, stdout, stderr: sd-bus makes copies */
        const char *path;       /* the PATH to look the command up in, and to give to the worker */
        const char *bind_to;    /* the broker's unit, which the worker doesn't outlive; NULL: there is none */
        char *const *inherited; /* systemd's own environment, NULL-terminated, which the worker doesn't get; or NULL */
        bool user;              /* for a user's own systemd: without the system's defaults */
        const char *environment_file; /* what the server's file adds to the environment stands there; NULL: it is said
                                       * to systemd, which shows it to whoever asks */
} TransientSpec;

bool transient_id_valid(const char *id);

/* mcp-exec-worker-ID.service, and the path of its object */
void transient_unit_name(const char *id, char name[static TRANSIENT_NAME_MAX]);
char *transient_unit_path(const char *id); /* NULL when out of memory */

/* StartTransientUnit for a worker, mode "fail". Once sent, the caller's fds can be closed. -EREMOTEIO with *failure, or
 * -errno. */
int transient_start_message(sd_bus *bus, const TransientSpec *spec, sd_bus_message **ret, Failure *failure);

/* Why systemd could not execute a command, by the exit status that it gave to its process (systemd.exec(5)), and what
 * to do about it. NULL: the status is none of these. */
const char *transient_status_reason(int status);
