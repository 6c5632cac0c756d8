#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "worker/environment.h"
#include "worker/launcher.h"

#define REMOVE_MAX 10000  /* files of a folder */
#define DESCRIPTORS 16384 /* as in systemd/mcp-exec.service */

typedef struct SpawnLauncher SpawnLauncher;

typedef struct SpawnProcess {
        Process process;
        SpawnLauncher *launcher;
        TAILQ_ENTRY(SpawnProcess) link;
        sd_event_source *source;
        process_exit_handler handler;
        void *userdata;
        const char *id;
        char *folder; /* of its own, gone with it; NULL: it has none */
        bool exited;
} SpawnProcess;

struct SpawnLauncher {
        Launcher launcher;
        struct rlimit descriptors; /* as they were for us, and are for workers */
        sd_event *event;
        sd_event_source *sigchld_source;
        TAILQ_HEAD(, SpawnProcess) processes;
};

static int spawn(const char *path, char *const *argv, char *const *environment, const char *cwd, const int fds[3],
                 pid_t *ret) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        int r;

        r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        r = posix_spawnattr_init(&attributes);
        if (r != 0) {
                posix_spawn_file_actions_destroy(&actions);
                return -r;
        }

        (void)sigemptyset(&none);
        (void)sigfillset(&all);
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &all);
        (void)posix_spawnattr_setflags(&attributes,
                                       POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);

        for (int i = 0; i < 3 && r == 0; i++)
                r = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        if (r == 0)
                r = posix_spawn_file_actions_addchdir_np(&actions, cwd);
        if (r == 0)
                r = posix_spawn(ret, path, &actions, &attributes, argv, environment);

        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return -r;
}

/* Whether an orphan came from a worker that is alive: by its session, or, where it left that, by its environment */
static bool belongs(SpawnLauncher *launcher, pid_t pid) {
        char path[64], environment[32768];
        _cleanup_(closep) int fd = -EBADF;
        SpawnProcess *process;
        pid_t session = getsid(pid);
        ssize_t n;

        TAILQ_FOREACH(process, &launcher->processes, link)
                if (!process->exited && process->process.pid == session)
                        return true;

        (void)snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, environment, sizeof(environment));
        if (n <= 0)
                return false;

        TAILQ_FOREACH(process, &launcher->processes, link) {
                char marker[80];

                (void)snprintf(marker, sizeof(marker), INVOCATION_ID "=%s", process->id);
                if (!process->exited && memmem(environment, n, marker, strlen(marker)))
                        return true;
        }

        return false;
}

/* Sees to the children that are no workers: processes that lost their parent. The dead are reaped; the living that come
 * from no living worker are killed. Without /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN) only a worker's
 * process group is. */
static void sweep_orphans(SpawnLauncher *launcher) {
        char path[64], text[4096];
        _cleanup_(closep) int fd = -EBADF;
        size_t held = 0;
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return;

        while ((n = read(fd, text + held, sizeof(text) - 1 - held)) > 0) {
                char *p = text, *space;

                text[held + n] = 0;
                while ((space = strchr(p, ' '))) {
                        pid_t pid = strtol(p, NULL, 10);
                        siginfo_t info = {};
                        SpawnProcess *process;

                        p = space + 1;
                        TAILQ_FOREACH(process, &launcher->processes, link)
                                if (process->process.pid == pid)
                                        break;

                        if (pid > 0 && !process && waitid(P_PID, pid, &info, WEXITED | WNOHANG) >= 0 &&
                            info.si_pid == 0 && !belongs(launcher, pid))
                                (void)kill(pid, SIGKILL);
                }
                held = strlen(p);
                memmove(text, p, held);
        }
}

static int on_sigchld(sd_event_source *source _unused_, const struct signalfd_siginfo *si _unused_, void *userdata) {
        sweep_orphans(userdata);
        return 0;
}

/* The group's number is the leader's pid, which can't become anybody else's before the leader was reaped. */
static void spawn_signal(Process *p, int signal) {
        SpawnProcess *process = (SpawnProcess *)p;

        if (process->exited)
                return;

        (void)kill(p->pid, signal);
        (void)kill(-p->pid, signal);
}

