#include "broker/config-file.h"

#include <cjson/cJSON.h>
#include <grp.h>
#include <math.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "base/text.h"

#define PATH_DEPTH_MAX 8
#define TEXT_DEPTH_MAX 16
#define SECONDS_MAX (366.0 * 24 * 3600)

/* While a file is read: where in it the reading stands, by keys, so that a problem can be given its place */
typedef struct Reader {
        const char *file, *text;
        size_t size;
        const char *path[PATH_DEPTH_MAX];
        unsigned depth;
        ProblemList *problems;
        bool bad;
} Reader;

typedef struct Key Key;
struct Key {
        const char *name;
        /* Stores value at target, or reports. */
        void (*read)(Reader *reader, const Key *key, const cJSON *value, void *target);
        size_t offset; /* of target in the structure */
        const void *extra;
        double min, max;
};

int problem_add(ProblemList *problems, const char *file, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        Problem *problem;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                return -ENOMEM;
        }

        problem = new0(Problem, 1);
        if (!problem)
                return -ENOMEM;

        problem->file = text_escape(file, strlen(file), 4096);
        problem->text = text_escape(text, n, 1024);
        TAILQ_INSERT_TAIL(problems, problem, link);
        return 0;
}

void problems_clear(ProblemList *problems) {
        Problem *problem;

        while ((problem = TAILQ_FIRST(problems))) {
                TAILQ_REMOVE(problems, problem, link);
                free(problem->file);
                free(problem->text);
                free(problem);
        }
}

static void report_at(Reader *reader, size_t offset, const char *text) {
        size_t line = 1, column = 1;

        for (size_t i = 0; i < offset && i < reader->size; i++)
                if (reader->text[i] == '\n') {
                        line++;
                        column = 1;
                } else if (((unsigned char)reader->text[i] & 0xc0) != 0x80)
                        column++;

        reader->bad = true;
        (void)problem_add(reader->problems, reader->file, "%zu:%zu: %s", line, column, text);
}

/* Where the key that is being read stands in the text */
static size_t locate(const Reader *reader) {
        JsonSlice at = { .data = reader->text + strspn(reader->text, " \t\r\n") };
        size_t offset = at.data - reader->text;

        at.size = reader->text + reader->size - at.data;
        for (unsigned i = 0; i < reader->depth; i++) {
                const char *position = NULL;
                JsonSlice key, value, found = {};

                while (json_next_member(at, &position, &key, &value))
                        if (json_equal(key, reader->path[i])) {
                                offset = key.data - reader->text;
                                found = value;
                        }
                if (!found.data)
                        break;
                at = found;
        }

        return offset;
}

static void report(Reader *reader, const char *format, ...) _printf_(2, 3);
static void report(Reader *reader, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);

        report_at(reader, locate(reader), n < 0 ? "out of memory" : text);
        if (n < 0)
                text = NULL;
}

static void no_memory(Reader *reader) {
        report(reader, "out of memory");
}

static void wrong_type(Reader *reader, const Key *key, const char *wanted) {
        report(reader, "%s has to be %s", key->name, wanted);
}

static void enter(Reader *reader, const char *name) {
        if (reader->depth < PATH_DEPTH_MAX)
                reader->path[reader->depth] = name;
        reader->depth++;
}

static void leave(Reader *reader) {
        reader->depth--;
}

/* How many single-character changes make one word of the other; for "did you mean" */
static unsigned edit_distance(const char *a, const char *b) {
        unsigned row[32];
        size_t n = strlen(b);

        if (n >= ELEMENTSOF(row))
                return UINT32_MAX;

        for (size_t j = 0; j <= n; j++)
                row[j] = j;
        for (size_t i = 0; a[i]; i++) {
                unsigned diagonal = row[0];

                row[0] = i + 1;
                for (size_t j = 0; j < n; j++) {
                        unsigned change = diagonal + (a[i] != b[j]);

                        diagonal = row[j + 1];
                        row[j + 1] = MIN(change, MIN(row[j], diagonal) + 1);
                }
        }

        return row[n];
}

static void unknown_key(Reader *reader, const Key *keys, size_t n_keys, const char *name) {
        const char *nearest = NULL;
        unsigned best = 3;

        for (size_t i = 0; i < n_keys; i++) {
                unsigned distance = edit_distance(name, keys[i].name);

                if (distance < best) {
                        best = distance;
                        nearest = keys[i].name;
                }
        }

        report(reader, "unknown key %s%s%s%s", name, nearest ? " (did you mean " : "", nearest ?: "",
               nearest ? "?)" : "");
}

