/* A small, fast MCP server on stdin and stdout: the worker of benchmarks and stress tests.
 *
 *   echo-worker             legacy era: initialize, ping; server/discover is an unknown method (-32601)
 *   echo-worker --modern    stateless era 2026-07-28: server/discover, _meta on every request; initialize is refused
 *   echo-worker --id-last   answers {"result":...,"jsonrpc":"2.0","id":...}, the order of the TypeScript SDK
 *
 * Both eras serve tools/list, tools/call and echo/params, whose result is {"params":<the bytes it was sent>}.
 * All that one read brought is handled before anything is written, and its answers leave in one write. */

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES (32U * 1024 * 1024)
#define READ_MIN_BYTES (64U * 1024)
#define WRITE_EARLY_BYTES (1024U * 1024)
#define OUTPUT_KEPT_BYTES (4U * 1024 * 1024)
#define BIG_MAX_BYTES (256.0 * 1024 * 1024)
#define SLEEP_MAX_MS (3600.0 * 1000)
#define SLEEPERS_MAX 65536

#define MODERN_VERSION "2026-07-28"
#define META "io.modelcontextprotocol/"
#define SERVER_INFO "{\"name\":\"echo-worker\",\"version\":\"1.0.0\"}"

/* Bytes inside the line that is being handled: one JSON value, strings with their quotes. Absent: .data is NULL. */
typedef struct Span {
        const char *data;
        size_t size;
} Span;

typedef struct Member {
        const char *key;
        Span value;
} Member;

typedef struct Buffer {
        char *data;
        size_t size, allocated;
} Buffer;

typedef struct Sleeper {
        struct Sleeper *next;
        uint64_t wakes_at_ns;
        size_t id_size;
        char id[];
} Sleeper;

typedef struct Worker {
        bool modern, id_last;
        Buffer input, output;
        Sleeper *sleepers; /* the next to wake first */
        size_t n_sleepers;
} Worker;

/* Memory and the two pipes */

static _Noreturn void die(const char *what) {
        fprintf(stderr, "echo-worker: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
}

static void buffer_reserve(Buffer *b, size_t more) {
        if (b->allocated - b->size >= more)
                return;

        if (b->allocated == 0)
                b->allocated = READ_MIN_BYTES;
        while (b->allocated - b->size < more)
                b->allocated *= 2;

        b->data = realloc(b->data, b->allocated);
        if (!b->data)
                die("Out of memory");
}

static void buffer_append(Buffer *b, const char *data, size_t size) {
        buffer_reserve(b, size);
        memcpy(b->data + b->size, data, size);
        b->size += size;
}

static void put(Worker *w, const char *text) {
        buffer_append(&w->output, text, strlen(text));
}

static void put_span(Worker *w, Span span) {
        buffer_append(&w->output, span.data, span.size);
}

static void flush(Worker *w) {
        size_t done = 0;

        while (done < w->output.size) {
                ssize_t n = write(STDOUT_FILENO, w->output.data + done, w->output.size - done);
                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        die("Cannot write to stdout");
                }
                done += (size_t)n;
        }

        w->output.size = 0;
        if (w->output.allocated > OUTPUT_KEPT_BYTES) {
                free(w->output.data);
                w->output = (Buffer){ 0 };
        }
}

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* JSON. A line ends with a NUL byte, which no JSON text contains, so the scanner needs no other end. It finds members
 * where they are, never inside strings or nested values, and leaves grammar inside skipped values unchecked. Keys and
 * method names written with escapes are not recognised. */

static const char *skip_space(const char *p) {
        while (*p == ' ' || *p == '\t' || *p == '\r')
                p++;
        return p;
}

static const char *skip_string(const char *p) {
        for (p++; *p != '"'; p++) {
                if ((unsigned char)*p < ' ')
                        return NULL;
                if (*p == '\\' && (unsigned char)*++p < ' ')
                        return NULL;
        }
        return p + 1;
}