/* The process and its descendants, as far as they are children of main threads: enough for npx, sh and node. */
static uint64_t memory_of(pid_t pid, unsigned depth) {
        char path[64], text[1024];
        unsigned long long pages = 0, resident = 0;
        uint64_t sum;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
        file = fopen(path, "re");
        if (!file)
                return 0;
        if (fscanf(file, "%llu %llu", &pages, &resident) != 2)
                resident = 0;
        (void)fclose(file);
        sum = resident * sysconf(_SC_PAGESIZE);

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
        file = depth > 0 ? fopen(path, "re") : NULL;
        if (!file)
                return sum;
        if (fgets(text, sizeof(text), file))
                for (char *p = text, *space; (space = strchr(p, ' ')); p = space + 1)
                        sum += memory_of(strtol(p, NULL, 10), depth - 1);
        (void)fclose(file);

        return sum;
}

static uint64_t spawn_memory(const Process *process) {
        return memory_of(process->pid, /* depth= */ 4);
}

static int on_process_exit(sd_event_source *source _unused_, const siginfo_t *info, void *userdata) {
        SpawnProcess *process = userdata;
        ProcessExit exit = { .code = info->si_code, .status = info->si_status };

        /* Called before the leader is reaped: its group can be killed without hitting a stranger's. */
        (void)kill(-process->process.pid, SIGKILL);
        process->exited = true;
        sweep_orphans(process->launcher);

        process->handler(process->userdata, &exit);
        return 0;
}

static int remove_one(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *where _unused_) {
        static unsigned n;

        /* In the loop, that is: what a call left by the million stays for the system to clear. */
        if (strlen(path) == 0)
                n = 0;
        return n++ < REMOVE_MAX ? remove(path) : 1;
}

static char *remove_folder(char *folder) {
        if (folder) {
                (void)remove_one("", NULL, 0, NULL);
                (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        }
        free(folder);
        return NULL;
}

/* What systemd gives as RuntimeDirectory=, where the files of a call are put. */
static int make_folder(SpawnProcess *process) {
        const char *parent = getenv("XDG_RUNTIME_DIR") ?: "/tmp";

        if (asprintf(&process->folder, "%s/mcp-exec-worker-XXXXXX", parent) < 0) {
                process->folder = NULL;
                return -ENOMEM;
        }
        if (!mkdtemp(process->folder)) {
                int r = -errno;

                free(process->folder);
                process->folder = NULL;
                return r;
        }

        return 0;
}

static Process *spawn_process_free(Process *p) {
        SpawnProcess *process = (SpawnProcess *)p;
        siginfo_t info;

        if (!process)
                return NULL;

        if (p->pid > 0 && !process->exited) {
                (void)kill(p->pid, SIGKILL);
                (void)kill(-p->pid, SIGKILL);
                /* SIGKILL can't be refused: this waits for the kernel alone. */
                (void)waitid(P_PID, p->pid, &info, WEXITED);
        }

        sd_event_source_disable_unref(process->source);
        TAILQ_REMOVE(&process->launcher->processes, process, link);
        sweep_orphans(process->launcher);
        remove_folder(process->folder);
        free(process);
        return NULL;
}

static int start_failed(Failure *failure, const char *command, const char *doing, int r) {
        return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: %s: %s", command, doing, strerror(-r));
}

static int spawn_start(Launcher *l, const ProcessSpec *spec, process_exit_handler handler, void *userdata,
                       Process **ret, Failure *failure) {
        SpawnLauncher *launcher = (SpawnLauncher *)l;
        const ServerConfig *config = spec->config;
        const char *command = config->argv[0], *path = find_variable(config->environment, "PATH") ?: l->path,
                   *cwd = config->cwd ?: find_variable(config->environment, "HOME") ?: getenv("HOME") ?: "/";
        _cleanup_(freep) char *executable = NULL;
        char **environment = NULL;
        SpawnProcess *process;
        int r, pidfd;

        r = find_command(config, path, &executable, failure);
        if (r < 0)
                return r;

        /* posix_spawn(3) doesn't tell a missing working directory from a missing interpreter. */
        if (access(cwd, X_OK) < 0) {
                if (config->cwd)
                        return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: its cwd %s: %s", command,
                                           cwd, strerror(errno));
                cwd = "/";
        }

        process = new0(SpawnProcess, 1);
        if (!process)
                return start_failed(failure, command, "starting", -ENOMEM);

        *process = (SpawnProcess){
                .process = { .ops = l->ops },
                .launcher = launcher,
                .id = spec->id,
                .handler = handler,
                .userdata = userdata,
        };
        TAILQ_INSERT_TAIL(&launcher->processes, process, link);

        r = config->transport == SERVER_TRANSPORT_FILE ? make_folder(process) : 0;
        if (r >= 0)
                environment = make_environment(config, path, getenv("HOME") ?: "/", spec->id, process->folder);
        if (!environment) {
                spawn_process_free(&process->process);
                return start_failed(failure, command, "starting", r < 0 ? r : -ENOMEM);
        }

        r = spawn(executable, config->argv, environment, cwd, spec->fds, &process->process.pid);
        if (r >= 0)
                (void)prlimit(process->process.pid, RLIMIT_NOFILE, &launcher->descriptors, NULL);
        strings_free(environment);
        if (r < 0) {
                process->process.pid = 0;
                spawn_process_free(&process->process);
                return start_failed(failure, executable, r == -ENOENT ? "its interpreter is missing" : "executing it",
                                    r);
        }

        pidfd = pidfd_open(process->process.pid, 0);
        r = pidfd < 0 ? -errno
                      : sd_event_add_child_pidfd(launcher->event, &process->source, pidfd, WEXITED, on_process_exit,
                                                 process);
        if (r < 0) {
                safe_close(pidfd);
                spawn_process_free(&process->process);
                return start_failed(failure, command, "watching it", r);
        }
        (void)sd_event_source_set_child_pidfd_own(process->source, true);

        *ret = &process->process;
        return 0;
}

