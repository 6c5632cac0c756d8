/* The one program that runs as root: it starts the workers of the broker of the system bus as units of systemd, and
 * kills them. The broker gives a server's name and three pipes. What runs, and in what sandbox, stands in files that
 * root alone can write; nothing of that comes from the caller. */

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/catalogue.h"
#include "launcher/request.h"
#include "worker/environment.h"
#include "worker/transient.h"

#define FOLDERS_MAX 16
#define PENDING_MAX 256
#define RECENT_MAX 64
#define IDLE_TIMEOUT (10 * USEC_PER_SEC)
#define SYSTEMD_TIMEOUT (20 * USEC_PER_SEC) /* below what callers wait */

#define ERROR_NO_SUCH_SERVER "org.example.McpExec.Error.NoSuchServer"
#define ERROR_SERVER_DISABLED "org.example.McpExec.Error.ServerDisabled"
#define ERROR_LAUNCH_FAILED "org.example.McpExec.Error.LaunchFailed"
#define ERROR_LIMITS_EXCEEDED "org.example.McpExec.Error.LimitsExceeded"

/* A worker and the connection that asked for it */
typedef struct Recent {
        char id[TRANSIENT_ID_SIZE + 1];
        char *sender;
} Recent;

typedef struct Root {
        sd_event *event;
        sd_bus *bus;
        const char *folders[FOLDERS_MAX + 1]; /* none: the standard ones */
        size_t n_folders;
        uid_t caller; /* who may ask */

        Recent recent[RECENT_MAX];
        size_t n_recent; /* ever */
        unsigned n_pending;

        uint64_t idle_timeout;
        sd_event_source *idle_source, *leave_source;
        bool leaving, released;
} Root;

/* A call that systemd has to answer first */
typedef struct Pending {
        Root *root;
        sd_bus_message *call;
        sd_bus_slot *slot;
} Pending;

static void look_idle(Root *root) {
        if (root->n_pending > 0)
                return;
        if (root->released)
                (void)sd_event_source_set_enabled(root->leave_source, SD_EVENT_ONESHOT);
        else if (!root->leaving && root->idle_timeout != USEC_INFINITY) {
                (void)sd_event_source_set_time_relative(root->idle_source, root->idle_timeout);
                (void)sd_event_source_set_enabled(root->idle_source, SD_EVENT_ONESHOT);
        }
}

static void pending_free(Pending *pending) {
        Root *root = pending->root;

        root->n_pending--;
        sd_bus_message_unref(pending->call);
        sd_bus_slot_unref(pending->slot);
        free(pending);
        look_idle(root);
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Pending *pending = userdata;
        const sd_bus_error *e = sd_bus_message_get_error(reply);
        _cleanup_(freep) char *text = e ? text_escape(e->message ?: "", strlen(e->message ?: ""), 2048) : NULL;

        if (e)
                (void)sd_bus_reply_method_errorf(pending->call, ERROR_LAUNCH_FAILED, "systemd: %s (%s)", text ?: "?",
                                                 e->name);
        else
                (void)sd_bus_reply_method_return(pending->call, NULL);
        pending_free(pending);
        return 0;
}

/* Sends message to systemd, and answers call when systemd has. */
static int forward(Root *root, sd_bus_message *call, sd_bus_message *message, sd_bus_error *error) {
        Pending *pending;
        int r;

        if (root->n_pending >= PENDING_MAX)
                return sd_bus_error_setf(error, ERROR_LIMITS_EXCEEDED, "more than %d calls are under way", PENDING_MAX);

        pending = new0(Pending, 1);
        if (!pending)
                return -ENOMEM;

        *pending = (Pending){ .root = root, .call = sd_bus_message_ref(call) };
        root->n_pending++;
        r = sd_bus_call_async(root->bus, &pending->slot, message, on_answer, pending, SYSTEMD_TIMEOUT);
        if (r < 0) {
                pending_free(pending);
                return r;
        }

        return 1;
}

/* The policy of the bus lets nobody else call; this holds where that has been changed. */
static int authorize(Root *root, sd_bus_message *message, sd_bus_error *error) {
        _cleanup_(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;
        uid_t uid;
        int r;

        r = sd_bus_query_sender_creds(message, SD_BUS_CREDS_EUID, &creds);
        if (r >= 0)
                r = sd_bus_creds_get_euid(creds, &uid);
        if (r < 0 || uid != root->caller)
                return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED,
                                        "Only the user " BROKER_USER " may start and kill workers");

        look_idle(root);
        return 0;
}

