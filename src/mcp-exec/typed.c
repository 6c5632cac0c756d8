/* KEY=VALUE words become an object of arguments: values are typed by the tool's schema, a key with dots reaches into
 * objects, a key that stands several times fills an array, and KEY:=JSON says the value's JSON itself. */

#include <cjson/cJSON.h>
#include <stdio.h>

#include "base/text.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

typedef struct Typing {
        const char *tool;
        JsonSlice root; /* the schema of all arguments */
        cJSON *tree;
} Typing;

static cJSON *checked(cJSON *item) {
        if (!item)
                out_of_memory();
        return item;
}

static bool is_json(const char *text) {
        return json_scan(text, strlen(text), JSON_DEPTH_MAX, NULL, 0, NULL, NULL) >= 0;
}

static cJSON *string_item(const char *text) {
        Buffer quoted = {};
        cJSON *item;

        must(json_append_quoted(&quoted, text, strlen(text)));
        must(buffer_append(&quoted, "", 1));
        item = checked(cJSON_CreateRaw(buffer_data(&quoted)));
        buffer_done(&quoted);
        return item;
}

static int status_not_among(const char *key, JsonSlice list, const char *value) {
        _cleanup_(freep) char *near = NULL;
        unsigned best = TEXT_NEAR;
        const char *position = NULL;
        Buffer all = {};
        JsonSlice element;

        while (json_next_element(list, &position, &element)) {
                _cleanup_(freep) char *word = json_decode(element);
                const char *nearest = NULL;

                if (!word)
                        continue;
                text_nearer(value, word, &best, &nearest);
                if (nearest) {
                        free(near);
                        near = strdup(nearest);
                }
                must(buffer_append_string(&all, buffer_size(&all) > 0 ? ", " : ""));
                must(buffer_append_string(&all, word));
        }
        must(buffer_append(&all, "", 1));

        if (near)
                (void)fail(STATUS_USAGE, "%s=%s: did you mean %s=%s? It can be: %s", key, value, key, near,
                           buffer_data(&all));
        else
                (void)fail(STATUS_USAGE, "%s=%s: it can only be: %s", key, value, buffer_data(&all));
        buffer_done(&all);
        return STATUS_USAGE;
}

static bool is_among(JsonSlice list, const char *value) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(list, &position, &element))
                if (json_equal(element, value) || (!json_is(element, '"') && strlen(value) == element.size &&
                                                   memcmp(value, element.data, element.size) == 0))
                        return true;

        return false;
}

static bool fits(unsigned types, const char *value) {
        switch (value[strspn(value, " \t\r\n")]) {
        case '{':
                return types & SCHEMA_OBJECT;
        case '[':
                return types & SCHEMA_ARRAY;
        case 't':
        case 'f':
                return types & SCHEMA_BOOLEAN;
        case 'n':
                return types & SCHEMA_NULL;
        case '"':
                return false; /* a string stands for itself, without quotes */
        default:
                return types & SCHEMA_NUMBER || (types & SCHEMA_INTEGER && !strpbrk(value, ".eE"));
        }
}

/* The value of one word */
static int status_value(const Typing *typing, JsonSlice schema, const char *key, const char *value, cJSON **ret) {
        unsigned types = schema_types(typing->root, schema);
        JsonSlice list = json_get(schema_resolve(typing->root, schema), "enum");

        if (list.data && !is_among(list, value))
                return status_not_among(key, list, value);

        if (types != 0 && is_json(value) && fits(types, value))
                *ret = checked(cJSON_CreateRaw(value));
        else if (types == 0 || types & SCHEMA_STRING)
                *ret = string_item(value);
        else
                return fail(STATUS_USAGE, "%s=%s: %s wants %s%s", key, value, key, schema_type_words(types),
                            types & SCHEMA_BOOLEAN  ? ": true or false"
                            : types & SCHEMA_OBJECT ? ", as in {\"key\": \"value\"} or KEY.SUB=VALUE"
                            : types & SCHEMA_ARRAY  ? ", as in [\"a\", \"b\"] or KEY=A KEY=B"
                                                    : "");
        return STATUS_OK;
}

