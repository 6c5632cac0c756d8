/* Calls of tools: as a job where somebody watches or waits for long, else in one message, with what is large in files.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "bus/errors.h"
#include "mcp-exec/job.h"
#include "mcp-exec/output.h"

#define BUS_TIMEOUT (25 * USEC_PER_SEC) /* after which other clients of a bus give up: who says more waits for long */
#define JOB_INTERFACE BUS_NAME ".Job"
#define REDRAW (USEC_PER_SEC / 20)

typedef struct Wait {
        Cli *cli;
        const char *path;
        uint64_t drawn; /* when, monotonic; 0: never */
        bool progress, done, lost;
} Wait;

static uint64_t now_monotonic(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
}

static void show_progress(Wait *wait, double progress, double total, const char *text) {
        uint64_t now = now_monotonic();

        if (now < usec_add(wait->drawn, REDRAW))
                return;

        wait->drawn = now;
        progress_draw(progress, total, text);
}

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        const char *path = sd_bus_message_get_path(message), *text, *name, *before, *after;
        Wait *wait = userdata;
        double progress, total;

        if (sd_bus_message_is_signal(message, "org.freedesktop.DBus", "NameOwnerChanged") > 0) {
                if (sd_bus_message_read(message, "sss", &name, &before, &after) >= 0 && streq(name, BUS_NAME))
                        wait->lost = true;
                return 0;
        }
        if (!path || !streq(path, wait->path))
                return 0;

        if (sd_bus_message_is_signal(message, JOB_INTERFACE, "Finished") > 0)
                wait->done = true;
        else if (sd_bus_message_is_signal(message, JOB_INTERFACE, "Progress") > 0 && wait->progress &&
                 sd_bus_message_read(message, "dds", &progress, &total, &text) >= 0)
                show_progress(wait, progress, total, text);
        return 0;
}

int job_forget(Cli *cli, const char *path) {
        sd_bus_message *message = new_call(cli, path, JOB_INTERFACE, "Cancel");
        int r;

        (void)sd_bus_message_set_expect_reply(message, false);
        r = sd_bus_send(cli->bus, message, NULL);
        sd_bus_message_unref(message);
        return r;
}

/* All of a file as a text */
static int read_fd(int fd, char **ret) {
        _cleanup_(freep) char *text = NULL;
        size_t done = 0;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        text = malloc((size_t)st.st_size + 1);
        if (!text)
                return -ENOMEM;

        while (done < (size_t)st.st_size) {
                ssize_t n = pread(fd, text + done, (size_t)st.st_size - done, (off_t)done);

                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }

        text[done] = 0;
        *ret = TAKE_PTR(text);
        return 0;
}

/* Reads a reply: a string, or a file with one. */
static int read_reply(sd_bus_message *reply, bool file, char **ret) {
        const char *text;
        int fd, r;

        r = file ? sd_bus_message_read(reply, "h", &fd) : sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return r;
        if (file)
                return read_fd(fd, ret);

        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

static bool can_pass_files(Cli *cli) {
        return sd_bus_can_send(cli->bus, 'h') > 0;
}

int job_result(Cli *cli, const char *path, sd_bus_error *error, char **ret) {
        bool file = can_pass_files(cli);
        sd_bus_message *message = new_call(cli, path, JOB_INTERFACE, file ? "GetResult" : "GetResultText"),
                       *reply = NULL;
        int r;

        r = sd_bus_call(cli->bus, message, cli->timeout, error, &reply);
        if (r >= 0)
                r = read_reply(reply, file, ret);
        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        return r;
}

/* Whether the job is there, perhaps with the next service, to which one that was idle left it; *ret_done: it has ended.
 */
static bool job_is_there(Cli *cli, const char *path, bool *ret_done) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(freep) char *state = NULL;
        int r;

        r = sd_bus_get_property_string(cli->bus, BUS_NAME, path, JOB_INTERFACE, "State", &error, &state);
        sd_bus_error_free(&error);
        *ret_done = r >= 0 && !streq(state, "running");
        return r >= 0;
}

int job_wait(Cli *cli, const char *path, uint64_t started) {
        Wait wait = { .cli = cli, .path = path, .progress = isatty(STDERR_FILENO) && !cli->quiet && !cli->json };
        uint64_t deadline = usec_add(started, cli->timeout);
        sd_bus_slot *filter = NULL, *match = NULL;
        int r;

        r = sd_bus_add_filter(cli->bus, &filter, on_message, &wait);
        if (r >= 0 && can_pass_files(cli)) /* a bus, not the private socket */
                r = sd_bus_add_match_async(cli->bus, &match,
                                           "type='signal',sender='org.freedesktop.DBus',"
                                           "member='NameOwnerChanged',arg0='" BUS_NAME "'",
                                           NULL, NULL, NULL);
        while (r >= 0 && !wait.done && !wait.lost) {
                uint64_t now = now_monotonic();

                r = sd_bus_process(cli->bus, NULL);
                if (r == 0 && now >= deadline)
                        r = -ETIMEDOUT;
                else if (r == 0)
                        r = sd_bus_wait(cli->bus, deadline == USEC_INFINITY ? USEC_INFINITY : deadline - now);
                if (r == -EINTR)
                        r = 0;
                if (wait.lost && !wait.done)
                        wait.lost = !job_is_there(cli, path, &wait.done);
        }

        if (wait.drawn > 0)
                progress_clear();
        sd_bus_slot_unref(match);
        sd_bus_slot_unref(filter);
        return r < 0 ? r : wait.lost && !wait.done ? -ECONNRESET : 0;
}

