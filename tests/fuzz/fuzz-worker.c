/* The state machine of workers and their pool: the input is what a worker does, in pieces that begin with '\1' and a
 * letter, and what is asked of its pool meanwhile. Whatever it is, each request has exactly one end, and the books
 * balance. */

#include <systemd/sd-event.h>

#include "fake-launcher.h"
#include "fuzz.h"
#include "unit.h"
#include "worker/pool.h"

#define PIECE '\1'

/* In what a worker writes */
#define OLDEST_ID '\2' /* the id of the request that it has had longest */
#define LONG '\3'      /* so many bytes that the line isn't held where its result may be a file */
#define LONG_SIZE ((size_t)300 * 1000)
#define LONGS_MAX 4 /* of one input: they cost the most */

#define REQUESTS_MAX 64
#define TURNS_MAX 200
#define BYTES_MAX ((uint64_t)2 << 20)

typedef struct FakeRequest {
        Request request;
        RequestFile file;
        unsigned ends;
        bool submitted;
} FakeRequest;

typedef struct Fuzz {
        FakeLauncher fake;
        sd_event *event;
        ServerConfig *config;
        Pool *pool;
        FakeRequest requests[REQUESTS_MAX];
        unsigned n_requests;
        unsigned n_long;
        uint64_t n_bytes; /* charged */
} Fuzz;

/* What a pool tells is heard by nobody. */

static int on_wanted(void *userdata _unused_, Failure *failure _unused_) {
        return 0;
}

static void on_gone(void *userdata _unused_) {
}

static void on_worker(void *userdata _unused_, Worker *worker) {
        assert_true(worker->state <= WORKER_EXITED);
}

static void on_removed(void *userdata _unused_, Worker *worker, const char *how, bool crashed _unused_) {
        assert_true(worker && how && *how);
}

static void on_failure(void *userdata _unused_, const Failure *failure) {
        assert_true(failure->code != FAILURE_NONE && *failure_message(failure));
}

static void on_loop(void *userdata _unused_, uint64_t pause, const Failure *failure) {
        assert_true(pause > 0);
        on_failure(NULL, failure);
}

static void on_era(void *userdata _unused_, McpEra era _unused_) {
}

static void on_notification(void *userdata _unused_, Worker *worker _unused_, JsonSlice method, JsonSlice params,
                            const JsonTraits *traits) {
        assert_true(json_is(method, '"') && traits && (!params.data || params.size > 0));
}

static void on_line(void *userdata _unused_, Worker *worker, const char *line, size_t size) {
        assert_true(worker && (line || size == 0));
}

static int on_bytes_wanted(void *userdata, uid_t uid _unused_, uint64_t bytes, Failure *failure) {
        Fuzz *fuzz = userdata;

        if (fuzz->n_bytes + bytes > BYTES_MAX)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "No more bytes");
        fuzz->n_bytes += bytes;
        return 0;
}

static void on_bytes_gone(void *userdata, uid_t uid _unused_, uint64_t bytes) {
        Fuzz *fuzz = userdata;

        assert_true(bytes <= fuzz->n_bytes);
        fuzz->n_bytes -= bytes;
}

static uint64_t on_worked(void *userdata _unused_, const Request *request _unused_, uint64_t usec _unused_) {
        return 0;
}

static bool on_request(void *userdata _unused_, Worker *worker _unused_, const McpMessage *message _unused_) {
        return false;
}

static const PoolHandlers handlers = {
        .worker_wanted = on_wanted,
        .worker_gone = on_gone,
        .bytes_wanted = on_bytes_wanted,
        .bytes_gone = on_bytes_gone,
        .worked = on_worked,
        .request = on_request,
        .worker_added = on_worker,
        .worker_changed = on_worker,
        .worker_removed = on_removed,
        .launch_failed = on_failure,
        .crash_loop = on_loop,
        .era_known = on_era,
        .notification = on_notification,
        .stray = on_line,
        .diagnostic = on_line,
        .unused = on_gone,
};

/* Requests */

