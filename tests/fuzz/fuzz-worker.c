/* The state machine of workers and their pool: the input is what a worker does, in pieces that begin with '\1' and a
 * letter, and what is asked of its pool meanwhile. Whatever it is, each request has exactly one end, and the books
 * balance. */

#include <systemd/sd-event.h>

#include "fake-launcher.h"
#include "fuzz.h"
#include "unit.h"
#include "worker/pool.h"

#define PIECE '\1'
#define OLDEST_ID '\2' /* in what a worker writes: the id of the request that it has had longest */

#define REQUESTS_MAX 64
#define TURNS_MAX 200

typedef struct FakeRequest {
        Request request;
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

static int on_bytes_wanted(void *userdata _unused_, uint64_t bytes _unused_, Failure *failure _unused_) {
        return 0;
}

static void on_bytes_gone(void *userdata _unused_, uint64_t bytes _unused_) {
}

static bool on_request(void *userdata _unused_, Worker *worker _unused_, const McpMessage *message _unused_) {
        return false;
}

static const PoolHandlers handlers = {
        .worker_wanted = on_wanted,
        .worker_gone = on_gone,
        .bytes_wanted = on_bytes_wanted,
        .bytes_gone = on_bytes_gone,
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

static void on_done(Request *request, const Outcome *outcome) {
        FakeRequest *fake = (FakeRequest *)((char *)request - offsetof(FakeRequest, request));

        assert_true(fake->submitted && !request->pool);
        assert_number(++fake->ends, 1);
        if (outcome->failure)
                on_failure(NULL, outcome->failure);
        else if (request->kind == REQUEST_CALL) {
                Buffer text = {};

                assert_true(outcome->result.size > 0);
                assert_number(json_append(&text, outcome->result, &outcome->traits), 0);
                buffer_done(&text);
        }
}

static void on_progress(Request *request, JsonSlice params, const JsonTraits *traits) {
        assert_true(request->pool && json_is(params, '{') && traits);
}

static void submit(Fuzz *fuzz, RequestKind kind) {
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
                                            .done = on_done,
                                            .progress = on_progress } };
        for (size_t i = 0; i < ELEMENTSOF(texts) && r < 0; i++)
                r = server_config_wire(fuzz->config)
                            ->read_params(texts[i], strlen(texts[i]), 64, &fake->request.params, &error);
        assert_true(r >= 0);
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

static void say(Fuzz *fuzz, FakeProcess *process, unsigned f, const char *text, size_t size) {
        Buffer said = {};

        for (size_t i = 0; i < size; i++) {
                char id[24];

                if (text[i] != OLDEST_ID)
                        assert_number(buffer_append(&said, text + i, 1), 0);
                else {
                        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)oldest_id(fuzz));
                        assert_number(buffer_append_string(&said, id), 0);
                }
        }
        if (process->fds[f] >= 0 && buffer_size(&said) > 0)
                (void)!write(process->fds[f], buffer_data(&said), buffer_size(&said));
        buffer_done(&said);
}

static void act(Fuzz *fuzz, char action, const char *text, size_t size) {
        FakeProcess *process = fake_process_oldest(&fuzz->fake);
        char bytes[65536];

        switch (action) {
        case 'c':
                submit(fuzz, REQUEST_CALL);
                break;
        case 'n':
                submit(fuzz, REQUEST_NOTIFICATION);
                break;
        case 'u':
                submit(fuzz, REQUEST_WARM_UP);
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
        fuzz->config->limits.message = way & 64 ? 256 : 65536;
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
        pool_free(fuzz.pool);
        server_config_unref(fuzz.config);
        sd_event_unref(fuzz.event);
        fake_launcher_done(&fuzz.fake);
        return 0;
}