static void read_object(Reader *reader, const Key *keys, size_t n_keys, const cJSON *object, void *target) {
        const cJSON *value;

        for (value = object->child; value; value = value->next) {
                const Key *key = NULL;
                bool again = false;

                for (const cJSON *v = object->child; v != value; v = v->next)
                        again = again || streq(v->string, value->string);
                for (size_t i = 0; i < n_keys && !key; i++)
                        if (streq(keys[i].name, value->string))
                                key = &keys[i];

                enter(reader, value->string);
                if (again)
                        report(reader, "key %s stands twice", value->string);
                else if (!key)
                        unknown_key(reader, keys, n_keys, value->string);
                else
                        key->read(reader, key, value, (char *)target + key->offset);
                leave(reader);
        }
}

static void read_bool(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (!cJSON_IsBool(value))
                wrong_type(reader, key, "true or false");
        else
                *(bool *)target = cJSON_IsTrue(value);
}

static void set_string(Reader *reader, char **target, const char *string) {
        free(*target);
        *target = strdup(string);
        if (!*target)
                no_memory(reader);
}

static void read_string(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value))
                wrong_type(reader, key, "a string");
        else
                set_string(reader, target, value->valuestring);
}

static void read_cwd(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value) || value->valuestring[0] != '/')
                wrong_type(reader, key, "an absolute path");
        else
                set_string(reader, target, value->valuestring);
}

static void read_name(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value) || !text_is_name(value->valuestring))
                wrong_type(reader, key, "1 to 64 characters of a-z, 0-9 and -");
        else
                set_string(reader, target, value->valuestring);
}

static bool in_range(Reader *reader, const Key *key, const cJSON *value, bool whole) {
        char wanted[120];

        if (cJSON_IsNumber(value) && value->valuedouble >= key->min && value->valuedouble <= key->max &&
            (!whole || value->valuedouble == floor(value->valuedouble)))
                return true;

        (void)snprintf(wanted, sizeof(wanted), "a %snumber from %.15g to %.15g", whole ? "whole " : "", key->min,
                       key->max);
        wrong_type(reader, key, wanted);
        return false;
}

static void read_unsigned(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ true))
                *(unsigned *)target = value->valuedouble;
}

static void read_number(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ true))
                *(uint64_t *)target = value->valuedouble;
}

static void read_seconds(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ false))
                *(uint64_t *)target = value->valuedouble * USEC_PER_SEC;
}

static void read_word(Reader *reader, const Key *key, const cJSON *value, void *target) {
        int (*from_string)(const char *word) = (int (*)(const char *))key->extra;
        int word = cJSON_IsString(value) ? from_string(value->valuestring) : -1;

        if (word < 0)
                report(reader, "%s: %s is none of the values that it can have", key->name,
                       cJSON_IsString(value) ? value->valuestring : "this");
        else
                *(int *)target = word;
}

static int era_from_word(const char *word) {
        return mcp_era_from_string(word, strlen(word));
}

static void read_strings(Reader *reader, const Key *key, const cJSON *value, void *target) {
        char **strings;
        size_t n = 0;
        const cJSON *element;

        if (!cJSON_IsArray(value)) {
                wrong_type(reader, key, "an array of strings");
                return;
        }

        strings = new0(char *, cJSON_GetArraySize(value) + 1);
        if (!strings) {
                no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value) {
                if (!cJSON_IsString(element)) {
                        wrong_type(reader, key, "an array of strings");
                        break;
                }
                set_string(reader, &strings[n], element->valuestring);
                if (!strings[n++])
                        break;
        }

        strings_free(*(char ***)target);
        *(char ***)target = strings;
}

static bool is_variable_name(const char *name) {
        return *name && !(*name >= '0' && *name <= '9') &&
               !name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")];
}

