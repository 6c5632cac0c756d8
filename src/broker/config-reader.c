#include "broker/config-reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

#define TEXT_DEPTH_MAX 16

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

static void report_at(ConfigReader *reader, size_t offset, const char *text) {
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
static size_t locate(const ConfigReader *reader) {
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

void config_report(ConfigReader *reader, const char *format, ...) {
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

void config_no_memory(ConfigReader *reader) {
        reader->no_memory = true;
        config_report(reader, "out of memory");
}

void config_wrong_type(ConfigReader *reader, const ConfigKey *key, const char *wanted) {
        config_report(reader, "%s has to be %s", key->name, wanted);
}

void config_enter(ConfigReader *reader, const char *name) {
        if (reader->depth < CONFIG_PATH_MAX)
                reader->path[reader->depth] = name;
        reader->depth++;
}

void config_leave(ConfigReader *reader) {
        reader->depth--;
}

static void unknown_key(ConfigReader *reader, const ConfigKey *keys, size_t n_keys, const char *name) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < n_keys; i++)
                text_nearer(name, keys[i].name, &best, &nearest);

        config_report(reader, "unknown key %s%s%s%s", name, nearest ? " (did you mean " : "", nearest ?: "",
                      nearest ? "?)" : "");
}

void config_read_object(ConfigReader *reader, const ConfigKey *keys, size_t n_keys, const cJSON *object, void *target) {
        const cJSON *value;

        for (value = object->child; value; value = value->next) {
                const ConfigKey *key = NULL;
                bool again = false;

                for (const cJSON *v = object->child; v != value; v = v->next)
                        again = again || streq(v->string, value->string);
                for (size_t i = 0; i < n_keys && !key; i++)
                        if (streq(keys[i].name, value->string))
                                key = &keys[i];

                config_enter(reader, value->string);
                if (again)
                        config_report(reader, "key %s stands twice", value->string);
                else if (!key)
                        unknown_key(reader, keys, n_keys, value->string);
                else
                        key->read(reader, key, value, (char *)target + key->offset);
                config_leave(reader);
        }
}

void config_read_bool(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (!cJSON_IsBool(value))
                config_wrong_type(reader, key, "true or false");
        else
                *(bool *)target = cJSON_IsTrue(value);
}

/* What couldn't be shown on the bus isn't taken. */
static void check_characters(ConfigReader *reader, char *text) {
        _cleanup_(freep) char *clean = strdup(text);

        text_replace_noncharacters(clean);
        if (!clean)
                config_no_memory(reader);
        else if (!streq(clean, text))
                config_report(reader, "a string holds one of Unicode's noncharacters");
}

void config_set_string(ConfigReader *reader, char **target, const char *string) {
        free(*target);
        *target = strdup(string);
        if (!*target)
                config_no_memory(reader);
        else
                check_characters(reader, *target);
}

void config_read_string(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (!cJSON_IsString(value))
                config_wrong_type(reader, key, "a string");
        else
                config_set_string(reader, target, value->valuestring);
}

static bool in_range(ConfigReader *reader, const ConfigKey *key, const cJSON *value, bool whole) {
        char wanted[120];

        if (cJSON_IsNumber(value) && value->valuedouble >= key->min && value->valuedouble <= key->max &&
            (!whole || value->valuedouble == floor(value->valuedouble)))
                return true;

        (void)snprintf(wanted, sizeof(wanted), "a %snumber from %.15g to %.15g", whole ? "whole " : "", key->min,
                       key->max);
        config_wrong_type(reader, key, wanted);
        return false;
}

void config_read_unsigned(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ true))
                *(unsigned *)target = value->valuedouble;
}

void config_read_number(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ true))
                *(uint64_t *)target = value->valuedouble;
}

void config_read_seconds(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (in_range(reader, key, value, /* whole= */ false))
                *(uint64_t *)target = value->valuedouble * USEC_PER_SEC;
}