static int status_unknown_key(const Typing *typing, JsonSlice schema, const char *whole, const char *key) {
        JsonSlice properties = json_get(schema_resolve(typing->root, schema), "properties"), name, value;
        _cleanup_(freep) char *near = NULL;
        unsigned best = TEXT_NEAR;
        const char *position = NULL;
        Buffer all = {};

        while (json_next_member(properties, &position, &name, &value)) {
                _cleanup_(freep) char *word = json_decode(name);
                const char *nearest = NULL;

                if (!word)
                        out_of_memory();
                text_nearer(key, word, &best, &nearest);
                if (nearest) {
                        free(near);
                        near = strdup(nearest);
                }
                must(buffer_append_string(&all, buffer_size(&all) > 0 ? ", " : ""));
                must(buffer_append_string(&all, word));
        }
        must(buffer_append(&all, "", 1));

        if (near)
                (void)fail(STATUS_USAGE, "%s has no argument %s: did you mean %s?", typing->tool, whole, near);
        else
                (void)fail(STATUS_USAGE, "%s has no argument %s, only: %s", typing->tool, whole,
                           buffer_size(&all) > 1 ? buffer_data(&all) : "none");
        buffer_done(&all);
        return STATUS_USAGE;
}

/* Puts item at key. One that is there already makes an array of both where the schema wants one. */
static int status_put(cJSON *object, const char *key, bool array, cJSON *item) {
        cJSON *old = cJSON_GetObjectItemCaseSensitive(object, key);

        if (old && cJSON_IsArray(old) && array) {
                (void)cJSON_AddItemToArray(old, item);
                return STATUS_OK;
        }
        if (old) {
                cJSON_Delete(item);
                return fail(STATUS_USAGE, "%s stands twice", key);
        }

        if (array) {
                cJSON *list = checked(cJSON_CreateArray());

                (void)cJSON_AddItemToArray(list, item);
                item = list;
        }
        if (!cJSON_AddItemToObject(object, key, item))
                out_of_memory();
        return STATUS_OK;
}

/* KEY.SUB goes into the object KEY, where no argument is named KEY.SUB as a whole. */
static int status_find_place(Typing *typing, const char *whole, cJSON **ret_object, JsonSlice *ret_schema,
                             const char **ret_key) {
        const char *key = whole, *dot;
        JsonSlice schema = typing->root;
        cJSON *object = typing->tree;

        for (;;) {
                _cleanup_(freep) char *first = NULL;
                unsigned types;
                JsonSlice property = schema_property(typing->root, schema, key);
                cJSON *inner;

                dot = strchr(key, '.');
                if (property.data || !dot) {
                        if (!property.data && !schema_allows_more(typing->root, schema))
                                return status_unknown_key(typing, schema, whole, key);
                        *ret_object = object;
                        *ret_schema = property;
                        *ret_key = key;
                        return STATUS_OK;
                }

                first = strndup(key, dot - key);
                if (!first)
                        out_of_memory();
                property = schema_property(typing->root, schema, first);
                types = schema_types(typing->root, property);
                if (!property.data && !schema_allows_more(typing->root, schema))
                        return status_unknown_key(typing, schema, whole, first);
                if (types != 0 && !(types & SCHEMA_OBJECT))
                        return fail(STATUS_USAGE, "%s: %s is no object, it wants %s", whole, first,
                                    schema_type_words(types));

                inner = cJSON_GetObjectItemCaseSensitive(object, first);
                if (inner && !cJSON_IsObject(inner))
                        return fail(STATUS_USAGE, "%s: %s has a value already", whole, first);
                if (!inner) {
                        inner = checked(cJSON_CreateObject());
                        if (!cJSON_AddItemToObject(object, first, inner))
                                out_of_memory();
                }
                object = inner;
                schema = schema_resolve(typing->root, property);
                key = dot + 1;
        }
}

