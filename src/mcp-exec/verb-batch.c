/* batch: requests from a file of JSON lines, several at a time, results in the file's order. */

#include <stdio.h>

#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define AHEAD 256          /* results that may wait for an earlier one */
#define PROGRESS_WIDTH 30U /* characters */

typedef struct Batch Batch;

typedef struct Item {
        Batch *batch;
        char *server, *method, *params;
        bool is_tool;  /* method is a tool's name, params are its arguments */
        JsonSlice id;  /* of the file's text */
        char *outcome; /* a JSON line without its end */
        bool done;
} Item;

struct Batch {
        Cli *cli;
        const char *file, *server;
        Buffer text;
        Item *items;
        size_t n_items, n_sent, n_done, n_printed;
        unsigned n_failed;
        bool progress;
};

static int status_line(Batch *batch, char *line, size_t number) {
        static const char *const known[] = { "server", "method", "params", "tool", "arguments", "id" };
        JsonMember members[ELEMENTSOF(known)] = {};
        enum { SERVER, METHOD, PARAMS, TOOL, ARGUMENTS, ID };
        size_t size = strlen(line);
        const char *position = NULL;
        JsonSlice whole, key, value;
        JsonError error;
        Item *item = &batch->items[batch->n_items];

        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                members[i].name = known[i];
        if (json_scan(line, size, JSON_DEPTH_MAX, members, ELEMENTSOF(members), NULL, &error) < 0)
                return fail(STATUS_USAGE, "%s:%zu:%zu: %s", batch->file, number, error.offset + 1, error.reason);

        whole = schema_open(line);
        while (json_next_member(whole, &position, &key, &value)) {
                bool found = false;

                for (size_t i = 0; i < ELEMENTSOF(known) && !found; i++)
                        found = json_equal(key, known[i]);
                if (!found)
                        return fail(
                                STATUS_USAGE,
                                "%s:%zu:%zu: %.*s is no key of a request: server, tool, arguments, method, params, id",
                                batch->file, number, (size_t)(key.data - line) + 1, (int)key.size, key.data);
        }

        if (!whole.data || !members[TOOL].value.data == !members[METHOD].value.data)
                return fail(STATUS_USAGE,
                            "%s:%zu: a line is an object with tool or method, as in "
                            "{\"server\": \"python\", \"tool\": \"run\", \"arguments\": {\"code\": \"1\"}}",
                            batch->file, number);

        item->is_tool = members[TOOL].value.data;
        item->method = json_decode(members[item->is_tool ? TOOL : METHOD].value);
        item->server = members[SERVER].value.data ? json_decode(members[SERVER].value)
                       : batch->server            ? strdup(batch->server)
                                                  : NULL;
        item->id = members[ID].value;
        value = members[item->is_tool ? ARGUMENTS : PARAMS].value;
        item->params = value.data ? strndup(value.data, value.size) : strdup("");
        batch->n_items++;

        if (members[item->is_tool ? PARAMS : ARGUMENTS].value.data)
                return fail(STATUS_USAGE, "%s:%zu: %s", batch->file, number,
                            item->is_tool ? "a tool has arguments, not params" : "a method has params, not arguments");
        if (!item->method)
                return fail(STATUS_USAGE, "%s:%zu: %s has to be a string", batch->file, number,
                            item->is_tool ? "tool" : "method");
        if (!item->server)
                return fail(STATUS_USAGE,
                            "%s:%zu: server is missing: in the line, or for all: mcp-exec batch %s SERVER", batch->file,
                            number, batch->file);
        return STATUS_OK;
}

/* All lines are read before the first is sent: a mistake in the last one is told at once. */
static int status_read_lines(Batch *batch) {
        char *text = batch->text.data + batch->text.begin, *line, *rest = text;
        size_t n_lines = 1, number = 0;
        int status = STATUS_OK;

        for (const char *p = text; (p = strchr(p, '\n')); p++)
                n_lines++;
        batch->items = new0(Item, n_lines);
        if (!batch->items)
                out_of_memory();

        if (strlen(text) != buffer_size(&batch->text))
                return fail(STATUS_USAGE, "%s holds NUL bytes, and is no text", batch->file);

        while (status == STATUS_OK && (line = strsep(&rest, "\n"))) {
                number++;
                if (line[strspn(line, " \t\r")] != 0)
                        status = status_line(batch, line, number);
        }
        return status;
}

static void show_progress(const Batch *batch) {
        unsigned filled = batch->n_items > 0 ? batch->n_done * PROGRESS_WIDTH / batch->n_items : PROGRESS_WIDTH;

        if (!batch->progress)
                return;
        fprintf(stderr, "\r[%.*s%*s] %zu/%zu", (int)filled, "##############################",
                (int)(PROGRESS_WIDTH - filled), "", batch->n_done, batch->n_items);
        if (batch->n_failed > 0)
                fprintf(stderr, ", %u failed", batch->n_failed);
        (void)fflush(stderr);
}

