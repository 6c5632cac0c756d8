#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "worker/unit.h"

/* What systemd says of a worker's unit, and what that means for its process. Nothing is asked when it is over, for the
 * unit is forgotten at once: its last signals say it all. */

static void let_go(UnitProcess *process) {
        unit_process_unwatch(process);
        for (size_t i = 0; i < 3; i++)
                process->fds[i] = safe_close(process->fds[i]);
        process->patience = sd_event_source_disable_unref(process->patience);
        process->again = sd_event_source_disable_unref(process->again);
}

void unit_process_finish(UnitProcess *process, const ProcessExit *exit) {
        if (process->exited)
                return;

        process->exited = true;
        let_go(process);
        process->handler(process->userdata, exit);
}

void unit_process_fail(UnitProcess *process, const char *reason) {
        _cleanup_(freep) char *problem = NULL;

        if (strncmp(reason, "Can't start ", strlen("Can't start ")) == 0)
                problem = strdup(reason);
        else if (asprintf(&problem, "Can't start %s: %s", process->config->argv[0], reason) < 0)
                problem = NULL;
        unit_process_finish(process, &(ProcessExit){ .problem = problem ?: "out of memory" });
}

/* Where cgroups are of version 1, systemd isn't told that the kernel has killed for want of memory. */
static bool blind_for_memory(void) {
        return access("/sys/fs/cgroup/cgroup.controllers", F_OK) < 0;
}

/* Its end, from all that systemd has said of it */
static void conclude(UnitProcess *process) {
        const char *result = process->unit_result;
        _cleanup_(freep) char *text = NULL;
        ProcessExit exit = { .code = process->code, .status = process->status };

        if (process->killed && exit.code == 0)
                exit = (ProcessExit){ .code = CLD_KILLED, .status = SIGKILL };

        if (!process->started && !process->killed) {
                const char *reason = exit.code == CLD_EXITED ? transient_status_reason(exit.status) : NULL;

                if (asprintf(&text, "%s (systemd: job %s, result %s, status %d)", reason ?: "its unit failed",
                             process->job_result ?: "lost", result ?: "unknown", exit.status) < 0)
                        text = NULL;
                unit_process_fail(process, text ?: "out of memory");
                return;
        }

        if (exit.code == 0)
                exit = (ProcessExit){ .code = CLD_KILLED, .status = SIGKILL, .result = "systemd doesn't know how" };
        else if (result && !streq(result, "success") && !streq(result, "exit-code") && !streq(result, "signal"))
                exit.result = result;
        else if (!process->killed && exit.code == CLD_KILLED && exit.status == SIGKILL && blind_for_memory()) {
                _cleanup_(freep) char *sandbox =
                        process->launcher->launcher.ops->describe(&process->launcher->launcher, process->config);
                JsonSlice max = json_get((JsonSlice){ sandbox, sandbox ? strlen(sandbox) : 0 }, "MemoryMax");
                bool quoted = json_is(max, '"');

                if (max.data && asprintf(&text, "probably oom-kill: MemoryMax=%.*s", (int)max.size - 2 * quoted,
                                         max.data + quoted) >= 0)
                        exit.result = text;
        }

        unit_process_finish(process, &exit);
}

/* The unit's whole cgroup is gone where it is inactive or failed; before its job is over, it is not yet anything else.
 */
static void check(UnitProcess *process) {
        bool dead = process->state && (streq(process->state, "failed") || streq(process->state, "inactive"));

        if (!process->job_result || !dead)
                return;

        /* How it failed comes with that state. */
        if (streq(process->job_result, "failed") && !streq(process->state, "failed"))
                return;

        conclude(process);
}

/* On a bus anybody can send a signal to us alone, whatever we asked for. */
static bool from_systemd(const UnitProcess *process, sd_bus_message *message) {
        const char *sender = sd_bus_message_get_sender(message);

        return sender && process->launcher->systemd && streq(sender, process->launcher->systemd);
}

static void set_string(char **target, const char *value) {
        free(*target);
        *target = strdup(value);
}

/* Jobs of all units wake us; but neither sd-bus nor dbus-broker finds a signal by an argument that follows a number. So
 * they are watched for as long as a start is under way. */
static void stop_watching_jobs(UnitLauncher *launcher) {
        UnitProcess *process;

        TAILQ_FOREACH(process, &launcher->processes, link)
                if (!process->job_result && !process->exited)
                        return;

        launcher->jobs_slot = sd_bus_slot_unref(launcher->jobs_slot);
}

static void job_removed(UnitProcess *process, const char *result) {
        if (process->job_result)
                return;

        set_string(&process->job_result, result);
        process->started = streq(result, "done");
        if (process->started) {
                /* What was heard so far can be older. */
                free(process->state);
                process->state = NULL;
        }
        check(process);
}

static int on_job_removed(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        UnitLauncher *launcher = userdata;
        const char *unit, *result;
        UnitProcess *process;

        if (sd_bus_message_read(message, "uoss", NULL, NULL, &unit, &result) < 0)
                return 0;

        TAILQ_FOREACH(process, &launcher->processes, link)
                if (streq(process->unit, unit) && from_systemd(process, message)) {
                        job_removed(process, result);
                        break;
                }
        stop_watching_jobs(launcher);
        return 0;
}