static void read_environment(Reader *reader, const Key *key, const cJSON *value, void *target) {
        char **strings;
        size_t n = 0;
        const cJSON *element;

        if (!cJSON_IsObject(value)) {
                wrong_type(reader, key, "an object of strings");
                return;
        }

        strings = new0(char *, cJSON_GetArraySize(value) + 1);
        if (!strings) {
                no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value) {
                bool again = false;

                for (const cJSON *e = value->child; e != element; e = e->next)
                        again = again || streq(e->string, element->string);

                enter(reader, element->string);
                if (again)
                        report(reader, "env %s stands twice", element->string);
                else if (!cJSON_IsString(element))
                        report(reader, "env %s has to be a string", element->string);
                else if (!is_variable_name(element->string))
                        report(reader, "env %s is no name of a variable", element->string);
                else if (asprintf(&strings[n++], "%s=%s", element->string, element->valuestring) < 0) {
                        strings[--n] = NULL;
                        no_memory(reader);
                }
                leave(reader);
        }

        strings_free(*(char ***)target);
        *(char ***)target = strings;
}

/* Some clients' files name the transport "type". */
static void read_type(Reader *reader, const Key *key _unused_, const cJSON *value, void *target _unused_) {
        if (!cJSON_IsString(value) || !streq(value->valuestring, "stdio"))
                report(reader, "type: only stdio servers can be run; this one is reached over the network");
}

static void read_url(Reader *reader, const Key *key _unused_, const cJSON *value _unused_, void *target _unused_) {
        report(reader, "url: only programs of this machine can be run, by their command");
}

static void read_json(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (!cJSON_IsObject(value)) {
                wrong_type(reader, key, "an object");
                return;
        }

        free(*(char **)target);
        *(char **)target = cJSON_PrintUnformatted(value);
        if (!*(char **)target)
                no_memory(reader);
}

typedef struct Section {
        const Key *keys;
        size_t n_keys;
} Section;

static void read_section(Reader *reader, const Key *key, const cJSON *value, void *target) {
        const Section *section = key->extra;

        if (!cJSON_IsObject(value))
                wrong_type(reader, key, "an object");
        else
                read_object(reader, section->keys, section->n_keys, value, target);
}

#define CONFIG(field) offsetof(ServerConfig, field)
#define SECTION(keys)                                                                                                  \
        &(const Section) {                                                                                             \
                (keys), ELEMENTSOF(keys)                                                                               \
        }

static const Key keep_alive_keys[] = {
        { "enabled", read_bool, CONFIG(keep_alive.enabled), .extra = NULL },
        { "timeout", read_seconds, CONFIG(keep_alive.timeout), .min = 0, .max = SECONDS_MAX },
        { "check_interval", read_seconds, CONFIG(keep_alive.check_interval), .min = 0, .max = SECONDS_MAX },
};

/* true and false stand for {"enabled": ...}. */
static void read_keep_alive(Reader *reader, const Key *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        if (cJSON_IsBool(value))
                config->keep_alive.enabled = cJSON_IsTrue(value);
        else if (cJSON_IsObject(value))
                read_object(reader, keep_alive_keys, ELEMENTSOF(keep_alive_keys), value, target);
        else
                wrong_type(reader, key, "an object, true or false");
}

static bool find_uid(const cJSON *value, uid_t *ret) {
        struct passwd *user;

        if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < UINT32_MAX) {
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

        if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < UINT32_MAX) {
                *ret = value->valuedouble;
                return true;
        }

        group = cJSON_IsString(value) ? getgrnam(value->valuestring) : NULL;
        if (group)
                *ret = group->gr_gid;
        return group;
}

static void read_ids(Reader *reader, const Key *key, const cJSON *value, bool (*find)(const cJSON *, uid_t *),
                     uid_t **ids, size_t *n_ids) {
        const cJSON *element;

        if (!cJSON_IsArray(value)) {
                wrong_type(reader, key, "an array of names or numbers");
                return;
        }

        free(*ids);
        *n_ids = 0;
        *ids = new0(uid_t, cJSON_GetArraySize(value) + 1);
        if (!*ids) {
                no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value)
                if (find(element, &(*ids)[*n_ids]))
                        (*n_ids)++;
                else
                        report(reader, "%s: %s is not known on this machine", key->name,
                               cJSON_IsString(element) ? element->valuestring : "this");
}

_Static_assert(sizeof(uid_t) == sizeof(gid_t), "read_ids() serves both");

static void read_users(Reader *reader, const Key *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        read_ids(reader, key, value, find_uid, &config->access.uids, &config->access.n_uids);
}

static void read_groups(Reader *reader, const Key *key, const cJSON *value, void *target) {
        ServerConfig *config = target;

        read_ids(reader, key, value, find_gid, &config->access.gids, &config->access.n_gids);
}

