#include <cjson/cJSON.h>
#include <stdio.h>

#include "broker/config-file.h"

static cJSON *describe_section(cJSON *parent, const char *name) {
        return cJSON_AddObjectToObject(parent, name);
}

static void describe_seconds(cJSON *parent, const char *name, uint64_t usec) {
        (void)cJSON_AddNumberToObject(parent, name, (double)usec / USEC_PER_SEC);
}

static void describe_ids(cJSON *parent, const char *name, const uid_t *ids, size_t n) {
        cJSON *array = cJSON_AddArrayToObject(parent, name);

        for (size_t i = 0; i < n; i++)
                (void)cJSON_AddItemToArray(array, cJSON_CreateNumber(ids[i]));
}

static char *describe(const ServerConfig *config, const char *launcher, const char *path, const char *sandbox) {
        cJSON *tree = cJSON_CreateObject(), *part;
        char *text;

        (void)cJSON_AddStringToObject(tree, "name", config->name);
        (void)cJSON_AddStringToObject(tree, "description", config->description ?: "");
        (void)cJSON_AddStringToObject(tree, "file", config->file);
        (void)cJSON_AddBoolToObject(tree, "disabled", config->disabled);
        (void)cJSON_AddBoolToObject(tree, "executor", config->executor);

        part = cJSON_AddArrayToObject(tree, "argv");
        for (char **s = config->argv; *s; s++)
                (void)cJSON_AddItemToArray(part, cJSON_CreateString(*s));

        part = cJSON_AddArrayToObject(tree, "environment");
        for (const char *const *s = (const char *const[]){ "PATH", "LANG", "HOME", NULL }; *s; s++)
                (void)cJSON_AddItemToArray(part, cJSON_CreateString(*s));
        for (char **s = config->environment; s && *s; s++) {
                char name[256];

                (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(*s, "="), *s);
                if (!streq(name, "PATH") && !streq(name, "LANG") && !streq(name, "HOME"))
                        (void)cJSON_AddItemToArray(part, cJSON_CreateString(name));
        }

        (void)cJSON_AddStringToObject(tree, "path", path);
        if (config->cwd)
                (void)cJSON_AddStringToObject(tree, "cwd", config->cwd);
        (void)cJSON_AddStringToObject(tree, "launcher", launcher);
        (void)cJSON_AddStringToObject(tree, "protocol", server_protocol_to_string(config->protocol));
        (void)cJSON_AddStringToObject(tree, "transport", server_transport_to_string(config->transport));
        (void)cJSON_AddStringToObject(tree, "isolation", server_isolation_to_string(config->isolation));
        (void)cJSON_AddStringToObject(tree, "scope", server_scope_to_string(config->scope));
        (void)cJSON_AddStringToObject(tree, "era", mcp_era_to_string(config->era));
        (void)cJSON_AddStringToObject(tree, "lists", server_lists_to_string(config->lists));
        part = cJSON_AddArrayToObject(tree, "tools_digest");
        for (char **s = config->tools_digest; s && *s; s++)
                (void)cJSON_AddItemToArray(part, cJSON_CreateString(*s));
        (void)cJSON_AddBoolToObject(tree, "idempotent", config->idempotent);

        part = describe_section(tree, "keep_alive");
        (void)cJSON_AddBoolToObject(part, "enabled", config->keep_alive.enabled);
        describe_seconds(part, "timeout", config->keep_alive.timeout);
        describe_seconds(part, "check_interval", config->keep_alive.check_interval);

        part = describe_section(tree, "pool");
        (void)cJSON_AddNumberToObject(part, "min", config->pool.min);
        (void)cJSON_AddNumberToObject(part, "max", config->pool.max);
        (void)cJSON_AddNumberToObject(part, "concurrency", config->pool.concurrency);
        (void)cJSON_AddNumberToObject(part, "queue", config->pool.queue);

        part = describe_section(tree, "recycle");
        (void)cJSON_AddNumberToObject(part, "calls", config->recycle.calls);
        describe_seconds(part, "lifetime", config->recycle.lifetime);
        (void)cJSON_AddNumberToObject(part, "memory", config->recycle.memory);

        part = describe_section(tree, "timeouts");
        describe_seconds(part, "start", config->timeouts.start);
        describe_seconds(part, "call", config->timeouts.call);
        describe_seconds(part, "call_max", config->timeouts.call_max);
        describe_seconds(part, "stop", config->timeouts.stop);

        part = describe_section(tree, "restart");
        (void)cJSON_AddNumberToObject(part, "burst", config->restart.burst);
        describe_seconds(part, "interval", config->restart.interval);

        part = describe_section(tree, "limits");
        (void)cJSON_AddNumberToObject(part, "message", config->limits.message);
        (void)cJSON_AddNumberToObject(part, "depth", config->limits.depth);

        (void)cJSON_AddItemToObject(tree, "sandbox", cJSON_CreateRaw(sandbox));
        part = describe_section(tree, "access");
        describe_ids(part, "users", config->access.uids, config->access.n_uids);
        describe_ids(part, "groups", config->access.gids, config->access.n_gids);

        text = cJSON_Print(tree);
        cJSON_Delete(tree);
        return text;
}

char *config_describe(const ServerConfig *config, const char *launcher, const char *path) {
        return describe(config, launcher, path, config->sandbox ?: "{}");
}

char *config_describe_worker(const ServerConfig *config, const Launcher *launcher) {
        _cleanup_(freep) char *sandbox = launcher->ops->describe(launcher, config);

        return sandbox ? describe(config, launcher->ops->name, launcher->path, sandbox) : NULL;
}
