/* Many callers at once, each with several calls under way; counts every answer and checks that it is its own.
 * Prints one JSON object. The address of the bus stands in DBUS_SESSION_BUS_ADDRESS. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#define CALLERS_MAX 64
#define ERRORS_MAX 16
#define KINDS_MAX 16
#define BUCKETS 512 /* of answers by the time that they took, 16 for each doubling */

typedef struct ErrorCount {
        char name[96];
        char sample[512];
        unsigned count;
} ErrorCount;

typedef struct Report {
        unsigned ok, wrong, stray, failed;
        uint64_t slowest_usec;
        unsigned times[BUCKETS], by_kind[KINDS_MAX];
        ErrorCount errors[ERRORS_MAX];
        char wrong_sample[512];
        char trouble[256];
} Report;

typedef struct Options {
        bool mix; /* calls of all kinds */
        const char *server, *tool, *extra;
        unsigned callers, calls, window, timeout;
        uint64_t pause_min_usec, pause_max_usec;
} Options;

typedef struct Caller {
        const Options *options;
        Report *report;
        sd_bus *bus;
        unsigned number, sent, answered, quota;
        uint64_t random;
} Caller;

typedef struct CallSlot {
        Caller *caller;
        const struct Kind *kind;
        uint64_t started_usec;
        bool answered;
        char message[64];
} CallSlot;

