/* call, request, run: one request, one answer. */

#include <stdio.h>

#include "base/text.h"
#include "bus/errors.h"
#include "mcp-exec/job.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

/* After a failure: whether it is because there is no such tool. Servers say that in words of their own. */
static int status_check_tool(Cli *cli, const char *server, const char *tool, bool *ret_missing) {
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, "ListTools"), *reply = NULL;
        const char *name;
        ToolTable table = {};
        bool found = false;
        int r, status = STATUS_OK;

        r = sd_bus_message_append(message, "s", server);
        if (r >= 0)
                r = sd_bus_call(cli->bus, message, 10 * USEC_PER_SEC, NULL, &reply);
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(sss)");
        while (r >= 0 && !found && (r = sd_bus_message_read(reply, "(sss)", &name, NULL, NULL)) > 0)
                found = streq(name, tool);
        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        *ret_missing = r >= 0 && !found;
        if (!*ret_missing)
                return STATUS_OK;

        status = status_fetch_tools(cli, server, &table);
        if (status == STATUS_OK)
                status = status_no_tool(&table, server, tool);
        tools_done(&table);
        return status;
}

/* *ret: the result's text, owned by the caller */
static int status_call_tool(Cli *cli, const char *server, const char *tool, const char *arguments, char **ret) {
        _cleanup_(freep) char *result = NULL;
        sd_bus_error error = SD_BUS_ERROR_NULL;
        bool missing = false;
        int r, status;

        status = status_connect(cli);
        if (status != STATUS_OK)
                return status;

        r = job_call_tool(cli, server, tool, arguments, &error, &result);
        if (r == -EINVAL && !error.name)
                return fail(STATUS_USAGE, "the server's name, the tool's or the arguments are no UTF-8 text");

        if ((r < 0 && error.name && streq(error.name, BUS_ERROR("Remote"))) ||
            (r >= 0 && json_is(json_get(json_open(result), "isError"), 't')))
                status = status_check_tool(cli, server, tool, &missing);
        if (!missing && r < 0)
                status = status_bus_error(cli, &error, r);
        else if (!missing)
                *ret = TAKE_PTR(result);

        sd_bus_error_free(&error);
        return status;
}

/* A tool that was called without arguments, and failed: what it wants. */
static void tell_required(Cli *cli, const char *server, const char *tool) {
        _cleanup_(freep) char *arguments = NULL;
        ToolTable table = {};
        const ToolInfo *info;

        output_silence(true);
        (void)status_fetch_tools(cli, server, &table);
        output_silence(false);
        info = tools_find(&table, tool);
        if (info)
                (void)status_typed_arguments(tool, schema_open(info->schema), 0, NULL, &arguments);
        tools_done(&table);
}

int verb_call(Cli *cli, int argc, char *argv[]) {
        _cleanup_(freep) char *arguments = NULL, *result = NULL;
        int status;

        status = status_read_arguments(cli, argv[1], argv[2], argc - 3, argv + 3, &arguments);
        if (status == STATUS_OK)
                status = status_call_tool(cli, argv[1], argv[2], arguments, &result);
        if (status == STATUS_OK)
                status = status_show_result(cli, result);
        if ((status == STATUS_TOOL || status == STATUS_REMOTE) && argc == 3 && !cli->json && !cli->quiet)
                tell_required(cli, argv[1], argv[2]);

        return status;
}

int verb_request(Cli *cli, int argc, char *argv[]) {
        _cleanup_(freep) char *params = NULL;
        sd_bus_message *reply = NULL;
        const char *result;
        JsonSlice value;
        int status = STATUS_OK;

        if (argc > 3)
                status = status_read_json("the params", argv[3], &params);
        if (status == STATUS_OK)
                status = status_call(cli, &reply, "Call", "sss", argv[1], argv[2], params ?: "");
        if (status == STATUS_REMOTE && !cli->json && nearest_method(argv[2]))
                note("Did you mean %s?", nearest_method(argv[2]));
        if (status != STATUS_OK)
                return status;

        if (sd_bus_message_read(reply, "s", &result) < 0 || !(value = json_open(result)).data)
                status = fail(STATUS_UNREACHABLE, "the service's answer can't be read");
        else
                put_json(stdout, value);

        sd_bus_message_unref(reply);
        return status;
}

static bool is_text(const Buffer *buffer) {
        const char *data = buffer_data(buffer);

        for (size_t i = 0, length; i < buffer_size(buffer); i += length)
                if ((length = utf8_sequence(data + i, buffer_size(buffer) - i, NULL)) == 0)
                        return false;

        return true;
}

static int status_read_code(Cli *cli, const char *server, const char *file, Buffer *code) {
        int status;

        if (cli->code && file)
                return fail(STATUS_USAGE, "either -c CODE or %s", file);
        if (!cli->code && !file)
                return status_no_code(server);
        if (file && streq(file, "-") && cli->pass_stdin)
                return fail(STATUS_USAGE, "--stdin: standard input is the code already");

        if (cli->code)
                must(buffer_append_string(code, cli->code));
        else {
                status = status_read_file(file, code);
                if (status != STATUS_OK)
                        return status;
        }

        return is_text(code) ? STATUS_OK : fail(STATUS_USAGE, "%s is no UTF-8 text", cli->code ? "the code" : file);
}

/* Executors of programming languages take "code", a shell takes a "script". */
static int status_code_argument(Cli *cli, const char *server, const char **ret) {
        ToolTable table = {};
        const ToolInfo *tool;
        JsonSlice schema;
        int status;

        status = status_fetch_tools(cli, server, &table);
        if (status != STATUS_OK)
                return status;

        tool = tools_find(&table, "run");
        if (!tool)
                status = fail(STATUS_UNKNOWN,
                              "server %s has no tool run, so it is no executor; mcp-exec tools %s shows what it has",
                              server, server);
        else {
                schema = schema_open(tool->schema);
                *ret = !schema_property(schema, schema, "code").data && schema_property(schema, schema, "script").data
                               ? "{\"script\":"
                               : "{\"code\":";
        }

        tools_done(&table);
        return status;
}

int verb_run(Cli *cli, int argc, char *argv[]) {
        _cleanup_(freep) char *result = NULL;
        Buffer code = {}, input = {}, arguments = {};
        const char *argument = NULL;
        int status;

        status = status_read_code(cli, argv[1], argc > 2 ? argv[2] : NULL, &code);
        if (status == STATUS_OK && cli->pass_stdin)
                status = status_read_file("-", &input);
        if (status == STATUS_OK)
                status = status_code_argument(cli, argv[1], &argument);
        if (status == STATUS_OK) {
                must(buffer_append_string(&arguments, argument));
                must(json_append_quoted(&arguments, buffer_data(&code), buffer_size(&code)));
                if (cli->pass_stdin) {
                        must(buffer_append_string(&arguments, ",\"stdin\":"));
                        must(json_append_quoted(&arguments, buffer_data(&input), buffer_size(&input)));
                }
                must(buffer_append(&arguments, "}", 2));
                status = status_call_tool(cli, argv[1], "run", buffer_data(&arguments), &result);
        }
        if (status == STATUS_OK)
                status = status_show_run(cli, result);

        buffer_done(&code);
        buffer_done(&input);
        buffer_done(&arguments);
        return status;
}
