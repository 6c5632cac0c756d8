/* How far a call is: a line on the terminal while it is waited for. */

#include <time.h>

#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define TOKEN "mcp-exec"
#define BAR "##############################"
#define REDRAW (USEC_PER_SEC / 20)

typedef struct Waiting {
        sd_bus_message *reply; /* an answer, or an error */
        uint64_t drawn;        /* when, monotonic; 0: never */
} Waiting;

static uint64_t monotonic_usec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}

static double number(JsonSlice object, const char *key) {
        _cleanup_(freep) char *text = NULL;
        JsonSlice value = json_get(object, key);

        text = value.data ? strndup(value.data, value.size) : NULL;
        return text ? strtod(text, NULL) : 0;
}

static void draw(JsonSlice params) {
        double progress = number(params, "progress"), total = number(params, "total");
        _cleanup_(freep) char *message = json_decode(json_get(params, "message")), *line = NULL, *text = NULL;
        size_t width = output_width() == SIZE_MAX ? 79 : output_width() - 1, filled;
        int r;

        (void)fputs("\r\x1b[K", stderr);
        if (total > 0) {
                filled = progress > 0 ? strlen(BAR) * MIN(progress / total, 1.0) : 0;
                fprintf(stderr, "[%.*s%*s] ", (int)filled, BAR, (int)(strlen(BAR) - filled), "");
                width -= MIN(width, strlen(BAR) + 3);
                r = asprintf(&text, "%g/%g %s", progress, total, message ?: "");
        } else
                r = asprintf(&text, "%g %s", progress, message ?: "");
        if (r < 0)
                out_of_memory();

        line = one_line(text);
        put_cut(stderr, line, width);
        (void)fflush(stderr);
}

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        const char *server, *method, *text;
        Waiting *waiting = userdata;
        uint64_t now = monotonic_usec();
        JsonSlice params;

        if (!sd_bus_message_is_signal(message, BUS_NAME, "Notification"))
                return 0;
        if (sd_bus_message_read(message, "sss", &server, &method, &text) < 0 ||
            !streq(method, "notifications/progress"))
                return 0;

        params = schema_open(text);
        if (json_equal(json_get(params, "progressToken"), TOKEN) && now >= waiting->drawn + REDRAW) {
                waiting->drawn = now;
                draw(params);
        }
        return 0;
}

static int on_reply(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        Waiting *waiting = userdata;

        waiting->reply = sd_bus_message_ref(message);
        return 0;
}

int progress_call(sd_bus *bus, sd_bus_message *call, uint64_t timeout, sd_bus_error *error, sd_bus_message **ret) {
        sd_bus_slot *filter = NULL, *slot = NULL;
        uint64_t start = monotonic_usec();
        Waiting waiting = {};
        int r;

        r = sd_bus_add_filter(bus, &filter, on_message, &waiting);
        if (r >= 0)
                r = sd_bus_call_async(bus, &slot, call, on_reply, &waiting, timeout);
        while (r >= 0 && !waiting.reply) {
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r == -EINTR)
                        r = 0;
        }
        sd_bus_slot_unref(filter);
        sd_bus_slot_unref(slot);
        if (waiting.drawn > 0)
                (void)fputs("\r\x1b[K", stderr);

        if (r >= 0 && sd_bus_message_is_method_error(waiting.reply, NULL)) {
                /* An own timeout comes as NoReply, as if the service had left. */
                r = sd_bus_message_is_method_error(waiting.reply, SD_BUS_ERROR_NO_REPLY) && timeout != USEC_INFINITY &&
                                    monotonic_usec() - start >= timeout
                            ? -ETIMEDOUT
                            : sd_bus_error_copy(error, sd_bus_message_get_error(waiting.reply));
                waiting.reply = sd_bus_message_unref(waiting.reply);
        }
        if (r >= 0)
                *ret = waiting.reply;
        return r;
}

/* Tools of other protocols than MCP get their arguments alone, and no token. */
static bool speaks_mcp(Cli *cli, const char *server) {
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, "Describe"), *reply = NULL;
        const char *text = NULL;
        bool mcp;

        if (sd_bus_message_append(message, "s", server) >= 0 &&
            sd_bus_call(cli->bus, message, USEC_PER_SEC, NULL, &reply) >= 0)
                (void)sd_bus_message_read(reply, "s", &text);
        mcp = text && json_equal(json_get(schema_open(text), "protocol"), "mcp");
        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        return mcp;
}

char *progress_params(Cli *cli, const char *server, const char *tool, const char *arguments) {
        Buffer params = {};

        if (cli->quiet || cli->json || !isatty(STDERR_FILENO) || !speaks_mcp(cli, server))
                return NULL;

        add_json_string(&params, "{\"name\":", tool);
        must(buffer_append_string(&params, ",\"arguments\":"));
        must(buffer_append_string(&params, *arguments ? arguments : "{}"));
        must(buffer_append_string(&params, ",\"_meta\":{\"progressToken\":\"" TOKEN "\"}}"));
        must(buffer_append(&params, "", 1));
        return params.data;
}