static void check_file(const MemoryFile *file) {
        size_t size = memory_file_size(file);
        char *text = malloc(size + 1);

        assert_true(text);
        assert_number(memory_file_read(file, 0, text, size), (long long)size);
        assert_number(json_scan(text, size, JSON_DEPTH_MAX, NULL, 0, NULL, NULL), 0);
        free(text);
}

static void on_done(Request *request, const Outcome *outcome) {
        FakeRequest *fake = (FakeRequest *)((char *)request - offsetof(FakeRequest, request));

        assert_true(fake->submitted && !request->pool);
        assert_number(++fake->ends, 1);
        if (outcome->failure)
                on_failure(NULL, outcome->failure);
        else if (outcome->file) {
                assert_true(request->large);
                check_file(*outcome->file);
        } else if (request->kind == REQUEST_CALL) {
                Buffer text = {};

                assert_true(outcome->result.size > 0);
                assert_number(json_append(&text, outcome->result, &outcome->traits), 0);
                buffer_done(&text);
        }
}

static void on_progress(Request *request, JsonSlice params, const JsonTraits *traits) {
        assert_true(request->pool && json_is(params, '{') && traits);
}

/* As the broker does it with params that come in a file */
static void put_into_file(FakeRequest *fake, const WireProtocol *wire) {
        McpParams *params = &fake->request.params;
        RequestFileScan scan = { .depth_max = 64, .form = wire->file_form };

        if (!params->text.data)
                return;
        assert_number(memory_file_new(&fake->file.file), 0);
        assert_number(memory_file_append(fake->file.file, params->text.data, params->text.size), 0);
        assert_number(memory_file_seal(fake->file.file), 0);
        assert_number(request_file_scan_feed(&scan, params->text.data, params->text.size), 0);
        assert_number(request_file_scan_finish(&scan), 0);
        fake->file.layout = scan.layout;
        params->text = (JsonSlice){};
        fake->request.file = &fake->file;
}

/* large: its result may stand in a file; in_file: its params do */
static void submit(Fuzz *fuzz, RequestKind kind, bool large, bool in_file) {
        static const char *const texts[] = { "{\"_meta\":{\"progressToken\":\"mine\"}}", "{}", "\"hi\"", "" };
        FakeRequest *fake = &fuzz->requests[fuzz->n_requests];
        Failure failure = {};
        JsonError error;
        int r = -EINVAL;

        if (fuzz->n_requests == REQUESTS_MAX)
                return;

        fuzz->n_requests++;
        *fake = (FakeRequest){ .request = { .kind = kind,
                                            .caller = fuzz->n_requests % 2 ? fuzz : NULL,
                                            .method = kind == REQUEST_NOTIFICATION ? "notifications/x" : "tools/call",
                                            .large = large,
                                            .done = on_done,
                                            .progress = on_progress } };
        for (size_t i = 0; i < ELEMENTSOF(texts) && r < 0; i++)
                r = server_config_wire(fuzz->config)
                            ->read_params(texts[i], strlen(texts[i]), 64, &fake->request.params, &error);
        assert_true(r >= 0);
        if (in_file)
                put_into_file(fake, server_config_wire(fuzz->config));
        if (kind == REQUEST_NOTIFICATION && !server_config_wire(fuzz->config)->append_notification)
                return;

        fake->submitted = true;
        r = pool_submit(fuzz->pool, &fake->request, &failure);
        if (r < 0) {
                assert_number(r, -EREMOTEIO);
                assert_number(fake->ends, 0);
                fake->submitted = false;
                on_failure(NULL, &failure);
                failure_done(&failure);
        }
}

static bool pending(const FakeRequest *fake) {
        return fake->submitted && fake->ends == 0;
}

static void cancel_oldest(Fuzz *fuzz) {
        for (unsigned i = 0; i < fuzz->n_requests; i++)
                if (pending(&fuzz->requests[i])) {
                        pool_cancel(&fuzz->requests[i].request, i % 2 ? "timeout" : "the caller has left");
                        fuzz->requests[i].ends++;
                        return;
                }
}

