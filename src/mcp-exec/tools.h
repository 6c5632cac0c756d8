#pragma once

#include "mcp-exec/cli.h"

/* A server's tools, as ListTools tells them. The texts are the reply's. */
typedef struct ToolInfo {
        const char *name, *description, *schema;
} ToolInfo;

typedef struct ToolTable {
        sd_bus_message *reply;
        ToolInfo *tools;
        size_t n_tools;
} ToolTable;

int status_fetch_tools(Cli *cli, const char *server, ToolTable *ret);
void tools_done(ToolTable *table);

/* NULL: none of that name */
const ToolInfo *tools_find(const ToolTable *table, const char *name);
int status_no_tool(const ToolTable *table, const char *server, const char *name);

/* Schemas (schema.c): of a tool's arguments, as far as a command line needs them. Slices are of a text that json_scan()
 * has passed, or empty, and then everything is allowed. root: where $ref starts from. */
enum {
        SCHEMA_STRING = 1 << 0,
        SCHEMA_NUMBER = 1 << 1,
        SCHEMA_INTEGER = 1 << 2,
        SCHEMA_BOOLEAN = 1 << 3,
        SCHEMA_NULL = 1 << 4,
        SCHEMA_ARRAY = 1 << 5,
        SCHEMA_OBJECT = 1 << 6,
};

JsonSlice json_open(const char *text);   /* the text's value; an empty slice where it is no JSON */
JsonSlice schema_open(const char *text); /* likewise where it is no object */
JsonSlice schema_resolve(JsonSlice root, JsonSlice schema);
unsigned schema_types(JsonSlice root, JsonSlice schema); /* 0: not said */
JsonSlice schema_property(JsonSlice root, JsonSlice schema, const char *name);
bool schema_has_properties(JsonSlice root, JsonSlice schema);
bool schema_allows_more(JsonSlice root, JsonSlice schema);
bool schema_requires(JsonSlice schema, const char *name);

/* "string", "number or null", ... valid until the next call */
const char *schema_type_words(unsigned types);

/* The arguments of a call (arguments.c) as JSON text, from what stands behind the tool's name: nothing, JSON, KEY=VALUE
 * words, "-" or @FILE. "" for nothing. Freed by the caller. */
int status_read_arguments(Cli *cli, const char *server, const char *tool, int argc, char *argv[], char **ret);
/* The same for JSON alone */
int status_read_json(const char *what, const char *argument, char **ret);

/* Where in a text that is, for people: both count from 1. */
void line_and_column(const char *text, size_t offset, unsigned *ret_line, unsigned *ret_column);

/* The whole of a file, or of standard input for "-", with a NUL behind it. */
int status_read_file(const char *name, Buffer *ret);

/* KEY=VALUE words as an object, typed by the schema (typed.c). */
int status_typed_arguments(const char *tool, JsonSlice schema, int argc, char *argv[], char **ret);

/* Shows a result (result.c). */
int status_show_result(Cli *cli, const char *result);
int status_show_run(Cli *cli, const char *result);
