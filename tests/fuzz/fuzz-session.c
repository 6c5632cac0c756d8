/* The state machine of sessions: the input is what clients write on them and what the servers' workers do, in pieces
 * that begin with '\1' and a letter; a first one of 'W' says more of how things are set up. Whatever it is, each
 * request of a client has as many answers as it may have, on its own session, all that is said is one object a line,
 * and nothing is left at the end. */

#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "broker/session.h"
#include "fake-launcher.h"
#include "fuzz.h"
#include "wire/rpc.h"

#define PIECE '\1'

/* In what clients and workers write */
#define OLDEST_ID '\2'   /* the id of the request that a worker has had longest */
#define QUESTION_ID '\3' /* the id of the last request that the session's client was asked */
#define STATE '\4'       /* the last requestState that it was given */
#define CURSOR '\5'      /* the last nextCursor */

#define DEPTH 64
#define LINE_MAX_SMALL 512
#define SESSIONS_MAX 3
#define IDS_MAX 256
#define TURNS_MAX 500
#define ROUNDS_MAX 2000 /* until all sessions have ended */

/* A request's id, by its bytes as they are answered */
typedef struct FakeId {
        char *text;
        size_t size;
        unsigned n_due;
        bool cancelled; /* it may have no answer */
} FakeId;

typedef struct FakeClient {
        struct Fuzz *fuzz;
        int fd; /* what it reads; -EBADF: not opened, or gone */
        int to; /* what it writes, where that is another one */
        bool ended;
        bool closed;              /* its server is gone, and with it its session, answered or not */
        LineReader written, read; /* what it wrote, and what it was sent */
        IdFinder finder;
        FakeId ids[IDS_MAX];
        unsigned n_ids;
        bool full;
        char *question, *state, *cursor;
} FakeClient;

typedef struct Fuzz {
        FakeLauncher fake;
        sd_event *event;
        Manager *manager;
        Server *servers[2];
        uint8_t way;
        bool pipes;  /* that clients have, as programs on their stdin and stdout, and not sockets */
        bool stable; /* lists are kept */
        FakeClient clients[SESSIONS_MAX];
        LineReader inputs[FAKE_PROCESSES_MAX]; /* what the workers were sent */
        pid_t pids[FAKE_PROCESSES_MAX];
} Fuzz;

/* What the manager tells is heard by nobody. */

static void on_event(void *userdata _unused_) {
}

static void on_server(void *userdata _unused_, Server *server _unused_) {
}

static void on_server_changed(void *userdata _unused_, Server *server _unused_, uid_t owner _unused_) {
}

static void on_tools(void *userdata _unused_, const Server *server _unused_, uid_t owner _unused_) {
}

static void on_workers(void *userdata _unused_, uid_t owner _unused_) {
}

static void on_worker(void *userdata _unused_, uid_t owner _unused_, Worker *worker _unused_) {
}

static void on_notification(void *userdata _unused_, Client *client _unused_, const Server *server _unused_,
                            const char *method _unused_, JsonSlice params _unused_, const JsonTraits *traits _unused_) {
}

static void on_job(void *userdata _unused_, Job *job _unused_) {
}

static void on_session_closed(void *userdata _unused_, Client *opener _unused_, const char *id, const char *reason) {
        assert_true(id && *id && reason);
}

static bool may_use(void *userdata _unused_, const Client *client _unused_, const Server *server _unused_) {
        return true;
}

static uint64_t on_worked(void *userdata _unused_, uid_t uid _unused_, uint64_t usec _unused_) {
        return 0;
}

static const ManagerHandlers handlers = {
        .configured = on_event,
        .servers_changed = on_event,
        .server_added = on_server,
        .server_removed = on_server,
        .server_changed = on_server_changed,
        .tools_changed = on_tools,
        .workers_changed = on_workers,
        .worker_added = on_worker,
        .worker_changed = on_worker,
        .worker_removed = on_worker,
        .notification = on_notification,
        .job_added = on_job,
        .job_progress = on_job,
        .job_finished = on_job,
        .job_removed = on_job,
        .session_closed = on_session_closed,
        .may_use = may_use,
        .worked = on_worked,
        .maybe_idle = on_event,
};