static int append_timeout(sd_bus_message *message, uint64_t timeout) {
        return timeout == 0 ? 0 : sd_bus_message_append(message, "{sv}", "timeout", "t", timeout);
}

static int start_job(Cli *cli, const char *server, const char *tool, const char *arguments, uint64_t timeout,
                     sd_bus_error *error, char **ret_path) {
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, "StartJob"), *reply = NULL;
        const char *path;
        int r;

        r = sd_bus_message_append(message, "sss", server, "tools/call", arguments);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(message, "{sv}{sv}", "tool", "s", tool, "cancel_on_disconnect", "b",
                                          !cli->job);
        if (r >= 0)
                r = append_timeout(message, timeout);
        if (r >= 0)
                r = sd_bus_message_close_container(message);
        if (r >= 0)
                r = call_and_wait(cli, message, cli->timeout, error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "o", &path);
        if (r >= 0) {
                *ret_path = strdup(path);
                r = *ret_path ? 0 : -ENOMEM;
        }

        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        return r;
}

static void note_job(const char *path) {
        _cleanup_(freep) char *id = NULL;

        if (sd_bus_path_decode(path, BUS_PATH "/job", &id) > 0)
                note("mcp-exec: job %s", id);
}

static int call_as_job(Cli *cli, const char *server, const char *tool, const char *arguments, sd_bus_error *error,
                       char **ret) {
        _cleanup_(freep) char *path = NULL;
        uint64_t started = now_monotonic(), timeout = cli->timeout == USEC_INFINITY ? 0 : cli->timeout;
        int r;

        r = start_job(cli, server, tool, arguments, timeout, error, &path);
        if (r < 0 && timeout > 0 && error->message && strstr(error->message, "timeouts.call_max")) {
                /* The server allows less: its own limits count then. */
                sd_bus_error_free(error);
                r = start_job(cli, server, tool, arguments, 0, error, &path);
        }
        if (r < 0)
                return r;

        if (cli->job && !cli->quiet && !cli->json)
                note_job(path);
        r = job_wait(cli, path, started);
        if (r >= 0)
                r = job_result(cli, path, error, ret);
        if (r != -ECONNRESET)
                (void)job_forget(cli, path);
        return r;
}

static int seal(const char *text) {
        size_t size = strlen(text), done = 0;
        int fd = memfd_create("arguments", MFD_CLOEXEC | MFD_ALLOW_SEALING), r = 0;

        if (fd < 0)
                return -errno;

        while (done < size && r == 0) {
                ssize_t n = write(fd, text + done, size - done);

                if (n < 0)
                        r = -errno;
                else
                        done += (size_t)n;
        }
        if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
                r = -errno;
        if (r == 0)
                return fd;

        safe_close(fd);
        return r;
}

static int call_in_one(Cli *cli, const char *server, const char *tool, const char *arguments, sd_bus_error *error,
                       char **ret) {
        bool files = can_pass_files(cli);
        sd_bus_message *message = new_call(cli, BUS_PATH, BUS_NAME, files ? "CallFd" : "CallTool"), *reply = NULL;
        _cleanup_(closep) int fd = -EBADF;
        int r;

        if (files) {
                fd = seal(arguments);
                r = fd < 0 ? fd
                           : sd_bus_message_append(message, "ssha{sv}", server, "tools/call", fd, 1, "tool", "s", tool);
        } else
                r = sd_bus_message_append(message, "sss", server, tool, arguments);
        if (r >= 0)
                r = call_and_wait(cli, message, cli->timeout, error, &reply);
        if (r >= 0)
                r = read_reply(reply, files, ret);
        sd_bus_message_unref(message);
        sd_bus_message_unref(reply);
        return r;
}

int job_call_tool(Cli *cli, const char *server, const char *tool, const char *arguments, sd_bus_error *error,
                  char **ret) {
        bool watched = isatty(STDERR_FILENO) && !cli->quiet && !cli->json,
             long_wait = cli->timeout != USEC_INFINITY && cli->timeout > BUS_TIMEOUT,
             small = strlen(arguments) <= JOB_ARGUMENTS_MAX;

        if (cli->job || ((watched || long_wait) && small))
                return call_as_job(cli, server, tool, arguments, error, ret);

        return call_in_one(cli, server, tool, arguments, error, ret);
}