static const Key access_keys[] = {
        { "users", read_users, 0, .extra = NULL },
        { "groups", read_groups, 0, .extra = NULL },
};

/* "polkit", or who needs not be asked for */
static void read_access(Reader *reader, const Key *key, const cJSON *value, void *target) {
        if (cJSON_IsObject(value))
                read_object(reader, access_keys, ELEMENTSOF(access_keys), value, target);
        else if (!cJSON_IsString(value) || !streq(value->valuestring, "polkit"))
                wrong_type(reader, key, "\"polkit\" or an object of users and groups");
}

static const Key pool_keys[] = {
        { "min", read_unsigned, CONFIG(pool.min), .min = 0, .max = 64 },
        { "max", read_unsigned, CONFIG(pool.max), .min = 1, .max = 64 },
        { "concurrency", read_unsigned, CONFIG(pool.concurrency), .min = 1, .max = 256 },
        { "queue", read_unsigned, CONFIG(pool.queue), .min = 0, .max = 4096 },
};

static const Key recycle_keys[] = {
        { "calls", read_number, CONFIG(recycle.calls), .min = 0, .max = 1e12 },
        { "lifetime", read_seconds, CONFIG(recycle.lifetime), .min = 0, .max = SECONDS_MAX },
        { "memory", read_number, CONFIG(recycle.memory), .min = 0, .max = 1e15 },
};

static const Key timeouts_keys[] = {
        { "start", read_seconds, CONFIG(timeouts.start), .min = 0.001, .max = SECONDS_MAX },
        { "call", read_seconds, CONFIG(timeouts.call), .min = 0.001, .max = SECONDS_MAX },
        { "call_max", read_seconds, CONFIG(timeouts.call_max), .min = 0.001, .max = SECONDS_MAX },
        { "stop", read_seconds, CONFIG(timeouts.stop), .min = 0, .max = 600 },
};

static const Key restart_keys[] = {
        { "burst", read_unsigned, CONFIG(restart.burst), .min = 0, .max = 100000 },
        { "interval", read_seconds, CONFIG(restart.interval), .min = 0, .max = SECONDS_MAX },
};

static const Key limits_keys[] = {
        { "message", read_number, CONFIG(limits.message), .min = 1024, .max = 1 << 28 },
        { "depth", read_unsigned, CONFIG(limits.depth), .min = 4, .max = JSON_DEPTH_MAX },
};

static const Key server_keys[] = {
        { "command", read_string, CONFIG(command), .extra = NULL },
        { "args", read_strings, CONFIG(args), .extra = NULL },
        { "name", read_name, CONFIG(name), .extra = NULL },
        { "description", read_string, CONFIG(description), .extra = NULL },
        { "env", read_environment, CONFIG(environment), .extra = NULL },
        { "cwd", read_cwd, CONFIG(cwd), .extra = NULL },
        { "disabled", read_bool, CONFIG(disabled), .extra = NULL },
        { "type", read_type, 0, .extra = NULL },
        { "url", read_url, 0, .extra = NULL },
        { "protocol", read_word, CONFIG(protocol), .extra = server_protocol_from_string },
        { "transport", read_word, CONFIG(transport), .extra = server_transport_from_string },
        { "isolation", read_word, CONFIG(isolation), .extra = server_isolation_from_string },
        { "scope", read_word, CONFIG(scope), .extra = server_scope_from_string },
        { "era", read_word, CONFIG(era), .extra = era_from_word },
        { "idempotent", read_bool, CONFIG(idempotent), .extra = NULL },
        { "keep_alive", read_keep_alive, 0, .extra = NULL },
        { "pool", read_section, 0, .extra = SECTION(pool_keys) },
        { "recycle", read_section, 0, .extra = SECTION(recycle_keys) },
        { "timeouts", read_section, 0, .extra = SECTION(timeouts_keys) },
        { "restart", read_section, 0, .extra = SECTION(restart_keys) },
        { "limits", read_section, 0, .extra = SECTION(limits_keys) },
        { "sandbox", read_json, CONFIG(sandbox), .extra = NULL },
        { "access", read_access, 0, .extra = NULL },
};

static bool concurrency_said(const cJSON *object) {
        return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, "pool"), "concurrency");
}

