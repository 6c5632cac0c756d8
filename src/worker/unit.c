#include "worker/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <systemd/sd-login.h>

#include "base/log.h"
#include "worker/sandbox.h"

#define KILL_PATIENCE (5 * USEC_PER_SEC) /* for the news of a death that we caused */
#define QUESTION_TIMEOUT (5 * USEC_PER_SEC)
#define FLUSH_TIMEOUT USEC_PER_SEC
#define PASSING_PATIENCE (10 * USEC_PER_SEC) /* for others to take the descriptors that are under way to them */
#define PASSING_PAUSE (20 * USEC_PER_MSEC)

/* Without an answer: whether it was heard shows in what happens. */
static void send_order(UnitLauncher *launcher, const char *id, int signal) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        char unit[TRANSIENT_NAME_MAX];
        int r;

        transient_unit_name(id, unit);

        /* Stopping also takes back a start that hasn't come to its process yet, and kills all of the unit with
         * SIGKILL, for that is its KillSignal. */
        if (!launcher->user) {
                r = sd_bus_message_new_method_call(launcher->bus, &message, LAUNCHER_NAME, LAUNCHER_PATH, LAUNCHER_NAME,
                                                   signal == SIGKILL ? "Stop" : "Kill");
                if (r >= 0)
                        r = signal == SIGKILL ? sd_bus_message_append(message, "s", id)
                                              : sd_bus_message_append(message, "si", id, signal);
        } else {
                r = sd_bus_message_new_method_call(launcher->bus, &message, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                                   signal == SIGKILL ? "StopUnit" : "KillUnit");
                if (r >= 0)
                        r = signal == SIGKILL ? sd_bus_message_append(message, "ss", unit, "replace")
                                              : sd_bus_message_append(message, "ssi", unit, "all", signal);
        }
        if (r >= 0)
                r = sd_bus_message_set_expect_reply(message, false);
        if (r >= 0)
                r = sd_bus_send(launcher->bus, message, NULL);
        if (r < 0)
                log_warning("worker %s can't be sent a signal: %s", id, strerror(-r));
}

void unit_process_kill(UnitProcess *process) {
        process->killed = true;
        send_order(process->launcher, process->id, SIGKILL);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata);

/* What's under way counts for all processes of a uid together, and root's can be many (unix(7), ETOOMANYREFS). */
static int try_again(UnitProcess *process) {
        uint64_t now;
        int r = sd_event_now(process->launcher->event, CLOCK_MONOTONIC, &now);

        if (r < 0)
                return r;
        if (process->try_until == 0)
                process->try_until = now + PASSING_PATIENCE;
        if (now >= process->try_until)
                return -ETIME;

        process->asked = false;
        process->again = sd_event_source_disable_unref(process->again);
        return sd_event_add_time_relative(process->launcher->event, &process->again, CLOCK_MONOTONIC, PASSING_PAUSE, 0,
                                          on_again, process);
}

static void start_failed(UnitProcess *process, int error, const char *reason) {
        if (error != ETOOMANYREFS)
                unit_process_fail(process, reason);
        else if (try_again(process) < 0)
                unit_process_fail(process, "its pipes can't be passed to systemd: more descriptors are under way "
                                           "between processes of one user than its RLIMIT_NOFILE (LimitNOFILE=)");
}

static void close_fds(UnitProcess *process) {
        for (size_t i = 0; i < 3; i++)
                process->fds[i] = safe_close(process->fds[i]);
}

static int on_started(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;
        const sd_bus_error *e = sd_bus_message_get_error(reply);

        if (!e) {
                close_fds(process);
                return 0;
        }

        if (process->killed) {
                unit_process_finish(process, &(ProcessExit){ .code = CLD_KILLED, .status = SIGKILL });
                return 0;
        }

        /* One whose answer was only lost may run. */
        if (sd_bus_error_has_names(e, SD_BUS_ERROR_NO_REPLY, SD_BUS_ERROR_TIMEOUT))
                unit_process_kill(process);
        start_failed(process, sd_bus_error_get_errno(e), e->message ?: e->name);
        return 0;
}

