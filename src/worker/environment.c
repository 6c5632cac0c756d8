#include "worker/environment.h"

#include <stdio.h>
#include <sys/stat.h>

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
        const char *command = config->argv[0];
        int r = find_executable(command, path, ret);

        if (r == -ENOENT && !strchr(command, '/'))
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: not found in PATH (%s)", command,
                                   path);
        if (r < 0)
                return failure_set(failure, FAILURE_LAUNCH_FAILED, "Can't start %s: looking it up: %s", command,
                                   strerror(-r));

        return 0;
}

const char *find_variable(char *const *environment, const char *name) {
        size_t length = strlen(name);

        for (; environment && *environment; environment++)
                if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
                        return *environment + length + 1;

        return NULL;
}

char **make_environment(const ServerConfig *config, const char *path, const char *home, const char *id) {
        const char *defaults[][2] = {
                { "PATH", path }, { "LANG", getenv("LANG") ?: "C.UTF-8" }, { "HOME", home }, { INVOCATION_ID, id }
        };
        size_t n = 0, m = 0;
        char **environment;

        while (config->environment && config->environment[n])
                n++;

        environment = new0(char *, n + ELEMENTSOF(defaults) + 1);
        if (!environment)
                return NULL;

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