static bool spawn_has_network(const ServerConfig *config _unused_) {
        return true;
}

/* What the file says is kept for other machines: nothing here can do it. */
static char *spawn_describe(const Launcher *launcher _unused_, const ServerConfig *config) {
        return strdup(config->sandbox ?: "{}");
}

static Launcher *spawn_launcher_free(Launcher *l) {
        SpawnLauncher *launcher = (SpawnLauncher *)l;

        sd_event_source_disable_unref(launcher->sigchld_source);
        sd_event_unref(launcher->event);
        free(launcher);
        return NULL;
}

static const LauncherOps spawn_ops = {
        .name = "spawn",
        .start = spawn_start,
        .signal = spawn_signal,
        .memory = spawn_memory,
        .has_network = spawn_has_network,
        .process_free = spawn_process_free,
        .describe = spawn_describe,
        .launcher_free = spawn_launcher_free,
};

/* The usual 1024 are for programs that call select(2). A message of the bus whose descriptors find no place ends the
 * connection, so that there have to be more than callers can have us hold. */
static void raise_descriptors(SpawnLauncher *launcher) {
        struct rlimit more;

        if (getrlimit(RLIMIT_NOFILE, &launcher->descriptors) < 0)
                return;

        more = launcher->descriptors;
        more.rlim_cur = MAX(more.rlim_cur, MIN(more.rlim_max, (rlim_t)DESCRIPTORS));
        (void)setrlimit(RLIMIT_NOFILE, &more);
}

int spawn_launcher_new(sd_event *event, const char *path, Launcher **ret) {
        SpawnLauncher *launcher = new0(SpawnLauncher, 1);
        int r;

        if (!launcher)
                return -ENOMEM;

        *launcher = (SpawnLauncher){
                .launcher = { .ops = &spawn_ops, .path = path },
                .event = sd_event_ref(event),
        };
        TAILQ_INIT(&launcher->processes);

        r = sd_event_add_signal(event, &launcher->sigchld_source, SIGCHLD, on_sigchld, launcher);
        if (r < 0) {
                spawn_launcher_free(&launcher->launcher);
                return r;
        }

        raise_descriptors(launcher);
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
        *ret = &launcher->launcher;
        return 0;
}
