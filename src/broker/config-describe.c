#include <cjson/cJSON.h>
#include <stdio.h>

#include "broker/config-file.h"

/* What is made of a configuration: all of it, or nothing. */
typedef struct Description {
        cJSON *tree;
        bool incomplete; /* no memory for a part */
} Description;

/* Takes item, and returns it if it was added. name: NULL in an array. */
static cJSON *add(Description *d, cJSON *parent, const char *name, cJSON *item) {
        if (!item || !(name ? cJSON_AddItemToObject(parent, name, item) : cJSON_AddItemToArray(parent, item))) {
                cJSON_Delete(item);
                d->incomplete = true;
                return NULL;
        }

        return item;
}

static cJSON *add_section(Description *d, const char *name) {
        return add(d, d->tree, name, cJSON_CreateObject());
}

static void add_text(Description *d, cJSON *parent, const char *name, const char *text) {
        (void)add(d, parent, name, cJSON_CreateString(text));
}

static void add_bool(Description *d, cJSON *parent, const char *name, bool value) {
        (void)add(d, parent, name, cJSON_CreateBool(value));
}

static void add_number(Description *d, cJSON *parent, const char *name, double value) {
        (void)add(d, parent, name, cJSON_CreateNumber(value));
}

static void add_seconds(Description *d, cJSON *parent, const char *name, uint64_t usec) {
        add_number(d, parent, name, (double)usec / USEC_PER_SEC);
}

static void add_ids(Description *d, cJSON *parent, const char *name, const uid_t *ids, size_t n) {
        cJSON *array = add(d, parent, name, cJSON_CreateArray());

        for (size_t i = 0; i < n; i++)
                add_number(d, array, NULL, ids[i]);
}

static char *describe(const ServerConfig *config, const char *launcher, const char *path, const char *sandbox) {
        Description made = { .tree = cJSON_CreateObject() }, *d = &made;
        cJSON *tree = d->tree, *part;
        char *text;

        add_text(d, tree, "name", config->name);
        add_text(d, tree, "description", config->description ?: "");
        add_text(d, tree, "file", config->file);
        add_bool(d, tree, "disabled", config->disabled);
        add_bool(d, tree, "executor", config->executor);

        part = add(d, tree, "argv", cJSON_CreateArray());
        for (char **s = config->argv; *s; s++)
                add_text(d, part, NULL, *s);

        part = add(d, tree, "environment", cJSON_CreateArray());
        for (const char *const *s = (const char *const[]){ "PATH", "LANG", "HOME", NULL }; *s; s++)
                add_text(d, part, NULL, *s);
        for (char **s = config->environment; s && *s; s++) {
                char name[256];

                (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(*s, "="), *s);
                if (!streq(name, "PATH") && !streq(name, "LANG") && !streq(name, "HOME"))
                        add_text(d, part, NULL, name);
        }

        add_text(d, tree, "path", path);
        if (config->cwd)
                add_text(d, tree, "cwd", config->cwd);
        add_text(d, tree, "launcher", launcher);
        add_text(d, tree, "protocol", server_protocol_to_string(config->protocol));
        add_text(d, tree, "transport", server_transport_to_string(config->transport));
        add_text(d, tree, "isolation", server_isolation_to_string(config->isolation));
        add_text(d, tree, "scope", server_scope_to_string(config->scope));
        add_text(d, tree, "era", mcp_era_to_string(config->era));
        add_text(d, tree, "lists", server_lists_to_string(config->lists));
        part = add(d, tree, "tools_digest", cJSON_CreateArray());
        for (char **s = config->tools_digest; s && *s; s++)
                add_text(d, part, NULL, *s);
        add_bool(d, tree, "idempotent", config->idempotent);

        part = add_section(d, "keep_alive");
        add_bool(d, part, "enabled", config->keep_alive.enabled);
        add_seconds(d, part, "timeout", config->keep_alive.timeout);
        add_seconds(d, part, "check_interval", config->keep_alive.check_interval);

        part = add_section(d, "pool");
        add_number(d, part, "min", config->pool.min);
        add_number(d, part, "max", config->pool.max);
        add_number(d, part, "concurrency", config->pool.concurrency);
        add_number(d, part, "queue", config->pool.queue);
        add_bool(d, part, "answers_cancel", config->pool.answers_cancel);

        part = add_section(d, "recycle");
        add_number(d, part, "calls", config->recycle.calls);
        add_seconds(d, part, "lifetime", config->recycle.lifetime);
        add_number(d, part, "memory", config->recycle.memory);

        part = add_section(d, "timeouts");
        add_seconds(d, part, "start", config->timeouts.start);
        add_seconds(d, part, "call", config->timeouts.call);
        add_seconds(d, part, "call_max", config->timeouts.call_max);
        add_seconds(d, part, "stop", config->timeouts.stop);

        part = add_section(d, "restart");
        add_number(d, part, "burst", config->restart.burst);
        add_seconds(d, part, "interval", config->restart.interval);

        part = add_section(d, "limits");
        add_number(d, part, "message", config->limits.message);
        add_number(d, part, "depth", config->limits.depth);

        (void)add(d, tree, "sandbox", cJSON_CreateRaw(sandbox));
        part = add_section(d, "access");
        add_ids(d, part, "users", config->access.uids, config->access.n_uids);
        add_ids(d, part, "groups", config->access.gids, config->access.n_gids);

        text = d->incomplete ? NULL : cJSON_Print(tree);
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
