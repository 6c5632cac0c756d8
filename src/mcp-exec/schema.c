/* JSON schemas, as far as the command line needs them: the kinds of values, properties, $ref within the schema. */

#include "mcp-exec/tools.h"
#include <stdio.h>

#define REFERENCES_MAX 16 /* a schema may refer to itself */

static const struct {
        const char *word;
        unsigned type;
} type_words[] = {
        { "string", SCHEMA_STRING },   { "number", SCHEMA_NUMBER }, { "integer", SCHEMA_INTEGER },
        { "boolean", SCHEMA_BOOLEAN }, { "null", SCHEMA_NULL },     { "array", SCHEMA_ARRAY },
        { "object", SCHEMA_OBJECT },
};

JsonSlice json_open(const char *text) {
        JsonSlice value = { text, strlen(text) };

        if (json_scan(text, value.size, JSON_DEPTH_MAX, NULL, 0, NULL, NULL) < 0)
                return (JsonSlice){};

        while (value.size > 0 && strchr(" \t\r\n", value.data[0])) {
                value.data++;
                value.size--;
        }
        while (value.size > 0 && strchr(" \t\r\n", value.data[value.size - 1]))
                value.size--;
        return value;
}

JsonSlice schema_open(const char *text) {
        JsonSlice schema = json_open(text);

        return json_is(schema, '{') ? schema : (JsonSlice){};
}

/* "#/$defs/name" */
static JsonSlice follow(JsonSlice root, const char *pointer) {
        _cleanup_(freep) char *copy = strdup(pointer);
        char *rest = copy, *step;
        JsonSlice at = root;

        if (!copy)
                out_of_memory();
        if (copy[0] != '#')
                return (JsonSlice){};

        (void)strsep(&rest, "/");
        while ((step = strsep(&rest, "/")))
                at = json_get(at, step);
        return at;
}

JsonSlice schema_resolve(JsonSlice root, JsonSlice schema) {
        for (unsigned i = 0; i < REFERENCES_MAX; i++) {
                _cleanup_(freep) char *pointer = json_decode(json_get(schema, "$ref"));

                if (!pointer)
                        return schema;
                schema = follow(root, pointer);
        }

        return (JsonSlice){};
}

static unsigned type_of_word(JsonSlice word) {
        for (size_t i = 0; i < ELEMENTSOF(type_words); i++)
                if (json_equal(word, type_words[i].word))
                        return type_words[i].type;

        return 0;
}

static unsigned type_of_value(JsonSlice value) {
        static const struct {
                char first;
                unsigned type;
        } table[] = {
                { '"', SCHEMA_STRING }, { 't', SCHEMA_BOOLEAN }, { 'f', SCHEMA_BOOLEAN },
                { 'n', SCHEMA_NULL },   { '[', SCHEMA_ARRAY },   { '{', SCHEMA_OBJECT },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (json_is(value, table[i].first))
                        return table[i].type;

        return value.size > 0 ? SCHEMA_NUMBER : 0;
}

static unsigned types_within(JsonSlice root, JsonSlice schema, unsigned depth) {
        static const char *const alternatives[] = { "anyOf", "oneOf", "allOf" };
        JsonSlice type, element;
        const char *position = NULL;
        unsigned types = 0;

        schema = schema_resolve(root, schema);
        type = json_get(schema, "type");
        if (json_is(type, '['))
                while (json_next_element(type, &position, &element))
                        types |= type_of_word(element);
        else
                types = type_of_word(type);

        for (size_t i = 0; i < ELEMENTSOF(alternatives) && types == 0 && depth < REFERENCES_MAX; i++) {
                JsonSlice list = json_get(schema, alternatives[i]);

                for (position = NULL; json_next_element(list, &position, &element);)
                        types |= types_within(root, element, depth + 1);
        }

        if (types == 0)
                types = type_of_value(json_get(schema, "const"));
        if (types == 0)
                for (position = NULL; json_next_element(json_get(schema, "enum"), &position, &element);)
                        types |= type_of_value(element);
        return types;
}

unsigned schema_types(JsonSlice root, JsonSlice schema) {
        return types_within(root, schema, 0);
}

JsonSlice schema_property(JsonSlice root, JsonSlice schema, const char *name) {
        return json_get(json_get(schema_resolve(root, schema), "properties"), name);
}

bool schema_has_properties(JsonSlice root, JsonSlice schema) {
        JsonSlice properties = json_get(schema_resolve(root, schema), "properties"), key, value;
        const char *position = NULL;

        return json_next_member(properties, &position, &key, &value);
}

/* A schema that names properties and is silent about others allows them; whoever types one has mistyped. */
bool schema_allows_more(JsonSlice root, JsonSlice schema) {
        JsonSlice more;

        schema = schema_resolve(root, schema);
        more = json_get(schema, "additionalProperties");
        return json_is(more, 't') || json_is(more, '{') || json_get(schema, "patternProperties").data ||
               !json_get(schema, "properties").data;
}

bool schema_requires(JsonSlice schema, const char *name) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(json_get(schema, "required"), &position, &element))
                if (json_equal(element, name))
                        return true;

        return false;
}

const char *schema_type_words(unsigned types) {
        static char text[128];
        size_t used = 0;

        /* A number may be an integer anyway. */
        if (types & SCHEMA_NUMBER)
                types &= ~(unsigned)SCHEMA_INTEGER;

        text[0] = 0;
        for (size_t i = 0; i < ELEMENTSOF(type_words); i++)
                if (types & type_words[i].type)
                        used += snprintf(text + used, sizeof(text) - used, "%s%s", used > 0 ? " or " : "",
                                         type_words[i].word);
        return used > 0 ? text : "any";
}
