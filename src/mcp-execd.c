#include <getopt.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "bus/errors.h"
#include "bus/service.h"
#include "worker/environment.h"
#include "worker/supervisor.h"

#define FOLDERS_MAX 16

typedef struct Arguments {
        ServiceOptions service;
        const char *folders[FOLDERS_MAX + 1];
        size_t n_folders;
        const char *launcher; /* unit, spawn or auto */
        int log_level;
} Arguments;

static void help(void) {
        printf("mcp-execd [OPTIONS...]\n\n"
               "Launches MCP servers on demand, keeps them warm, and shares them over D-Bus as %s.\n\n"
               "     --user                  Serve the session bus, for the own user alone\n"
               "     --config-dir=DIR        Read mcp-exec.json and servers.d/*.json there instead of in the\n"
               "                             standard folders; the first of several takes precedence\n"
               "     --idle-timeout=SECONDS  Leave after so long without a worker or call; \"infinity\": never\n"
               "     --launcher=HOW          Start workers as systemd units (unit), as processes of this one\n"
               "                             (spawn), or as units where it is a service of systemd (auto)\n"
               "     --log-level=LEVEL       error, warning, notice, info or debug\n"
               "     --version               Show the version\n"
               "  -h --help                  Show this help\n\n"
               "$DBUS_SESSION_BUS_ADDRESS and $DBUS_SYSTEM_BUS_ADDRESS choose another bus.\n",
               BUS_NAME);
}

static int parse_seconds(const char *text, uint64_t *ret) {
        char *end;
        double seconds;

        if (streq(text, "infinity")) {
                *ret = USEC_INFINITY;
                return 0;
        }

        errno = 0;
        seconds = strtod(text, &end);
        if (errno != 0 || end == text || *end != 0 || !isfinite(seconds) || seconds < 0 || seconds > 1e9)
                return -EINVAL;

        *ret = seconds * USEC_PER_SEC;
        return 0;
}

/* 1: go on; 0: all is done; negative: told what is wrong. */
static int parse_arguments(int argc, char *argv[], Arguments *arguments) {
        enum { USER = 0x100, CONFIG_DIR, IDLE_TIMEOUT, LAUNCHER, LOG_LEVEL, VERSION };
        static const struct option options[] = {
                { "user", no_argument, NULL, USER },
                { "config-dir", required_argument, NULL, CONFIG_DIR },
                { "idle-timeout", required_argument, NULL, IDLE_TIMEOUT },
                { "launcher", required_argument, NULL, LAUNCHER },
                { "log-level", required_argument, NULL, LOG_LEVEL },
                { "version", no_argument, NULL, VERSION },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case USER:
                        arguments->service.user = true;
                        break;
                case CONFIG_DIR:
                        if (arguments->n_folders >= FOLDERS_MAX) {
                                fprintf(stderr, "mcp-execd: more than %d --config-dir\n", FOLDERS_MAX);
                                return -EINVAL;
                        }
                        arguments->folders[arguments->n_folders++] = optarg;
                        break;
                case IDLE_TIMEOUT:
                        if (parse_seconds(optarg, &arguments->service.idle_timeout) < 0) {
                                fprintf(stderr,
                                        "mcp-execd: --idle-timeout=%s: a number of seconds or \"infinity\" is wanted\n",
                                        optarg);
                                return -EINVAL;
                        }
                        arguments->service.idle_timeout_set = true;
                        break;
                case LAUNCHER:
                        if (!streq(optarg, "auto") && !streq(optarg, "unit") && !streq(optarg, "spawn")) {
                                fprintf(stderr, "mcp-execd: --launcher=%s: auto, unit or spawn is wanted\n", optarg);
                                return -EINVAL;
                        }
                        arguments->launcher = optarg;
                        break;
                case LOG_LEVEL:
                        arguments->log_level = log_level_from_string(optarg);
                        if (arguments->log_level < 0) {
                                fprintf(stderr,
                                        "mcp-execd: --log-level=%s: error, warning, notice, info or debug is wanted\n",
                                        optarg);
                                return -EINVAL;
                        }
                        arguments->service.log_level_set = true;
                        break;
                case VERSION:
                        puts("mcp-execd " PROJECT_VERSION);
                        return 0;
                case 'h':
                        help();
                        return 0;
                default:
                        return -EINVAL;
                }

        if (optind < argc) {
                fprintf(stderr, "mcp-execd: %s: no argument is wanted; see --help\n", argv[optind]);
                return -EINVAL;
        }

        if (arguments->n_folders > 0)
                arguments->service.folders = arguments->folders;
        return 1;
}

