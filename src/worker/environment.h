#pragma once

#include "worker/failure.h"
#include "worker/server-config.h"

/* What a worker is started with, however it is started. */

/* Documented in docs/configuration.md; a server's own env can say another. */
#define WORKER_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

/* As systemd gives it to a unit's processes (systemd.exec(5)); with spawn it also tells which worker an orphan came
 * from. */
#define INVOCATION_ID "INVOCATION_ID"

/* The path of a server's command, as execvp(3) would look it up in that PATH. -EREMOTEIO with *failure. */
int find_command(const ServerConfig *config, const char *path, char **ret, Failure *failure);

/* The value of a variable, or NULL */
const char *find_variable(char *const *environment, const char *name);

/* PATH, LANG, HOME and INVOCATION_ID (where id isn't NULL), RUNTIME_DIRECTORY (folder, likewise), for executors
 * MCP_EXEC_ISOLATION, _CONCURRENCY and _PRELOAD, changed and completed by the server's own: nothing else of the
 * broker's environment. Freed with strings_free(); NULL when out of memory. */
char **make_environment(const ServerConfig *config, const char *path, const char *home, const char *id,
                        const char *folder);
