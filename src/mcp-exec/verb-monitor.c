/* monitor: the service's signals as they come. */

#include <time.h>

#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

static void print_time(uint64_t usec) {
        time_t seconds = usec / USEC_PER_SEC;
        char text[16] = "";
        struct tm local;

        if (localtime_r(&seconds, &local))
                (void)strftime(text, sizeof(text), "%H:%M:%S", &local);
        printf("%s%s.%03u%s ", color_on(COLOR_DIM), text, (unsigned)(usec / USEC_PER_MSEC % 1000),
               color_off(COLOR_DIM));
}

static void print_news(const Cli *cli, const char *signal, const char *const *names, const char *const *texts) {
        uint64_t usec = now_usec();
        Buffer line = {};

        if (!cli->json) {
                print_time(usec);
                printf("%s%s%s", color_on(COLOR_BOLD), signal, color_off(COLOR_BOLD));
                for (size_t i = 0; names[i]; i++) {
                        (void)fputc(' ', stdout);
                        put_text(stdout, texts[i], strlen(texts[i]));
                }
                (void)fputc('\n', stdout);
        } else {
                must(buffer_append_string(&line, "{\"timestamp\":"));
                must(buffer_append_number(&line, usec));
                add_json_string(&line, ",\"signal\":", signal);
                for (size_t i = 0; names[i]; i++) {
                        add_json_string(&line, ",", names[i]);
                        add_json_string(&line, ":", texts[i]);
                }
                must(buffer_append_string(&line, "}\n"));
                put_text(stdout, buffer_data(&line), buffer_size(&line));
                buffer_done(&line);
        }
        (void)fflush(stdout);
}

/* Who doesn't call isn't told of what concerns one user alone: see signals.c of the service. */
static void introduce(Cli *cli, bool start) {
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, "ListServers");

        (void)sd_bus_message_set_auto_start(message, start);
        (void)sd_bus_message_set_expect_reply(message, false);
        (void)sd_bus_send(cli->bus, message, NULL);
        sd_bus_message_unref(message);
}

static int on_signal(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const one[] = { "server", NULL }, *const three[] = { "server", "method", "params", NULL };
        const char *member = sd_bus_message_get_member(message), *texts[3] = {};
        Cli *cli = userdata;

        if (streq(member, "Notification")) {
                if (sd_bus_message_read(message, "sss", &texts[0], &texts[1], &texts[2]) >= 0)
                        print_news(cli, member, three, texts);
        } else if (sd_bus_message_read(message, "s", &texts[0]) >= 0)
                print_news(cli, member, one, texts);
        return 0;
}

/* A worker or a server that comes or goes */
static int on_object(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const names[] = { "object", NULL };
        const char *path;

        if (sd_bus_message_read(message, "o", &path) >= 0)
                print_news(userdata, sd_bus_message_get_member(message), names, &path);
        return 0;
}

static int on_changed(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const names[] = { "object", "property", "value", NULL };
        const char *texts[3] = { sd_bus_message_get_path(message) }, *contents;
        char type;
        int r;

        r = sd_bus_message_skip(message, "s");
        if (r >= 0)
                r = sd_bus_message_enter_container(message, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &texts[1]);
                if (r >= 0)
                        r = sd_bus_message_peek_type(message, &type, &contents);
                if (r >= 0 && streq(contents, "s")) {
                        r = sd_bus_message_read(message, "v", "s", &texts[2]);
                        if (r >= 0)
                                print_news(userdata, "PropertiesChanged", names, texts);
                } else if (r >= 0)
                        r = sd_bus_message_skip(message, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }
        return 0;
}

static int on_owner(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const names[] = { NULL };
        const char *name, *before, *after;

        if (sd_bus_message_read(message, "sss", &name, &before, &after) < 0)
                return 0;
        print_news(userdata, *after ? "ServiceStarted" : "ServiceLeft", names, names);
        if (*after)
                introduce(userdata, /* start= */ false);
        return 0;
}

int verb_monitor(Cli *cli, int argc _unused_, char *argv[] _unused_) {
        static const char *const manager = "org.freedesktop.DBus.ObjectManager";
        int r, status;

        status = status_connect_bus(cli);
        if (status != STATUS_OK)
                return status;

        r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, BUS_PATH, BUS_NAME, NULL, on_signal, cli);
        if (r >= 0)
                r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, NULL, manager, NULL, on_object, cli);
        if (r >= 0)
                r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, NULL, "org.freedesktop.DBus.Properties",
                                        "PropertiesChanged", on_changed, cli);
        if (r >= 0)
                r = sd_bus_add_match(cli->bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                                     "member='NameOwnerChanged',arg0='" BUS_NAME "'",
                                     on_owner, cli);
        if (r >= 0)
                introduce(cli, /* start= */ true);
        if (r >= 0 && !cli->quiet && isatty(STDERR_FILENO))
                note("mcp-exec: watching %s; Ctrl-C ends", cli->bus_name);

        while (r >= 0 && !ferror(stdout)) {
                r = sd_bus_process(cli->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(cli->bus, UINT64_MAX);
                if (r == -EINTR)
                        r = 0;
        }

        return fail(STATUS_UNREACHABLE, "%s is gone: %s", cli->bus_name, strerror(-r));
}