static int call_start(UnitProcess *process, sd_bus_message *message) {
        process->asked = true;
        process->slots[SLOT_START] = sd_bus_slot_unref(process->slots[SLOT_START]);
        return sd_bus_call_async(process->launcher->bus, &process->slots[SLOT_START], message, on_started, process, 0);
}

/* With the environment that the user's systemd has, which changes as sessions come, its unit can be told not to. */
static int on_environment(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;
        UnitLauncher *launcher = process->launcher;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        Failure failure = {};
        char **inherited = NULL;
        int r;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                unit_process_fail(process, sd_bus_message_get_error(reply)->message ?: "systemd doesn't answer");
                return 0;
        }

        r = sd_bus_message_enter_container(reply, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_read_strv(reply, &inherited);
        if (r >= 0)
                r = transient_start_message(launcher->bus,
                                            &(TransientSpec){ .config = process->config,
                                                              .owner = process->owner,
                                                              .id = process->id,
                                                              .fds = process->fds,
                                                              .path = launcher->launcher.path,
                                                              .bind_to = launcher->own_unit,
                                                              .inherited = inherited,
                                                              .user = true },
                                            &message, &failure);
        if (r >= 0)
                r = call_start(process, message);
        if (r < 0)
                start_failed(process, -r, r == -EREMOTEIO ? failure_message(&failure) : strerror(-r));

        strings_free(inherited);
        failure_done(&failure);
        return 0;
}

static int start_on_system(UnitProcess *process) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        int r;

        r = sd_bus_message_new_method_call(process->launcher->bus, &message, LAUNCHER_NAME, LAUNCHER_PATH,
                                           LAUNCHER_NAME, "Start");
        if (r >= 0)
                r = sd_bus_message_append(message, "ssshhh", process->config->name, process->owner, process->id,
                                          process->fds[0], process->fds[1], process->fds[2]);
        return r < 0 ? r : call_start(process, message);
}

static int ask_start(UnitProcess *process) {
        UnitLauncher *launcher = process->launcher;

        if (!launcher->user)
                return start_on_system(process);

        process->slots[SLOT_ENVIRONMENT] = sd_bus_slot_unref(process->slots[SLOT_ENVIRONMENT]);
        return sd_bus_call_method_async(launcher->bus, &process->slots[SLOT_ENVIRONMENT], SYSTEMD_NAME, SYSTEMD_PATH,
                                        SYSTEMD_PROPERTIES, "Get", on_environment, process, "ss", SYSTEMD_MANAGER,
                                        "Environment");
}

static int on_again(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        UnitProcess *process = userdata;
        int r = ask_start(process);

        if (r < 0)
                start_failed(process, -r, strerror(-r));
        return 0;
}

static Process *unit_process_free(Process *p) {
        UnitProcess *process = (UnitProcess *)p;

        if (!process)
                return NULL;

        if (!process->exited)
                unit_process_kill(process);
        process->exited = true;
        unit_process_unwatch(process);
        close_fds(process);
        sd_event_source_disable_unref(process->patience);
        sd_event_source_disable_unref(process->again);
        TAILQ_REMOVE(&process->launcher->processes, process, link);
        server_config_unref(process->config);
        free(process->owner);
        free(process->object);
        free(process->cgroup);
        free(process->job_result);
        free(process->state);
        free(process->unit_result);
        free(process);
        return NULL;
}

