#include "worker/server-config.h"

#include <stdio.h>

#include "base/macro.h"

#define TRANSPORT_PROGRAM "mcp-exec-transport"

#define DEFINE_STRING_TABLE(prefix, Type)                                                                              \
        int prefix##_from_string(const char *word) {                                                                   \
                for (size_t i = 0; i < ELEMENTSOF(prefix##_table); i++)                                                \
                        if (streq(prefix##_table[i], word))                                                            \
                                return i;                                                                              \
                return -1;                                                                                             \
        }                                                                                                              \
        const char *prefix##_to_string(Type value) {                                                                   \
                return (size_t)value < ELEMENTSOF(prefix##_table) ? prefix##_table[value] : NULL;                      \
        }

static const char *const server_protocol_table[] = { "mcp", "lines", "control", "once" };
DEFINE_STRING_TABLE(server_protocol, ServerProtocol)

static const char *const server_transport_table[] = { "stdio", "socket", "file" };
DEFINE_STRING_TABLE(server_transport, ServerTransport)

static const char *const server_isolation_table[] = { "shared", "reset", "fork", "fresh" };
DEFINE_STRING_TABLE(server_isolation, ServerIsolation)

static const char *const server_scope_table[] = { "shared", "user", "client" };
DEFINE_STRING_TABLE(server_scope, ServerScope)

static const char *const server_lists_table[] = { "auto", "static" };
DEFINE_STRING_TABLE(server_lists, ServerLists)

ServerConfig *server_config_new(const char *name) {
        _cleanup_(server_config_unrefp) ServerConfig *config = new0(ServerConfig, 1);

        if (!config)
                return NULL;

        *config = (ServerConfig){
                .n_ref = 1,
                .name = strdup(name),
                .scope = SERVER_SCOPE_USER,
                .keep_alive = { true, 3600 * USEC_PER_SEC, 60 * USEC_PER_SEC },
                .pool = { .min = 0, .max = 4, .concurrency = 16, .queue = 16 },
                .timeouts = { .start = 60 * USEC_PER_SEC,
                              .call = 60 * USEC_PER_SEC,
                              .call_max = 3600 * USEC_PER_SEC,
                              .stop = 3 * USEC_PER_SEC },
                .restart = { .burst = 5, .interval = 30 * USEC_PER_SEC },
                .limits = { .message = 16 << 20, .depth = 64 },
        };

        return config->name ? TAKE_PTR(config) : NULL;
}

ServerConfig *server_config_ref(ServerConfig *config) {
        config->n_ref++;
        return config;
}

void strings_free(char **strings) {
        for (char **s = strings; s && *s; s++)
                free(*s);
        free(strings);
}

ServerConfig *server_config_unref(ServerConfig *config) {
        if (!config || --config->n_ref > 0)
                return NULL;

        free(config->name);
        free(config->description);
        free(config->file);
        free(config->text);
        free(config->command);
        strings_free(config->args);
        strings_free(config->argv);
        strings_free(config->environment);
        free(config->cwd);
        strings_free(config->preload);
        strings_free(config->tools_digest);
        free(config->sandbox);
        free(config->access.uids);
        free(config->access.gids);
        free(config);
        return NULL;
}

/* Beside the program that asks, in the build folder as where it is installed */
static char *transport_program(void) {
        char path[4096], *name = NULL;
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

        path[MAX(n, 0)] = 0;
        if (!strrchr(path, '/'))
                return strdup(TRANSPORT_PROGRAM);

        *strrchr(path, '/') = 0;
        return asprintf(&name, "%s/%s", path, TRANSPORT_PROGRAM) < 0 ? NULL : name;
}

int server_config_make_argv(ServerConfig *config) {
        bool carried = config->transport != SERVER_TRANSPORT_STDIO;
        size_t n = 0, m = 0;
        char **argv;

        while (config->args && config->args[n])
                n++;

        argv = new0(char *, n + 5);
        if (!argv)
                return -ENOMEM;

        if (carried) {
                argv[m++] = transport_program();
                argv[m++] = strdup(server_transport_to_string(config->transport));
                if (config->transport == SERVER_TRANSPORT_FILE && config->cwd)
                        argv[m++] = strdup("--stay");
        }
        argv[m++] = strdup(config->command);
        for (size_t i = 0; i < n; i++)
                argv[m++] = strdup(config->args[i]);

        for (size_t i = 0; i < m; i++)
                if (!argv[i]) {
                        for (size_t j = 0; j < m; j++)
                                free(argv[j]);
                        free(argv);
                        return -ENOMEM;
                }

        config->argv = argv;
        return 0;
}

bool server_config_per_call(const ServerConfig *config) {
        return !config->keep_alive.enabled || config->isolation == SERVER_ISOLATION_FRESH ||
               config->protocol == SERVER_PROTOCOL_ONCE;
}

const WireProtocol *server_config_wire(const ServerConfig *config) {
        static const WireProtocol *const protocols[] = {
                [SERVER_PROTOCOL_MCP] = &mcp_protocol,
                [SERVER_PROTOCOL_LINES] = &lines_protocol,
                [SERVER_PROTOCOL_CONTROL] = &control_protocol,
                [SERVER_PROTOCOL_ONCE] = &once_protocol,
        };

        return protocols[config->protocol];
}
