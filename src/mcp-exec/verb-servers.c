/* list, tools, describe, start, stop, restart, reload: what there is, and changing it. */

#include "base/text.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define VALUE_INDENT 8 /* of describe's further lines */

static void print_json_buffer(Buffer *buffer) {
        put_json(stdout, (JsonSlice){ buffer_data(buffer), buffer_size(buffer) });
        buffer_done(buffer);
}

int verb_list(Cli *cli, int argc _unused_, char *argv[] _unused_) {
        static const char *const titles[] = { "SERVER", "STATE", "DESCRIPTION" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles) };
        const char *name, *description, *state;
        sd_bus_message *reply = NULL;
        Buffer json = {};
        int r, status;

        status = status_call(cli, &reply, "ListServers", "");
        if (status != STATUS_OK)
                return status;

        must(buffer_append_string(&json, "["));
        r = sd_bus_message_enter_container(reply, 'a', "(sss)");
        while (r >= 0 && (r = sd_bus_message_read(reply, "(sss)", &name, &description, &state)) > 0) {
                add_json_string(&json, buffer_size(&json) > 1 ? ",{\"name\":" : "{\"name\":", name);
                add_json_string(&json, ",\"description\":", description);
                add_json_string(&json, ",\"state\":", state);
                must(buffer_append_string(&json, "}"));
                table_add(&table, COLOR_BOLD, name);
                table_add(&table, state_color(state), state);
                table_add(&table, COLOR_NONE, description);
        }
        must(buffer_append_string(&json, "]"));

        if (cli->json)
                print_json_buffer(&json);
        else if (table.n_cells > 0)
                table_print(&table, "");
        else if (!cli->quiet)
                note("mcp-exec: no server is configured; mcp-exec.json(5) says how, and mcp-exec import FILE takes "
                     "those of an MCP client");

        buffer_done(&json);
        table_done(&table);
        sd_bus_message_unref(reply);
        return STATUS_OK;
}

static void add_tool_json(Buffer *json, const ToolInfo *tool) {
        JsonSlice schema = schema_open(tool->schema);

        add_json_string(json, "{\"name\":", tool->name);
        add_json_string(json, ",\"description\":", tool->description);
        must(buffer_append_string(json, ",\"inputSchema\":"));
        if (schema.data)
                must(buffer_append(json, schema.data, schema.size));
        else
                must(buffer_append_string(json, "null"));
        must(buffer_append_string(json, "}"));
}

/* The description of an argument, and what it can be where that is said */
static char *argument_help(JsonSlice root, JsonSlice property) {
        JsonSlice schema = schema_resolve(root, property), element;
        _cleanup_(freep) char *description = json_decode(json_get(property, "description"));
        const char *position = NULL, *separator = "one of ";
        Buffer text = {};

        if (!description)
                description = json_decode(json_get(schema, "description"));
        if (description && *description) {
                must(buffer_append_string(&text, description));
                separator = strchr(".!?", description[strlen(description) - 1]) ? " One of " : "; one of ";
        }
        for (; json_next_element(json_get(schema, "enum"), &position, &element); separator = ", ") {
                _cleanup_(freep) char *word = json_decode(element);

                must(buffer_append_string(&text, separator));
                must(word ? buffer_append_string(&text, word) : buffer_append(&text, element.data, element.size));
        }
        must(buffer_append(&text, "", 1));
        return text.data;
}

static void show_tool(const ToolInfo *tool, const char *server) {
        static const char *const titles[] = { "ARGUMENT", "TYPE", "", "DESCRIPTION" };
        Table table = { .titles = titles, .n_columns = ELEMENTSOF(titles), .wrap = true };
        JsonSlice root = schema_open(tool->schema), key, value;
        const char *position = NULL;

        printf("%s%s%s on %s\n", color_on(COLOR_BOLD), tool->name, color_off(COLOR_BOLD), server);
        if (*tool->description)
                put_wrapped(tool->description, strlen(tool->description), 0, 0);

        while (json_next_member(json_get(root, "properties"), &position, &key, &value)) {
                _cleanup_(freep) char *name = json_decode(key), *text = NULL;

                if (!name)
                        out_of_memory();
                text = argument_help(root, value);
                table_add(&table, COLOR_BOLD, name);
                table_add(&table, COLOR_NONE, schema_type_words(schema_types(root, value)));
                table_add(&table, COLOR_NONE, schema_requires(root, name) ? "required" : "");
                table_add(&table, COLOR_NONE, text);
        }

        (void)fputc('\n', stdout);
        if (table.n_cells > 0)
                table_print(&table, "");
        else
                puts("No arguments");
        table_done(&table);
}