/* The ledger of a client's requests */

static FakeId *find_id(FakeClient *client, JsonSlice id, const JsonTraits *traits, bool add) {
        Buffer text = {};
        FakeId *found = NULL;

        assert_number(json_append(&text, id, traits), 0);
        for (unsigned i = 0; i < client->n_ids && !found; i++)
                if (client->ids[i].size == buffer_size(&text) &&
                    memcmp(client->ids[i].text, buffer_data(&text), buffer_size(&text)) == 0)
                        found = &client->ids[i];
        if (!found && add && client->n_ids < IDS_MAX) {
                found = &client->ids[client->n_ids++];
                *found = (FakeId){ .size = buffer_size(&text), .text = malloc(buffer_size(&text)) };
                assert_true(found->text);
                memcpy(found->text, buffer_data(&text), found->size);
        }
        buffer_done(&text);
        client->full = client->full || (add && !found);
        return found;
}

static void note_request(FakeClient *client, JsonSlice id, const JsonTraits *traits) {
        FakeId *known = id.size > 0 ? find_id(client, id, traits, /* add= */ true) : NULL;

        if (known)
                known->n_due++;
}

static void note_message(FakeClient *client, const char *text, size_t size) {
        JsonSlice id;
        FakeId *known;
        RpcInput input;

        rpc_read(text, size, DEPTH, &input);
        if (input.kind == RPC_REQUEST)
                note_request(client, input.message.id, &input.message.traits);
        else if (input.kind == RPC_WRONG)
                note_request(client, input.id, &input.message.traits);
        else if (input.kind == RPC_NOTIFICATION && json_equal(input.message.method, "notifications/cancelled")) {
                id = json_get(input.message.params, "requestId");
                known = id.size > 0 ? find_id(client, id, &input.message.traits, /* add= */ false) : NULL;
                if (known)
                        known->cancelled = true;
        }
}

static void on_written(void *userdata, const char *line, size_t size) {
        FakeClient *client = userdata;
        const char *position = NULL;
        JsonSlice element;
        RpcInput input;

        while (size > 0 && strchr(" \t\r", *line) && *line) {
                line++;
                size--;
        }
        rpc_read(line, size, DEPTH, &input);
        if (input.kind != RPC_BATCH)
                note_message(client, line, size);
        else
                while (json_next_element((JsonSlice){ line, size }, &position, &element))
                        note_message(client, element.data, element.size);
}

static void on_written_oversized(void *userdata, const char *piece, size_t size, bool last) {
        static const JsonTraits none = {};
        FakeClient *client = userdata;
        JsonSlice id = {};

        id_finder_feed(&client->finder, piece, size);
        if (!last)
                return;
        if (rpc_found_id(&client->finder, &id) == RPC_REQUEST)
                note_request(client, id, &none);
        client->finder = (IdFinder){};
}

static const LineHandlers written = { .line = on_written, .oversized = on_written_oversized };

static void keep(char **place, JsonSlice value) {
        char *text;

        if (!value.data)
                return;
        text = strndup(value.data, value.size);
        assert_true(text);
        free(*place);
        *place = text;
}

/* All that is said is one object a line. */
static JsonSlice check_line(const char *line, size_t size, McpMessage *ret) {
        assert_number(mcp_parse(line, size, JSON_DEPTH_MAX, ret, NULL), 0);
        assert_true(size > 0 && line[0] == '{' && line[size - 1] == '}');
        assert_false(ret->traits.newlines || ret->traits.noncharacters);
        return (JsonSlice){ line, size };
}