static uint64_t now_usec(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t random_between(Caller *caller, uint64_t low, uint64_t high) {
        caller->random = caller->random * 6364136223846793005u + 1442695040888963407u;
        return high > low ? low + (caller->random >> 33) % (high - low + 1) : low;
}

static unsigned bucket_of(uint64_t usec) {
        unsigned bucket = (unsigned)(log2((double)(usec + 1)) * 16);

        return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double median_usec(const Report *report) {
        unsigned n = 0, below = 0, i;

        for (i = 0; i < BUCKETS; i++)
                n += report->times[i];
        for (i = 0; i < BUCKETS - 1 && (below += report->times[i]) * 2 < n; i++)
                ;
        return exp2((i + 0.5) / 16);
}

static void count_error(Report *report, const sd_bus_error *error) {
        report->failed++;
        for (size_t i = 0; i < ERRORS_MAX; i++) {
                ErrorCount *e = report->errors + i;

                if (e->count == 0) {
                        snprintf(e->name, sizeof(e->name), "%s", error->name);
                        snprintf(e->sample, sizeof(e->sample), "%s", error->message ?: "");
                } else if (strcmp(e->name, error->name) != 0)
                        continue;
                e->count++;
                return;
        }
}

/* A kind of calls: how one is made, and whether a message is its own answer. *ret_shown: what to show if it isn't. */
typedef struct Kind {
        const char *name;
        unsigned weight;
        const char *interface, *member;
        int (*append)(sd_bus_message *m, const CallSlot *call);
        bool (*is_answer)(sd_bus_message *m, const CallSlot *call, const char **ret_shown);
} Kind;

static int append_tool_call(sd_bus_message *m, const CallSlot *call) {
        const Options *o = call->caller->options;
        char arguments[256];

        snprintf(arguments, sizeof(arguments), "{\"message\":\"%s\"%s%s}", call->message, *o->extra ? "," : "",
                 o->extra);
        return sd_bus_message_append(m, "sss", o->server, o->tool, arguments);
}

static int append_call(sd_bus_message *m, const CallSlot *call) {
        char params[256];

        snprintf(params, sizeof(params), "{\"mine\":\"%s\"}", call->message);
        return sd_bus_message_append(m, "sss", call->caller->options->server, "echo/params", params);
}

static int append_batch(sd_bus_message *m, const CallSlot *call) {
        char params[256];

        snprintf(params, sizeof(params), "{\"mine\":\"%s\"}", call->message);
        return sd_bus_message_append(m, "sa(ss)", call->caller->options->server, 3, "echo/params", params, "ping", "",
                                     "echo/params", params);
}

static int append_notification(sd_bus_message *m, const CallSlot *call) {
        return sd_bus_message_append(m, "sss", call->caller->options->server, "notifications/hammer", "");
}

static int append_server(sd_bus_message *m, const CallSlot *call) {
        return sd_bus_message_append(m, "s", call->caller->options->server);
}

static int append_nothing(sd_bus_message *m, const CallSlot *call) {
        (void)m;
        (void)call;
        return 0;
}

static int append_property(sd_bus_message *m, const CallSlot *call) {
        (void)call;
        return sd_bus_message_append(m, "ss", "org.example.McpExec", "Version");
}

/* Refused by the broker itself, with the caller's own words. */
static int append_mistake(sd_bus_message *m, const CallSlot *call) {
        return sd_bus_message_append(m, "sss", call->caller->options->server, call->message, "{");
}

static bool has_message(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        return sd_bus_message_read(m, "s", ret_shown) >= 0 && strstr(*ret_shown, call->message);
}

/* An item that failed says how; the others are in their places. */
static bool is_batch(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        unsigned n = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "(bs)");
        if (r < 0)
                return false;

        for (int good; (r = sd_bus_message_read(m, "(bs)", &good, ret_shown)) > 0; n++)
                if (good ? (n == 1 ? strcmp(*ret_shown, "{}") != 0 : !strstr(*ret_shown, call->message))
                         : !strstr(*ret_shown, "org.example.McpExec.Error."))
                        return false;

        return r == 0 && n == 3;
}

static bool is_empty(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        (void)call;
        (void)ret_shown;
        return sd_bus_message_is_empty(m) > 0;
}

static bool is_list(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        (void)call;
        *ret_shown = sd_bus_message_get_signature(m, true);
        return sd_bus_message_has_signature(m, "a(sss)") > 0;
}

static bool is_description(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        return sd_bus_message_read(m, "s", ret_shown) >= 0 && strstr(*ret_shown, call->caller->options->server);
}

static bool is_property(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        (void)call;
        return sd_bus_message_read(m, "v", "s", ret_shown) >= 0;
}

static bool is_never_right(sd_bus_message *m, const CallSlot *call, const char **ret_shown) {
        (void)m;
        (void)call;
        *ret_shown = "a result";
        return false;
}

#define ROOT "org.example.McpExec"

static const Kind kinds[] = {
        { "CallTool", 100, ROOT, "CallTool", append_tool_call, has_message },
        { "Call", 30, ROOT, "Call", append_call, has_message },
        { "CallBatch", 15, ROOT, "CallBatch", append_batch, is_batch },
        { "Notify", 5, ROOT, "Notify", append_notification, is_empty },
        { "ListServers", 5, ROOT, "ListServers", append_nothing, is_list },
        { "ListTools", 5, ROOT, "ListTools", append_server, is_list },
        { "StartServer", 2, ROOT, "StartServer", append_server, is_empty },
        { "Describe", 2, ROOT, "Describe", append_server, is_description },
        { "Get", 5, "org.freedesktop.DBus.Properties", "Get", append_property, is_property },
        { "mistake", 5, ROOT, "CallTool", append_mistake, is_never_right },
};

static const Kind *choose_kind(Caller *caller) {
        uint64_t sum = 0, choice;
        size_t i = 0;

        if (!caller->options->mix)
                return kinds;

        for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
                sum += kinds[k].weight;
        choice = random_between(caller, 0, sum - 1);
        while (choice >= kinds[i].weight)
                choice -= kinds[i++].weight;
        return kinds + i;
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        CallSlot *call = userdata;
        Caller *caller = call->caller;
        Report *report = caller->report;
        const sd_bus_error *error = sd_bus_message_get_error(m);
        uint64_t took = now_usec() - call->started_usec;
        const char *result = "";

        (void)ret_error;

        if (call->answered) {
                report->stray++;
                return 1;
        }
        call->answered = true;
        caller->answered++;
        if (took > report->slowest_usec)
                report->slowest_usec = took;
        report->times[bucket_of(took)]++;
        report->by_kind[call->kind - kinds]++;

        if (error)
                count_error(report, error);
        else if (call->kind->is_answer(m, call, &result))
                report->ok++;
        else {
                report->wrong++;
                snprintf(report->wrong_sample, sizeof(report->wrong_sample), "%s answered by %s", call->message,
                         result);
        }
        return 1;
}

/* Runs after the replies that were waited for: what arrives here answers nothing. */
static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        Caller *caller = userdata;
        uint8_t type = 0;

        (void)ret_error;
        (void)sd_bus_message_get_type(m, &type);
        if (type == SD_BUS_MESSAGE_METHOD_RETURN || type == SD_BUS_MESSAGE_METHOD_ERROR)
                caller->report->stray++;
        return 0;
}

