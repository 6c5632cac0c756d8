#pragma once

#include <signal.h>
#include <systemd/sd-event.h>

#include "worker/failure.h"
#include "worker/server-config.h"

/* How workers come to be: one interface, and an implementation for each way of starting a process. */

typedef struct Launcher Launcher;
typedef struct Process Process;

typedef struct ProcessSpec {
        const ServerConfig *config;
        const char *owner; /* the pool's */
        const char *id;    /* the worker's, its INVOCATION_ID; has to stay for as long as the process does */
        int fds[3];        /* the worker's ends of stdin, stdout, stderr; the caller's to close */
} ProcessSpec;

/* How a process ended */
typedef struct ProcessExit {
        int code;   /* CLD_EXITED, CLD_KILLED or CLD_DUMPED, as waitid(2) has them; 0: it was never run */
        int status; /* the exit status, or the signal */
        const char
                *result; /* where more is known: "oom-kill" and the like of systemd.exec(5) $SERVICE_RESULT; or NULL */
        const char *problem; /* with code 0: why not, as a sentence */
} ProcessExit;

typedef void (*process_exit_handler)(void *userdata, const ProcessExit *exit);

typedef struct LauncherOps {
        const char *name;

        /* Fails with -EREMOTEIO and *failure; what only shows later is told to the handler, with code 0. That runs
         * once, from the loop, unless the process is freed before. */
        int (*start)(Launcher *launcher, const ProcessSpec *spec, process_exit_handler handler, void *userdata,
                     Process **ret, Failure *failure);

        /* To every process that came from this one, as far as that is known. SIGKILL reaches all of them. */
        void (*signal)(Process *process, int signal);

        /* Resident memory in bytes, of the process and of those that came from it; 0 where that can't be told */
        uint64_t (*memory)(const Process *process);

        /* Whether a worker so configured reaches the network */
        bool (*has_network)(const ServerConfig *config);

        /* Kills what is left of it. */
        Process *(*process_free)(Process *process);

        /* In what a worker would run, as a JSON object of systemd properties. Owned by the caller; NULL when out of
         * memory. */
        char *(*describe)(const Launcher *launcher, const ServerConfig *config);

        Launcher *(*launcher_free)(Launcher *launcher);
} LauncherOps;

struct Launcher {
        const LauncherOps *ops;
        const char *path; /* the PATH that commands are looked up in, and that workers get; owned by the caller */
};

struct Process {
        const LauncherOps *ops;
        pid_t pid; /* 0 until it is known */
};

static inline Launcher *launcher_free(Launcher *launcher) {
        return launcher ? launcher->ops->launcher_free(launcher) : NULL;
}

static inline Process *process_free(Process *process) {
        return process ? process->ops->process_free(process) : NULL;
}

/* The launcher for machines without systemd: posix_spawn(3), a pidfd, and a session of its own for each worker.
 * The broker becomes a subreaper (PR_SET_CHILD_SUBREAPER): a process that left its worker's session and lost its
 * parent comes back to the broker, and is killed. Wants SIGCHLD blocked; path has to outlive the launcher. */
int spawn_launcher_new(sd_event *event, const char *path, Launcher **ret);

/* The launcher for machines with systemd: a transient unit for each worker (transient.h), in the sandbox that its file
 * says. user: on the user's own systemd, over the session bus; otherwise on the system's, which mcp-exec-launcher asks
 * for us. A process has pid 0 until systemd has told it, and its exit is told when its whole cgroup is gone. Connects,
 * and does not wait. path has to outlive the launcher. */
int unit_launcher_new(sd_event *event, const char *path, bool user, Launcher **ret);

/* Whether there is a systemd to start workers with, that this process is a service of. Asks the bus, and waits for it.
 * NULL: yes; otherwise why not, as a phrase. */
const char *unit_launcher_missing(bool user);

DEFINE_CLEANUP(Launcher *, launcher_free, launcher_freep)