static const char *skip_value(const char *p) {
        size_t depth = 0, n;

        do {
                p = skip_space(p);

                switch (*p) {
                case '{':
                case '[':
                        depth++;
                        p++;
                        break;
                case '}':
                case ']':
                        if (depth == 0)
                                return NULL;
                        depth--;
                        p++;
                        break;
                case ',':
                case ':':
                        if (depth == 0)
                                return NULL;
                        p++;
                        break;
                case '"':
                        p = skip_string(p);
                        if (!p)
                                return NULL;
                        break;
                default:
                        n = strspn(p, "0123456789+-.eEaflnrstu");
                        if (n == 0)
                                return NULL;
                        p += n;
                }
        } while (depth > 0);

        return p;
}

static bool span_is(Span span, const char *text) {
        return span.data && span.size == strlen(text) && memcmp(span.data, text, span.size) == 0;
}

/* Compares a string's content, without its quotes. */
static bool string_is(Span span, const char *text) {
        return span.size >= 2 && span.data[0] == '"' && span_is((Span){ span.data + 1, span.size - 2 }, text);
}

static bool span_starts(Span span, char c) {
        return span.data && span.data[0] == c;
}

/* Finds the values of the named members. Returns the byte after the object, or NULL if this is no object. */
static const char *read_object(const char *p, Member *members, size_t n_members) {
        if (!p || *p != '{')
                return NULL;

        p = skip_space(p + 1);
        if (*p == '}')
                return p + 1;

        for (;;) {
                Span key, value;

                if (*p != '"')
                        return NULL;
                key.data = p;
                p = skip_string(p);
                if (!p)
                        return NULL;
                key.size = (size_t)(p - key.data);

                p = skip_space(p);
                if (*p != ':')
                        return NULL;

                value.data = skip_space(p + 1);
                p = skip_value(value.data);
                if (!p)
                        return NULL;
                value.size = (size_t)(p - value.data);

                for (size_t i = 0; i < n_members; i++)
                        if (string_is(key, members[i].key))
                                members[i].value = value;

                p = skip_space(p);
                if (*p == '}')
                        return p + 1;
                if (*p != ',')
                        return NULL;
                p = skip_space(p + 1);
        }
}

static Span member(Span object, const char *key) {
        Member m = { .key = key };

        (void)read_object(object.data, &m, 1);
        return m.value;
}

/* A number member between 0 and max, or -1. */
static double number_member(Span object, const char *key, double max) {
        Span value = member(object, key);
        double number;

        if (!value.data || !strchr("-0123456789", value.data[0]))
                return -1;

        number = strtod(value.data, NULL);
        return number >= 0 && number <= max ? number : -1;
}

/* Answers */

static void result_begin(Worker *w, Span id) {
        if (w->id_last)
                put(w, "{\"result\":{");
        else {
                put(w, "{\"jsonrpc\":\"2.0\",\"id\":");
                put_span(w, id);
                put(w, ",\"result\":{");
        }
        if (w->modern)
                put(w, "\"resultType\":\"complete\",");
}

static void result_end(Worker *w, Span id) {
        if (w->id_last) {
                put(w, "},\"jsonrpc\":\"2.0\",\"id\":");
                put_span(w, id);
                put(w, "}\n");
        } else
                put(w, "}}\n");
}

static void answer_text(Worker *w, Span id, Span json_string) {
        result_begin(w, id);
        put(w, "\"content\":[{\"type\":\"text\",\"text\":");
        put_span(w, json_string);
        put(w, "}]");
        result_end(w, id);
}

static void answer_error(Worker *w, Span id, int code, const char *message, Span data) {
        char head[32];

        snprintf(head, sizeof head, "%d", code);
        put(w, "{\"jsonrpc\":\"2.0\",\"id\":");
        put_span(w, id.data ? id : (Span){ "null", 4 });
        put(w, ",\"error\":{\"code\":");
        put(w, head);
        put(w, ",\"message\":\"");
        put(w, message);
        put(w, "\"");
        if (data.data) {
                put(w, ",\"data\":{\"supported\":[\"" MODERN_VERSION "\"],\"requested\":");
                put_span(w, data);
                put(w, "}");
        }
        put(w, "}}\n");
}

static void answer_invalid(Worker *w, Span id, const char *message) {
        answer_error(w, id, -32602, message, (Span){ 0 });
}

static void answer_unsupported(Worker *w, Span id, Span requested) {
        if (!requested.data)
                requested = (Span){ "\"unknown\"", 9 };
        answer_error(w, id, -32022, "Unsupported protocol version, this server speaks " MODERN_VERSION, requested);
}

