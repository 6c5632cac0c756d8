/* Where arguments come from, and the tools that they are for. */

#include <fcntl.h>

#include "base/text.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define FILE_MAX_BYTES ((size_t)256 << 20)

int status_read_file(const char *name, Buffer *ret) {
        _cleanup_(closep) int opened = -EBADF;
        int fd = STDIN_FILENO;
        const char *shown = streq(name, "-") ? "standard input" : name;

        if (!streq(name, "-")) {
                opened = fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
                if (fd < 0)
                        return fail(STATUS_USAGE, "%s can't be read: %s", name, strerror(errno));
        }

        for (;;) {
                ssize_t n;

                must(buffer_reserve(ret, 65536));
                n = read(fd, ret->data + ret->end, 65536);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return fail(STATUS_USAGE, "%s can't be read: %s", shown, strerror(errno));
                if (n == 0)
                        break;
                ret->end += n;
                if (buffer_size(ret) > FILE_MAX_BYTES)
                        return fail(STATUS_LIMIT, "%s has more than %zu bytes", shown, FILE_MAX_BYTES);
        }

        must(buffer_append(ret, "", 1));
        buffer_truncate(ret, buffer_size(ret) - 1);
        return STATUS_OK;
}

void line_and_column(const char *text, size_t offset, unsigned *ret_line, unsigned *ret_column) {
        *ret_line = *ret_column = 1;
        for (size_t i = 0; i < offset; i++)
                if (text[i] == '\n') {
                        (*ret_line)++;
                        *ret_column = 1;
                } else
                        (*ret_column)++;
}

int status_read_json(const char *what, const char *argument, char **ret) {
        const char *source = argument[0] == '@' ? argument + 1 : streq(argument, "-") ? "-" : NULL;
        Buffer text = {};
        JsonError error;
        int r, status;

        if (source)
                status = status_read_file(source, &text);
        else {
                must(buffer_append(&text, argument, strlen(argument) + 1));
                buffer_truncate(&text, strlen(argument));
                status = STATUS_OK;
        }
        if (status != STATUS_OK) {
                buffer_done(&text);
                return status;
        }

        /* Nothing at all is no arguments. */
        if (source && buffer_size(&text) == strspn(buffer_data(&text), " \t\r\n")) {
                *ret = strdup("");
                buffer_done(&text);
                return STATUS_OK;
        }

        r = json_scan(buffer_data(&text), buffer_size(&text), JSON_DEPTH_MAX, NULL, 0, NULL, &error);
        if (r < 0) {
                unsigned line, column;

                line_and_column(buffer_data(&text), error.offset, &line, &column);
                status = fail(STATUS_USAGE, "%s%s%s: line %u, column %u: %s%s", what, source ? " from " : "",
                              !source              ? ""
                              : streq(source, "-") ? "standard input"
                                                   : source,
                              line, column, error.reason, source ? "" : "; JSON is written {\"key\": \"value\"}");
        } else if (buffer_data(&text)[strspn(buffer_data(&text), " \t\r\n")] != '{')
                status = fail(STATUS_USAGE, "%s: a JSON object is wanted, as in {\"key\": \"value\"}", what);
        else {
                *ret = strndup(buffer_data(&text), buffer_size(&text));
                if (!*ret)
                        out_of_memory();
        }

        buffer_done(&text);
        return status;
}

int status_read_arguments(Cli *cli, const char *server, const char *tool, int argc, char *argv[], char **ret) {
        ToolTable table = {};
        const ToolInfo *info;
        int status;

        if (argc == 0) {
                *ret = strdup("");
                return *ret ? STATUS_OK : STATUS_LIMIT;
        }

        if (argv[0][0] == '{' || argv[0][0] == '@' || streq(argv[0], "-")) {
                if (argc > 1)
                        return fail(STATUS_USAGE, "%s is too much: JSON, - or @FILE holds all arguments", argv[1]);
                return status_read_json("the arguments", argv[0], ret);
        }

        status = status_fetch_tools(cli, server, &table);
        if (status != STATUS_OK)
                return status;
        info = tools_find(&table, tool);
        if (!info)
                status = status_no_tool(&table, server, tool);
        else
                status = status_typed_arguments(tool, schema_open(info->schema), argc, argv, ret);

        tools_done(&table);
        return status;
}

int status_fetch_tools(Cli *cli, const char *server, ToolTable *ret) {
        ToolTable table = {};
        size_t allocated = 0;
        ToolInfo tool;
        int r, status;

        status = status_call(cli, &table.reply, "ListTools", "s", server);
        if (status != STATUS_OK)
                return status;

        r = sd_bus_message_enter_container(table.reply, 'a', "(sss)");
        while (r >= 0 &&
               (r = sd_bus_message_read(table.reply, "(sss)", &tool.name, &tool.description, &tool.schema)) > 0) {
                if (table.n_tools == allocated) {
                        ToolInfo *more;

                        allocated = MAX(allocated * 2, (size_t)32);
                        more = realloc(table.tools, allocated * sizeof(*more));
                        if (!more)
                                out_of_memory();
                        table.tools = more;
                }
                table.tools[table.n_tools++] = tool;
        }
        if (r < 0) {
                tools_done(&table);
                return fail(STATUS_UNREACHABLE, "the service answers ListTools with something else: %s", strerror(-r));
        }

        *ret = table;
        return STATUS_OK;
}

void tools_done(ToolTable *table) {
        free(table->tools);
        sd_bus_message_unref(table->reply);
        *table = (ToolTable){};
}

const ToolInfo *tools_find(const ToolTable *table, const char *name) {
        for (size_t i = 0; i < table->n_tools; i++)
                if (streq(table->tools[i].name, name))
                        return &table->tools[i];

        return NULL;
}

int status_no_tool(const ToolTable *table, const char *server, const char *name) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < table->n_tools; i++)
                text_nearer(name, table->tools[i].name, &best, &nearest);

        if (nearest)
                return fail(STATUS_UNKNOWN, "server %s has no tool %s: did you mean %s?", server, name, nearest);
        return fail(STATUS_UNKNOWN, "server %s has no tool %s; mcp-exec tools %s shows them", server, name, server);
}
