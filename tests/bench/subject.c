#include "subject.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <systemd/sd-id128.h>
#include <time.h>

#define BROKER "org.example.McpExec"
#define ECHO_NAME "org.example.McpExec.BenchEcho"
#define ECHO_PATH "/org/example/McpExec/BenchEcho"
#define READ_MIN ((size_t)64 * 1024)
#define NUMBER_DIGITS 10

static const char payload_head[] = "{\"message\":\"", payload_tail[] = "\"}";

/* The results of a bare echo, of echo/params, and of the tool echo of both workers */
static const Expected same_expected = { "", 0, 0, "" };
static const Expected params_expected = { "{\"params\":", 0, 0, "}" };
static const Expected tool_expected = { "{\"content\":[{\"type\":\"text\",\"text\":", sizeof(payload_head) - 2, 1,
                                        "}]}" };
const Expected everything_expected = { "{\"content\":[{\"type\":\"text\",\"text\":\"Echo: ", sizeof(payload_head) - 1,
                                       2, "\"}]}" };

static uint64_t now_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Payloads */

int payload_new(size_t size, Payload *ret) {
        size_t head = strlen(payload_head), tail = strlen(payload_tail);
        char *text;

        if (size < head + NUMBER_DIGITS + tail)
                return -EINVAL;

        text = malloc(size + 1);
        if (!text)
                return -ENOMEM;

        memset(text, 'x', size);
        memcpy(text, payload_head, head);
        memcpy(text + size - tail, payload_tail, tail + 1);
        *ret = (Payload){ text, size };
        return 0;
}

static void payload_stamp(Payload *payload) {
        static unsigned number;
        char digits[NUMBER_DIGITS + 1];

        (void)snprintf(digits, sizeof(digits), "%0*u", NUMBER_DIGITS, ++number);
        memcpy(payload->text + strlen(payload_head), digits, NUMBER_DIGITS);
}

static bool take(const char **text, size_t *size, const char *wanted, size_t n) {
        if (*size < n || memcmp(*text, wanted, n) != 0)
                return false;

        *text += n;
        *size -= n;
        return true;
}

static bool take_expected(const char **text, size_t *size, const Expected *expected, const Payload *payload) {
        return take(text, size, expected->prefix, strlen(expected->prefix)) &&
               take(text, size, payload->text + expected->skip_front,
                    payload->size - expected->skip_front - expected->skip_back) &&
               take(text, size, expected->suffix, strlen(expected->suffix));
}

static int wrong_answer(const Subject *subject, const char *text, size_t size) {
        fprintf(stderr, "bench: %s: wrong answer: %.*s%s\n", subject->name, (int)MIN(size, (size_t)300), text,
                size > 300 ? "..." : "");
        return -EBADMSG;
}

static int failed(const Subject *subject, const char *what, int error) {
        fprintf(stderr, "bench: %s: %s: %s\n", subject->name, what, strerror(-error));
        return error;
}

/* Pipes */

static int write_all(Subject *subject, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(subject->input_fd, data, size);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return failed(subject, "write", -errno);
                }
                data += n;
                size -= (size_t)n;
        }

        return 0;
}

/* Valid until the next call */
static int read_line(Subject *subject, const char **ret, size_t *ret_size) {
        size_t searched = subject->line_next;

        for (;;) {
                char *start = subject->line + subject->line_next;
                char *end = memchr(subject->line + searched, '\n', subject->line_end - searched);
                ssize_t n;

                if (end) {
                        *ret = start;
                        *ret_size = (size_t)(end - start);
                        subject->line_next += *ret_size + 1;
                        return 0;
                }

                if (subject->line_next > 0) {
                        memmove(subject->line, start, subject->line_end - subject->line_next);
                        subject->line_end -= subject->line_next;
                        subject->line_next = 0;
                }
                searched = subject->line_end;

                if (subject->line_allocated - subject->line_end < READ_MIN) {
                        size_t wanted = MAX(subject->line_allocated * 2, 2 * READ_MIN);
                        char *line = realloc(subject->line, wanted);

                        if (!line)
                                return -ENOMEM;
                        subject->line = line;
                        subject->line_allocated = wanted;
                }

                do
                        n = read(subject->output_fd, subject->line + subject->line_end,
                                 subject->line_allocated - subject->line_end);
                while (n < 0 && errno == EINTR);
                if (n <= 0)
                        return failed(subject, "read", n < 0 ? -errno : -EPIPE);
                subject->line_end += (size_t)n;
        }
}

