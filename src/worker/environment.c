#include "worker/environment.h"

#include <stdio.h>
#include <sys/stat.h>

#include "base/buffer.h"

/* The path of a command, as execvp(3) would look it up in that PATH. 0, -ENOENT, -EACCES, -ENOMEM. */
static int find_executable(const char *command, const char *path, char **ret) {
        int error = -ENOENT;

        for (const char *p = strchr(command, '/') ? "" : path;; p++) {
                size_t length = strcspn(p, ":");
                _cleanup_(freep) char *candidate = NULL;
                struct stat st;

                if (strchr(command, '/'))
                        candidate = strdup(command);
                else if (asprintf(&candidate, "%.*s/%s", (int)length, p, command) < 0)
                        candidate = NULL;
                if (!candidate)
                        return -ENOMEM;

                if (stat(candidate, &st) >= 0 && S_ISREG(st.st_mode)) {
                        if (access(candidate, X_OK) >= 0) {
                                *ret = TAKE_PTR(candidate);
                                return 0;
                        }
                        error = -EACCES;
                }

                p += length;
                if (*p == 0)
                        return error;
        }
}

int find_command(const ServerConfig *config, const char *path, char **ret, Failure *failure) {
        _cleanup_(freep) char *own = NULL;
        const char *command = config->command;
        int r;

        /* The server's own command is looked for also where another program will execute it. */
        r = find_executable(command, path, &own);
        if (r >= 0 && !streq(config->argv[0], command)) {
                free(TAKE_PTR(own));
                command = config->argv[0];
                r = find_executable(command, path, &own);
        }

        if (r == -ENOENT && !strchr(command, '/'))
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: not found in PATH (%s)", command,
                                   path);
        if (r < 0)
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: looking it up: %s", command,
                                   strerror(-r));

        *ret = TAKE_PTR(own);
        return 0;
}

const char *find_variable(char *const *environment, const char *name) {
        size_t length = strlen(name);

        for (; environment && *environment; environment++)
                if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
                        return *environment + length + 1;

        return NULL;
}

static char *join(char *const *strings) {
        Buffer text = {};

        for (char *const *s = strings; s && *s; s++)
                if (buffer_append_string(&text, s == strings ? "" : ",") < 0 || buffer_append_string(&text, *s) < 0) {
                        buffer_done(&text);
                        return NULL;
                }
        if (buffer_append(&text, "", 1) < 0)
                buffer_done(&text);

        return text.data;
}

char **make_environment(const ServerConfig *config, const char *path, const char *home, const char *id,
                        const char *folder) {
        _cleanup_(freep) char *preload = config->preload ? join(config->preload) : NULL;
        char concurrency[16];
        const char *const defaults[][2] = {
                { "PATH", path },
                { "LANG", getenv("LANG") ?: "C.UTF-8" },
                { "HOME", home },
                { INVOCATION_ID, id },
                { "RUNTIME_DIRECTORY", folder },
                /* An executor has to know how its calls are kept apart. */
                { "MCP_EXEC_ISOLATION", config->executor ? server_isolation_to_string(config->isolation) : NULL },
                { "MCP_EXEC_CONCURRENCY", config->executor ? concurrency : NULL },
                { "MCP_EXEC_PRELOAD", config->executor ? preload : NULL },
        };
        size_t n = 0, m = 0;
        char **environment;

        (void)snprintf(concurrency, sizeof(concurrency), "%u", config->pool.concurrency);
        while (config->environment && config->environment[n])
                n++;

        environment = new0(char *, n + ELEMENTSOF(defaults) + 1);
        if (!environment || (config->preload && !preload)) {
                free(environment);
                return NULL;
        }

        for (size_t i = 0; i < ELEMENTSOF(defaults); i++)
                if (defaults[i][1] && !find_variable(config->environment, defaults[i][0]) &&
                    asprintf(&environment[m++], "%s=%s", defaults[i][0], defaults[i][1]) < 0) {
                        environment[m - 1] = NULL;
                        strings_free(environment);
                        return NULL;
                }
        for (size_t i = 0; i < n; i++) {
                environment[m] = strdup(config->environment[i]);
                if (!environment[m++]) {
                        strings_free(environment);
                        return NULL;
                }
        }

        return environment;
}