static int on_cgroup(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;
        const char *cgroup;

        if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "v", "s", &cgroup) >= 0 &&
            cgroup[0] == '/')
                set_string(&process->cgroup, cgroup);
        return 0;
}

static int ask(UnitProcess *process, const char *interface, const char *property, sd_bus_message_handler_t handler) {
        process->slots[SLOT_QUESTION] = sd_bus_slot_unref(process->slots[SLOT_QUESTION]);
        return sd_bus_call_method_async(process->launcher->bus, &process->slots[SLOT_QUESTION], SYSTEMD_NAME,
                                        process->object, SYSTEMD_PROPERTIES, "Get", handler, process, "ss", interface,
                                        property);
}

static void set_pid(UnitProcess *process, pid_t pid) {
        if (pid <= 0 || process->process.pid == pid)
                return;

        process->process.pid = pid;
        (void)ask(process, SYSTEMD_NAME ".Service", "ControlGroup", on_cgroup);
}

static int on_properties(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;
        const char *name, *text;
        uint32_t pid;
        int r;

        if (!from_systemd(process, message))
                return 0;

        r = sd_bus_message_skip(message, "s");
        if (r >= 0)
                r = sd_bus_message_enter_container(message, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &name);
                if (r < 0)
                        break;

                if (streq(name, "MainPID")) {
                        r = sd_bus_message_read(message, "v", "u", &pid);
                        if (r >= 0)
                                set_pid(process, pid);
                } else if (streq(name, "ExecMainCode"))
                        r = sd_bus_message_read(message, "v", "i", &process->code);
                else if (streq(name, "ExecMainStatus"))
                        r = sd_bus_message_read(message, "v", "i", &process->status);
                else if (streq(name, "Result") || streq(name, "ActiveState")) {
                        r = sd_bus_message_read(message, "v", "s", &text);
                        if (r >= 0)
                                set_string(name[0] == 'R' ? &process->unit_result : &process->state, text);
                } else
                        r = sd_bus_message_skip(message, "v");

                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }

        /* systemd sends what is the service's before what is the unit's. */
        check(process);
        return 0;
}

static int on_state(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;
        const char *state;

        /* A unit that systemd has forgotten is inactive. */
        if (sd_bus_message_is_method_error(reply, NULL) ||
            (sd_bus_message_read(reply, "v", "s", &state) >= 0 && (streq(state, "inactive") || streq(state, "failed"))))
                conclude(process);
        return 0;
}

void unit_process_inquire(UnitProcess *process) {
        if (process->job_result && !process->exited)
                (void)ask(process, SYSTEMD_NAME ".Unit", "ActiveState", on_state);
}

/* Forgotten, and its last signal was lost; or systemd reads its files anew, and forgets all units for a moment. */
static int on_removed(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        UnitProcess *process = userdata;

        if (from_systemd(process, message))
                unit_process_inquire(process);
        return 0;
}

static void not_watched(UnitProcess *process, sd_bus_message *reply) {
        if (process->exited)
                return;

        unit_process_kill(process);
        unit_process_fail(process, sd_bus_message_get_error(reply)->message ?: "the bus doesn't let it be watched");
}

static int on_watched(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        if (sd_bus_message_is_method_error(reply, NULL))
                not_watched(userdata, reply);
        return 0;
}

static int on_jobs_watched(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        UnitLauncher *launcher = userdata;
        UnitProcess *process;

        if (sd_bus_message_is_method_error(reply, NULL))
                TAILQ_FOREACH(process, &launcher->processes, link)
                        if (!process->job_result)
                                not_watched(process, reply);
        return 0;
}

#define FROM_SYSTEMD "type='signal',sender='" SYSTEMD_NAME "',"
#define FROM_MANAGER FROM_SYSTEMD "path='" SYSTEMD_PATH "',interface='" SYSTEMD_MANAGER "',"

int unit_process_watch(UnitProcess *process) {
        UnitLauncher *launcher = process->launcher;
        char removed[512], properties[512];
        int r = 0;

        (void)snprintf(removed, sizeof(removed), FROM_MANAGER "member='UnitRemoved',arg0='%s'", process->unit);
        (void)snprintf(properties, sizeof(properties),
                       FROM_SYSTEMD "interface='" SYSTEMD_PROPERTIES "',member='PropertiesChanged',path='%s'",
                       process->object);

        if (!launcher->jobs_slot)
                r = sd_bus_add_match_async(launcher->bus, &launcher->jobs_slot, FROM_MANAGER "member='JobRemoved'",
                                           on_job_removed, on_jobs_watched, launcher);
        if (r >= 0)
                r = sd_bus_add_match_async(launcher->bus, &process->slots[SLOT_REMOVED], removed, on_removed,
                                           on_watched, process);
        if (r >= 0)
                r = sd_bus_add_match_async(launcher->bus, &process->slots[SLOT_PROPERTIES], properties, on_properties,
                                           on_watched, process);
        return r;
}

void unit_process_unwatch(UnitProcess *process) {
        for (size_t i = 0; i < _SLOT_MAX; i++)
                process->slots[i] = sd_bus_slot_unref(process->slots[i]);
        stop_watching_jobs(process->launcher);
}