/* Sleepers */

static void sleeper_wake(Worker *w) {
        uint64_t now = now_ns();

        while (w->sleepers && w->sleepers->wakes_at_ns <= now) {
                Sleeper *s = w->sleepers;

                w->sleepers = s->next;
                w->n_sleepers--;
                answer_text(w, (Span){ s->id, s->id_size }, (Span){ "\"slept\"", 7 });
                free(s);
        }
}

static void sleeper_cancel(Worker *w, Span id) {
        for (Sleeper **at = &w->sleepers; *at; at = &(*at)->next) {
                Sleeper *s = *at;

                if (s->id_size != id.size || memcmp(s->id, id.data, id.size) != 0)
                        continue;

                *at = s->next;
                w->n_sleepers--;
                free(s);
                return;
        }
}

static int sleeper_timeout_ms(const Worker *w) {
        uint64_t now;

        if (!w->sleepers)
                return -1;

        now = now_ns();
        return w->sleepers->wakes_at_ns <= now ? 0 : (int)((w->sleepers->wakes_at_ns - now) / 1000000U) + 1;
}

/* Tools */

static void tool_echo(Worker *w, Span id, Span arguments) {
        Span message = member(arguments, "message");

        if (!span_starts(message, '"')) {
                answer_invalid(w, id, "echo wants a string named message");
                return;
        }

        answer_text(w, id, message);
}

static void tool_pid(Worker *w, Span id, Span arguments) {
        char text[32];

        (void)arguments;
        snprintf(text, sizeof text, "\"%d\"", (int)getpid());
        answer_text(w, id, (Span){ text, strlen(text) });
}

static void tool_sleep(Worker *w, Span id, Span arguments) {
        double ms = number_member(arguments, "ms", SLEEP_MAX_MS);
        Sleeper *s, **at = &w->sleepers;

        if (ms < 0) {
                answer_invalid(w, id, "sleep wants a number of milliseconds named ms, at most an hour");
                return;
        }
        if (w->n_sleepers >= SLEEPERS_MAX) {
                answer_invalid(w, id, "Too many sleeping calls");
                return;
        }

        s = malloc(sizeof *s + id.size);
        if (!s)
                die("Out of memory");
        s->wakes_at_ns = now_ns() + (uint64_t)(ms * 1e6);
        s->id_size = id.size;
        memcpy(s->id, id.data, id.size);

        while (*at && (*at)->wakes_at_ns <= s->wakes_at_ns)
                at = &(*at)->next;
        s->next = *at;
        *at = s;
        w->n_sleepers++;
}

static void tool_crash(Worker *w, Span id, Span arguments) {
        (void)id;
        (void)arguments;
        flush(w);
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        abort();
}

static void tool_exit(Worker *w, Span id, Span arguments) {
        double status = number_member(arguments, "status", 255);

        if (status < 0) {
                answer_invalid(w, id, "exit wants a number from 0 to 255 named status");
                return;
        }

        flush(w);
        exit((int)status);
}

static void tool_big(Worker *w, Span id, Span arguments) {
        double bytes = number_member(arguments, "bytes", BIG_MAX_BYTES);
        size_t n;

        if (bytes < 0) {
                answer_invalid(w, id, "big wants a number named bytes, at most 256 MiB");
                return;
        }

        n = (size_t)bytes;
        result_begin(w, id);
        put(w, "\"content\":[{\"type\":\"text\",\"text\":\"");
        buffer_reserve(&w->output, n);
        memset(w->output.data + w->output.size, 'x', n);
        w->output.size += n;
        put(w, "\"}]");
        result_end(w, id);
}

/* Which signals the worker was started with blocked and ignored: a program in C has changed none, as Python has. */
static void tool_signals(Worker *w, Span id, Span arguments) {
        unsigned long long blocked = 0, ignored = 0;
        char line[256], text[64];
        FILE *status;

        (void)arguments;
        status = fopen("/proc/self/status", "re");
        if (!status)
                die("Cannot open /proc/self/status");
        while (fgets(line, sizeof line, status)) {
                (void)sscanf(line, "SigBlk: %llx", &blocked);
                (void)sscanf(line, "SigIgn: %llx", &ignored);
        }
        fclose(status);

        snprintf(text, sizeof text, "\"blocked %016llx ignored %016llx\"", blocked, ignored);
        answer_text(w, id, (Span){ text, strlen(text) });
}

