#include "broker/config-file.h"

#include <grp.h>
#include <math.h>
#include <pwd.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/config-reader.h"
#include "worker/sandbox.h"

#define SECONDS_MAX (366.0 * 24 * 3600)
#define MODULE_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/@-"
#define RESET_CALLS 1000 /* after so many a cleaned interpreter is replaced */

static void read_cwd(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value) || value->valuestring[0] != '/')
                config_wrong_type(reader, key, "an absolute path");
        else
                config_set_string(reader, target, value->valuestring);
}

static void read_name(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value) || !text_is_name(value->valuestring))
                config_wrong_type(reader, key, "1 to 64 characters of a-z, 0-9 and -");
        else
                config_set_string(reader, target, value->valuestring);
}

static int era_from_word(const char *word) {
        return mcp_era_from_string(word, strlen(word));
}

/* Some clients' files name the transport "type". */
static void read_type(ConfigReader *reader, const ConfigKey *key _unused_, const cJSON *value, void *target _unused_) {
        if (!cJSON_IsString(value) || !streq(value->valuestring, "stdio"))
                config_report(reader, "type: only stdio servers can be run; this one is reached over the network");
}

static void read_url(ConfigReader *reader, const ConfigKey *key _unused_, const cJSON *value _unused_,
                     void *target _unused_) {
        config_report(reader, "url: only programs of this machine can be run, by their command");
}

#define CONFIG(field) offsetof(ServerConfig, field)
#define SECTION(keys)                                                                                                  \
        &(const ConfigSection) {                                                                                       \
                (keys), ELEMENTSOF(keys)                                                                               \
        }

static const ConfigKey keep_alive_keys[] = {
        { "enabled", config_read_bool, CONFIG(keep_alive.enabled), .extra = NULL },
        { "timeout", config_read_seconds, CONFIG(keep_alive.timeout), .min = 0, .max = SECONDS_MAX },
        { "check_interval", config_read_seconds, CONFIG(keep_alive.check_interval), .min = 0, .max = SECONDS_MAX },
};

/* true and false stand for {"enabled": ...}. */
static void read_keep_alive(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        if (cJSON_IsBool(value))
                config->keep_alive.enabled = cJSON_IsTrue(value);
        else if (cJSON_IsObject(value))
                config_read_object(reader, keep_alive_keys, ELEMENTSOF(keep_alive_keys), value, target);
        else
                config_wrong_type(reader, key, "an object, true or false");
}

static bool find_uid(const cJSON *value, uid_t *ret) {
        struct passwd *user;

        if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < UINT32_MAX &&
            value->valuedouble == floor(value->valuedouble)) {
                *ret = value->valuedouble;
                return true;
        }

        user = cJSON_IsString(value) ? getpwnam(value->valuestring) : NULL;
        if (user)
                *ret = user->pw_uid;
        return user;
}

static bool find_gid(const cJSON *value, gid_t *ret) {
        struct group *group;

        if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < UINT32_MAX &&
            value->valuedouble == floor(value->valuedouble)) {
                *ret = value->valuedouble;
                return true;
        }

        group = cJSON_IsString(value) ? getgrnam(value->valuestring) : NULL;
        if (group)
                *ret = group->gr_gid;
        return group;
}

static void read_ids(ConfigReader *reader, const ConfigKey *key, const cJSON *value,
                     bool (*find)(const cJSON *, uid_t *), uid_t **ids, size_t *n_ids) {
        const cJSON *element;

        if (!cJSON_IsArray(value)) {
                config_wrong_type(reader, key, "an array of names or numbers");
                return;
        }

        free(*ids);
        *n_ids = 0;
        *ids = new0(uid_t, cJSON_GetArraySize(value) + 1);
        if (!*ids) {
                config_no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value)
                if (find(element, &(*ids)[*n_ids]))
                        (*n_ids)++;
                else
                        config_report(reader, "%s: %s is not known on this machine", key->name,
                                      cJSON_IsString(element) ? element->valuestring : "this");
}

_Static_assert(sizeof(uid_t) == sizeof(gid_t), "read_ids() serves both");