void config_read_word(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        int (*from_string)(const char *word) = (int (*)(const char *))key->extra;
        int word = cJSON_IsString(value) ? from_string(value->valuestring) : -1;

        if (word < 0)
                config_report(reader, "%s: %s is none of the values that it can have", key->name,
                              cJSON_IsString(value) ? value->valuestring : "this");
        else
                *(int *)target = word;
}

void config_read_strings(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        char **strings;
        size_t n = 0;
        const cJSON *element;

        if (!cJSON_IsArray(value)) {
                config_wrong_type(reader, key, "an array of strings");
                return;
        }

        strings = new0(char *, cJSON_GetArraySize(value) + 1);
        if (!strings) {
                config_no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value) {
                if (!cJSON_IsString(element)) {
                        config_wrong_type(reader, key, "an array of strings");
                        break;
                }
                config_set_string(reader, &strings[n], element->valuestring);
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

void config_read_environment(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        char **strings;
        size_t n = 0;
        const cJSON *element;

        if (!cJSON_IsObject(value)) {
                config_wrong_type(reader, key, "an object of strings");
                return;
        }

        strings = new0(char *, cJSON_GetArraySize(value) + 1);
        if (!strings) {
                config_no_memory(reader);
                return;
        }

        cJSON_ArrayForEach(element, value) {
                bool again = false;

                for (const cJSON *e = value->child; e != element; e = e->next)
                        again = again || streq(e->string, element->string);

                config_enter(reader, element->string);
                if (again)
                        config_report(reader, "env %s stands twice", element->string);
                else if (!cJSON_IsString(element))
                        config_report(reader, "env %s has to be a string", element->string);
                else if (!is_variable_name(element->string))
                        config_report(reader, "env %s is no name of a variable", element->string);
                else if (asprintf(&strings[n++], "%s=%s", element->string, element->valuestring) < 0) {
                        strings[--n] = NULL;
                        config_no_memory(reader);
                }
                config_leave(reader);
        }

        strings_free(*(char ***)target);
        *(char ***)target = strings;
}

void config_read_json(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        if (!cJSON_IsObject(value)) {
                config_wrong_type(reader, key, "an object");
                return;
        }

        free(*(char **)target);
        *(char **)target = cJSON_PrintUnformatted(value);
        if (!*(char **)target)
                config_no_memory(reader);
        else
                check_characters(reader, *(char **)target);
}

void config_read_section(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target) {
        const ConfigSection *section = key->extra;

        if (!cJSON_IsObject(value))
                config_wrong_type(reader, key, "an object");
        else
                config_read_object(reader, section->keys, section->n_keys, value, target);
}

/* Where an escaped U+0000 stands: cJSON cuts strings there, and would let an argument be another than what the file
 * says. NULL: nowhere. */
static const char *find_nul(const char *text, size_t size) {
        for (const char *p = text; (p = memchr(p, '\\', text + size - p)); p += 2)
                if (text + size - p >= 6 && memcmp(p, "\\u0000", 6) == 0)
                        return p;

        return NULL;
}

cJSON *config_parse(ConfigReader *reader) {
        const char *nul, *end = NULL;
        JsonError error;
        cJSON *tree;

        if (json_scan(reader->text, reader->size, TEXT_DEPTH_MAX, NULL, 0, NULL, &error) < 0) {
                report_at(reader, error.offset, error.reason);
                return NULL;
        }

        nul = find_nul(reader->text, reader->size);
        if (nul) {
                report_at(reader, nul - reader->text, "a string can't hold the character U+0000");
                return NULL;
        }

        tree = cJSON_ParseWithLengthOpts(reader->text, reader->size, &end, /* require_null_terminated= */ false);
        if (!tree && !memmem(reader->text, reader->size, "\\u", 2))
                config_no_memory(reader);
        else if (!tree)
                report_at(reader, end ? end - reader->text : 0, "a string holds half of a surrogate pair");
        else if (!cJSON_IsObject(tree)) {
                config_report(reader, "the file has to hold an object");
                cJSON_Delete(tree);
                return NULL;
        }

        return tree;
}