static void tool_sink(Worker *w, Span id, Span arguments) {
        (void)w;
        (void)id;
        (void)arguments;
}

static const struct {
        const char *name, *description, *properties;
        void (*call)(Worker *w, Span id, Span arguments);
} tools[] = {
        { "echo", "Returns its message", "\"message\":{\"type\":\"string\"}", tool_echo },
        { "pid", "Returns the worker's process id", "", tool_pid },
        { "sleep", "Answers after ms milliseconds", "\"ms\":{\"type\":\"number\"}", tool_sleep },
        { "crash", "Aborts the worker", "", tool_crash },
        { "exit", "Exits with a status", "\"status\":{\"type\":\"integer\"}", tool_exit },
        { "big", "Returns a text of so many bytes", "\"bytes\":{\"type\":\"integer\"}", tool_big },
        { "signals", "Returns the blocked and ignored signals", "", tool_signals },
        { "sink", "Never answers", "", tool_sink },
};

#define N_TOOLS (sizeof tools / sizeof tools[0])

/* Methods */

static void method_initialize(Worker *w, Span id, Span params) {
        static const char *const versions[] = { "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05" };
        Span requested = member(params, "protocolVersion");
        const char *version = versions[0];

        for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
                if (string_is(requested, versions[i]))
                        version = versions[i];

        result_begin(w, id);
        put(w, "\"protocolVersion\":\"");
        put(w, version);
        put(w, "\",\"capabilities\":{\"tools\":{}},\"serverInfo\":" SERVER_INFO);
        result_end(w, id);
}

static void method_ping(Worker *w, Span id, Span params) {
        (void)params;
        result_begin(w, id);
        result_end(w, id);
}

static void method_discover(Worker *w, Span id, Span params) {
        (void)params;
        result_begin(w, id);
        put(w, "\"supportedVersions\":[\"" MODERN_VERSION "\"],\"capabilities\":{\"tools\":{}},"
               "\"_meta\":{\"" META "serverInfo\":" SERVER_INFO "},\"ttlMs\":60000,\"cacheScope\":\"public\"");
        result_end(w, id);
}

static void method_tools_list(Worker *w, Span id, Span params) {
        (void)params;
        result_begin(w, id);
        put(w, "\"tools\":[");
        for (size_t i = 0; i < N_TOOLS; i++) {
                put(w, i == 0 ? "{\"name\":\"" : ",{\"name\":\"");
                put(w, tools[i].name);
                put(w, "\",\"description\":\"");
                put(w, tools[i].description);
                put(w, "\",\"inputSchema\":{\"type\":\"object\",\"properties\":{");
                put(w, tools[i].properties);
                put(w, "}}}");
        }
        put(w, w->modern ? "],\"ttlMs\":60000,\"cacheScope\":\"public\"" : "]");
        result_end(w, id);
}

static void method_tools_call(Worker *w, Span id, Span params) {
        Member members[] = { { .key = "name" }, { .key = "arguments" } };

        (void)read_object(params.data, members, 2);
        for (size_t i = 0; i < N_TOOLS; i++) {
                if (string_is(members[0].value, tools[i].name)) {
                        tools[i].call(w, id, members[1].value);
                        return;
                }
        }

        answer_invalid(w, id, "Unknown tool");
}

static void method_echo_params(Worker *w, Span id, Span params) {
        result_begin(w, id);
        put(w, "\"params\":");
        put_span(w, params.data ? params : (Span){ "null", 4 });
        result_end(w, id);
}

enum { LEGACY = 1, MODERN = 2 };

static const struct {
        const char *name;
        unsigned eras;
        void (*handle)(Worker *w, Span id, Span params);
} methods[] = {
        { "tools/call", LEGACY | MODERN, method_tools_call }, { "echo/params", LEGACY | MODERN, method_echo_params },
        { "tools/list", LEGACY | MODERN, method_tools_list }, { "ping", LEGACY, method_ping },
        { "initialize", LEGACY, method_initialize },          { "server/discover", MODERN, method_discover },
};