static void check_books(const Fuzz *fuzz) {
        unsigned n_in_flight = 0, n_queued = 0, n_processes = 0, n_pending = 0;
        const Request *request;
        const Worker *worker;

        TAILQ_FOREACH(request, &fuzz->pool->queue, link) {
                assert_true(request->pool == fuzz->pool && !request->worker);
                n_queued++;
        }
        TAILQ_FOREACH(worker, &fuzz->pool->workers, link) {
                unsigned n = 0;

                TAILQ_FOREACH(request, &worker->requests, link) {
                        assert_true(request->pool == fuzz->pool && request->worker == worker);
                        n++;
                }
                assert_number(worker->n_requests, n);
                n_in_flight += n;
                n_processes++;
        }
        assert_number(fuzz->pool->n_in_flight, n_in_flight);
        assert_number(fuzz->pool->n_queued, n_queued);
        assert_number(fuzz->pool->n_processes, n_processes);
        for (unsigned i = 0; i < fuzz->n_requests; i++)
                n_pending += pending(&fuzz->requests[i]);
        assert_number(n_pending, n_in_flight + n_queued);
}

/* The loop, until nothing is left to do now */
static void turn(Fuzz *fuzz) {
        for (unsigned i = 0; i < TURNS_MAX; i++) {
                bool killed = fake_launcher_reap(&fuzz->fake);

                if (sd_event_run(fuzz->event, 0) == 0 && !killed)
                        break;
        }
        check_books(fuzz);
}

/* What a worker does */

static uint64_t oldest_id(const Fuzz *fuzz) {
        const Worker *worker;

        TAILQ_FOREACH(worker, &fuzz->pool->workers, link)
                if (!TAILQ_EMPTY(&worker->requests))
                        return TAILQ_FIRST(&worker->requests)->id;

        worker = TAILQ_FIRST(&fuzz->pool->workers);
        return worker ? worker->last_id : 1;
}

static void expand(Fuzz *fuzz, const char *text, size_t size, Buffer *ret) {
        for (size_t i = 0; i < size; i++) {
                char id[24];

                if (text[i] == OLDEST_ID) {
                        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)oldest_id(fuzz));
                        assert_number(buffer_append_string(ret, id), 0);
                } else if (text[i] == LONG && fuzz->n_long++ < LONGS_MAX) {
                        assert_number(buffer_reserve(ret, LONG_SIZE), 0);
                        memset(ret->data + ret->end, i % 2 ? 'x' : '7', LONG_SIZE);
                        ret->end += LONG_SIZE;
                } else
                        assert_number(buffer_append(ret, text + i, 1), 0);
        }
}

/* All of it, where it is read; the loop can end the process meanwhile. */
static void say(Fuzz *fuzz, FakeProcess *process, unsigned f, const char *text, size_t size) {
        pid_t pid = process->process.pid;
        Buffer said = {};

        expand(fuzz, text, size, &said);
        while (buffer_size(&said) > 0) {
                ssize_t n = process->fds[f] < 0 ? -1 : write(process->fds[f], buffer_data(&said), buffer_size(&said));

                if (n < 0)
                        break;
                buffer_consume(&said, (size_t)n);
                if (buffer_size(&said) > 0)
                        turn(fuzz);
                if (fake_process_oldest(&fuzz->fake) != process || process->process.pid != pid)
                        break;
        }
        buffer_done(&said);
}