static void on_read(void *userdata, const char *line, size_t size) {
        static const JsonTraits none = {};
        FakeClient *client = userdata;
        McpMessage message;
        FakeId *known;

        check_line(line, size, &message);
        assert_true(message.versioned);
        if (message.kind == MCP_REQUEST)
                keep(&client->question, message.id);
        if (message.kind != MCP_RESULT && message.kind != MCP_ERROR)
                return;

        keep(&client->state, json_get(message.result, "requestState"));
        keep(&client->cursor, json_get(message.result, "nextCursor"));
        known = find_id(client, message.id, &none, /* add= */ false);
        assert_true(known || client->full);
        if (known) {
                assert_true(known->n_due > 0);
                known->n_due--;
        }
}

static void on_endless(void *userdata _unused_, const char *piece _unused_, size_t size _unused_, bool last _unused_) {
        assert_failed(__FILE__, __LINE__, "a line is endless");
}

static const LineHandlers read_handlers = { .line = on_read, .oversized = on_endless };

static void client_gone(FakeClient *client) {
        client->fd = safe_close(client->fd);
        client->to = safe_close(client->to);
        line_reader_done(&client->written);
        line_reader_done(&client->read);
        for (unsigned i = 0; i < client->n_ids; i++)
                free(client->ids[i].text);
        free(client->question);
        free(client->state);
        free(client->cursor);
        *client = (FakeClient){ .fuzz = client->fuzz, .fd = -EBADF, .to = -EBADF };
}

static void client_read(FakeClient *client) {
        static char bytes[65536];
        ssize_t n;

        while (client->fd >= 0 && (n = read(client->fd, bytes, sizeof(bytes))) >= 0) {
                if (n == 0) {
                        /* Where the client ended it, all that it asked is answered. */
                        for (unsigned i = 0; i < client->n_ids && client->ended && !client->closed; i++)
                                assert_true(client->ids[i].n_due == 0 || client->ids[i].cancelled);
                        assert_number(buffer_size(&client->read.partial), 0);
                        client_gone(client);
                        return;
                }
                assert_number(line_reader_feed(&client->read, bytes, n, &read_handlers, client), 0);
        }
        if (client->fd >= 0 && errno != EAGAIN)
                client_gone(client);
}

static void client_open(FakeClient *client) {
        Fuzz *fuzz = client->fuzz;
        Failure failure = {};
        const char *id;
        int input[2], output[2], r;

        if (fuzz->pipes) {
                assert_true(pipe2(input, O_CLOEXEC | O_NONBLOCK) >= 0 && pipe2(output, O_CLOEXEC | O_NONBLOCK) >= 0);
                client->fd = output[0];
                client->to = input[1];
        } else {
                assert_true(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, input) >= 0);
                client->fd = input[1];
                output[1] = fcntl(input[0], F_DUPFD_CLOEXEC, 3);
        }
        client->written.limit = fuzz->way & 32 ? (size_t)16 << 20 : fuzz->way & 16 ? LINE_MAX_SMALL : 65536;
        client->read.limit = (size_t)64 << 20;
        r = session_open(fuzz->manager,
                         &(SessionSpec){ .opener = TAILQ_FIRST(&fuzz->manager->clients),
                                         .servers = fuzz->servers,
                                         .n_servers = fuzz->way & 32 ? 2 : 1,
                                         .joined = fuzz->way & 32,
                                         .input = input[0],
                                         .output = output[1] },
                         &id, &failure);
        if (r < 0)
                assert_failed(__FILE__, __LINE__, failure_message(&failure));
}

/* What workers are sent, and what they do */

static void on_input(void *userdata _unused_, const char *line, size_t size) {
        McpMessage message;

        check_line(line, size, &message);
        assert_true(message.kind != MCP_NOISE && message.versioned);
}

static const LineHandlers input_handlers = { .line = on_input, .oversized = on_endless };