/* What two keys say together */
static void check_server(Reader *reader, const cJSON *object, ServerConfig *config) {
        const char *command = config->command;
        bool one = config->protocol == SERVER_PROTOCOL_LINES || config->protocol == SERVER_PROTOCOL_ONCE;

        if (!command)
                report(reader, "the key command is missing");
        else if (!*command || (strchr(command, '/') && command[0] != '/')) {
                enter(reader, "command");
                report(reader, "command has to be a bare name or an absolute path");
                leave(reader);
        }

        if (config->pool.min > config->pool.max) {
                enter(reader, "pool");
                report(reader, "pool.min is more than pool.max");
                leave(reader);
        }

        if (one && concurrency_said(object) && config->pool.concurrency != 1) {
                enter(reader, "pool");
                report(reader, "pool.concurrency can only be 1 with protocol %s",
                       server_protocol_to_string(config->protocol));
                leave(reader);
        } else if (one)
                config->pool.concurrency = 1;
}

static ServerConfig *read_server(Reader *reader, const cJSON *object, const char *name) {
        _cleanup_(server_config_unrefp) ServerConfig *config = server_config_new(name);
        size_t n = 0;

        if (!config) {
                no_memory(reader);
                return NULL;
        }

        read_object(reader, server_keys, ELEMENTSOF(server_keys), object, config);
        check_server(reader, object, config);
        if (reader->bad)
                return NULL;

        while (config->args && config->args[n])
                n++;
        config->argv = new0(char *, n + 2);
        config->file = strdup(reader->file);
        config->text = cJSON_PrintUnformatted(object);
        if (!config->argv || !config->file || !config->text) {
                no_memory(reader);
                return NULL;
        }

        config->argv[0] = config->command;
        for (size_t i = 0; i < n; i++)
                config->argv[i + 1] = config->args[i];

        return TAKE_PTR(config);
}

/* The text as a tree, once the strict scanner has passed it. cJSON cuts strings at U+0000, and would let an argument
 * be another than what stands in the file. */
static cJSON *parse(Reader *reader) {
        const char *nul;
        JsonError error;
        cJSON *tree;

        if (json_scan(reader->text, reader->size, TEXT_DEPTH_MAX, NULL, 0, NULL, &error) < 0) {
                report_at(reader, error.offset, error.reason);
                return NULL;
        }

        nul = memmem(reader->text, reader->size, "\\u0000", 6);
        if (nul) {
                report_at(reader, nul - reader->text, "a string can't hold the character U+0000");
                return NULL;
        }

        tree = cJSON_ParseWithLength(reader->text, reader->size);
        if (!tree)
                no_memory(reader);
        else if (!cJSON_IsObject(tree)) {
                report(reader, "the file has to hold an object");
                cJSON_Delete(tree);
                return NULL;
        }

        return tree;
}

static ServerConfig **read_servers(Reader *reader, const cJSON *tree, const char *stem, size_t *ret_n) {
        const cJSON *map = cJSON_GetObjectItemCaseSensitive(tree, "mcpServers"), *entry;
        ServerConfig **servers;
        size_t n = 0;

        servers = new0(ServerConfig *, map && cJSON_IsObject(map) ? cJSON_GetArraySize(map) + 1 : 1);
        if (!servers) {
                no_memory(reader);
                return NULL;
        }

        if (!map) {
                servers[n] = read_server(reader, tree, stem);
                n += servers[n] != NULL;
        } else if (!cJSON_IsObject(map) || tree->child->next) {
                enter(reader, tree->child == map && tree->child->next ? tree->child->next->string : "mcpServers");
                report(reader, "a file with mcpServers holds that object alone");
                leave(reader);
        } else
                cJSON_ArrayForEach(entry, map) {
                        enter(reader, "mcpServers");
                        enter(reader, entry->string);
                        if (!text_is_name(entry->string))
                                report(reader, "the server's name %s has to be 1 to 64 characters of a-z, 0-9 and -",
                                       entry->string);
                        else if (!cJSON_IsObject(entry))
                                report(reader, "a server has to be an object");
                        else if ((servers[n] = read_server(reader, entry, entry->string))) {
                                for (size_t i = 0; i < n; i++)
                                        if (streq(servers[i]->name, servers[n]->name))
                                                report(reader, "two servers are named %s", servers[n]->name);
                                n++;
                        }
                        leave(reader);
                        leave(reader);
                }

        *ret_n = n;
        return servers;
}