static int pipe_send(Subject *subject, const Payload *payload) {
        size_t tail = strlen(subject->request_tail);
        _cleanup_(freep) char *line = NULL;
        char head[256];
        int n;

        n = snprintf(head, sizeof(head), subject->request_head, ++subject->last_id);
        line = malloc((size_t)n + payload->size + tail);
        if (!line)
                return -ENOMEM;

        memcpy(line, head, (size_t)n);
        memcpy(line + n, payload->text, payload->size);
        memcpy(line + n + payload->size, subject->request_tail, tail);
        return write_all(subject, line, (size_t)n + payload->size + tail);
}

static int pipe_check(Subject *subject, const char *line, size_t size, uint64_t id, const Payload *payload) {
        const char *text = line;
        size_t left = size;
        char prefix[128], suffix[128];
        int n, m;

        n = snprintf(prefix, sizeof(prefix), subject->answer_prefix, id);
        m = snprintf(suffix, sizeof(suffix), subject->answer_suffix, id);
        if (!take(&text, &left, prefix, (size_t)n) || !take_expected(&text, &left, &subject->expected, payload) ||
            !take(&text, &left, suffix, (size_t)m) || left > 0)
                return wrong_answer(subject, line, size);

        return 0;
}

static int pipe_call(Subject *subject, Payload *payload, uint64_t *ret_nsec) {
        uint64_t started = now_nsec();
        const char *line;
        size_t size;
        int r;

        r = pipe_send(subject, payload);
        if (r < 0)
                return r;
        r = read_line(subject, &line, &size);
        if (r < 0)
                return r;

        *ret_nsec = now_nsec() - started;
        return pipe_check(subject, line, size, subject->last_id, payload);
}