int verb_tools(Cli *cli, int argc, char *argv[]) {
        static const char *const titles[] = { "TOOL", "DESCRIPTION" };
        Table rows = { .titles = titles, .n_columns = ELEMENTSOF(titles) };
        ToolTable table;
        Buffer json = {};
        int status;

        status = status_fetch_tools(cli, argv[1], &table);
        if (status != STATUS_OK)
                return status;

        if (argc > 2) {
                const ToolInfo *tool = tools_find(&table, argv[2]);

                if (!tool)
                        status = status_no_tool(&table, argv[1], argv[2]);
                else if (cli->json) {
                        add_tool_json(&json, tool);
                        print_json_buffer(&json);
                } else
                        show_tool(tool, argv[1]);
        } else if (cli->json) {
                must(buffer_append_string(&json, "["));
                for (size_t i = 0; i < table.n_tools; i++) {
                        must(buffer_append_string(&json, i > 0 ? "," : ""));
                        add_tool_json(&json, &table.tools[i]);
                }
                must(buffer_append_string(&json, "]"));
                print_json_buffer(&json);
        } else if (table.n_tools > 0) {
                for (size_t i = 0; i < table.n_tools; i++) {
                        table_add(&rows, COLOR_BOLD, table.tools[i].name);
                        table_add(&rows, COLOR_NONE, table.tools[i].description);
                }
                table_print(&rows, "");
        } else if (!cli->quiet)
                note("mcp-exec: server %s has no tools", argv[1]);

        table_done(&rows);
        tools_done(&table);
        return status;
}

/* The value of a line: an array's elements have blanks between them, where the line can be wrapped. */
static void show_value(JsonSlice value, size_t used) {
        _cleanup_(freep) char *text = json_decode(value);
        const char *position = NULL, *separator = "";
        JsonSlice element;
        Buffer list = {};

        if (text)
                must(buffer_append_string(&list, text));
        else if (json_is(value, '[')) {
                must(buffer_append_string(&list, "["));
                for (; json_next_element(value, &position, &element); separator = ", ") {
                        must(buffer_append_string(&list, separator));
                        must(buffer_append(&list, element.data, element.size));
                }
                must(buffer_append_string(&list, "]"));
        } else
                must(buffer_append(&list, value.data, value.size));

        put_wrapped(buffer_data(&list), buffer_size(&list), used, VALUE_INDENT);
        buffer_done(&list);
}

/* KEY.SUB: value, a line each; nothing is deeper than a line can show. */
static void show_members(JsonSlice object, const char *prefix) {
        const char *position = NULL;
        JsonSlice key, value;

        while (json_next_member(object, &position, &key, &value)) {
                _cleanup_(freep) char *name = json_decode(key), *path = NULL;

                if (!name || asprintf(&path, "%s%s%s", prefix, *prefix ? "." : "", name) < 0)
                        out_of_memory();

                if (json_is(value, '{') && value.size > 2)
                        show_members(value, path);
                else {
                        printf("%s%s%s: ", color_on(COLOR_BOLD), path, color_off(COLOR_BOLD));
                        show_value(value, text_width(path) + 2);
                }
        }
}

int verb_describe(Cli *cli, int argc _unused_, char *argv[]) {
        sd_bus_message *reply = NULL;
        JsonSlice configuration;
        const char *text;
        int status;

        status = status_call(cli, &reply, "Describe", "s", argv[1]);
        if (status != STATUS_OK)
                return status;

        if (sd_bus_message_read(reply, "s", &text) < 0 || !(configuration = schema_open(text)).data)
                status = fail(STATUS_UNREACHABLE, "the service's answer can't be read");
        else if (cli->json)
                put_json(stdout, configuration);
        else
                show_members(configuration, "");

        sd_bus_message_unref(reply);
        return status;
}

/* start, stop and restart: all that are named, also where one fails */
int verb_manage(Cli *cli, int argc, char *argv[]) {
        const char *member = streq(argv[0], "start")  ? "StartServer"
                             : streq(argv[0], "stop") ? "StopServer"
                                                      : "RestartServer";
        int status = STATUS_OK;

        for (int i = 1; i < argc; i++) {
                int r = status_call(cli, NULL, member, "s", argv[i]);

                status = status == STATUS_OK ? r : status;
                if (r == STATUS_UNREACHABLE)
                        break;
        }

        return status;
}

int verb_reload(Cli *cli, int argc _unused_, char *argv[] _unused_) {
        const char *file, *text;
        sd_bus_message *reply = NULL;
        Buffer json = {};
        int r, status;

        status = status_call(cli, &reply, "Reload", "");
        if (status != STATUS_OK)
                return status;

        must(buffer_append_string(&json, "["));
        r = sd_bus_message_enter_container(reply, 'a', "(ss)");
        while (r >= 0 && (r = sd_bus_message_read(reply, "(ss)", &file, &text)) > 0) {
                status = STATUS_TOOL;
                if (!cli->json)
                        note("%s:%s%s", file, *text >= '0' && *text <= '9' ? "" : " ", text);
                add_json_string(&json, buffer_size(&json) > 1 ? ",{\"file\":" : "{\"file\":", file);
                add_json_string(&json, ",\"problem\":", text);
                must(buffer_append_string(&json, "}"));
        }
        must(buffer_append_string(&json, "]"));
        if (cli->json)
                print_json_buffer(&json);

        buffer_done(&json);
        sd_bus_message_unref(reply);
        return status;
}
