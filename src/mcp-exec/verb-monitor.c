/* monitor: the service's signals as they come: as JSON one by one, for people as what they mean. */

#include <time.h>

#include "base/text.h"
#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"

#define SERVER_PREFIX BUS_PATH "/server"
#define WORKER_PREFIX BUS_PATH "/worker"
#define NAME_COLUMN 12
#define ID_SHOWN 8 /* of the 32 digits of a worker's id */

/* An object that is known: a worker's server by its path, a server's last state by its name */
typedef struct Known {
        char *key, *text;
} Known;

typedef struct Monitor {
        Cli *cli;
        Known *known;
        size_t n_known;
} Monitor;

static const char *recall(const Monitor *monitor, const char *key) {
        for (size_t i = 0; i < monitor->n_known; i++)
                if (streq(monitor->known[i].key, key))
                        return monitor->known[i].text;

        return NULL;
}

/* text NULL: forget */
static void remember(Monitor *monitor, const char *key, const char *text) {
        Known *known = NULL;

        for (size_t i = 0; i < monitor->n_known && !known; i++)
                if (streq(monitor->known[i].key, key))
                        known = &monitor->known[i];
        if (known) {
                free(known->text);
                if (!text) {
                        free(known->key);
                        *known = monitor->known[--monitor->n_known];
                        return;
                }
        } else {
                if (!text)
                        return;
                known = realloc(monitor->known, (monitor->n_known + 1) * sizeof(*known));
                if (!known)
                        out_of_memory();
                monitor->known = known;
                known += monitor->n_known++;
                known->key = strdup(key);
        }

        known->text = strdup(text);
        if (!known->key || !known->text)
                out_of_memory();
}

/* A line for people: time, server, what happened. */
static void tell(const char *server, Color color, const char *what, const char *detail) {
        _cleanup_(freep) char *text = NULL, *line = NULL;
        size_t width = output_width(), used = strlen("00:00:00.000 ") + MAX(text_width(server), NAME_COLUMN) + 1;
        uint64_t usec = now_usec();
        time_t seconds = usec / USEC_PER_SEC;
        char clock[16] = "";
        struct tm local;

        if (localtime_r(&seconds, &local))
                (void)strftime(clock, sizeof(clock), "%H:%M:%S", &local);
        printf("%s%s.%03u%s %s%s%s%*s ", color_on(COLOR_DIM), clock, (unsigned)(usec / USEC_PER_MSEC % 1000),
               color_off(COLOR_DIM), color_on(COLOR_BOLD), server, color_off(COLOR_BOLD),
               (int)(MAX(text_width(server), NAME_COLUMN) - text_width(server)), "");

        if (asprintf(&text, "%s%s%s", what, *detail ? " " : "", detail) < 0)
                out_of_memory();
        line = one_line(text);
        (void)fputs(color_on(color), stdout);
        if (width == SIZE_MAX)
                (void)fputs(line, stdout);
        else
                put_cut(stdout, line, width > used ? width - used : 1);
        printf("%s\n", color_off(color));
        (void)fflush(stdout);
}

static void tell_worker(const Monitor *monitor, const char *path, const char *state, const char *detail) {
        const char *server = recall(monitor, path);
        _cleanup_(freep) char *id = NULL, *what = NULL;

        if (sd_bus_path_decode(path, WORKER_PREFIX, &id) <= 0 || !server)
                return;
        if (asprintf(&what, "worker %.*s %s", ID_SHOWN, id, state) < 0)
                out_of_memory();
        tell(server, state_color(state), what, detail);
}

static void print_json(const char *signal, const char *const *names, const char *const *texts) {
        Buffer line = {};

        must(buffer_append_string(&line, "{\"timestamp\":"));
        must(buffer_append_number(&line, now_usec()));
        add_json_string(&line, ",\"signal\":", signal);
        for (size_t i = 0; names[i]; i++) {
                add_json_string(&line, ",", names[i]);
                add_json_string(&line, ":", texts[i]);
        }
        must(buffer_append_string(&line, "}\n"));
        put_text(stdout, buffer_data(&line), buffer_size(&line));
        buffer_done(&line);
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
        Monitor *monitor = userdata;
        bool notification = streq(member, "Notification");

        if (notification ? sd_bus_message_read(message, "sss", &texts[0], &texts[1], &texts[2]) < 0
                         : sd_bus_message_read(message, "s", &texts[0]) < 0)
                return 0;

        if (monitor->cli->json)
                print_json(member, notification ? three : one, texts);
        else if (notification)
                tell(texts[0], COLOR_NONE, texts[1], texts[2]);
        else if (streq(member, "ToolsChanged"))
                tell(texts[0], COLOR_NONE, "tools changed", "");
        /* ServerChanged says no more than the signals of the objects do. */
        return 0;
}

/* The properties of one interface: a{sv}. Those that are told of; texts are the message's. */
typedef struct News {
        const char *server, *state, *version, *info;
        uint32_t pid;
} News;