/* The worker answers in order. */
static int pipe_flood(Subject *subject, Payload *payloads, unsigned calls) {
        uint64_t id = subject->last_id;
        unsigned sent = 0;
        int r;

        for (unsigned answered = 0; answered < calls; answered++) {
                const char *line;
                size_t size;

                for (; sent < calls && sent < answered + WINDOW; sent++) {
                        payload_stamp(payloads + sent % WINDOW);
                        r = pipe_send(subject, payloads + sent % WINDOW);
                        if (r < 0)
                                return r;
                }

                r = read_line(subject, &line, &size);
                if (r < 0)
                        return r;
                r = pipe_check(subject, line, size, ++id, payloads + answered % WINDOW);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int start_worker(Subject *subject, char *const argv[]) {
        int to[2], from[2];

        if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
                return failed(subject, "pipe", -errno);

        subject->pid = fork();
        if (subject->pid < 0)
                return failed(subject, "fork", -errno);
        if (subject->pid == 0) {
                int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (dup2(to[0], STDIN_FILENO) >= 0 && dup2(from[1], STDOUT_FILENO) >= 0 &&
                    dup2(null, STDERR_FILENO) >= 0)
                        (void)execv(argv[0], argv);
                _exit(127);
        }

        (void)close(to[0]);
        (void)close(from[1]);
        subject->input_fd = to[1];
        subject->output_fd = from[0];
        return 0;
}

/* Behind it, the worker has said all that it says unasked. */
static int greet_worker(Subject *subject) {
        static const char initialize[] =
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-"
                "25\","
                "\"capabilities\":{},\"clientInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}\n";
        static const char initialized[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n"
                                          "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}\n";
        const char *line;
        size_t size;
        int r;

        r = write_all(subject, initialize, strlen(initialize));
        for (subject->last_id = 0; subject->last_id < 2 && r >= 0;) {
                r = read_line(subject, &line, &size);
                if (r < 0 || memmem(line, size, "\"method\":", strlen("\"method\":")))
                        continue;
                if (!memmem(line, size, "\"result\":", strlen("\"result\":")))
                        return wrong_answer(subject, line, size);
                if (++subject->last_id == 1)
                        r = write_all(subject, initialized, strlen(initialized));
        }

        return r;
}

static const char params_head[] = "{\"jsonrpc\":\"2.0\",\"id\":%1$" PRIu64 ",\"method\":\"echo/params\",\"params\":";
static const char params_tail[] = "}\n";
static const char tool_head[] = "{\"jsonrpc\":\"2.0\",\"id\":%1$" PRIu64 ",\"method\":\"tools/call\",\"params\":"
                                "{\"_meta\":{\"progressToken\":%1$" PRIu64 "},\"name\":\"echo\",\"arguments\":";
static const char tool_tail[] = "}}\n";

int subject_open_echo_worker(Subject *subject, const char *path, bool tool) {
        int r;

        subject->name = tool ? "pipe, tools/call" : "pipe, echo/params";
        subject->request_head = tool ? tool_head : params_head;
        subject->request_tail = tool ? tool_tail : params_tail;
        subject->answer_prefix = "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"result\":";
        subject->answer_suffix = "}";
        subject->expected = tool ? tool_expected : params_expected;

        r = start_worker(subject, (char *[]){ (char *)path, NULL });
        return r < 0 ? r : greet_worker(subject);
}

int subject_open_everything(Subject *subject, const char *node, const char *script) {
        int r;

        subject->name = "everything, pipe";
        subject->request_head = tool_head;
        subject->request_tail = tool_tail;
        subject->answer_prefix = "{\"result\":";
        subject->answer_suffix = ",\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 "}";
        subject->expected = everything_expected;

        r = start_worker(subject, (char *[]){ (char *)node, (char *)script, (char *)"stdio", NULL });
        return r < 0 ? r : greet_worker(subject);
}

/* Bus */

static int new_call(Subject *subject, const Payload *payload, sd_bus_message **ret) {
        sd_bus_message *message = NULL;
        int r;

        r = sd_bus_message_new_method_call(subject->bus, &message, subject->destination, subject->path,
                                           subject->interface, subject->member);
        if (r >= 0 && subject->server)
                r = sd_bus_message_append(message, "ss", subject->server, subject->method);
        if (r >= 0)
                r = sd_bus_message_append_basic(message, 's', payload->text);
        if (r < 0)
                sd_bus_message_unref(message);
        else
                *ret = message;
        return r;
}

static int bus_check(Subject *subject, const char *result, const Payload *payload) {
        const char *text = result;
        size_t left = strlen(result);

        if (!take_expected(&text, &left, &subject->expected, payload) || left > 0)
                return wrong_answer(subject, result, strlen(result));

        return 0;
}

static int bus_call(Subject *subject, Payload *payload, uint64_t *ret_nsec) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        uint64_t started = now_nsec();
        const char *result;
        int r;

        r = new_call(subject, payload, &message);
        if (r >= 0)
                r = sd_bus_call(subject->bus, message, 0, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read_basic(reply, 's', &result);
        if (r < 0)
                return failed(subject, error.message ?: "call", r);

        *ret_nsec = now_nsec() - started;
        return bus_check(subject, result, payload);
}

typedef struct Flight {
        Subject *subject;
        Payload *payload;
        unsigned *n_answered;
        bool flying;
        int result;
} Flight;

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        Flight *flight = userdata;
        const sd_bus_error *error = sd_bus_message_get_error(reply);
        const char *result;

        if (error)
                flight->result = failed(flight->subject, error->message ?: error->name, -EREMOTEIO);
        else if (sd_bus_message_read_basic(reply, 's', &result) < 0)
                flight->result = wrong_answer(flight->subject, "", 0);
        else
                flight->result = bus_check(flight->subject, result, flight->payload);

        flight->flying = false;
        (*flight->n_answered)++;
        return flight->result;
}

static int take_off(Flight *flight) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        int r;

        payload_stamp(flight->payload);
        flight->flying = true;
        r = new_call(flight->subject, flight->payload, &message);
        if (r >= 0)
                r = sd_bus_call_async(flight->subject->bus, NULL, message, on_answer, flight, 0);
        return r;
}