static int unit_start(Launcher *l, const ProcessSpec *spec, process_exit_handler handler, void *userdata, Process **ret,
                      Failure *failure) {
        UnitLauncher *launcher = (UnitLauncher *)l;
        UnitProcess *process = new0(UnitProcess, 1);
        int r = 0;

        if (!process)
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Out of memory");

        *process = (UnitProcess){
                .process = { .ops = l->ops },
                .launcher = launcher,
                .handler = handler,
                .userdata = userdata,
                .config = server_config_ref((ServerConfig *)spec->config),
                .owner = strdup(spec->owner),
                .object = transient_unit_path(spec->id),
                .fds = { -EBADF, -EBADF, -EBADF },
        };
        TAILQ_INSERT_TAIL(&launcher->processes, process, link);
        (void)snprintf(process->id, sizeof(process->id), "%s", spec->id);
        transient_unit_name(spec->id, process->unit);

        for (size_t i = 0; i < 3 && r >= 0; i++) {
                process->fds[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, 3);
                r = process->fds[i] < 0 ? -errno : 0;
        }
        if (r >= 0)
                r = process->owner && process->object ? unit_process_watch(process) : -ENOMEM;
        if (r >= 0)
                r = ask_start(process);
        if (r == -ETOOMANYREFS)
                r = try_again(process);
        if (r < 0) {
                process->exited = true;
                unit_process_free(&process->process);
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: asking systemd: %s",
                                   spec->config->argv[0], strerror(-r));
        }

        *ret = &process->process;
        return 0;
}

static int on_patience(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        unit_process_finish(
                userdata,
                &(ProcessExit){ .code = CLD_KILLED, .status = SIGKILL, .result = "systemd didn't confirm it" });
        return 0;
}

static void unit_signal(Process *p, int signal) {
        UnitProcess *process = (UnitProcess *)p;

        if (process->exited)
                return;

        if (signal != SIGKILL) {
                send_order(process->launcher, process->id, signal);
                return;
        }

        unit_process_kill(process);
        if (!process->patience)
                (void)sd_event_add_time_relative(process->launcher->event, &process->patience, CLOCK_MONOTONIC,
                                                 KILL_PATIENCE, 0, on_patience, process);
        if (!process->asked) {
                /* Nor will be. From the loop, as handlers are. */
                process->slots[SLOT_ENVIRONMENT] = sd_bus_slot_unref(process->slots[SLOT_ENVIRONMENT]);
                process->again = sd_event_source_disable_unref(process->again);
                if (process->patience)
                        (void)sd_event_source_set_time(process->patience, 0);
        }
}

static bool read_bytes(const char *folder, const char *cgroup, const char *name, uint64_t *ret) {
        _cleanup_(freep) char *path = NULL;
        unsigned long long bytes = 0;
        FILE *file;
        int n;

        if (asprintf(&path, "%s%s/%s", folder, cgroup, name) < 0) {
                path = NULL;
                return false;
        }
        file = fopen(path, "re");
        if (!file)
                return false;
        n = fscanf(file, "%llu", &bytes);
        (void)fclose(file);

        *ret = bytes;
        return n == 1;
}

static uint64_t unit_memory(const Process *p) {
        const UnitProcess *process = (const UnitProcess *)p;
        uint64_t bytes = 0;

        if (process->cgroup && !read_bytes("/sys/fs/cgroup", process->cgroup, "memory.current", &bytes))
                (void)read_bytes("/sys/fs/cgroup/memory", process->cgroup, "memory.usage_in_bytes", &bytes);

        return bytes;
}

static char *unit_describe(const Launcher *l, const ServerConfig *config) {
        return sandbox_effective(config->sandbox, ((const UnitLauncher *)l)->user);
}

static int on_subscribed(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitLauncher *launcher = userdata;
        const sd_bus_error *e = sd_bus_message_get_error(reply);

        if (e && !sd_bus_error_has_name(e, SYSTEMD_NAME ".AlreadySubscribed")) {
                log_warning("systemd doesn't tell what becomes of workers: %s", e->message ?: e->name);
                return 0;
        }

        free(launcher->systemd);
        launcher->systemd = strdup(sd_bus_message_get_sender(reply) ?: "");
        return 0;
}

static int subscribe(UnitLauncher *launcher) {
        launcher->subscribe_slot = sd_bus_slot_unref(launcher->subscribe_slot);
        return sd_bus_call_method_async(launcher->bus, &launcher->subscribe_slot, SYSTEMD_NAME, SYSTEMD_PATH,
                                        SYSTEMD_MANAGER, "Subscribe", on_subscribed, launcher, NULL);
}