static void clear_progress(const Batch *batch) {
        if (batch->progress)
                (void)fputs("\r\x1b[K", stderr);
}

static void print_done(Batch *batch) {
        while (batch->n_printed < batch->n_items && batch->items[batch->n_printed].done) {
                Item *item = &batch->items[batch->n_printed++];

                if (batch->progress && isatty(STDOUT_FILENO))
                        clear_progress(batch);
                put_lines(stdout, item->outcome, strlen(item->outcome));
                free(item->outcome);
                item->outcome = NULL;
        }
        if (isatty(STDOUT_FILENO))
                (void)fflush(stdout);
        show_progress(batch);
}

static void item_done(Item *item, const char *result, const char *error, const char *message) {
        JsonSlice value = result ? json_open(result) : (JsonSlice){};
        Buffer line = {};
        bool is_error = false;

        must(buffer_append_string(&line, "{"));
        if (item->id.data) {
                must(buffer_append_string(&line, "\"id\":"));
                must(buffer_append(&line, item->id.data, item->id.size));
                must(buffer_append_string(&line, ","));
        }
        if (value.data) {
                is_error = json_is(json_get(value, "isError"), 't');
                must(buffer_append_string(&line, is_error ? "\"ok\":false,\"result\":" : "\"ok\":true,\"result\":"));
                must(json_append(&line, value, &(JsonTraits){ .newlines = true }));
        } else {
                add_json_string(&line,
                                "\"ok\":false,\"error\":{\"name\":", error ? short_error_name(error) : "ProtocolError");
                add_json_string(&line, ",\"message\":", message ?: "the service's answer is no JSON");
                must(buffer_append_string(&line, "}"));
        }
        must(buffer_append(&line, "}", 2));

        item->outcome = line.data;
        item->done = true;
        item->batch->n_done++;
        item->batch->n_failed += !value.data || is_error;
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);
        Item *item = userdata;
        const char *result = NULL;

        if (error)
                item_done(item, NULL, error->name, error->message ?: "");
        else if (sd_bus_message_read(reply, "s", &result) < 0)
                item_done(item, NULL, "ProtocolError", "the service's answer can't be read");
        else
                item_done(item, result, NULL, NULL);
        print_done(item->batch);
        return 1;
}

static int send_item(Batch *batch, Item *item) {
        sd_bus_message *message = new_call(batch->cli, BUS_PATH, BUS_NAME, item->is_tool ? "CallTool" : "Call");
        int r;

        item->batch = batch;
        r = sd_bus_message_append(message, "sss", item->server, item->method, item->params);
        if (r >= 0)
                r = sd_bus_call_async(batch->cli->bus, NULL, message, on_answer, item, batch->cli->timeout);
        sd_bus_message_unref(message);
        return r;
}

static int status_send_all(Batch *batch) {
        int r;

        while (batch->n_done < batch->n_items) {
                while (batch->n_sent < batch->n_items && batch->n_sent - batch->n_done < batch->cli->jobs &&
                       batch->n_sent < batch->n_printed + AHEAD) {
                        r = send_item(batch, &batch->items[batch->n_sent++]);
                        if (r < 0)
                                goto fail;
                }
                r = sd_bus_process(batch->cli->bus, NULL);
                if (r == 0) {
                        (void)fflush(stdout); /* who reads this waits too */
                        r = sd_bus_wait(batch->cli->bus, UINT64_MAX);
                }
                if (r < 0 && r != -EINTR)
                        goto fail;
        }

        return STATUS_OK;

fail:
        clear_progress(batch);
        return fail(STATUS_UNREACHABLE, "the connection to %s is lost after %zu of %zu answers: %s",
                    batch->cli->bus_name, batch->n_done, batch->n_items, strerror(-r));
}

int verb_batch(Cli *cli, int argc, char *argv[]) {
        Batch batch = { .cli = cli, .file = argv[1], .server = argc > 2 ? argv[2] : NULL };
        int status;

        status = status_read_file(argv[1], &batch.text);
        if (status == STATUS_OK && buffer_size(&batch.text) > 0)
                status = status_read_lines(&batch);
        if (status == STATUS_OK && batch.n_items > 0)
                status = status_connect(cli);
        if (status == STATUS_OK && batch.n_items > 0) {
                ask_for_all(cli);
                batch.progress = isatty(STDERR_FILENO) && !cli->quiet;
                show_progress(&batch);
                status = status_send_all(&batch);
                clear_progress(&batch);
        }
        if (status == STATUS_OK && batch.n_failed > 0) {
                status = STATUS_TOOL;
                if (!cli->quiet && !cli->json)
                        note("mcp-exec: %u of %zu failed", batch.n_failed, batch.n_items);
        }

        for (size_t i = 0; i < batch.n_items; i++) {
                free(batch.items[i].server);
                free(batch.items[i].method);
                free(batch.items[i].params);
                free(batch.items[i].outcome);
        }
        free(batch.items);
        buffer_done(&batch.text);
        return status;
}
