/* Finding the service, and calling it. */

#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "bus/errors.h"
#include "mcp-exec/cli.h"
#include "mcp-exec/output.h"

#define PRIVATE_SOCKET "/run/mcp-exec/bus"
#define SESSION_BUS "the session bus"
#define SYSTEM_BUS "the system bus"
#define DBUS_NAME "org.freedesktop.DBus"
#define DBUS_PATH "/org/freedesktop/DBus"
#define BUS_PATIENCE (25 * USEC_PER_SEC) /* for the bus's own answers */

static bool socket_answers(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)stpncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) >= 0;
}

static int open_address(const char *address, sd_bus **ret) {
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_address(bus, address);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0) {
                sd_bus_close_unref(bus);
                return r;
        }

        *ret = bus;
        return 0;
}

/* Whether the service runs on that bus, or can be started by it */
static int has_service(sd_bus *bus) {
        sd_bus_message *message = NULL, *reply = NULL;
        const char *name;
        int r, running = 0;

        r = sd_bus_call_method(bus, DBUS_NAME, DBUS_PATH, DBUS_NAME, "NameHasOwner", NULL, &reply, "s", BUS_NAME);
        if (r >= 0)
                r = sd_bus_message_read(reply, "b", &running);
        reply = sd_bus_message_unref(reply);
        if (r < 0 || running)
                return r < 0 ? r : 1;

        r = sd_bus_message_new_method_call(bus, &message, DBUS_NAME, DBUS_PATH, DBUS_NAME, "ListActivatableNames");
        if (r >= 0)
                r = sd_bus_call(bus, message, BUS_PATIENCE, NULL, &reply);
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "s");
        while (r >= 0 && !running && (r = sd_bus_message_read(reply, "s", &name)) > 0)
                running = streq(name, BUS_NAME);
        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        return r < 0 ? r : running;
}

static void take_bus(Cli *cli, sd_bus *bus, const char *name) {
        cli->bus = bus;
        cli->bus_name = name;
        cli->can_ask = isatty(STDIN_FILENO);
}

static int open_system(Cli *cli, bool with_signals, int *ret_error) {
        sd_bus *bus = NULL;
        int r;

        if (!with_signals && socket_answers(PRIVATE_SOCKET) && open_address("unix:path=" PRIVATE_SOCKET, &bus) >= 0) {
                take_bus(cli, bus, PRIVATE_SOCKET);
                return STATUS_OK;
        }

        r = sd_bus_open_system(&bus);
        if (r < 0) {
                *ret_error = r;
                return STATUS_UNREACHABLE;
        }

        take_bus(cli, bus, SYSTEM_BUS);
        return STATUS_OK;
}

static int status_connect_auto(Cli *cli, bool with_signals) {
        sd_bus *bus = NULL;
        int r, user = -ENOENT, system = 0;

        r = sd_bus_open_user(&bus);
        if (r >= 0) {
                user = has_service(bus);
                if (user > 0) {
                        take_bus(cli, bus, SESSION_BUS);
                        return STATUS_OK;
                }
                sd_bus_close_unref(bus);
        } else
                user = r;

        if (open_system(cli, with_signals, &system) == STATUS_OK) {
                r = streq(cli->bus_name, PRIVATE_SOCKET) ? 1 : has_service(cli->bus);
                if (r > 0)
                        return STATUS_OK;
                system = r;
                cli->bus = sd_bus_close_unref(cli->bus);
        }

        return fail(STATUS_UNREACHABLE,
                    "the service %s can't be reached.\n"
                    "  session bus: %s\n"
                    "  system bus: %s\n"
                    "Install it (mcp-execd(8)), or say where it is: --user, --system or --address=ADDRESS",
                    BUS_NAME,
                    user == 0 ? "no such service is installed there"
                    : user == -ENOMEDIUM
                            ? "there is none ($DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR don't say where)"
                            : strerror(-user),
                    system == 0 ? "no such service is installed there" : strerror(-system));
}