/* systemd starts anew (systemctl daemon-reexec), and has another name then: what it said in between is lost. */
static int on_owner_changed(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        UnitLauncher *launcher = userdata;
        const char *owner, *sender = sd_bus_message_get_sender(message);
        UnitProcess *process;

        if (!sender || !streq(sender, "org.freedesktop.DBus") ||
            sd_bus_message_read(message, "sss", NULL, NULL, &owner) < 0)
                return 0;

        free(launcher->systemd);
        launcher->systemd = *owner ? strdup(owner) : NULL;
        if (*owner) {
                (void)subscribe(launcher);
                TAILQ_FOREACH(process, &launcher->processes, link)
                        unit_process_inquire(process);
        }
        return 0;
}

/* What an earlier broker of this unit has left: a worker whose start was under way when that was killed is bound to the
 * one after it, for systemd tells units by their names. */
static int on_bound(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitLauncher *launcher = userdata;
        const char *unit;

        if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_enter_container(reply, 'v', "as") < 0 ||
            sd_bus_message_enter_container(reply, 'a', "s") < 0)
                return 0;

        while (sd_bus_message_read(reply, "s", &unit) > 0) {
                char id[TRANSIENT_ID_SIZE + 1] = {}, name[TRANSIENT_NAME_MAX];
                UnitProcess *process;

                if (strncmp(unit, TRANSIENT_PREFIX, strlen(TRANSIENT_PREFIX)) != 0)
                        continue;
                (void)snprintf(id, sizeof(id), "%.*s", TRANSIENT_ID_SIZE, unit + strlen(TRANSIENT_PREFIX));
                transient_unit_name(id, name);
                if (!transient_id_valid(id) || !streq(name, unit))
                        continue;

                TAILQ_FOREACH(process, &launcher->processes, link)
                        if (streq(process->id, id))
                                break;
                if (!process) {
                        log_notice("worker %s was left by an earlier service: killed", id);
                        send_order(launcher, id, SIGKILL);
                }
        }

        return 0;
}

static int ask_bound(UnitLauncher *launcher) {
        _cleanup_(freep) char *path = NULL;
        int r = sd_bus_path_encode(SYSTEMD_PATH "/unit", launcher->own_unit, &path);

        return r < 0 ? r
                     : sd_bus_call_method_async(launcher->bus, &launcher->bound_slot, SYSTEMD_NAME, path,
                                                SYSTEMD_PROPERTIES, "Get", on_bound, launcher, "ss",
                                                SYSTEMD_NAME ".Unit", "BoundBy");
}

/* Orders to kill that are still queued go out; one that the bus doesn't take is systemd's, by BindsTo. */
static void flush(UnitLauncher *launcher) {
        uint64_t n = 0, waited = 0;

        while (sd_bus_get_n_queued_write(launcher->bus, &n) >= 0 && n > 0 && waited < FLUSH_TIMEOUT)
                if (sd_bus_process(launcher->bus, NULL) <= 0) {
                        (void)sd_bus_wait(launcher->bus, FLUSH_TIMEOUT / 10);
                        waited += FLUSH_TIMEOUT / 10;
                }
}

static Launcher *unit_launcher_free(Launcher *l) {
        UnitLauncher *launcher = (UnitLauncher *)l;

        sd_bus_slot_unref(launcher->jobs_slot);
        sd_bus_slot_unref(launcher->owner_slot);
        sd_bus_slot_unref(launcher->subscribe_slot);
        sd_bus_slot_unref(launcher->bound_slot);
        if (launcher->bus) {
                (void)sd_bus_detach_event(launcher->bus);
                flush(launcher);
                sd_bus_close(launcher->bus);
                sd_bus_unref(launcher->bus);
        }
        sd_event_unref(launcher->event);
        free(launcher->own_unit);
        free(launcher->systemd);
        free(launcher);
        return NULL;
}