static void drain(Fuzz *fuzz) {
        static char bytes[65536];

        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++) {
                FakeProcess *process = fuzz->fake.processes[i];
                ssize_t n;

                if (!process || process->exited)
                        continue;
                if (fuzz->pids[i] != process->process.pid)
                        line_reader_done(&fuzz->inputs[i]);
                fuzz->pids[i] = process->process.pid;
                fuzz->inputs[i].limit = (size_t)64 << 20;
                while (process->fds[0] >= 0 && (n = read(process->fds[0], bytes, sizeof(bytes))) > 0)
                        assert_number(line_reader_feed(&fuzz->inputs[i], bytes, n, &input_handlers, fuzz), 0);
        }
}

static uint64_t oldest_id(const Fuzz *fuzz) {
        const ServerPool *server_pool;
        const Worker *worker, *first = NULL;

        for (size_t i = 0; i < ELEMENTSOF(fuzz->servers); i++)
                TAILQ_FOREACH(server_pool, &fuzz->servers[i]->pools, link)
                        TAILQ_FOREACH(worker, &server_pool->pool->workers, link) {
                                if (!TAILQ_EMPTY(&worker->requests))
                                        return TAILQ_FIRST(&worker->requests)->id;
                                first = first ?: worker;
                        }

        return first ? first->last_id : 1;
}

/* The one that has requests, as oldest_id() takes it */
static FakeProcess *process_to_answer(const Fuzz *fuzz) {
        const ServerPool *server_pool;
        const Worker *worker;

        for (size_t i = 0; i < ELEMENTSOF(fuzz->servers); i++)
                TAILQ_FOREACH(server_pool, &fuzz->servers[i]->pools, link)
                        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                                if (!TAILQ_EMPTY(&worker->requests) && worker->process &&
                                    !((FakeProcess *)worker->process)->exited)
                                        return (FakeProcess *)worker->process;

        return fake_process_oldest(&fuzz->fake);
}

static void check_books(const Fuzz *fuzz) {
        const Quota *quota = &fuzz->manager->quota;
        const ServerPool *server_pool;
        unsigned n_processes = 0, n_calls = 0;
        const Client *client;

        for (size_t i = 0; i < ELEMENTSOF(fuzz->servers); i++)
                TAILQ_FOREACH(server_pool, &fuzz->servers[i]->pools, link)
                        n_processes += server_pool->pool->n_processes;
        TAILQ_FOREACH(client, &fuzz->manager->clients, link)
                n_calls += client->n_calls;
        assert_number(quota->counts.workers, n_processes);
        assert_true(quota->counts.calls >= n_calls); /* lists are asked for on nobody's account */
        assert_number(quota->counts.sessions, sessions_open(fuzz->manager, QUOTA_EVERYBODY));
}

/* The loop, until nothing is left to do now */
static void turn(Fuzz *fuzz) {
        for (unsigned i = 0; i < TURNS_MAX; i++) {
                bool killed = fake_launcher_reap(&fuzz->fake);

                drain(fuzz);
                for (unsigned c = 0; c < SESSIONS_MAX; c++)
                        client_read(&fuzz->clients[c]);
                if (sd_event_run(fuzz->event, 0) == 0 && !killed)
                        break;
        }
        check_books(fuzz);
}

static void expand(Fuzz *fuzz, const FakeClient *client, const char *text, size_t size, Buffer *ret) {
        for (size_t i = 0; i < size; i++) {
                const char *word = NULL;
                char id[24];

                switch (text[i]) {
                case OLDEST_ID:
                        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)oldest_id(fuzz));
                        word = id;
                        break;
                case QUESTION_ID:
                        word = client ? client->question ?: "1" : "1";
                        break;
                case STATE:
                        word = client ? client->state ?: "\"\"" : "\"\"";
                        break;
                case CURSOR:
                        word = client ? client->cursor ?: "\"\"" : "\"\"";
                        break;
                }
                assert_number(word ? buffer_append_string(ret, word) : buffer_append(ret, text + i, 1), 0);
        }
}