int config_read_servers(const char *file, const char *stem, const char *text, size_t size, ProblemList *problems,
                        ServerConfig ***ret, size_t *ret_n) {
        Reader reader = { .file = file, .text = text, .size = size, .problems = problems };
        ServerConfig **servers;
        size_t n = 0;
        cJSON *tree;

        tree = parse(&reader);
        if (!tree)
                return -EBADMSG;

        if (!text_is_name(stem) && !cJSON_GetObjectItemCaseSensitive(tree, "mcpServers") &&
            !cJSON_GetObjectItemCaseSensitive(tree, "name"))
                report(&reader, "the file's name can't name a server: that is 1 to 64 characters of a-z, 0-9 and -");

        servers = read_servers(&reader, tree, stem, &n);
        cJSON_Delete(tree);
        if (reader.bad || !servers) {
                for (size_t i = 0; i < n; i++)
                        server_config_unref(servers[i]);
                free(servers);
                return -EBADMSG;
        }

        *ret = servers;
        *ret_n = n;
        return 0;
}

void settings_init(Settings *settings) {
        *settings = (Settings){
                .idle_timeout = 300 * USEC_PER_SEC,
                .limits = {
                        .calls_per_connection = 32,
                        .calls_per_user = 64,
                        .calls = 512,
                        .workers_per_user = 8,
                        .workers = 64,
                        .queued_bytes_per_user = 8 << 20,
                        .queued_bytes = 64 << 20,
                        .message = 1 << 20,
                },
        };
}

static void read_idle_timeout(Reader *reader, const Key *key, const cJSON *value, void *target) {
        Settings *settings = target;

        read_seconds(reader, key, value, &settings->idle_timeout);
        settings->idle_timeout_set = true;
}

int config_read_settings(const char *file, const char *text, size_t size, ProblemList *problems, Settings *settings) {
#define SETTING(field) offsetof(Settings, field)
        static const Key limits[] = {
                { "calls_per_connection", read_unsigned, SETTING(limits.calls_per_connection), .min = 1, .max = 1e6 },
                { "calls_per_user", read_unsigned, SETTING(limits.calls_per_user), .min = 1, .max = 1e6 },
                { "calls", read_unsigned, SETTING(limits.calls), .min = 1, .max = 1e6 },
                { "workers_per_user", read_unsigned, SETTING(limits.workers_per_user), .min = 1, .max = 1e4 },
                { "workers", read_unsigned, SETTING(limits.workers), .min = 1, .max = 1e4 },
                { "queued_bytes_per_user", read_number, SETTING(limits.queued_bytes_per_user), .min = 1, .max = 1e12 },
                { "queued_bytes", read_number, SETTING(limits.queued_bytes), .min = 1, .max = 1e12 },
                { "message", read_number, SETTING(limits.message), .min = 1024, .max = 8 << 20 },
        };
        static const Section limits_section = { limits, ELEMENTSOF(limits) };
        static const Key keys[] = {
                { "idle_timeout", read_idle_timeout, 0, .min = 0, .max = SECONDS_MAX },
                { "log_level", read_word, SETTING(log_level), .extra = log_level_from_string },
                { "limits", read_section, 0, .extra = &limits_section },
        };
        Reader reader = { .file = file, .text = text, .size = size, .problems = problems };
        Settings changed = *settings;
        cJSON *tree;

        tree = parse(&reader);
        if (!tree)
                return -EBADMSG;

        read_object(&reader, keys, ELEMENTSOF(keys), tree, &changed);
        cJSON_Delete(tree);
        if (reader.bad)
                return -EBADMSG;

        *settings = changed;
        return 0;
}

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

char *config_describe(const ServerConfig *config, const char *launcher, const char *path) {
        cJSON *tree = cJSON_CreateObject(), *part;
        char *text;

        (void)cJSON_AddStringToObject(tree, "name", config->name);
        (void)cJSON_AddStringToObject(tree, "description", config->description ?: "");
        (void)cJSON_AddStringToObject(tree, "file", config->file);
        (void)cJSON_AddBoolToObject(tree, "disabled", config->disabled);

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

        (void)cJSON_AddItemToObject(tree, "sandbox",
                                    config->sandbox ? cJSON_CreateRaw(config->sandbox) : cJSON_CreateObject());
        part = describe_section(tree, "access");
        describe_ids(part, "users", config->access.uids, config->access.n_uids);
        describe_ids(part, "groups", config->access.gids, config->access.n_gids);

        text = cJSON_Print(tree);
        cJSON_Delete(tree);
        return text;
}
