#include "worker/transient.h"

#include <signal.h>
#include <stdio.h>

#include "worker/environment.h"
#include "worker/sandbox.h"

#define STOP_TIMEOUT (2 * USEC_PER_SEC) /* until systemd sends SIGKILL again */
#define SLICE "mcpexec.slice"

bool transient_id_valid(const char *id) {
        return strlen(id) == TRANSIENT_ID_SIZE && strspn(id, "0123456789abcdef") == TRANSIENT_ID_SIZE;
}

void transient_unit_name(const char *id, char name[static TRANSIENT_NAME_MAX]) {
        (void)snprintf(name, TRANSIENT_NAME_MAX, TRANSIENT_PREFIX "%.*s.service", TRANSIENT_ID_SIZE, id);
}

char *transient_unit_path(const char *id) {
        char name[TRANSIENT_NAME_MAX], *path = NULL;

        transient_unit_name(id, name);
        return sd_bus_path_encode(SYSTEMD_PATH "/unit", name, &path) < 0 ? NULL : path;
}

const char *transient_status_reason(int status) {
        static const struct {
                int status;
                const char *reason;
        } reasons[] = {
                { 200, "its working directory (the key cwd) can't be entered" },
                { 201, "sandbox: Nice can't be set" },
                { 203,
                  "it can't be executed: its interpreter may be missing, its file not be allowed to its user, or be "
                  "hidden by the sandbox (ProtectHome, InaccessiblePaths)" },
                { 205, "sandbox: one of its limits (Limit...) can't be set" },
                { 206, "sandbox: OOMScoreAdjust can't be set" },
                { 217, "no user could be made for it" },
                { 218, "its capabilities can't be dropped" },
                { 219, "it can't be put into its cgroup" },
                { 225, "sandbox: PrivateNetwork can't be had here" },
                { 226, "its sandbox can't be set up: a path that it names may be missing (write - before one that "
                       "need not exist), or the kernel refuse namespaces" },
                { 228, "sandbox: SystemCallFilter can't be set" },
                { 232, "sandbox: RestrictAddressFamilies can't be set" },
                { 243, "sandbox: a credential of LoadCredential can't be read" },
                { 244, "sandbox: IPAddressAllow and IPAddressDeny can't be enforced here" },
        };

        for (size_t i = 0; i < ELEMENTSOF(reasons); i++)
                if (reasons[i].status == status)
                        return reasons[i].reason;

        return status >= 200 && status <= 245 ? "systemd could not set it up" : NULL;
}

static int append_strings(sd_bus_message *message, const char *name, char *const *strings) {
        int r;

        r = sd_bus_message_open_container(message, 'r', "sv");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", name);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_append_strv(message, (char **)strings);
        for (int i = 0; i < 2 && r >= 0; i++)
                r = sd_bus_message_close_container(message);

        return r;
}

/* systemd puts the values of variables for $NAME and ${NAME} in the arguments, and $ for $$. There is a flag against
 * that, in ExecStartEx; but systemd 252 can't read that back from the unit's file (systemctl daemon-reload). */
static char *escape_dollars(const char *argument) {
        char *escaped = new0(char, 2 * strlen(argument) + 1), *p = escaped;

        if (!escaped)
                return NULL;

        for (; *argument; argument++) {
                if (*argument == '$')
                        *p++ = '$';
                *p++ = *argument;
        }

        return escaped;
}

static int append_command(sd_bus_message *message, const char *executable, char *const *argv) {
        int r;

        r = sd_bus_message_open_container(message, 'r', "sv");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", "ExecStart");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'v', "a(sasb)");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "(sasb)");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'r', "sasb");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", executable);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "s");
        for (; *argv && r >= 0; argv++) {
                _cleanup_(freep) char *argument = escape_dollars(*argv);

                r = argument ? sd_bus_message_append(message, "s", argument) : -ENOMEM;
        }
        if (r >= 0)
                r = sd_bus_message_close_container(message);
        if (r >= 0)
                r = sd_bus_message_append(message, "b", /* ignore_failure= */ false);
        for (int i = 0; i < 4 && r >= 0; i++)
                r = sd_bus_message_close_container(message);

        return r;
}

/* Whether the worker's own environment, or the NULL-terminated names, have a variable of that name */
static bool has(char *const *environment, const char *const *names, const char *variable) {
        size_t length = strcspn(variable, "=");

        for (; environment && *environment; environment++)
                if (strncmp(*environment, variable, length) == 0 && (*environment)[length] == '=')
                        return true;
        for (; names && *names; names++)
                if (strncmp(*names, variable, length) == 0 && !(*names)[length])
                        return true;

        return false;
}