static bool unit_has_network(const ServerConfig *config) {
        return sandbox_network(config->sandbox);
}

static const LauncherOps unit_ops = {
        .name = "unit",
        .start = unit_start,
        .signal = unit_signal,
        .memory = unit_memory,
        .has_network = unit_has_network,
        .process_free = unit_process_free,
        .describe = unit_describe,
        .launcher_free = unit_launcher_free,
};

static int open_bus(bool user, sd_bus **ret) {
        return user ? sd_bus_open_user_with_description(ret, "workers")
                    : sd_bus_open_system_with_description(ret, "workers");
}

static int own_unit(bool user, char **ret) {
        if (user)
                return sd_pid_get_user_unit(0, ret);

        *ret = strdup(BROKER_UNIT);
        return *ret ? 0 : -ENOMEM;
}

int unit_launcher_new(sd_event *event, const char *path, bool user, Launcher **ret) {
        _cleanup_(launcher_freep) Launcher *l = NULL;
        UnitLauncher *launcher = new0(UnitLauncher, 1);
        int r;

        if (!launcher)
                return -ENOMEM;

        *launcher = (UnitLauncher){
                .launcher = { .ops = &unit_ops, .path = path },
                .event = sd_event_ref(event),
                .user = user,
        };
        TAILQ_INIT(&launcher->processes);
        l = &launcher->launcher;

        r = own_unit(user, &launcher->own_unit);
        if (r >= 0)
                r = open_bus(user, &launcher->bus);
        if (r >= 0)
                r = sd_bus_set_exit_on_disconnect(launcher->bus, true);
        if (r >= 0)
                r = sd_bus_attach_event(launcher->bus, event, SD_EVENT_PRIORITY_NORMAL);
        if (r >= 0)
                r = sd_bus_add_match_async(launcher->bus, &launcher->owner_slot,
                                           "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
                                           "arg0='" SYSTEMD_NAME "'",
                                           on_owner_changed, NULL, launcher);
        if (r >= 0)
                r = subscribe(launcher);
        if (r >= 0)
                r = ask_bound(launcher);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(l);
        return 0;
}

static bool owned(sd_bus *bus, const char *name) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int yes = 0;

        return sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                  "NameHasOwner", NULL, &reply, "s", name) >= 0 &&
               sd_bus_message_read(reply, "b", &yes) >= 0 && yes;
}

static bool activatable(sd_bus *bus, const char *name) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        char **names = NULL;
        bool found = false;

        if (sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                               "ListActivatableNames", NULL, &reply, NULL) < 0 ||
            sd_bus_message_read_strv(reply, &names) < 0)
                return false;

        for (char **n = names; n && *n; n++)
                found = found || streq(*n, name);
        strings_free(names);
        return found;
}

/* Where this service was the first to use a user's bus, systemd is about to connect to it as well. */
static bool owned_soon(sd_bus *bus, const char *name) {
        for (uint64_t waited = 0; !owned(bus, name); waited += USEC_PER_SEC / 50) {
                if (waited >= USEC_PER_SEC)
                        return false;
                (void)usleep(USEC_PER_SEC / 50);
        }

        return true;
}

const char *unit_launcher_missing(bool user) {
        const char *main_pid = getenv("SYSTEMD_EXEC_PID"), *reason = NULL;
        _cleanup_(freep) char *unit = NULL;
        sd_bus *bus = NULL;

        if (!main_pid || strtol(main_pid, NULL, 10) != getpid() || own_unit(user, &unit) < 0)
                return "this isn't a service of systemd";

        if (open_bus(user, &bus) < 0 || sd_bus_set_method_call_timeout(bus, QUESTION_TIMEOUT) < 0)
                reason = "the bus can't be reached";
        else if (!owned_soon(bus, SYSTEMD_NAME))
                reason = "systemd isn't on the bus";
        else if (!user && !activatable(bus, LAUNCHER_NAME))
                reason = LAUNCHER_NAME " isn't installed";

        sd_bus_close_unref(bus);
        return reason;
}