/* What every stateless request has to carry. Returns whether it does; answers if it doesn't. */
static bool check_meta(Worker *w, Span id, Span params) {
        Member members[] = { { .key = META "protocolVersion" }, { .key = META "clientCapabilities" } };

        (void)read_object(member(params, "_meta").data, members, 2);

        if (!span_starts(members[0].value, '"') || !span_starts(members[1].value, '{'))
                answer_invalid(w, id, "Missing in _meta: " META "protocolVersion or " META "clientCapabilities");
        else if (!string_is(members[0].value, MODERN_VERSION))
                answer_unsupported(w, id, members[0].value);
        else
                return true;

        return false;
}

static void handle_line(Worker *w, const char *line, size_t size) {
        Member members[] = { { .key = "id" }, { .key = "method" }, { .key = "params" } };
        const char *end = read_object(skip_space(line), members, 3);
        Span id = members[0].value, method = members[1].value, params = members[2].value;

        if (!end || skip_space(end) != line + size) {
                answer_error(w, (Span){ 0 }, -32700, "Parse error", (Span){ 0 });
                return;
        }

        if (!id.data) {
                if (string_is(method, "notifications/cancelled"))
                        sleeper_cancel(w, member(params, "requestId"));
                return;
        }
        if (!method.data)
                return;
        if (!strchr("\"-0123456789", id.data[0])) {
                answer_error(w, (Span){ 0 }, -32600, "The id is neither a string nor a number", (Span){ 0 });
                return;
        }

        if (w->modern && string_is(method, "initialize")) {
                answer_unsupported(w, id, member(params, "protocolVersion"));
                return;
        }
        if (w->modern && !check_meta(w, id, params))
                return;

        for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
                if ((methods[i].eras & (w->modern ? MODERN : LEGACY)) && string_is(method, methods[i].name)) {
                        methods[i].handle(w, id, params);
                        return;
                }
        }

        answer_error(w, id, -32601, "Method not found", (Span){ 0 });
}

/* Returns false at the end of the input. */
static bool handle_input(Worker *w) {
        Buffer *in = &w->input;
        size_t line = 0, searched = in->size;
        ssize_t n;

        buffer_reserve(in, READ_MIN_BYTES);
        do
                n = read(STDIN_FILENO, in->data + in->size, in->allocated - in->size);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                die("Cannot read from stdin");
        if (n == 0)
                return false;
        in->size += (size_t)n;

        for (;;) {
                char *newline = memchr(in->data + searched, '\n', in->size - searched);
                if (!newline)
                        break;

                *newline = '\0';
                handle_line(w, in->data + line, (size_t)(newline - in->data) - line);
                if (w->output.size >= WRITE_EARLY_BYTES)
                        flush(w);
                line = searched = (size_t)(newline - in->data) + 1;
        }

        if (line > 0)
                memmove(in->data, in->data + line, in->size - line);
        in->size -= line;
        if (in->size > LINE_MAX_BYTES) {
                errno = EMSGSIZE;
                die("A line is longer than 32 MiB");
        }
        return true;
}

static bool wait_for_input(const Worker *w) {
        struct pollfd stdin_poll = { .fd = STDIN_FILENO, .events = POLLIN };
        int r;

        if (!w->sleepers)
                return true; /* the read blocks just as well */

        r = poll(&stdin_poll, 1, sleeper_timeout_ms(w));
        if (r < 0 && errno != EINTR)
                die("Cannot poll stdin");
        return r > 0;
}

int main(int argc, char *argv[]) {
        static Worker w;

        for (int i = 1; i < argc; i++)
                if (strcmp(argv[i], "--modern") == 0)
                        w.modern = true;
                else if (strcmp(argv[i], "--id-last") == 0)
                        w.id_last = true;
                else {
                        fprintf(stderr, "echo-worker: unknown option %s\n", argv[i]);
                        return EXIT_FAILURE;
                }

        for (;;) {
                if (wait_for_input(&w) && !handle_input(&w))
                        return EXIT_SUCCESS;
                sleeper_wake(&w);
                flush(&w);
        }
}