static void read_users(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        read_ids(reader, key, value, find_uid, &config->access.uids, &config->access.n_uids);
}

static void read_groups(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        read_ids(reader, key, value, find_gid, &config->access.gids, &config->access.n_gids);
}

static const ConfigKey access_keys[] = {
        { "users", read_users, 0, .extra = NULL },
        { "groups", read_groups, 0, .extra = NULL },
};

/* "polkit", or who needs not be asked for */
static void read_access(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (cJSON_IsObject(value))
                config_read_object(reader, access_keys, ELEMENTSOF(access_keys), value, target);
        else if (!cJSON_IsString(value) || !streq(value->valuestring, "polkit"))
                config_wrong_type(reader, key, "\"polkit\" or an object of users and groups");
}

/* Each key is a systemd property; what it may be stands in worker/sandbox.c. */
static void read_sandbox(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        const cJSON *property;

        for (property = cJSON_IsObject(value) ? value->child : NULL; property; property = property->next) {
                _cleanup_(freep) char *text = cJSON_PrintUnformatted(property), *problem = NULL;
                bool again = false;
                int r;

                for (const cJSON *p = value->child; p != property; p = p->next)
                        again = again || streq(p->string, property->string);

                config_enter(reader, property->string);
                r = text ? sandbox_check(property->string, (JsonSlice){ text, strlen(text) }, &problem) : -ENOMEM;
                if (again)
                        config_report(reader, "key %s stands twice", property->string);
                else if (r == -ENOMEM)
                        config_no_memory(reader);
                else if (r < 0)
                        config_report(reader, "%s", problem);
                config_leave(reader);
        }

        config_read_json(reader, key, value, target);
}

/* They travel in one variable, separated by commas. */
static void read_preload(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        char **names = NULL;

        config_read_strings(reader, key, value, &names);
        for (char **s = names; s && *s; s++)
                if (!**s || strspn(*s, MODULE_CHARACTERS) != strlen(*s))
                        config_report(reader, "preload: \"%s\" can't be a module's name", *s);

        strings_free(*(char ***)target);
        *(char ***)target = names;
}

static const ConfigKey pool_keys[] = {
        { "min", config_read_unsigned, CONFIG(pool.min), .min = 0, .max = 64 },
        { "max", config_read_unsigned, CONFIG(pool.max), .min = 1, .max = 64 },
        { "concurrency", config_read_unsigned, CONFIG(pool.concurrency), .min = 1, .max = 256 },
        { "queue", config_read_unsigned, CONFIG(pool.queue), .min = 0, .max = 4096 },
        { "answers_cancel", config_read_bool, CONFIG(pool.answers_cancel), .extra = NULL },
};

static const ConfigKey recycle_keys[] = {
        { "calls", config_read_number, CONFIG(recycle.calls), .min = 0, .max = 1e12 },
        { "lifetime", config_read_seconds, CONFIG(recycle.lifetime), .min = 0, .max = SECONDS_MAX },
        { "memory", config_read_number, CONFIG(recycle.memory), .min = 0, .max = 1e15 },
};

static const ConfigKey timeouts_keys[] = {
        { "start", config_read_seconds, CONFIG(timeouts.start), .min = 0.001, .max = SECONDS_MAX },
        { "call", config_read_seconds, CONFIG(timeouts.call), .min = 0.001, .max = SECONDS_MAX },
        { "call_max", config_read_seconds, CONFIG(timeouts.call_max), .min = 0.001, .max = SECONDS_MAX },
        { "stop", config_read_seconds, CONFIG(timeouts.stop), .min = 0, .max = 600 },
};

static const ConfigKey restart_keys[] = {
        { "burst", config_read_unsigned, CONFIG(restart.burst), .min = 0, .max = 100000 },
        { "interval", config_read_seconds, CONFIG(restart.interval), .min = 0, .max = SECONDS_MAX },
};

static const ConfigKey limits_keys[] = {
        { "message", config_read_number, CONFIG(limits.message), .min = 1024, .max = UINT64_C(1) << 32 },
        { "depth", config_read_unsigned, CONFIG(limits.depth), .min = 4, .max = JSON_DEPTH_MAX },
};