static int send_call(Caller *caller, CallSlot *call) {
        sd_bus_message *m = NULL;
        int r;

        call->caller = caller;
        call->kind = choose_kind(caller);
        snprintf(call->message, sizeof(call->message), "<%02u-%06u-%08" PRIx64 ">", caller->number, caller->sent,
                 random_between(caller, 0, UINT32_MAX));
        call->started_usec = now_usec();
        caller->sent++;

        r = sd_bus_message_new_method_call(caller->bus, &m, "org.example.McpExec", "/org/example/McpExec",
                                           call->kind->interface, call->kind->member);
        if (r >= 0)
                r = call->kind->append(m, call);
        if (r >= 0)
                r = sd_bus_call_async(caller->bus, NULL, m, on_answer, call, 0);
        sd_bus_message_unref(m);
        return r;
}

static int run_caller(Caller *caller) {
        const Options *o = caller->options;
        uint64_t deadline = now_usec() + (uint64_t)o->timeout * 1000000, next = 0;
        CallSlot *calls;
        int r;

        calls = calloc(caller->quota, sizeof(CallSlot));
        if (!calls)
                return -ENOMEM;

        r = sd_bus_open_user(&caller->bus);
        if (r < 0)
                return r;
        r = sd_bus_set_method_call_timeout(caller->bus, (uint64_t)o->timeout * 1000000);
        if (r < 0)
                return r;
        r = sd_bus_add_filter(caller->bus, NULL, on_message, caller);
        if (r < 0)
                return r;

        while (caller->answered < caller->quota) {
                uint64_t now = now_usec(), wait;

                if (now > deadline)
                        return -ETIMEDOUT;

                while (caller->sent < caller->quota && caller->sent - caller->answered < o->window && now >= next) {
                        r = send_call(caller, calls + caller->sent);
                        if (r < 0)
                                return r;
                        if (o->pause_max_usec > 0) {
                                next = now + random_between(caller, o->pause_min_usec, o->pause_max_usec);
                                break;
                        }
                }

                r = sd_bus_process(caller->bus, NULL);
                if (r < 0)
                        return r;
                if (r > 0)
                        continue;

                wait = 100000;
                if (caller->sent < caller->quota && caller->sent - caller->answered < o->window)
                        wait = next > now ? next - now : 0;
                r = sd_bus_wait(caller->bus, wait);
                if (r < 0 && r != -EINTR)
                        return r;
        }

        /* A second answer to some call would come now. */
        for (uint64_t end = now_usec() + 50000; now_usec() < end;) {
                r = sd_bus_process(caller->bus, NULL);
                if (r < 0)
                        return r;
                if (r == 0)
                        (void)sd_bus_wait(caller->bus, 10000);
        }

        sd_bus_flush_close_unref(caller->bus);
        free(calls);
        return 0;
}

static void print_string(const char *text) {
        putchar('"');
        for (const unsigned char *c = (const unsigned char *)text; *c; c++)
                if (*c < 32 || *c >= 127 || *c == '"' || *c == '\\')
                        printf("\\u%04x", *c);
                else
                        putchar(*c);
        putchar('"');
}

static void add_errors(Report *sum, const Report *one) {
        for (size_t i = 0; i < ERRORS_MAX && one->errors[i].count > 0; i++)
                for (size_t j = 0; j < ERRORS_MAX; j++) {
                        if (sum->errors[j].count == 0)
                                sum->errors[j] = one->errors[i];
                        else if (strcmp(sum->errors[j].name, one->errors[i].name) == 0)
                                sum->errors[j].count += one->errors[i].count;
                        else
                                continue;
                        break;
                }
}