static int status_open(Cli *cli, bool with_signals) {
        sd_bus *bus = NULL;
        int r = 0;

        if (cli->bus)
                return STATUS_OK;

        switch (cli->choice) {
        case BUS_CHOICE_AUTO:
                return status_connect_auto(cli, with_signals);
        case BUS_CHOICE_USER:
                r = sd_bus_open_user(&bus);
                if (r == -ENOMEDIUM)
                        return fail(STATUS_UNREACHABLE, "there is no session bus: $DBUS_SESSION_BUS_ADDRESS and "
                                                        "$XDG_RUNTIME_DIR don't say where; try --system");
                if (r < 0)
                        return fail(STATUS_UNREACHABLE, "the session bus can't be reached: %s; try --system",
                                    strerror(-r));
                take_bus(cli, bus, SESSION_BUS);
                return STATUS_OK;
        case BUS_CHOICE_SYSTEM:
                if (open_system(cli, with_signals, &r) != STATUS_OK)
                        return fail(STATUS_UNREACHABLE, "the system bus can't be reached: %s; try --user",
                                    strerror(-r));
                return STATUS_OK;
        case BUS_CHOICE_ADDRESS:
                r = open_address(cli->address, &bus);
                if (r < 0)
                        return fail(STATUS_UNREACHABLE,
                                    "%s can't be reached: %s; an address is written like unix:path=/run/mcp-exec/bus",
                                    cli->address, strerror(-r));
                take_bus(cli, bus, cli->address);
                return STATUS_OK;
        }

        return STATUS_UNREACHABLE;
}

int status_connect(Cli *cli) {
        return status_open(cli, /* with_signals= */ false);
}

int status_connect_bus(Cli *cli) {
        return status_open(cli, /* with_signals= */ true);
}

const char *short_error_name(const char *name) {
        static const char prefix[] = BUS_ERROR("");
        size_t size = strlen(prefix);

        return strlen(name) > size && memcmp(name, prefix, size) == 0 ? name + size : name;
}