static const ConfigKey server_keys[] = {
        { "command", config_read_string, CONFIG(command), .extra = NULL },
        { "args", config_read_strings, CONFIG(args), .extra = NULL },
        { "name", read_name, CONFIG(name), .extra = NULL },
        { "description", config_read_string, CONFIG(description), .extra = NULL },
        { "env", config_read_environment, CONFIG(environment), .extra = NULL },
        { "cwd", read_cwd, CONFIG(cwd), .extra = NULL },
        { "disabled", config_read_bool, CONFIG(disabled), .extra = NULL },
        { "executor", config_read_bool, CONFIG(executor), .extra = NULL },
        { "type", read_type, 0, .extra = NULL },
        { "url", read_url, 0, .extra = NULL },
        { "preload", read_preload, CONFIG(preload), .extra = NULL },
        { "protocol", config_read_word, CONFIG(protocol), .extra = server_protocol_from_string },
        { "transport", config_read_word, CONFIG(transport), .extra = server_transport_from_string },
        { "isolation", config_read_word, CONFIG(isolation), .extra = server_isolation_from_string },
        { "scope", config_read_word, CONFIG(scope), .extra = server_scope_from_string },
        { "era", config_read_word, CONFIG(era), .extra = era_from_word },
        { "lists", config_read_word, CONFIG(lists), .extra = server_lists_from_string },
        { "tools_digest", config_read_strings, CONFIG(tools_digest), .extra = NULL },
        { "idempotent", config_read_bool, CONFIG(idempotent), .extra = NULL },
        { "keep_alive", read_keep_alive, 0, .extra = NULL },
        { "pool", config_read_section, 0, .extra = SECTION(pool_keys) },
        { "recycle", config_read_section, 0, .extra = SECTION(recycle_keys) },
        { "timeouts", config_read_section, 0, .extra = SECTION(timeouts_keys) },
        { "restart", config_read_section, 0, .extra = SECTION(restart_keys) },
        { "limits", config_read_section, 0, .extra = SECTION(limits_keys) },
        { "sandbox", read_sandbox, CONFIG(sandbox), .extra = NULL },
        { "access", read_access, 0, .extra = NULL },
};

static bool said(const cJSON *object, const char *section, const char *key) {
        return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, section), key);
}

static void report_key(ConfigReader *reader, const char *key, const char *text) {
        config_enter(reader, key);
        config_report(reader, "%s", text);
        config_leave(reader);
}

static bool names_file(const ServerConfig *config, const char *placeholder) {
        for (char **s = config->args; s && *s; s++)
                if (strstr(*s, placeholder))
                        return true;

        return false;
}

static void check_transport(ConfigReader *reader, const ServerConfig *config) {
        bool once = config->protocol == SERVER_PROTOCOL_ONCE;

        if (config->transport == SERVER_TRANSPORT_FILE && !once)
                report_key(reader, "transport", "transport file is for protocol once alone");
        else if (config->transport == SERVER_TRANSPORT_FILE && !names_file(config, "{output}"))
                report_key(reader, "args", "transport file wants {output} in args, and {input} where there are params");
        else if (config->transport == SERVER_TRANSPORT_SOCKET && once)
                report_key(reader, "transport", "protocol once can't have transport socket: its process has one call");
}