static void block_signals(void) {
        sigset_t set;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGCHLD);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGHUP);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);

        /* A pipe whose reader has left, and a file over RLIMIT_FSIZE, are errors of write(2) here. */
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGXFSZ, SIG_IGN);
}

static int on_stop(sd_event_source *source _unused_, const struct signalfd_siginfo *si, void *userdata) {
        log_info("received SIG%s: leaving", sigabbrev_np(si->ssi_signo) ?: "?");
        service_stop(userdata);
        return 0;
}

static int on_reload(sd_event_source *source _unused_, const struct signalfd_siginfo *si _unused_, void *userdata) {
        service_reload(userdata);
        return 0;
}

/* PATH for the workers: with --user, what the user has installed comes first. */
static char *worker_path(bool user) {
        const char *home = getenv("HOME");
        char *path = NULL;

        if (!user || !home || home[0] != '/')
                return strdup(WORKER_PATH);

        return asprintf(&path, "%s/.local/bin:%s", home, WORKER_PATH) < 0 ? NULL : path;
}

/* Whether workers become units. Before any process is forked, for one asks which process systemd has started. */
static bool choose_units(const Arguments *arguments) {
        const char *missing =
                streq(arguments->launcher, "spawn") ? NULL : unit_launcher_missing(arguments->service.user);

        if (streq(arguments->launcher, "spawn"))
                log_info("workers are started as processes of this one, as --launcher says");
        else if (streq(arguments->launcher, "unit") && missing)
                log_warning("workers are started as units of systemd, as --launcher says, but %s", missing);
        else if (missing)
                log_info("workers are started as processes of this one, for %s", missing);
        else
                log_info("workers are started as units of systemd, for this is a service of it");

        return !streq(arguments->launcher, "spawn") && (!missing || streq(arguments->launcher, "unit"));
}

static int run(const Arguments *arguments, bool units) {
        _cleanup_(freep) char *path = worker_path(arguments->service.user);
        _cleanup_(launcher_freep) Launcher *launcher = NULL;
        _cleanup_(service_freep) Service *service = NULL;
        sd_event *event = NULL;
        int r;

        if (!path)
                return -ENOMEM;

        r = sd_event_default(&event);
        if (r < 0)
                return r;
        r = sd_event_set_watchdog(event, true);
        if (r >= 0)
                r = units ? unit_launcher_new(event, path, arguments->service.user, &launcher)
                          : spawn_launcher_new(event, path, &launcher);
        if (r >= 0)
                r = service_new(event, launcher, &arguments->service, &service);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGTERM, on_stop, service);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGINT, on_stop, service);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGHUP, on_reload, service);
        if (r >= 0) {
                (void)sd_notify(/* unset_environment= */ false, "READY=1");
                r = sd_event_loop(event);
        }

        service = service_free(service);
        launcher = launcher_free(launcher);
        sd_event_unref(event);
        return r;
}

int main(int argc, char *argv[]) {
        Arguments arguments = { .launcher = "auto", .log_level = LOG_INFO };
        bool units;
        int r;

        r = parse_arguments(argc, argv, &arguments);
        if (r <= 0)
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;

        log_open(arguments.log_level);
        block_signals();

        /* Buffers come and go. Mapping each large one anew costs a page fault a page; keeping them all would make an
         * idle service large. */
        (void)mallopt(M_MMAP_THRESHOLD, 2 * 1024 * 1024);
        (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);

        units = choose_units(&arguments);

        /* Under systemd the unit's cgroup is what no worker outlives. */
        if (!units && !getenv("NOTIFY_SOCKET")) {
                r = supervise();
                if (r < 0)
                        log_warning("no guard could be started, so that workers outlive a crash: %s", strerror(-r));
        }

        r = run(&arguments, units);
        if (r < 0 && r != -ESHUTDOWN)
                log_error("failed: %s", strerror(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