/* As the files are now: they are read at each start. */
static int find_server(Root *root, const char *name, ServerConfig **ret, sd_bus_error *error) {
        _cleanup_(catalogue_freep) Catalogue *catalogue = NULL;
        char **standard = root->n_folders > 0 ? NULL : catalogue_standard_folders(/* user= */ false);
        ServerConfig *const *servers, *found = NULL;
        const Problem *problem;
        size_t n;
        int r;

        if (root->n_folders == 0 && !standard)
                return -ENOMEM;

        r = catalogue_new(root->event, standard ? (const char *const *)standard : root->folders, root->n_folders > 0,
                          NULL, NULL, &catalogue);
        strings_free(standard);
        if (r < 0)
                return r;

        catalogue_load(catalogue);
        servers = catalogue_servers(catalogue, &n);
        for (size_t i = 0; i < n && !found; i++)
                if (streq(servers[i]->name, name))
                        found = servers[i];

        if (!found) {
                problem = TAILQ_FIRST(catalogue_problems(catalogue));
                return sd_bus_error_setf(error, ERROR_NO_SUCH_SERVER, "No server is named %s%s%s%s%s", name,
                                         problem ? "; one file can't be used: " : "", problem ? problem->file : "",
                                         problem ? ": " : "", problem ? problem->text : "");
        }
        if (found->disabled)
                return sd_bus_error_setf(error, ERROR_SERVER_DISABLED, "Server %s is disabled in %s", name,
                                         found->file);

        *ret = server_config_ref(found);
        return 0;
}

/* In a folder that root alone can look into, for what a unit's properties say, and their file in /run, is there for all
 * to read; systemd reads it when it starts the worker. False where there is no such folder. */
static bool environment_path(const char *id, char path[static PATH_MAX]) {
        const char *folder = getenv("RUNTIME_DIRECTORY");

        return folder && snprintf(path, PATH_MAX, "%s/%s.env", folder, id) < PATH_MAX;
}

/* systemd.exec(5), EnvironmentFile= */
static int write_environment(const ServerConfig *config, const char *path) {
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

        if (!file)
                return -errno;

        fd = -EBADF;
        for (char **s = config->environment; s && *s; s++) {
                const char *value = strchr(*s, '=') + 1;

                fprintf(file, "%.*s\"", (int)(value - *s), *s);
                for (; *value; value++)
                        fprintf(file, strchr("\"\\`$", *value) ? "\\%c" : "%c", *value);
                fputs("\"\n", file);
        }

        return ferror(file) | fclose(file) ? -EIO : 0;
}

static void remember(Root *root, const char *id, const char *sender) {
        Recent *recent = &root->recent[root->n_recent++ % RECENT_MAX];
        char path[PATH_MAX];

        /* Its worker was started, or not, long ago; the last ones go with the folder, when we leave. */
        if (*recent->id && environment_path(recent->id, path))
                (void)unlink(path);
        free(recent->sender);
        recent->sender = strdup(sender);
        (void)snprintf(recent->id, sizeof(recent->id), "%s", id);
}

static int method_start(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        static const char *const names[] = { "stdin", "stdout", "stderr" };
        Root *root = userdata;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *start = NULL;
        _cleanup_(server_config_unrefp) ServerConfig *config = NULL;
        const char *server, *owner, *id;
        char **inherited = NULL, path[PATH_MAX];
        bool filed = false;
        Failure failure = {};
        int fds[3], r;

        r = authorize(root, message, error);
        if (r < 0)
                return r;

        r = sd_bus_message_read(message, "ssshhh", &server, &owner, &id, &fds[0], &fds[1], &fds[2]);
        if (r < 0)
                return r;
        r = request_check_names(server, owner, id, error);
        for (int i = 1; i < 3 && r >= 0; i++)
                r = request_check_pipe(fds[i], names[i], /* reading= */ false, error);
        if (r >= 0)
                r = find_server(root, server, &config, error);
        if (r >= 0)
                r = config->transport == SERVER_TRANSPORT_SOCKET
                            ? request_check_socket(fds[0], names[0], error)
                            : request_check_pipe(fds[0], names[0], /* reading= */ true, error);
        if (r >= 0)
                r = sd_bus_get_property_strv(root->bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER, "Environment",
                                             error, &inherited);
        if (r < 0)
                return r;

        if (config->environment && *config->environment && environment_path(id, path)) {
                filed = true;
                r = write_environment(config, path);
                if (r < 0) {
                        strings_free(inherited);
                        return sd_bus_error_setf(error, ERROR_LAUNCH_FAILED, "%s can't be written: %s", path,
                                                 strerror(-r));
                }
        }

        r = transient_start_message(root->bus,
                                    &(TransientSpec){ .config = config,
                                                      .owner = owner,
                                                      .id = id,
                                                      .fds = fds,
                                                      .path = WORKER_PATH,
                                                      .bind_to = BROKER_UNIT,
                                                      .environment_file = filed ? path : NULL,
                                                      .inherited = inherited },
                                    &start, &failure);
        strings_free(inherited);
        if (r == -EREMOTEIO)
                r = sd_bus_error_set(error, ERROR_LAUNCH_FAILED, failure_message(&failure));
        failure_done(&failure);
        if (r >= 0)
                r = forward(root, message, start, error);
        if (r < 0) {
                if (filed)
                        (void)unlink(path);
                return r;
        }

        remember(root, id, sd_bus_message_get_sender(message));
        log_info("starting a worker of %s for %s: %s", server, owner, id);
        return r;
}