/* What two keys say together */
static void check_server(ConfigReader *reader, const cJSON *object, ServerConfig *config) {
        const char *command = config->command;
        bool one = config->protocol == SERVER_PROTOCOL_LINES || config->protocol == SERVER_PROTOCOL_ONCE;

        if (!command)
                config_report(reader, "the key command is missing");
        else if (!*command || (strchr(command, '/') && command[0] != '/')) {
                config_enter(reader, "command");
                config_report(reader, "command has to be a bare name or an absolute path");
                config_leave(reader);
        }

        if (config->pool.min > config->pool.max) {
                config_enter(reader, "pool");
                config_report(reader, "pool.min is more than pool.max");
                config_leave(reader);
        }

        if ((config->isolation == SERVER_ISOLATION_RESET || config->isolation == SERVER_ISOLATION_FORK) &&
            !config->executor)
                report_key(reader, "isolation", "isolation reset and fork are for servers that say \"executor\": true");
        if (config->isolation == SERVER_ISOLATION_RESET && !said(object, "recycle", "calls"))
                config->recycle.calls = RESET_CALLS;
        check_transport(reader, config);
        if (config->tools_digest && (config->protocol != SERVER_PROTOCOL_MCP || server_config_per_call(config)))
                report_key(reader, "tools_digest",
                           "tools_digest is for MCP servers whose process has more than one call");

        if (one && config->pool.answers_cancel) {
                config_enter(reader, "pool");
                config_report(reader, "pool.answers_cancel can't be had with protocol %s: it knows no cancel",
                              server_protocol_to_string(config->protocol));
                config_leave(reader);
        }
        if (one && said(object, "pool", "concurrency") && config->pool.concurrency != 1) {
                config_enter(reader, "pool");
                config_report(reader, "pool.concurrency can only be 1 with protocol %s",
                              server_protocol_to_string(config->protocol));
                config_leave(reader);
        } else if (one)
                config->pool.concurrency = 1;
}

static ServerConfig *read_server(ConfigReader *reader, const cJSON *object, const char *name) {
        _cleanup_(server_config_unrefp) ServerConfig *config = server_config_new(name);

        if (!config) {
                config_no_memory(reader);
                return NULL;
        }

        config_read_object(reader, server_keys, ELEMENTSOF(server_keys), object, config);
        check_server(reader, object, config);
        if (reader->bad)
                return NULL;

        config->file = text_escape(reader->file, strlen(reader->file), 4096);
        config->text = cJSON_PrintUnformatted(object);
        if (!config->file || !config->text || server_config_make_argv(config) < 0) {
                config_no_memory(reader);
                return NULL;
        }

        return TAKE_PTR(config);
}

static ServerConfig **read_servers(ConfigReader *reader, const cJSON *tree, const char *stem, size_t *ret_n) {
        const cJSON *map = cJSON_GetObjectItemCaseSensitive(tree, "mcpServers"), *entry;
        ServerConfig **servers;
        size_t n = 0;

        servers = new0(ServerConfig *, map && cJSON_IsObject(map) ? cJSON_GetArraySize(map) + 1 : 1);
        if (!servers) {
                config_no_memory(reader);
                return NULL;
        }

        if (!map) {
                servers[n] = read_server(reader, tree, stem);
                n += servers[n] != NULL;
        } else if (!cJSON_IsObject(map) || tree->child->next) {
                config_enter(reader,
                             tree->child == map && tree->child->next ? tree->child->next->string : "mcpServers");
                config_report(reader, "a file with mcpServers holds that object alone");
                config_leave(reader);
        } else
                cJSON_ArrayForEach(entry, map) {
                        config_enter(reader, "mcpServers");
                        config_enter(reader, entry->string);
                        if (!text_is_name(entry->string))
                                config_report(reader,
                                              "the server's name %s has to be 1 to 64 characters of a-z, 0-9 and -",
                                              entry->string);
                        else if (!cJSON_IsObject(entry))
                                config_report(reader, "a server has to be an object");
                        else if ((servers[n] = read_server(reader, entry, entry->string))) {
                                for (size_t i = 0; i < n; i++)
                                        if (streq(servers[i]->name, servers[n]->name))
                                                config_report(reader, "two servers are named %s", servers[n]->name);
                                n++;
                        }
                        config_leave(reader);
                        config_leave(reader);
                }

        *ret_n = n;
        return servers;
}

