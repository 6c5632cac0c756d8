/* Who has no desktop that asks, over ssh for instance, is asked on the terminal: polkit's own agent runs beside a call
 * for as long as it takes. */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "mcp-exec/cli.h"

#define READY_TIME 3000 /* ms that the agent has to register */

static pid_t agent;

static void run_agent(int ready, pid_t parent) {
        char notify[16];

        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
                _exit(EXIT_FAILURE);

        /* It speaks to the terminal by itself; what it says of its own troubles isn't asked for. */
        for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
                int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

                if (null >= 0)
                        (void)dup2(null, fd);
        }
        (void)fcntl(ready, F_SETFD, 0);
        (void)snprintf(notify, sizeof(notify), "%d", ready);
        (void)execlp("pkttyagent", "pkttyagent", "--notify-fd", notify, NULL);
        _exit(EXIT_FAILURE);
}

void agent_start(void) {
        int ends[2];
        pid_t parent = getpid();

        /* A desktop has an agent, which this one would take precedence over: --fallback is for that, and polkit 122
         * finds no agent of a process that came with it. */
        if (agent > 0 || geteuid() == 0 || getenv("DISPLAY") || getenv("WAYLAND_DISPLAY") || pipe2(ends, O_CLOEXEC) < 0)
                return;

        agent = fork();
        if (agent == 0)
                run_agent(ends[1], parent);

        /* It closes its end when it has registered, and so does its end. */
        (void)close(ends[1]);
        if (agent > 0)
                (void)poll(&(struct pollfd){ .fd = ends[0], .events = POLLIN }, 1, READY_TIME);
        (void)close(ends[0]);
}

void agent_stop(void) {
        if (agent <= 0)
                return;

        (void)kill(agent, SIGTERM);
        (void)kill(agent, SIGCONT);
        while (waitpid(agent, NULL, 0) < 0 && errno == EINTR)
                ;
        agent = 0;
}