/* A word without =: the key whose value follows, or the value of the key that has to be there. */
static int status_no_equals(const Typing *typing, const char *word, const char *next) {
        JsonSlice properties = json_get(typing->root, "properties"), name, value;
        const char *position = NULL;

        while (json_next_member(properties, &position, &name, &value)) {
                _cleanup_(freep) char *key = json_decode(name);

                if (!key)
                        out_of_memory();
                if (streq(key, word))
                        return fail(STATUS_USAGE, "%s needs a value: did you mean %s=%s?", word, word, next ?: "VALUE");
        }
        position = NULL;
        while (*word && word[0] != '"' && word[0] != '[' && json_next_member(properties, &position, &name, &value)) {
                _cleanup_(freep) char *key = json_decode(name);

                if (key && schema_requires(typing->root, key) && !cJSON_HasObjectItem(typing->tree, key))
                        return fail(STATUS_USAGE, "%s is no argument: did you mean %s=%s?", word, key, word);
        }

        return fail(STATUS_USAGE, "%s is no argument: KEY=VALUE is wanted, JSON like {\"key\": \"value\"}, - or @FILE",
                    word);
}

static int status_word(Typing *typing, const char *word, const char *next) {
        _cleanup_(freep) char *whole = NULL;
        const char *equals = strchr(word, '='), *value, *key = NULL;
        cJSON *object = NULL, *item = NULL;
        JsonSlice schema;
        unsigned types;
        bool raw, array;
        int status;

        if (!equals || equals == word)
                return status_no_equals(typing, word, next);
        raw = equals > word && equals[-1] == ':';
        value = equals + 1;
        whole = strndup(word, equals - word - raw);
        if (!whole)
                out_of_memory();
        if (!*whole)
                return fail(STATUS_USAGE, "%s: a key is missing before :=", word);

        status = status_find_place(typing, whole, &object, &schema, &key);
        if (status != STATUS_OK)
                return status;

        if (raw) {
                if (!is_json(value))
                        return fail(STATUS_USAGE, "%s: what stands behind := is no JSON; %s=%s takes it as text", word,
                                    whole, value);
                return status_put(object, key, false, checked(cJSON_CreateRaw(value)));
        }

        types = schema_types(typing->root, schema);
        array = types & SCHEMA_ARRAY && !(types & SCHEMA_STRING) && value[0] != '[' &&
                !(is_json(value) && fits(types, value));
        if (array)
                schema = json_get(schema_resolve(typing->root, schema), "items");
        status = status_value(typing, schema, whole, value, &item);
        return status == STATUS_OK ? status_put(object, key, array, item) : status;
}

static int status_check_required(const Typing *typing) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(json_get(typing->root, "required"), &position, &element)) {
                _cleanup_(freep) char *key = json_decode(element), *description = NULL;
                JsonSlice property;

                if (!key || cJSON_GetObjectItemCaseSensitive(typing->tree, key))
                        continue;
                property = schema_property(typing->root, typing->root, key);
                description = json_decode(json_get(property, "description"));
                return fail(STATUS_USAGE, "%s wants %s=%s%s%s%s", typing->tool, key,
                            schema_type_words(schema_types(typing->root, property)), description ? " (" : "",
                            description ?: "", description ? ")" : "");
        }

        return STATUS_OK;
}

int status_typed_arguments(const char *tool, JsonSlice schema, int argc, char *argv[], char **ret) {
        Typing typing = { tool, schema, checked(cJSON_CreateObject()) };
        int status = STATUS_OK;

        for (int i = 0; i < argc && status == STATUS_OK; i++)
                status = status_word(&typing, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
        if (status == STATUS_OK)
                status = status_check_required(&typing);
        if (status == STATUS_OK) {
                *ret = cJSON_PrintUnformatted(typing.tree);
                if (!*ret)
                        out_of_memory();
        }

        cJSON_Delete(typing.tree);
        return status;
}