int config_read_servers(const char *file, const char *stem, const char *text, size_t size, ProblemList *problems,
                        ServerConfig ***ret, size_t *ret_n) {
        ConfigReader reader = { .file = file, .text = text, .size = size, .problems = problems };
        ServerConfig **servers;
        size_t n = 0;
        cJSON *tree;

        tree = config_parse(&reader);
        if (!tree)
                return reader.no_memory ? -ENOMEM : -EBADMSG;

        if (!text_is_name(stem) && !cJSON_GetObjectItemCaseSensitive(tree, "mcpServers") &&
            !cJSON_GetObjectItemCaseSensitive(tree, "name"))
                config_report(&reader,
                              "the file's name can't name a server: that is 1 to 64 characters of a-z, 0-9 and -");

        servers = read_servers(&reader, tree, stem, &n);
        cJSON_Delete(tree);
        if (reader.bad || !servers) {
                for (size_t i = 0; i < n; i++)
                        server_config_unref(servers[i]);
                free(servers);
                return reader.no_memory ? -ENOMEM : -EBADMSG;
        }

        *ret = servers;
        *ret_n = n;
        return 0;
}

void settings_init(Settings *settings) {
        *settings = (Settings){
                .idle_timeout = 300 * USEC_PER_SEC,
                .keep_jobs = 300 * USEC_PER_SEC,
                .unread_timeout = 300 * USEC_PER_SEC,
                .limits = {
                        .calls_per_connection = 32,
                        .calls_per_user = 64,
                        .calls = 512,
                        .workers_per_user = 8,
                        .workers = 64,
                        .sessions_per_user = 64,
                        .sessions = 512,
                        .queued_bytes_per_user = 8 << 20,
                        .queued_bytes = 64 << 20,
                        .message = 1 << 20,
                        .jobs_per_user = 32,
                        .jobs = 256,
                        .finished_jobs_per_user = 32,
                        .payload_bytes_per_user = 256 << 20,
                        .payload_bytes = UINT64_C(1) << 30,
                        .unread_bytes_per_connection = 16 << 20,
                        .unread_bytes_per_user = 32 << 20,
                        .unread_bytes = 64 << 20,
                        .unread_answers_per_connection = 32,
                        .waiting_messages_per_user = 2048,
                        .waiting_messages = 4096,
                        .polkit_checks_per_user = 64,
                        .polkit_checks = 512,
                        .new_connections = 256,
                        .calls_per_new_connection = 64,
                        .private_connections_per_user = 64,
                        .private_connections = 512,
                        .batch_items = 256,
                        .servers_per_session = 256,
                        .subscriptions_per_session = 256,
                        .subscriptions_per_server = 4096,
                },
        };
}

static void read_idle_timeout(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        Settings *settings = target;

        config_read_seconds(reader, key, value, &settings->idle_timeout);
        settings->idle_timeout_set = true;
}

static int call_level_from_string(const char *word) {
        int level = log_level_from_string(word);

        return level >= LOG_INFO ? level : -1;
}