int status_of_error_name(const char *name) {
        static const struct {
                const char *name;
                int status;
        } table[] = {
                { "NoSuchServer", STATUS_UNKNOWN },
                { "ServerDisabled", STATUS_UNKNOWN },
                { "InvalidArguments", STATUS_USAGE },
                { "InvalidJson", STATUS_USAGE },
                { "TooLarge", STATUS_LIMIT },
                { "LimitsExceeded", STATUS_LIMIT },
                { "Timeout", STATUS_TIMEOUT },
                { "Remote", STATUS_REMOTE },
                { SD_BUS_ERROR_ACCESS_DENIED, STATUS_DENIED },
                { SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED, STATUS_DENIED },
                { SD_BUS_ERROR_AUTH_FAILED, STATUS_DENIED },
                { SD_BUS_ERROR_LIMITS_EXCEEDED, STATUS_LIMIT },
                { SD_BUS_ERROR_TIMEOUT, STATUS_TIMEOUT },
                { SD_BUS_ERROR_NO_REPLY, STATUS_UNREACHABLE },
                { "System.Error.ETIMEDOUT", STATUS_TIMEOUT },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (streq(short_error_name(name), table[i].name))
                        return table[i].status;

        /* All others of the service are the server's failures, all others of the bus its own. */
        return short_error_name(name) != name ? STATUS_SERVER : STATUS_UNREACHABLE;
}

int status_bus_error(const Cli *cli, const sd_bus_error *error, int r) {
        const char *name = error->name ?: "System.Error", *message = error->message ?: strerror(-r), *hint = "";
        _cleanup_(freep) char *text = NULL;
        int status = error->name ? status_of_error_name(name) : r == -ETIMEDOUT ? STATUS_TIMEOUT : STATUS_UNREACHABLE;

        if (status == STATUS_TIMEOUT && !strstr(name, BUS_NAME)) {
                name = "Timeout";
                r = cli->timeout == USEC_INFINITY
                            ? asprintf(&text, "no answer from %s in time", cli->bus_name)
                            : asprintf(&text, "no answer within --timeout=%g; the call was given up",
                                       (double)cli->timeout / USEC_PER_SEC);
        } else if (r == -ECONNRESET || r == -ENOTCONN || r == -ESHUTDOWN || streq(name, SD_BUS_ERROR_NO_REPLY))
                r = asprintf(&text,
                             "the service left or crashed before it answered, on %s: %s; what it was asked may "
                             "have been done",
                             cli->bus_name, message);
        else if (status == STATUS_UNREACHABLE)
                r = asprintf(&text, "the service " BUS_NAME " can't be reached on %s: %s", cli->bus_name, message);
        else {
                const char *methods = strstr(message, "; ListServers");
                size_t length = strlen(message);

                if (streq(short_error_name(name), "NoSuchServer") && methods) {
                        length = methods - message;
                        hint = "; mcp-exec list shows the servers";
                } else if (streq(name, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
                        hint = "\nRun it on a terminal, where you can be asked to confirm";
                r = asprintf(&text, "%.*s%s", (int)length, message, hint);
        }
        if (r < 0)
                out_of_memory();

        return fail_named(status, short_error_name(name), text);
}

sd_bus_message *new_call(Cli *cli, const char *path, const char *interface, const char *member) {
        sd_bus_message *message = NULL;
        int r;

        r = sd_bus_message_new_method_call(cli->bus, &message, BUS_NAME, path, interface, member);
        if (r >= 0)
                r = sd_bus_message_set_allow_interactive_authorization(message, cli->ask);
        if (r < 0)
                out_of_memory();
        return message;
}

void ask_for_all(Cli *cli) {
        cli->ask = cli->can_ask;
        if (cli->ask && cli->choice != BUS_CHOICE_USER && !streq(cli->bus_name, SESSION_BUS))
                agent_start();
}

int call_and_wait(Cli *cli, sd_bus_message *message, uint64_t timeout, sd_bus_error *error, sd_bus_message **ret) {
        sd_bus_message *again;
        int r;

        r = sd_bus_call(cli->bus, message, timeout, error, ret);
        if (r >= 0 || cli->ask || !cli->can_ask ||
            !sd_bus_error_has_name(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
                return r;

        ask_for_all(cli);
        again = new_call(cli, sd_bus_message_get_path(message), sd_bus_message_get_interface(message),
                         sd_bus_message_get_member(message));
        r = sd_bus_message_rewind(message, /* complete= */ true);
        if (r >= 0)
                r = sd_bus_message_copy(again, message, /* all= */ true);
        if (r >= 0) {
                sd_bus_error_free(error);
                r = sd_bus_call(cli->bus, again, timeout, error, ret);
        }
        sd_bus_message_unref(again);
        return r;
}

int status_call(Cli *cli, sd_bus_message **ret, const char *member, const char *types, ...) {
        sd_bus_message *message, *reply = NULL;
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r, status;
        va_list ap;

        status = status_connect(cli);
        if (status != STATUS_OK)
                return status;

        message = new_call(cli, BUS_PATH, BUS_NAME, member);
        va_start(ap, types);
        r = sd_bus_message_appendv(message, types, ap);
        va_end(ap);
        if (r == -EINVAL) {
                sd_bus_message_unref(message);
                return fail(STATUS_USAGE, "an argument is no UTF-8 text");
        }

        if (r >= 0)
                r = call_and_wait(cli, message, cli->timeout, &error, &reply);
        if (r < 0)
                status = status_bus_error(cli, &error, r);
        else if (ret)
                *ret = TAKE_PTR(reply);

        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        sd_bus_error_free(&error);
        return status;
}

noreturn void out_of_memory(void) {
        (void)fputs("mcp-exec: out of memory\n", stderr);
        exit(STATUS_LIMIT);
}

void must(int r) {
        if (r < 0)
                out_of_memory();
}