static void client_write(FakeClient *client, const char *text, size_t size) {
        Buffer said = {};
        ssize_t n;

        if (client->fd < 0)
                client_open(client);
        expand(client->fuzz, client, text, size, &said);
        if (!client->ended && buffer_size(&said) > 0) {
                n = write(client->to >= 0 ? client->to : client->fd, buffer_data(&said), buffer_size(&said));
                if (n > 0)
                        assert_number(line_reader_feed(&client->written, buffer_data(&said), n, &written, client), 0);
        }
        buffer_done(&said);
}

static void client_end(FakeClient *client) {
        if (client->fd < 0 || client->ended)
                return;

        client->ended = true;
        line_reader_flush(&client->written, &written, client);
        if (client->to >= 0)
                client->to = safe_close(client->to);
        else
                assert_true(shutdown(client->fd, SHUT_WR) >= 0);
}

static void say(Fuzz *fuzz, FakeProcess *process, unsigned f, const char *text, size_t size) {
        Buffer said = {};

        expand(fuzz, NULL, text, size, &said);
        if (process->fds[f] >= 0 && buffer_size(&said) > 0)
                (void)!write(process->fds[f], buffer_data(&said), buffer_size(&said));
        buffer_done(&said);
}

static void take_out(Fuzz *fuzz, Server *server) {
        for (unsigned c = 0; c < SESSIONS_MAX; c++)
                fuzz->clients[c].closed = fuzz->clients[c].closed ||
                                          (fuzz->clients[c].fd >= 0 && !(fuzz->way & 32) && server == fuzz->servers[0]);
        sessions_server_gone(server, "the server was taken out of the configuration");
}

static void act(Fuzz *fuzz, char action, const char *text, size_t size) {
        FakeProcess *process = process_to_answer(fuzz);
        Server *server = fuzz->servers[size % 2];
        ServerPool *server_pool;

        switch (action) {
        case 'a' ... 'c':
                client_write(&fuzz->clients[action - 'a'], text, size);
                break;
        case 'A' ... 'C':
                client_end(&fuzz->clients[action - 'A']);
                break;
        case 'x' ... 'z':
                client_gone(&fuzz->clients[action - 'x']);
                break;
        case 's':
                server_stop(server);
                break;
        case 'r':
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        pool_restart(server_pool->pool);
                break;
        case 'D':
                /* What it leaves unread a pipe doesn't tell: a socket is reset. */
                for (unsigned c = 0; c < SESSIONS_MAX; c++)
                        fuzz->clients[c].closed = fuzz->clients[c].closed || (fuzz->pipes && fuzz->clients[c].fd >= 0);
                sessions_drain(fuzz->manager);
                break;
        case 'G':
                take_out(fuzz, server);
                break;
        case 'w':
                if (process)
                        say(fuzz, process, 1, text, size);
                break;
        case 'o':
                if (fake_process_oldest(&fuzz->fake))
                        say(fuzz, fake_process_oldest(&fuzz->fake), 1, text, size);
                break;
        case 'k':
                if (process)
                        fake_process_exit(process, CLD_KILLED, size % 2 ? SIGSEGV : SIGKILL);
                break;
        default:
                break;
        }

        turn(fuzz);
}

static Server *add_server(Fuzz *fuzz, const char *name) {
        static const McpEra eras[] = { MCP_ERA_AUTO, MCP_ERA_LEGACY, MCP_ERA_MODERN, MCP_ERA_LEGACY };
        static const ServerScope scopes[] = { SERVER_SCOPE_USER, SERVER_SCOPE_CLIENT };
        ServerConfig *config = server_config_new(name);
        Server *server;

        assert_true(config);
        config->command = strdup("/fuzzed");
        config->era = eras[(fuzz->way & 3) ^ (fuzz->servers[0] && fuzz->way & 128 ? 3 : 0)];
        config->lists = fuzz->stable ? SERVER_LISTS_STATIC : SERVER_LISTS_AUTO;
        config->scope = scopes[fuzz->way >> 2 & 1];
        config->pool.concurrency = fuzz->way & 8 ? 1 : 4;
        config->pool.max = 2;
        config->pool.queue = fuzz->way & 64 ? 1 : 16;
        config->limits.message = fuzz->way & 16 ? LINE_MAX_SMALL : 65536;
        assert_true(config->command && server_config_make_argv(config) >= 0);
        server = server_new(fuzz->manager, config);
        assert_true(server);
        TAILQ_INSERT_TAIL(&fuzz->manager->servers, server, link);
        server_config_unref(config);
        return server;
}