int config_read_settings(const char *file, const char *text, size_t size, ProblemList *problems, Settings *settings) {
#define SETTING(field) offsetof(Settings, field)
        static const ConfigKey limits[] = {
                { "calls_per_connection", config_read_unsigned, SETTING(limits.calls_per_connection), .min = 1,
                  .max = 1e6 },
                { "calls_per_user", config_read_unsigned, SETTING(limits.calls_per_user), .min = 1, .max = 1e6 },
                { "calls", config_read_unsigned, SETTING(limits.calls), .min = 1, .max = 1e6 },
                { "workers_per_user", config_read_unsigned, SETTING(limits.workers_per_user), .min = 1, .max = 1e4 },
                { "workers", config_read_unsigned, SETTING(limits.workers), .min = 1, .max = 1e4 },
                { "sessions_per_user", config_read_unsigned, SETTING(limits.sessions_per_user), .min = 1, .max = 1e4 },
                { "sessions", config_read_unsigned, SETTING(limits.sessions), .min = 1, .max = 1e4 },
                { "queued_bytes_per_user", config_read_number, SETTING(limits.queued_bytes_per_user), .min = 1,
                  .max = 1e12 },
                { "queued_bytes", config_read_number, SETTING(limits.queued_bytes), .min = 1, .max = 1e12 },
                { "message", config_read_number, SETTING(limits.message), .min = 1024, .max = 8 << 20 },
                { "jobs_per_user", config_read_unsigned, SETTING(limits.jobs_per_user), .min = 0, .max = 1e6 },
                { "jobs", config_read_unsigned, SETTING(limits.jobs), .min = 0, .max = 1e6 },
                { "finished_jobs_per_user", config_read_unsigned, SETTING(limits.finished_jobs_per_user), .min = 0,
                  .max = 1e6 },
                { "payload_bytes_per_user", config_read_number, SETTING(limits.payload_bytes_per_user), .min = 1,
                  .max = 1e12 },
                { "payload_bytes", config_read_number, SETTING(limits.payload_bytes), .min = 1, .max = 1e12 },
                { "unread_bytes_per_connection", config_read_number, SETTING(limits.unread_bytes_per_connection),
                  .min = 1 << 20, .max = 1e12 },
                { "unread_bytes_per_user", config_read_number, SETTING(limits.unread_bytes_per_user), .min = 1 << 20,
                  .max = 1e12 },
                { "unread_bytes", config_read_number, SETTING(limits.unread_bytes), .min = 1 << 20, .max = 1e12 },
                { "unread_answers_per_connection", config_read_unsigned, SETTING(limits.unread_answers_per_connection),
                  .min = 1, .max = 1e4 },
                { "waiting_messages_per_user", config_read_unsigned, SETTING(limits.waiting_messages_per_user),
                  .min = 1, .max = 1e6 },
                { "waiting_messages", config_read_unsigned, SETTING(limits.waiting_messages), .min = 1, .max = 1e6 },
                { "polkit_checks_per_user", config_read_unsigned, SETTING(limits.polkit_checks_per_user), .min = 1,
                  .max = 1e4 },
                { "polkit_checks", config_read_unsigned, SETTING(limits.polkit_checks), .min = 1, .max = 1e4 },
                { "new_connections", config_read_unsigned, SETTING(limits.new_connections), .min = 1, .max = 1e4 },
                { "calls_per_new_connection", config_read_unsigned, SETTING(limits.calls_per_new_connection), .min = 1,
                  .max = 1e4 },
                { "private_connections_per_user", config_read_unsigned, SETTING(limits.private_connections_per_user),
                  .min = 1, .max = 1e4 },
                { "private_connections", config_read_unsigned, SETTING(limits.private_connections), .min = 1,
                  .max = 1e4 },
                { "batch_items", config_read_unsigned, SETTING(limits.batch_items), .min = 1, .max = 3000 },
                { "servers_per_session", config_read_unsigned, SETTING(limits.servers_per_session), .min = 1,
                  .max = 1e4 },
                { "subscriptions_per_session", config_read_unsigned, SETTING(limits.subscriptions_per_session),
                  .min = 1, .max = 1e5 },
                { "subscriptions_per_server", config_read_unsigned, SETTING(limits.subscriptions_per_server), .min = 1,
                  .max = 1e5 },
        };
        static const ConfigSection limits_section = { limits, ELEMENTSOF(limits) };
        static const ConfigKey keys[] = {
                { "idle_timeout", read_idle_timeout, 0, .min = 0, .max = SECONDS_MAX },
                { "keep_jobs", config_read_seconds, SETTING(keep_jobs), .min = 0, .max = SECONDS_MAX },
                { "unread_timeout", config_read_seconds, SETTING(unread_timeout), .min = 0, .max = SECONDS_MAX },
                { "log_level", config_read_word, SETTING(log_level), .extra = log_level_from_string },
                { "log_calls", config_read_word, SETTING(log_calls), .extra = call_level_from_string },
                { "limits", config_read_section, 0, .extra = &limits_section },
        };
        ConfigReader reader = { .file = file, .text = text, .size = size, .problems = problems };
        Settings changed = *settings;
        cJSON *tree;

        tree = config_parse(&reader);
        if (!tree)
                return reader.no_memory ? -ENOMEM : -EBADMSG;

        config_read_object(&reader, keys, ELEMENTSOF(keys), tree, &changed);
        cJSON_Delete(tree);
        if (reader.bad)
                return reader.no_memory ? -ENOMEM : -EBADMSG;

        *settings = changed;
        return 0;
}
