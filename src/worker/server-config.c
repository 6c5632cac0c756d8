#include "worker/server-config.h"

#include "base/macro.h"

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
        free(config->argv);
        strings_free(config->environment);
        free(config->cwd);
        free(config->sandbox);
        free(config->access.uids);
        free(config->access.gids);
        free(config);
        return NULL;
}

bool server_config_per_call(const ServerConfig *config) {
        return !config->keep_alive.enabled || config->isolation == SERVER_ISOLATION_FRESH;
}