static void print_report(const Options *o, const Report *reports, uint64_t took_usec) {
        Report sum = {};

        for (unsigned i = 0; i < o->callers; i++) {
                const Report *one = reports + i;

                sum.ok += one->ok;
                sum.wrong += one->wrong;
                sum.stray += one->stray;
                sum.failed += one->failed;
                if (one->slowest_usec > sum.slowest_usec)
                        sum.slowest_usec = one->slowest_usec;
                for (size_t j = 0; j < BUCKETS; j++)
                        sum.times[j] += one->times[j];
                for (size_t j = 0; j < KINDS_MAX; j++)
                        sum.by_kind[j] += one->by_kind[j];
                if (*one->wrong_sample)
                        memcpy(sum.wrong_sample, one->wrong_sample, sizeof(sum.wrong_sample));
                if (*one->trouble)
                        memcpy(sum.trouble, one->trouble, sizeof(sum.trouble));
                add_errors(&sum, one);
        }

        printf("{\"calls\":%u,\"ok\":%u,\"failed\":%u,\"wrong\":%u,\"stray\":%u,\"unanswered\":%d,\"seconds\":%.3f,"
               "\"slowest\":%.3f,\"median\":%.6f",
               o->calls, sum.ok, sum.failed, sum.wrong, sum.stray, (int)(o->calls - sum.ok - sum.failed - sum.wrong),
               (double)took_usec / 1e6, (double)sum.slowest_usec / 1e6, median_usec(&sum) / 1e6);
        printf(",\"trouble\":");
        print_string(sum.trouble);
        printf(",\"wrong_sample\":");
        print_string(sum.wrong_sample);
        printf(",\"kinds\":{");
        for (size_t i = 0, n = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
                if (sum.by_kind[i] > 0)
                        printf("%s\"%s\":%u", n++ > 0 ? "," : "", kinds[i].name, sum.by_kind[i]);
        printf("},\"errors\":{");
        for (size_t i = 0; i < ERRORS_MAX && sum.errors[i].count > 0; i++) {
                printf("%s", i > 0 ? "," : "");
                print_string(sum.errors[i].name);
                printf(":{\"count\":%u,\"sample\":", sum.errors[i].count);
                print_string(sum.errors[i].sample);
                printf("}");
        }
        printf("}}\n");
}

static int usage(void) {
        fputs("usage: hammer --server=NAME --tool=NAME [--extra=JSON-MEMBERS] [--callers=N] [--calls=N] [--window=N]\n"
              "              [--pause=MIN-MAX (microseconds)] [--timeout=SECONDS] [--mix]\n",
              stderr);
        return 2;
}

int main(int argc, char *argv[]) {
        static const struct option long_options[] = {
                { "server", required_argument, NULL, 's' }, { "tool", required_argument, NULL, 't' },
                { "extra", required_argument, NULL, 'e' },  { "callers", required_argument, NULL, 'c' },
                { "calls", required_argument, NULL, 'n' },  { "window", required_argument, NULL, 'w' },
                { "pause", required_argument, NULL, 'p' },  { "timeout", required_argument, NULL, 'T' },
                { "mix", no_argument, NULL, 'm' },          {},
        };
        Options o = { .extra = "", .callers = 16, .calls = 1000, .window = 1, .timeout = 120 };
        Report *reports;
        uint64_t started;
        int c;

        while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
                switch (c) {
                case 's':
                        o.server = optarg;
                        break;
                case 't':
                        o.tool = optarg;
                        break;
                case 'e':
                        o.extra = optarg;
                        break;
                case 'c':
                        o.callers = (unsigned)atoi(optarg);
                        break;
                case 'n':
                        o.calls = (unsigned)atoi(optarg);
                        break;
                case 'w':
                        o.window = (unsigned)atoi(optarg);
                        break;
                case 'p':
                        if (sscanf(optarg, "%" SCNu64 "-%" SCNu64, &o.pause_min_usec, &o.pause_max_usec) != 2)
                                return usage();
                        break;
                case 'T':
                        o.timeout = (unsigned)atoi(optarg);
                        break;
                case 'm':
                        o.mix = true;
                        break;
                default:
                        return usage();
                }
        if (!o.server || !o.tool || o.callers < 1 || o.callers > CALLERS_MAX || o.calls < 1 || o.window < 1 ||
            o.timeout < 1)
                return usage();

        reports = mmap(NULL, sizeof(Report) * o.callers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (reports == MAP_FAILED) {
                perror("mmap");
                return 1;
        }

        started = now_usec();
        for (unsigned i = 0; i < o.callers; i++) {
                pid_t pid = fork();

                if (pid < 0) {
                        perror("fork");
                        return 1;
                }
                if (pid == 0) {
                        Caller caller = {
                                .options = &o,
                                .report = reports + i,
                                .number = i,
                                .quota = o.calls / o.callers + (i < o.calls % o.callers),
                                .random = started + i * 7919,
                        };
                        int r = run_caller(&caller);

                        if (r < 0)
                                snprintf(reports[i].trouble, sizeof(reports[i].trouble), "caller %u: %s", i,
                                         strerror(-r));
                        _exit(r < 0);
                }
        }
        while (wait(NULL) >= 0 || errno == EINTR)
                ;

        print_report(&o, reports, now_usec() - started);
        return 0;
}
