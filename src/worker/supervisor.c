#include "worker/supervisor.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/macro.h"

#define SWEEPS_MAX 1000
#define STOP_SECONDS 10 /* for a broker that was told to stop, and gives its calls 5 */

/* Orphans come to the nearest subreaper: first to the broker, and when that is gone to this process. */
static void kill_orphans(void) {
        char path[64], text[65536];

        (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());

        for (int i = 0; i < SWEEPS_MAX; i++) {
                FILE *file = fopen(path, "re");
                char *p = text, *space;
                siginfo_t info;
                size_t n;

                if (!file)
                        return;
                n = fread(text, 1, sizeof(text) - 1, file);
                (void)fclose(file);
                text[n] = 0;
                if (n == 0)
                        return;

                for (; (space = strchr(p, ' ')); p = space + 1)
                        (void)kill(strtol(p, NULL, 10), SIGKILL);

                /* Each that dies can leave its own children here. */
                if (waitid(P_ALL, 0, &info, WEXITED) < 0)
                        return;
        }
}

static void end_as(const siginfo_t *info) {
        if (info->si_code != CLD_EXITED) {
                sigset_t set;

                /* Without a second core file */
                (void)setrlimit(RLIMIT_CORE, &(struct rlimit){});
                (void)signal(info->si_status, SIG_DFL);
                (void)raise(info->si_status);
                (void)sigemptyset(&set);
                (void)sigaddset(&set, info->si_status);
                (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
        }

        _exit(info->si_code == CLD_EXITED ? info->si_status : EXIT_FAILURE);
}

static void guard(pid_t broker) {
        bool stopping = false;
        sigset_t set;

        (void)prctl(PR_SET_NAME, "mcp-exec-guard");
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGCHLD);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGHUP);

        for (;;) {
                siginfo_t signal, info = {};

                if (sigtimedwait(&set, &signal, stopping ? &(struct timespec){ .tv_sec = STOP_SECONDS } : NULL) < 0) {
                        if (errno == EAGAIN)
                                (void)kill(broker, SIGKILL);
                        continue;
                }
                if (signal.si_signo != SIGCHLD) {
                        stopping = stopping || signal.si_signo != SIGHUP;
                        (void)kill(broker, signal.si_signo);
                        continue;
                }

                while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) >= 0 && info.si_pid != 0) {
                        if (info.si_pid == broker) {
                                kill_orphans();
                                end_as(&info);
                        }
                        info.si_pid = 0;
                }
        }
}

int supervise(void) {
        const char *listener = getenv("LISTEN_PID");
        pid_t parent = getpid(), child;
        char number[16];

        (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
        child = fork();
        if (child < 0)
                return -errno;
        if (child > 0)
                guard(child);

        /* What a terminal sends to the group comes through the guard alone, and not twice. */
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
                _exit(EXIT_FAILURE);

        /* The sockets that were meant for the guard (sd_listen_fds(3)) are the broker's. */
        (void)snprintf(number, sizeof(number), "%d", (int)parent);
        if (listener && streq(listener, number)) {
                (void)snprintf(number, sizeof(number), "%d", (int)getpid());
                (void)setenv("LISTEN_PID", number, /* overwrite= */ true);
        }

        return 0;
}
