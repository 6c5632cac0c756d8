#pragma once

#include <cjson/cJSON.h>

#include "broker/config-file.h"

/* Reading a structure out of a JSON object by a table of its keys. Whatever is wrong becomes a problem with its line
 * and column, and the rest is read all the same, so that one reading tells all mistakes. */

#define CONFIG_PATH_MAX 8

/* While a file is read: where in it the reading stands, by keys */
typedef struct ConfigReader {
        const char *file, *text;
        size_t size;
        const char *path[CONFIG_PATH_MAX];
        unsigned depth;
        ProblemList *problems;
        bool bad;       /* something was reported */
        bool no_memory; /* and this was what: the file may be good */
} ConfigReader;

typedef struct ConfigKey ConfigKey;
struct ConfigKey {
        const char *name;
        /* Stores value at target, or reports. */
        void (*read)(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
        size_t offset;     /* of target in the structure */
        const void *extra; /* what read() wants beside: a table, a function */
        double min, max;
};

typedef struct ConfigSection {
        const ConfigKey *keys;
        size_t n_keys;
} ConfigSection;

/* The text as a tree, once the strict scanner has passed it. NULL: reported. Freed with cJSON_Delete(). */
cJSON *config_parse(ConfigReader *reader);

/* Reads each key of object by its entry. Reports unknown ones and those that stand twice. */
void config_read_object(ConfigReader *reader, const ConfigKey *keys, size_t n_keys, const cJSON *object, void *target);

/* Say into which key the reading goes, so that a report has its place. name has to stay until config_leave(). */
void config_enter(ConfigReader *reader, const char *name);
void config_leave(ConfigReader *reader);

void config_report(ConfigReader *reader, const char *format, ...) _printf_(2, 3);
void config_wrong_type(ConfigReader *reader, const ConfigKey *key, const char *wanted);
void config_no_memory(ConfigReader *reader);

/* Replaces *target by a copy. */
void config_set_string(ConfigReader *reader, char **target, const char *string);

/* Readers for tables. Of a bool; char *; unsigned and uint64_t from min to max; a time in seconds from min to max as
 * uint64_t microseconds; an int by a function (extra) from a word, negative for none; NULL-terminated char ** of an
 * array of strings, and of an object of strings as NAME=value; char * with an object's text; and the keys of a
 * ConfigSection (extra). */
void config_read_bool(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_string(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_unsigned(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_number(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_seconds(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_word(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_strings(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_environment(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_json(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
void config_read_section(ConfigReader *reader, const ConfigKey *key, const cJSON *value, void *target);
