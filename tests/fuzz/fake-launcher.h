#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/macro.h"
#include "unit.h"
#include "worker/launcher.h"

/* For fuzz targets: a launcher whose processes are three pipes each, and do what the input says. */

#define FAKE_PROCESSES_MAX 32

typedef struct FakeLauncher FakeLauncher;

typedef struct FakeProcess {
        Process process;
        FakeLauncher *launcher;
        int fds[3];
        process_exit_handler handler;
        void *userdata;
        bool killed, exited;
} FakeProcess;

struct FakeLauncher {
        Launcher launcher;
        FakeProcess *processes[FAKE_PROCESSES_MAX]; /* those that run */
        unsigned n_started;
};

static int fake_start(Launcher *l, const ProcessSpec *spec, process_exit_handler handler, void *userdata, Process **ret,
                      Failure *failure) {
        FakeLauncher *launcher = (FakeLauncher *)l;
        FakeProcess *process;

        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++) {
                if (launcher->processes[i])
                        continue;

                process = launcher->processes[i] = new0(FakeProcess, 1);
                assert_true(process);
                *process = (FakeProcess){ .process = { .ops = l->ops, .pid = (pid_t)(1000 + launcher->n_started++) },
                                          .launcher = launcher,
                                          .handler = handler,
                                          .userdata = userdata };
                for (unsigned f = 0; f < 3; f++) {
                        process->fds[f] = fcntl(spec->fds[f], F_DUPFD_CLOEXEC, 3);
                        assert_true(process->fds[f] >= 0);
                        assert_true(fcntl(process->fds[f], F_SETFL, O_NONBLOCK) >= 0);
                }
                *ret = &process->process;
                return 0;
        }

        return failure_set(failure, FAILURE_LAUNCH_FAILED, "No more processes");
}

static inline void fake_process_close(FakeProcess *process, unsigned f) {
        process->fds[f] = safe_close(process->fds[f]);
}

static void fake_signal(Process *p, int signal) {
        FakeProcess *process = (FakeProcess *)p;

        process->killed = process->killed || signal == SIGKILL;
}

static uint64_t fake_memory(const Process *process _unused_) {
        return 0;
}

static Process *fake_free(Process *p) {
        FakeProcess *process = (FakeProcess *)p;

        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                if (process->launcher->processes[i] == process)
                        process->launcher->processes[i] = NULL;
        for (unsigned f = 0; f < 3; f++)
                fake_process_close(process, f);
        free(process);
        return NULL;
}

static const LauncherOps fake_ops = {
        .name = "fake",
        .start = fake_start,
        .signal = fake_signal,
        .memory = fake_memory,
        .process_free = fake_free,
};

#define FAKE_LAUNCHER                                                                                                  \
        {                                                                                                              \
                .launcher = {.ops = &fake_ops, .path = "/" }                                                           \
        }

static inline void fake_process_exit(FakeProcess *process, int code, int status) {
        if (process->exited)
                return;

        process->exited = true;
        for (unsigned f = 0; f < 3; f++)
                fake_process_close(process, f);
        process->handler(process->userdata, &(ProcessExit){ .code = code, .status = status });
}

/* NULL where none runs */
static inline FakeProcess *fake_process_oldest(const FakeLauncher *launcher) {
        FakeProcess *oldest = NULL;

        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                if (launcher->processes[i] && !launcher->processes[i]->exited &&
                    (!oldest || launcher->processes[i]->process.pid < oldest->process.pid))
                        oldest = launcher->processes[i];

        return oldest;
}

/* Those that were killed exit: whether there were any. */
static inline bool fake_launcher_reap(FakeLauncher *launcher) {
        bool killed = false;

        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                if (launcher->processes[i] && launcher->processes[i]->killed && !launcher->processes[i]->exited) {
                        fake_process_exit(launcher->processes[i], CLD_KILLED, SIGKILL);
                        killed = true;
                }

        return killed;
}

static inline void fake_launcher_end(FakeLauncher *launcher) {
        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                if (launcher->processes[i])
                        fake_process_exit(launcher->processes[i], CLD_EXITED, 0);
}

static inline void fake_launcher_done(const FakeLauncher *launcher) {
        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                assert_true(!launcher->processes[i]);
}