static int bus_flood(Subject *subject, Payload *payloads, unsigned calls) {
        unsigned sent = 0, answered = 0;
        Flight flights[WINDOW];
        int r;

        for (unsigned i = 0; i < WINDOW; i++)
                flights[i] = (Flight){ .subject = subject, .payload = payloads + i, .n_answered = &answered };

        while (answered < calls) {
                for (unsigned i = 0; i < WINDOW && sent < calls; i++) {
                        if (flights[i].flying)
                                continue;
                        if (flights[i].result < 0)
                                return flights[i].result;
                        r = take_off(flights + i);
                        if (r < 0)
                                return failed(subject, "call", r);
                        sent++;
                }

                r = sd_bus_process(subject->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(subject->bus, UINT64_MAX);
                if (r < 0 && r != -EINTR)
                        return failed(subject, "process", r);
        }

        for (unsigned i = 0; i < WINDOW; i++)
                if (flights[i].result < 0)
                        return flights[i].result;
        return 0;
}

/* The trivial server that a bare echo means */

/* Its reply takes the text as the broker's does: sd_bus_reply_method_return() would check its UTF-8 once more, and make
 * the bare echo of a large text dearer than a call. */
static int method_echo(sd_bus_message *message, void *userdata _unused_, sd_bus_error *error _unused_) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *text;
        char *space;
        int r;

        r = sd_bus_message_read_basic(message, 's', &text);
        if (r < 0)
                return r;

        r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_append_string_space(reply, strlen(text), &space);
        if (r < 0)
                return r;

        memcpy(space, text, strlen(text));
        return sd_bus_send(NULL, reply, NULL);
}

static const sd_bus_vtable echo_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Echo", "s", "s", method_echo, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static int serve_echo(sd_bus *bus) {
        sd_event *event = NULL;
        int r;

        r = sd_event_default(&event);
        if (r >= 0)
                r = sd_bus_add_object_vtable(bus, NULL, ECHO_PATH, ECHO_NAME, echo_vtable, NULL);
        if (r >= 0)
                r = sd_bus_attach_event(bus, event, SD_EVENT_PRIORITY_NORMAL);
        return r < 0 ? r : sd_event_loop(event);
}

static int open_peer_bus(int fd, bool server, sd_bus **ret) {
        sd_id128_t id;
        sd_bus *bus = NULL;
        int r;

        r = sd_id128_randomize(&id);
        if (r >= 0)
                r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_fd(bus, fd, fd);
        if (r >= 0 && server)
                r = sd_bus_set_server(bus, true, id);
        if (r >= 0)
                r = sd_bus_start(bus);
        *ret = bus;
        return r;
}

static _Noreturn void peer_echo_server(int fd) {
        sd_bus *bus = NULL;
        int r;

        r = open_peer_bus(fd, /* server= */ true, &bus);
        if (r >= 0)
                r = serve_echo(bus);
        _exit(r < 0);
}

static _Noreturn void bus_echo_server(int ready_fd) {
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_user(&bus);
        if (r >= 0)
                r = sd_bus_request_name(bus, ECHO_NAME, 0);
        if (r >= 0 && write(ready_fd, "", 1) == 1)
                r = serve_echo(bus);
        _exit(r < 0);
}