static int read_news(Monitor *monitor, const char *path, sd_bus_message *message, News *ret) {
        static const char *const names[] = { "object", "property", "value", NULL };
        const char *texts[3] = { path }, *contents;
        char type;
        int r;

        *ret = (News){ "", "", "", "", 0 };
        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &texts[1]);
                if (r >= 0)
                        r = sd_bus_message_peek_type(message, &type, &contents);
                if (r >= 0 && streq(contents, "s")) {
                        r = sd_bus_message_read(message, "v", "s", &texts[2]);
                        if (r >= 0 && monitor->cli->json &&
                            streq(sd_bus_message_get_member(message), "PropertiesChanged"))
                                print_json("PropertiesChanged", names, texts);
                        if (r >= 0 && streq(texts[1], "State"))
                                ret->state = texts[2];
                        else if (r >= 0 && streq(texts[1], "Server"))
                                ret->server = texts[2];
                        else if (r >= 0 && streq(texts[1], "ProtocolVersion"))
                                ret->version = texts[2];
                        else if (r >= 0 && streq(texts[1], "ServerInfo"))
                                ret->info = texts[2];
                } else if (r >= 0 && streq(texts[1], "Pid"))
                        r = sd_bus_message_read(message, "v", "u", &ret->pid);
                else if (r >= 0)
                        r = sd_bus_message_skip(message, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

/* A server's state; that of before is no news. */
static void tell_server(Monitor *monitor, const char *name, const char *state) {
        const char *before = recall(monitor, name);

        if (!*state || (before && streq(before, state)))
                return;
        remember(monitor, name, state);
        tell(name, state_color(state), state, "");
}

/* A worker or a server that comes: (o path, a{sa{sv}} interfaces) */
static void tell_added(Monitor *monitor, const char *path, sd_bus_message *message) {
        _cleanup_(freep) char *name = NULL;
        const char *interface;
        char pid[24] = "";
        News news;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sa{sv}}");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'e', "sa{sv}")) > 0) {
                r = sd_bus_message_read(message, "s", &interface);
                if (r >= 0)
                        r = read_news(monitor, path, message, &news);
                if (r >= 0 && streq(interface, BUS_NAME ".Worker")) {
                        remember(monitor, path, news.server);
                        if (news.pid > 0)
                                (void)snprintf(pid, sizeof(pid), "(process %u)", news.pid);
                        tell_worker(monitor, path, news.state, pid);
                } else if (r >= 0 && streq(interface, BUS_NAME ".Server") &&
                           sd_bus_path_decode(path, SERVER_PREFIX, &name) > 0) {
                        remember(monitor, name, news.state);
                        tell(name, COLOR_NONE, "configured:", news.state);
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }
}

static int on_object(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const names[] = { "object", NULL };
        const char *member = sd_bus_message_get_member(message), *path;
        _cleanup_(freep) char *name = NULL;
        Monitor *monitor = userdata;

        if (sd_bus_message_read(message, "o", &path) < 0)
                return 0;
        if (monitor->cli->json)
                print_json(member, names, &path);
        else if (streq(member, "InterfacesAdded"))
                tell_added(monitor, path, message);
        else if (sd_bus_path_decode(path, SERVER_PREFIX, &name) > 0) {
                tell(name, COLOR_NONE, "taken out of the configuration", "");
                remember(monitor, name, NULL);
        } else
                remember(monitor, path, NULL); /* its end was told as its state */
        return 0;
}

static int on_changed(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        const char *path = sd_bus_message_get_path(message);
        _cleanup_(freep) char *name = NULL, *speaks = NULL;
        Monitor *monitor = userdata;
        News news;

        if (sd_bus_message_skip(message, "s") < 0 || read_news(monitor, path, message, &news) < 0 || monitor->cli->json)
                return 0;

        if (sd_bus_path_decode(path, SERVER_PREFIX, &name) > 0)
                tell_server(monitor, name, news.state);
        else if (streq(news.state, "ready") && *news.version) {
                if (asprintf(&speaks, "(%s, MCP %s)", news.info, news.version) < 0)
                        out_of_memory();
                tell_worker(monitor, path, news.state, speaks);
        } else if (*news.state)
                tell_worker(monitor, path, news.state, "");
        return 0;
}

static int on_owner(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        static const char *const names[] = { NULL };
        const char *name, *before, *after;
        Monitor *monitor = userdata;

        if (sd_bus_message_read(message, "sss", &name, &before, &after) < 0)
                return 0;
        if (monitor->cli->json)
                print_json(*after ? "ServiceStarted" : "ServiceLeft", names, names);
        else
                tell("", COLOR_NONE, *after ? "the service has started" : "the service has left", "");
        if (*after)
                introduce(monitor->cli, /* start= */ false);
        return 0;
}

/* What there is before the first news */
static int status_look(Monitor *monitor) {
        ServiceState state;
        int status;

        status = status_fetch_state(monitor->cli, &state);
        if (status != STATUS_OK)
                return status;
        for (size_t i = 0; i < state.n_servers; i++)
                remember(monitor, state.servers[i].name, state.servers[i].state);
        for (size_t i = 0; i < state.n_workers; i++)
                remember(monitor, state.workers[i].path, state.workers[i].server);
        state_done(&state);
        return STATUS_OK;
}

int verb_monitor(Cli *cli, int argc _unused_, char *argv[] _unused_) {
        static const char *const manager = "org.freedesktop.DBus.ObjectManager";
        Monitor monitor = { .cli = cli };
        int r, status;

        status = status_connect_bus(cli);
        if (status != STATUS_OK)
                return status;

        r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, BUS_PATH, BUS_NAME, NULL, on_signal, &monitor);
        if (r >= 0)
                r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, NULL, manager, NULL, on_object, &monitor);
        if (r >= 0)
                r = sd_bus_match_signal(cli->bus, NULL, BUS_NAME, NULL, "org.freedesktop.DBus.Properties",
                                        "PropertiesChanged", on_changed, &monitor);
        if (r >= 0)
                r = sd_bus_add_match(cli->bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                                     "member='NameOwnerChanged',arg0='" BUS_NAME "'",
                                     on_owner, &monitor);
        if (r >= 0)
                introduce(cli, /* start= */ true);
        if (r >= 0 && !cli->json) {
                status = status_look(&monitor);
                if (status != STATUS_OK)
                        return status;
        }
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