static void stop_servers(Fuzz *fuzz) {
        ServerPool *server_pool;

        for (size_t s = 0; s < ELEMENTSOF(fuzz->servers); s++)
                TAILQ_FOREACH(server_pool, &fuzz->servers[s]->pools, link)
                        pool_stop(server_pool->pool, FAILURE_UNAVAILABLE, "the service is leaving", /* drain= */ false);
        fake_launcher_end(&fuzz->fake);
}

static void end(Fuzz *fuzz) {
        const Quota *quota = &fuzz->manager->quota;

        for (unsigned c = 0; c < SESSIONS_MAX; c++)
                client_end(&fuzz->clients[c]);
        for (unsigned i = 0; i < ROUNDS_MAX; i++) {
                turn(fuzz);
                if (quota->counts.sessions == 0)
                        break;
                stop_servers(fuzz);
        }
        assert_number(quota->counts.sessions, 0);
        for (unsigned c = 0; c < SESSIONS_MAX; c++)
                assert_number(fuzz->clients[c].fd, -EBADF);
        stop_servers(fuzz);
        turn(fuzz);
        assert_number(quota->counts.calls, 0);
        assert_number(quota->counts.workers, 0);
        assert_number(quota->counts.queued_bytes, 0);
        assert_number(quota->counts.payload_bytes, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const char *const no_folders[] = { NULL };
        const char *text = (const char *)data, *stop = text + size, *piece, *next;
        Fuzz fuzz = { .fake = FAKE_LAUNCHER };
        Client *opener;

        if (size < 2 || size > 16384)
                return 0;

        (void)signal(SIGPIPE, SIG_IGN);
        log_open(LOG_EMERG);
        fuzz.way = data[0];
        if (size > 3 && data[1] == PIECE && data[2] == 'W') {
                fuzz.pipes = data[3] & 1;
                fuzz.stable = data[3] & 2;
        }
        for (unsigned c = 0; c < SESSIONS_MAX; c++)
                fuzz.clients[c] = (FakeClient){ .fuzz = &fuzz, .fd = -EBADF, .to = -EBADF };
        assert_true(sd_event_new(&fuzz.event) >= 0);
        assert_true(manager_new(fuzz.event, &fuzz.fake.launcher, NULL, NULL, no_folders, /* required= */ false,
                                &handlers, &fuzz, &fuzz.manager) >= 0);
        fuzz.manager->log_calls = LOG_DEBUG;
        opener = client_new("fuzz");
        assert_true(opener);
        opener->uid = 1000;
        TAILQ_INSERT_TAIL(&fuzz.manager->clients, opener, link);
        fuzz.servers[0] = add_server(&fuzz, "one");
        fuzz.servers[1] = add_server(&fuzz, "two");

        for (piece = text + 1; piece < stop; piece = next) {
                next = memchr(piece, PIECE, stop - piece) ?: stop;
                if (next > piece)
                        act(&fuzz, *piece, piece + 1, next - piece - 1);
                next += next < stop;
        }

        end(&fuzz);
        manager_free(fuzz.manager);
        sd_event_unref(fuzz.event);
        fake_launcher_done(&fuzz.fake);
        for (unsigned i = 0; i < FAKE_PROCESSES_MAX; i++)
                line_reader_done(&fuzz.inputs[i]);
        return 0;
}