static void expect_echo(Subject *subject) {
        subject->path = ECHO_PATH;
        subject->interface = ECHO_NAME;
        subject->member = "Echo";
        subject->expected = same_expected;
}

int subject_open_peer(Subject *subject) {
        int ends[2], r;

        subject->name = "sd-bus, peer to peer";
        expect_echo(subject);

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
                return failed(subject, "socketpair", -errno);

        subject->pid = fork();
        if (subject->pid < 0)
                return failed(subject, "fork", -errno);
        if (subject->pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)close(ends[0]);
                peer_echo_server(ends[1]);
        }

        (void)close(ends[1]);
        r = open_peer_bus(ends[0], /* server= */ false, &subject->bus);
        return r < 0 ? failed(subject, "open", r) : 0;
}

int subject_open_bus_echo(Subject *subject) {
        int ready[2], r;
        char byte;

        subject->name = "sd-bus, through the bus";
        subject->destination = ECHO_NAME;
        expect_echo(subject);

        if (pipe2(ready, O_CLOEXEC) < 0)
                return failed(subject, "pipe", -errno);

        subject->pid = fork();
        if (subject->pid < 0)
                return failed(subject, "fork", -errno);
        if (subject->pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)close(ready[0]);
                bus_echo_server(ready[1]);
        }

        (void)close(ready[1]);
        r = read(ready[0], &byte, 1) == 1 ? sd_bus_open_user(&subject->bus) : -ECONNREFUSED;
        (void)close(ready[0]);
        return r < 0 ? failed(subject, "open", r) : 0;
}

static void expect_broker(Subject *subject, const char *server, const char *member, const char *method) {
        subject->name = member;
        subject->destination = BROKER;
        subject->path = "/org/example/McpExec";
        subject->interface = BROKER;
        subject->member = member;
        subject->server = server;
        subject->method = method;
        subject->expected = streq(member, "Call") ? params_expected : tool_expected;
}

int subject_open_broker(Subject *subject, const char *server, const char *member, const char *method) {
        int r;

        expect_broker(subject, server, member, method);
        r = sd_bus_open_user(&subject->bus);
        return r < 0 ? failed(subject, "open", r) : 0;
}

/* As a client of the bus opens it: with the same calls, and Hello first. */
int subject_open_private(Subject *subject, const char *address, const char *server) {
        int r;

        expect_broker(subject, server, "Call", "echo/params");
        subject->name = "Call, private socket";
        r = sd_bus_new(&subject->bus);
        if (r >= 0)
                r = sd_bus_set_address(subject->bus, address);
        if (r >= 0)
                r = sd_bus_set_bus_client(subject->bus, true);
        if (r >= 0)
                r = sd_bus_start(subject->bus);
        if (r >= 0)
                r = sd_bus_get_unique_name(subject->bus, &(const char *){ NULL }); /* waits for all of that */
        return r < 0 ? failed(subject, "open", r) : 0;
}

/* Both */

int subject_call(Subject *subject, Payload *payload, uint64_t *ret_nsec) {
        payload_stamp(payload);
        return subject->bus ? bus_call(subject, payload, ret_nsec) : pipe_call(subject, payload, ret_nsec);
}

int subject_flood(Subject *subject, Payload payloads[WINDOW], unsigned calls, uint64_t *ret_nsec) {
        uint64_t started = now_nsec();
        int r;

        r = subject->bus ? bus_flood(subject, payloads, calls) : pipe_flood(subject, payloads, calls);
        *ret_nsec = now_nsec() - started;
        return r;
}

void subject_close(Subject *subject) {
        subject->bus = sd_bus_flush_close_unref(subject->bus);
        subject->input_fd = safe_close(subject->input_fd);
        subject->output_fd = safe_close(subject->output_fd);
        free(subject->line);
        if (subject->pid > 0) {
                (void)kill(subject->pid, SIGKILL);
                (void)waitpid(subject->pid, NULL, 0);
        }
}
