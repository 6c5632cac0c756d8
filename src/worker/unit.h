#pragma once

#include <systemd/sd-bus.h>

#include "worker/launcher.h"
#include "worker/transient.h"

/* For the files of the unit launcher only: unit.c starts and kills, unit-state.c follows what systemd says. */

#define SYSTEMD_PROPERTIES "org.freedesktop.DBus.Properties"

typedef struct UnitProcess UnitProcess;

typedef struct UnitLauncher {
        Launcher launcher;
        sd_event *event;
        sd_bus *bus;
        bool user;
        char *own_unit; /* what workers don't outlive */
        char *systemd;  /* its unique name: whose signals count */
        sd_bus_slot *jobs_slot, *owner_slot, *subscribe_slot, *bound_slot;
        TAILQ_HEAD(UnitProcessList, UnitProcess) processes;
} UnitLauncher;

enum { SLOT_PROPERTIES, SLOT_REMOVED, SLOT_ENVIRONMENT, SLOT_START, SLOT_QUESTION, _SLOT_MAX };

struct UnitProcess {
        Process process;
        UnitLauncher *launcher;
        TAILQ_ENTRY(UnitProcess) link;
        process_exit_handler handler;
        void *userdata;
        ServerConfig *config;
        char id[TRANSIENT_ID_SIZE + 1], unit[TRANSIENT_NAME_MAX];
        char *owner, *object, *cgroup;
        int fds[3]; /* until systemd has them */
        sd_bus_slot *slots[_SLOT_MAX];
        sd_event_source *patience, *again;
        uint64_t try_until; /* usec of CLOCK_MONOTONIC */

        bool asked;        /* for its unit */
        bool started;      /* the job that starts it is done */
        char *job_result;  /* of that job, once it is over */
        char *state;       /* ActiveState, as last heard */
        int code, status;  /* ExecMainCode, ExecMainStatus */
        char *unit_result; /* Result */
        bool killed;       /* by us */
        bool exited;
};

/* Asks for the signals about its unit; has to come before the unit is started, on the same connection. */
int unit_process_watch(UnitProcess *process);
void unit_process_unwatch(UnitProcess *process);

/* Tells of its end, once. fail: it was never run, for that reason. */
void unit_process_finish(UnitProcess *process, const ProcessExit *exit);
void unit_process_fail(UnitProcess *process, const char *reason);

/* Asks whether its unit is still there, where signals can have been lost. */
void unit_process_inquire(UnitProcess *process);

/* Kills its unit. */
void unit_process_kill(UnitProcess *process);