static void act(Fuzz *fuzz, char action, const char *text, size_t size) {
        FakeProcess *process = fake_process_oldest(&fuzz->fake);
        char bytes[65536];

        switch (action) {
        case 'c':
                submit(fuzz, REQUEST_CALL, /* large= */ false, /* in_file= */ false);
                break;
        case 'l':
                submit(fuzz, REQUEST_CALL, /* large= */ true, /* in_file= */ false);
                break;
        case 'f':
                submit(fuzz, REQUEST_CALL, /* large= */ true, /* in_file= */ true);
                break;
        case 'n':
                submit(fuzz, REQUEST_NOTIFICATION, false, false);
                break;
        case 'u':
                submit(fuzz, REQUEST_WARM_UP, false, false);
                break;
        case 'x':
                cancel_oldest(fuzz);
                break;
        case 's':
                pool_stop(fuzz->pool, FAILURE_CANCELLED, "it was stopped", /* drain= */ size % 2);
                break;
        case 'r':
                pool_restart(fuzz->pool);
                break;
        default:
                break;
        }

        if (process)
                switch (action) {
                case 'e':
                        say(fuzz, process, 2, text, size);
                        break;
                case 'i':
                        fake_process_close(process, 0);
                        break;
                case 'o':
                        fake_process_close(process, 1);
                        break;
                case 'k':
                        fake_process_exit(process, CLD_KILLED, size % 2 ? SIGSEGV : SIGKILL);
                        break;
                case 'q':
                        say(fuzz, process, 1, text, size);
                        if (fake_process_oldest(&fuzz->fake) == process)
                                fake_process_exit(process, CLD_EXITED, (int)(size % 3));
                        break;
                case 'd':
                        while (process->fds[0] >= 0 && read(process->fds[0], bytes, sizeof(bytes)) > 0)
                                ;
                        break;
                case 'w':
                        say(fuzz, process, 1, text, size);
                        break;
                default:
                        break;
                }

        turn(fuzz);
}

static void configure(Fuzz *fuzz, uint8_t way) {
        static const McpEra eras[] = { MCP_ERA_AUTO, MCP_ERA_LEGACY, MCP_ERA_MODERN, MCP_ERA_AUTO };

        fuzz->config = server_config_new("fuzzed");
        assert_true(fuzz->config);
        fuzz->config->command = strdup("/fuzzed");
        fuzz->config->protocol = way & 3;
        fuzz->config->era = eras[way >> 2 & 3];
        fuzz->config->idempotent = way & 16;
        fuzz->config->pool.concurrency = way & 32 || way % 4 == SERVER_PROTOCOL_LINES ? 1 : 4;
        fuzz->config->pool.max = 2;
        fuzz->config->limits.message = way & 64 ? 256 : 1 << 20;
        fuzz->config->isolation = way & 128 ? SERVER_ISOLATION_FRESH : SERVER_ISOLATION_SHARED;
        fuzz->config->recycle.calls = way & 128 ? 2 : 0;
        assert_true(fuzz->config->command && server_config_make_argv(fuzz->config) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data, *end = text + size, *piece, *next;
        Fuzz fuzz = { .fake = FAKE_LAUNCHER };
        uint64_t left = 0;

        if (size < 2 || size > 16384)
                return 0;

        (void)signal(SIGPIPE, SIG_IGN);
        assert_true(sd_event_new(&fuzz.event) >= 0);
        configure(&fuzz, data[0]);
        assert_true(pool_new(fuzz.event, &fuzz.fake.launcher, fuzz.config, "uid:1", 0, MCP_ERA_AUTO, &handlers, &fuzz,
                             &fuzz.pool) >= 0);
        act(&fuzz, 'c', NULL, 0);

        for (piece = text + 1; piece < end; piece = next) {
                next = memchr(piece, PIECE, end - piece) ?: end;
                if (next > piece)
                        act(&fuzz, *piece, piece + 1, next - piece - 1);
                next += next < end;
        }

        /* The end: what is still open is failed, once. */
        pool_stop(fuzz.pool, FAILURE_UNAVAILABLE, "the service is leaving", /* drain= */ false);
        for (unsigned i = 0; i < fuzz.n_requests; i++)
                left += pending(&fuzz.requests[i]);
        assert_number(left, 0);
        fake_launcher_end(&fuzz.fake);
        turn(&fuzz);
        assert_true(pool_idle(fuzz.pool));
        for (unsigned i = 0; i < fuzz.n_requests; i++)
                memory_file_free(fuzz.requests[i].file.file);
        pool_free(fuzz.pool);
        server_config_unref(fuzz.config);
        sd_event_unref(fuzz.event);
        fake_launcher_done(&fuzz.fake);
        return 0;
}