/* What systemd would add to a worker's environment, from its own or by itself. No name may stand there twice. */
static int append_unset(sd_bus_message *message, char *const *environment, char *const *inherited) {
        static const char *const own[] = { "USER", "LOGNAME", "SHELL", "SYSTEMD_EXEC_PID", "MANAGERPID", NULL };
        int r;

        r = sd_bus_message_open_container(message, 'r', "sv");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", "UnsetEnvironment");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "s");
        for (const char *const *s = own; *s && r >= 0; s++)
                if (!has(environment, NULL, *s))
                        r = sd_bus_message_append(message, "s", *s);
        for (; inherited && *inherited && r >= 0; inherited++)
                if (!has(environment, own, *inherited)) {
                        _cleanup_(freep) char *name = strndup(*inherited, strcspn(*inherited, "="));

                        r = name ? sd_bus_message_append(message, "s", name) : -ENOMEM;
                }
        for (int i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(message);

        return r;
}

/* Leaves what the server's file doesn't say itself. */
static void drop_own(char **environment, const ServerConfig *config) {
        size_t n = 0;

        for (char **s = environment; *s; s++) {
                bool own = false;

                for (char **e = config->environment; e && *e; e++)
                        own = own || streq(*e, *s);
                if (own)
                        free(*s);
                else
                        environment[n++] = *s;
        }
        environment[n] = NULL;
}

static int append_surroundings(sd_bus_message *message, const TransientSpec *spec) {
        const ServerConfig *config = spec->config;
        const char *home = find_variable(config->environment, "HOME");
        _cleanup_(freep) char *cwd = NULL;
        char **environment;
        int r;

        /* A user of its own for each worker has no home; its /tmp is its own as well. */
        if (!home || home[0] != '/')
                home = spec->user ? getenv("HOME") ?: "/" : "/tmp";
        if (asprintf(&cwd, "%s%s", config->cwd ? "" : "-", config->cwd ?: home) < 0) {
                cwd = NULL;
                return -ENOMEM;
        }

        environment = make_environment(config, spec->path, home, /* id= */ NULL, /* folder= */ NULL);
        if (!environment)
                return -ENOMEM;

        r = append_unset(message, environment, spec->inherited);
        if (r >= 0 && spec->environment_file) {
                drop_own(environment, config);
                r = sd_bus_message_append(message, "(sv)", "EnvironmentFiles", "a(sb)", 1, spec->environment_file,
                                          /* ignore_failure= */ false);
        }
        if (r >= 0)
                r = append_strings(message, "Environment", environment);
        if (r >= 0)
                r = sd_bus_message_append(message, "(sv)", "WorkingDirectory", "s", cwd);

        strings_free(environment);
        return r;
}

/* systemd waits for the whole cgroup, and kills it with the one signal that can't be refused: the broker has asked
 * politely before, and when it is no more, nothing has to be left at once. */
static int append_life(sd_bus_message *message, const TransientSpec *spec) {
        int r;

        r = sd_bus_message_append(message, "(sv)(sv)(sv)(sv)(sv)(sv)", "Type", "s", "exec", "CollectMode", "s",
                                  "inactive-or-failed", "Slice", "s", SLICE, "KillMode", "s", "control-group",
                                  "KillSignal", "i", SIGKILL, "TimeoutStopUSec", "t", STOP_TIMEOUT);
        if (r >= 0 && spec->user && spec->config->transport == SERVER_TRANSPORT_FILE) {
                char folder[TRANSIENT_NAME_MAX];

                /* For the files of its call; /tmp is not its own there. systemd removes it. */
                (void)snprintf(folder, sizeof(folder), "mcp-exec-worker-%s", spec->id);
                r = sd_bus_message_append(message, "(sv)(sv)", "RuntimeDirectory", "as", 1, folder,
                                          "RuntimeDirectoryMode", "u", UINT32_C(0700));
        }
        if (r >= 0 && spec->bind_to)
                r = sd_bus_message_append(message, "(sv)(sv)", "BindsTo", "as", 1, spec->bind_to, "After", "as", 1,
                                          spec->bind_to);
        if (r >= 0)
                r = sd_bus_message_append(message, "(sv)(sv)(sv)", "StandardInputFileDescriptor", "h", spec->fds[0],
                                          "StandardOutputFileDescriptor", "h", spec->fds[1],
                                          "StandardErrorFileDescriptor", "h", spec->fds[2]);

        return r;
}

static int append_properties(sd_bus_message *message, const TransientSpec *spec, const char *executable) {
        _cleanup_(freep) char *description = NULL, *sandbox = sandbox_effective(spec->config->sandbox, spec->user);
        int r;

        if (!sandbox || asprintf(&description, "McpExec worker of %s for %s", spec->config->name, spec->owner) < 0) {
                description = NULL;
                return -ENOMEM;
        }

        r = sd_bus_message_append(message, "(sv)", "Description", "s", description);
        if (r >= 0)
                r = append_life(message, spec);
        if (r >= 0)
                r = append_command(message, executable, spec->config->argv);
        if (r >= 0)
                r = append_surroundings(message, spec);
        return r < 0 ? r : sandbox_append(message, sandbox);
}

int transient_start_message(sd_bus *bus, const TransientSpec *spec, sd_bus_message **ret, Failure *failure) {
        const char *path = find_variable(spec->config->environment, "PATH") ?: spec->path;
        const char *unenforceable = spec->user ? sandbox_needs_system(spec->config->sandbox) : NULL;
        _cleanup_(freep) char *executable = NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        char name[TRANSIENT_NAME_MAX];
        int r;

        if (unenforceable)
                return failure_set(failure, FAILURE_LAUNCH_FAILED,
                                   "Can't start %s: sandbox: %s works on the system bus only: a user's systemd can't "
                                   "enforce it",
                                   spec->config->argv[0], unenforceable);

        r = find_command(spec->config, path, &executable, failure);
        if (r < 0)
                return r;
        if (executable[0] != '/')
                return failure_set(failure, FAILURE_LAUNCH_FAILED,
                                   "Can't start %s: it was found at %s, no absolute path", spec->config->argv[0],
                                   executable);

        transient_unit_name(spec->id, name);
        r = sd_bus_message_new_method_call(bus, &message, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                           "StartTransientUnit");
        if (r >= 0)
                r = sd_bus_message_append(message, "ss", name, "fail");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "(sv)");
        if (r >= 0)
                r = append_properties(message, spec, executable);
        if (r >= 0)
                r = sd_bus_message_close_container(message);
        if (r >= 0)
                r = sd_bus_message_append(message, "a(sa(sv))", 0);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(message);
        return 0;
}