static int stop_message(Root *root, const char *id, sd_bus_message **ret) {
        char unit[TRANSIENT_NAME_MAX];
        int r;

        transient_unit_name(id, unit);
        r = sd_bus_message_new_method_call(root->bus, ret, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER, "StopUnit");
        return r < 0 ? r : sd_bus_message_append(*ret, "ss", unit, "replace");
}

static int method_stop(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Root *root = userdata;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *stop = NULL;
        const char *id;
        int r;

        r = authorize(root, message, error);
        if (r >= 0)
                r = sd_bus_message_read(message, "s", &id);
        if (r >= 0)
                r = request_check_id(id, error);
        if (r >= 0)
                r = stop_message(root, id, &stop);
        return r < 0 ? r : forward(root, message, stop, error);
}

static int method_kill(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Root *root = userdata;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *kill = NULL;
        char unit[TRANSIENT_NAME_MAX];
        const char *id;
        int32_t signal;
        int r;

        r = authorize(root, message, error);
        if (r >= 0)
                r = sd_bus_message_read(message, "si", &id, &signal);
        if (r >= 0)
                r = request_check_id(id, error);
        if (r < 0)
                return r;
        if (signal <= 0 || signal >= NSIG)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%d is no signal's number", signal);

        transient_unit_name(id, unit);
        r = sd_bus_message_new_method_call(root->bus, &kill, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER, "KillUnit");
        if (r >= 0)
                r = sd_bus_message_append(kill, "ssi", unit, "all", signal);
        return r < 0 ? r : forward(root, message, kill, error);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS(
                "Start", SD_BUS_ARGS("s", server, "s", owner, "s", id, "h", stdin_fd, "h", stdout_fd, "h", stderr_fd),
                SD_BUS_NO_RESULT, method_start, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Stop", SD_BUS_ARGS("s", id), SD_BUS_NO_RESULT, method_stop,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Kill", SD_BUS_ARGS("s", id, "i", signal), SD_BUS_NO_RESULT, method_kill,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

/* systemd stops what is bound to the broker when the broker ends; but a worker whose start was under way then is bound
 * to the broker that follows. Whoever asked has left the bus: what it asked for last goes as well. */
static int on_left(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        Root *root = userdata;
        const char *name, *sender = sd_bus_message_get_sender(message);

        if (!sender || !streq(sender, "org.freedesktop.DBus") || sd_bus_message_read(message, "s", &name) < 0)
                return 0;

        for (size_t i = 0; i < RECENT_MAX; i++) {
                Recent *recent = &root->recent[i];
                sd_bus_message *stop = NULL;

                if (!recent->sender || !streq(recent->sender, name))
                        continue;
                if (stop_message(root, recent->id, &stop) >= 0 && sd_bus_message_set_expect_reply(stop, false) >= 0)
                        (void)sd_bus_send(root->bus, stop, NULL);
                sd_bus_message_unref(stop);
                free(recent->sender);
                recent->sender = NULL;
        }

        return 0;
}

/* Leaving: the name is given back, calls that come by it until then are served, and then there is nobody to answer. */

static int on_released(sd_bus_message *reply _unused_, void *userdata, sd_bus_error *error _unused_) {
        Root *root = userdata;

        root->released = true;
        look_idle(root);
        return 0;
}

static void leave(Root *root) {
        if (root->leaving)
                return;

        /* Before the name goes: systemd would take us for running otherwise, and not start another. */
        root->leaving = true;
        (void)sd_notify(/* unset_environment= */ false, "STOPPING=1");
        if (sd_bus_release_name_async(root->bus, NULL, LAUNCHER_NAME, on_released, root) < 0)
                (void)on_released(NULL, root, NULL);
}

static int on_idle(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Root *root = userdata;

        if (root->n_pending == 0)
                leave(root);
        return 0;
}

/* Runs when the loop has nothing else to do. */
static int on_leave(sd_event_source *source, void *userdata) {
        Root *root = userdata;
        uint64_t n_queued = 0;

        (void)sd_bus_get_n_queued_read(root->bus, &n_queued);
        if (n_queued == 0 && root->n_pending == 0)
                return sd_event_exit(root->event, 0);

        (void)sd_event_source_set_enabled(source, root->n_pending == 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        return 0;
}

static int on_stop(sd_event_source *source _unused_, const struct signalfd_siginfo *si _unused_, void *userdata) {
        Root *root = userdata;

        if (root->leaving)
                return sd_event_exit(root->event, 0);

        leave(root);
        return 0;
}

static int serve(Root *root) {
        int r;

        r = sd_event_default(&root->event);
        if (r >= 0)
                r = sd_event_add_signal(root->event, NULL, SIGTERM, on_stop, root);
        if (r >= 0)
                r = sd_event_add_signal(root->event, NULL, SIGINT, on_stop, root);
        if (r >= 0)
                r = sd_event_add_time(root->event, &root->idle_source, CLOCK_MONOTONIC, USEC_INFINITY, 0, on_idle,
                                      root);
        if (r >= 0)
                r = sd_event_add_defer(root->event, &root->leave_source, on_leave, root);
        if (r >= 0)
                r = sd_event_source_set_enabled(root->leave_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_source_set_priority(root->leave_source, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_bus_open_system(&root->bus);
        if (r >= 0)
                r = sd_bus_set_method_call_timeout(root->bus, SYSTEMD_TIMEOUT);
        if (r >= 0)
                r = sd_bus_set_exit_on_disconnect(root->bus, true);
        if (r >= 0)
                r = sd_bus_attach_event(root->bus, root->event, SD_EVENT_PRIORITY_NORMAL);
        if (r >= 0)
                r = sd_bus_add_match(root->bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg2=''",
                                     on_left, root);
        if (r >= 0)
                r = sd_bus_add_object_vtable(root->bus, NULL, LAUNCHER_PATH, LAUNCHER_NAME, vtable, root);
        if (r >= 0)
                r = sd_bus_request_name(root->bus, LAUNCHER_NAME, 0);
        if (r < 0)
                return r;

        look_idle(root);
        (void)sd_notify(/* unset_environment= */ false, "READY=1");
        return sd_event_loop(root->event);
}

static int parse_arguments(int argc, char *argv[], Root *root) {
        enum { CONFIG_DIR = 0x100, IDLE, VERSION };
        static const struct option options[] = {
                { "config-dir", required_argument, NULL, CONFIG_DIR },
                { "idle-timeout", required_argument, NULL, IDLE },
                { "version", no_argument, NULL, VERSION },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        double seconds;
        char *end;
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case CONFIG_DIR:
                        if (root->n_folders >= FOLDERS_MAX) {
                                fprintf(stderr, "mcp-exec-launcher: more than %d --config-dir\n", FOLDERS_MAX);
                                return -EINVAL;
                        }
                        root->folders[root->n_folders++] = optarg;
                        break;
                case IDLE:
                        seconds = strtod(optarg, &end);
                        if (end == optarg || *end || !isfinite(seconds) || seconds < 0 || seconds > 1e9) {
                                fprintf(stderr, "mcp-exec-launcher: --idle-timeout=%s: a number of seconds is wanted\n",
                                        optarg);
                                return -EINVAL;
                        }
                        root->idle_timeout = seconds * USEC_PER_SEC;
                        break;
                case VERSION:
                        puts("mcp-exec-launcher " PROJECT_VERSION);
                        return 0;
                case 'h':
                        printf("mcp-exec-launcher [OPTIONS...]\n\n"
                               "Starts the workers of mcp-execd as units of systemd. Called by it over the system "
                               "bus,\n"
                               "as %s, and by nobody else.\n\n"
                               "     --config-dir=DIR        Read servers.d/*.json there instead of in the standard\n"
                               "                             folders\n"
                               "     --idle-timeout=SECONDS  Leave after so long without a call (10)\n"
                               "     --version               Show the version\n"
                               "  -h --help                  Show this help\n",
                               LAUNCHER_NAME);
                        return 0;
                default:
                        return -EINVAL;
                }

        if (optind < argc) {
                fprintf(stderr, "mcp-exec-launcher: %s: no argument is wanted; see --help\n", argv[optind]);
                return -EINVAL;
        }

        return 1;
}

int main(int argc, char *argv[]) {
        Root root = { .idle_timeout = IDLE_TIMEOUT };
        const struct passwd *user;
        sigset_t set;
        int r;

        r = parse_arguments(argc, argv, &root);
        if (r <= 0)
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;

        log_open(LOG_INFO);
        user = getpwnam(BROKER_USER);
        if (!user) {
                log_error("there is no user " BROKER_USER ": systemd-sysusers makes it");
                return EXIT_FAILURE;
        }
        root.caller = user->pw_uid;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);

        r = serve(&root);
        if (r < 0)
                log_error("failed: %s", strerror(-r));

        for (size_t i = 0; i < RECENT_MAX; i++)
                free(root.recent[i].sender);
        sd_event_source_disable_unref(root.idle_source);
        sd_event_source_disable_unref(root.leave_source);
        sd_bus_flush_close_unref(root.bus);
        sd_event_unref(root.event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
