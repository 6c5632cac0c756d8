#include "broker/call.h"

#include <stdio.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/message-ids.h"
#include "broker/session.h"

#define METHOD_MAX_BYTES 256
#define TOOL_MAX_BYTES 1024
#define PROGRESS_PER_SECOND 20 /* messages of one call: each is a signal */
#define RECORD_TEXT_MAX 256    /* of what a caller wrote, in the record of its call */

/* What a client can't ask for, because the broker says it itself, or because it has no one answer */
static int check_method(const CallSpec *spec, Failure *failure) {
        static const struct {
                const char *method, *why;
        } refused[] = {
                { "initialize", "the broker greets the servers itself" },
                { "notifications/initialized", "the broker greets the servers itself" },
                { "notifications/cancelled", "a call is cancelled by leaving the bus" },
                { "notifications/progress", "it would answer nothing that the server asked for" },
                { "subscriptions/listen", "it has no answer for as long as it is listened to" },
        };
        bool notification = strncmp(spec->method, "notifications/", strlen("notifications/")) == 0;

        if (!*spec->method || strlen(spec->method) > METHOD_MAX_BYTES)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "method has to have 1 to %d bytes",
                                   METHOD_MAX_BYTES);
        if (spec->tool && (!*spec->tool || strlen(spec->tool) > TOOL_MAX_BYTES))
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "tool has to have 1 to %d bytes",
                                   TOOL_MAX_BYTES);

        for (size_t i = 0; i < ELEMENTSOF(refused); i++)
                if (streq(spec->method, refused[i].method))
                        return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s can't be sent: %s", spec->method,
                                           refused[i].why);

        if (spec->kind == REQUEST_CALL && notification)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "%s is a notification and has no answer: send it with Notify", spec->method);
        if (spec->kind == REQUEST_NOTIFICATION && !notification)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s is no notification: send it with Call",
                                   spec->method);

        return 0;
}

int call_refuse_params(const char *what, int r, unsigned depth, const JsonError *error, Failure *failure) {
        if (r == -EINVAL)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s %s (at byte %zu)", what, error->reason,
                                   error->offset);
        if (r == -E2BIG)
                return failure_set(failure, FAILURE_INVALID_JSON,
                                   "%s: nested deeper than %u at byte %zu (limits.depth)", what, depth, error->offset);
        return failure_set(failure, FAILURE_INVALID_JSON, "%s: invalid JSON at byte %zu: %s", what, error->offset,
                           error->reason);
}

static int read_params(const CallSpec *spec, const char *params, size_t size, const ServerConfig *config,
                       McpParams *ret, Failure *failure) {
        unsigned depth = config->limits.depth;
        const char *what = spec->tool ? "arguments" : "params";
        JsonError error;
        int r;

        r = server_config_wire(config)->read_params(params, size, depth, ret, &error);
        return r >= 0 ? 0 : call_refuse_params(what, r, depth, &error, failure);
}

static uint64_t now_monotonic(Manager *manager) {
        uint64_t usec = 0;

        (void)sd_event_now(manager->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

/* Made while what the caller wrote is there, written to the log when it has its answer */
typedef struct Record {
        int level;
        uid_t uid;
        char *texts[3]; /* server, method, tool: what the caller wrote, made harmless */
        uint64_t duration;
        const char *outcome;
} Record;

static void record_take(Record *record, Manager *manager, const Client *client, const char *server, const char *method,
                        const char *tool, uint64_t started, const char *outcome) {
        const char *texts[] = { server, method, tool ?: "" };

        *record = (Record){
                .level = manager->quota.settings.log_calls ?: manager->log_calls,
                .uid = client->uid,
                .duration = now_monotonic(manager) - started,
                .outcome = outcome,
        };
        for (size_t i = 0; i < ELEMENTSOF(texts) && log_enabled(record->level); i++)
                record->texts[i] = text_escape(texts[i], strlen(texts[i]), RECORD_TEXT_MAX);
}

static void record_write(Record *record) {
        static const char *const names[] = { "SERVER", "METHOD", "TOOL" };
        char uid[40], duration[64], outcome[80], fields[3][RECORD_TEXT_MAX + 32];

        if (!log_enabled(record->level))
                return;

        (void)snprintf(uid, sizeof(uid), "MCP_EXEC_UID=%u", (unsigned)record->uid);
        (void)snprintf(duration, sizeof(duration), "MCP_EXEC_DURATION_USEC=%llu", (unsigned long long)record->duration);
        (void)snprintf(outcome, sizeof(outcome), "MCP_EXEC_OUTCOME=%s", record->outcome);
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                (void)snprintf(fields[i], sizeof(fields[i]), "MCP_EXEC_%s=%s", names[i], record->texts[i] ?: "?");

        log_fields(record->level,
                   (const char *const[]){ "MESSAGE_ID=" MESSAGE_CALL, uid, fields[0], fields[1], fields[2], duration,
                                          outcome, NULL },
                   "uid %u: %s %s%s%s: %s in %.3f ms", (unsigned)record->uid, record->texts[0] ?: "?",
                   record->texts[1] ?: "?", record->texts[2] && *record->texts[2] ? " " : "", record->texts[2] ?: "",
                   record->outcome, (double)record->duration / USEC_PER_MSEC);

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                free(record->texts[i]);
}

void call_record(Manager *manager, const Client *client, const char *server, const char *method, const char *tool,
                 uint64_t started, const char *outcome) {
        Record record;

        record_take(&record, manager, client, server, method, tool, started ?: now_monotonic(manager), outcome);
        record_write(&record);
}

/* Nothing of the call is left when its owner is told, so that it can start another. */
void call_end(Call *call, const Outcome *outcome) {
        Manager *manager = call->manager;
        const Request *request = &call->request;
        bool unnamed = !request->params.tool && streq(request->method, "tools/call");
        _cleanup_(freep) char *tool = unnamed ? json_decode(request->params.name) : NULL;
        FailureCode code = !outcome ? FAILURE_CANCELLED : outcome->failure ? outcome->failure->code : FAILURE_NONE;
        Record record;

        record_take(&record, manager, call->client, call->server_name, request->method, request->params.tool ?: tool,
                    call->started, failure_code_to_string(code));
        TAILQ_REMOVE(&call->client->calls, call, link);
        call->client->n_calls--;
        quota_release_call(&manager->quota, call->client->uid, call->bytes);
        call->done(call, outcome);
        call_file_free(call->file);
        free(call);
        record_write(&record);
        sessions_pump(manager);
        manager->handlers->maybe_idle(manager->userdata);
}

static void on_done(Request *request, const Outcome *outcome) {
        call_end((Call *)((char *)request - offsetof(Call, request)), outcome);
}

void call_cancel(Call *call, const char *reason) {
        if (call->request.pool)
                pool_cancel(&call->request, reason);
        call_end(call, NULL);
}

void call_fail(Call *call, const Failure *failure) {
        if (call->request.pool)
                pool_cancel(&call->request, failure_message(failure));
        call_end(call, &(Outcome){ .failure = failure });
}

bool call_tells_progress(Call *call) {
        uint64_t now = now_monotonic(call->manager);

        if (now >= usec_add(call->progress_since, USEC_PER_SEC)) {
                call->progress_since = now;
                call->n_progress = 0;
        }

        return call->n_progress++ < PROGRESS_PER_SECOND;
}

/* The caller knows its request by the token that it chose, the worker by one of the broker. */
static void on_progress(Request *request, JsonSlice params, const JsonTraits *traits) {
        Call *call = (Call *)((char *)request - offsetof(Call, request));
        JsonSlice token = json_get(params, "progressToken"), before = { params.data, token.data - params.data },
                  behind = { token.data + token.size, params.data + params.size - (token.data + token.size) };
        Buffer text = {};

        if (call->progress) {
                call->progress(call, params);
                return;
        }

        if (call_tells_progress(call) && json_append(&text, before, traits) >= 0 &&
            json_append(&text, request->params.token, &request->params.traits) >= 0 &&
            json_append(&text, behind, traits) >= 0)
                call->manager->handlers->notification(
                        call->manager->userdata, call->client, call->server, "notifications/progress",
                        (JsonSlice){ buffer_data(&text), buffer_size(&text) }, &(JsonTraits){});
        buffer_done(&text);
}

static int check(const CallSpec *spec, const Server *server, Failure *failure) {
        const ServerConfig *config = server->config;
        int r;

        r = check_method(spec, failure);
        if (r < 0)
                return r;
        if (spec->kind == REQUEST_NOTIFICATION && !server_config_wire(config)->append_notification)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "Server %s can't be notified: protocol %s has no notifications to a worker",
                                   spec->server, server_protocol_to_string(config->protocol));
        if (spec->timeout > config->timeouts.call_max)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "timeout is %.3g s, and server %s allows %.3g s (timeouts.call_max)",
                                   (double)spec->timeout / USEC_PER_SEC, spec->server,
                                   (double)config->timeouts.call_max / USEC_PER_SEC);
        return 0;
}

static int check_size(Manager *manager, const CallSpec *spec, size_t size, Failure *failure) {
        size_t limit = manager->quota.settings.limits.message;

        if (size <= limit)
                return 0;

        return failure_set(failure, FAILURE_TOO_LARGE,
                           "%s has %zu bytes, and the limit for an inline request is %zu (limits.message in "
                           "mcp-exec.json): CallFd takes larger ones",
                           spec->tool ? "arguments" : "params", size, limit);
}

int call_check(Manager *manager, const CallSpec *spec, Failure *failure) {
        size_t size = strlen(spec->params);
        McpParams params;
        Server *server;
        int r;

        r = manager_get_callable(manager, spec->server, &server, failure);
        if (r >= 0)
                r = check(spec, server, failure);
        if (r >= 0)
                r = check_size(manager, spec, size, failure);
        return r < 0 ? r : read_params(spec, spec->params, size, server->config, &params, failure);
}

int call_submit(Call *call, Failure *failure) {
        ServerPool *server_pool;
        int r;

        r = manager_get_callable(call->manager, call->server_name, &call->server, failure);
        if (r < 0)
                return r;
        if (client_note_server(call->client, call->server) < 0 ||
            server_get_pool(call->server, call->client, &server_pool) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        if (call->progress && !call->request.params.token.data)
                call->request.params.token = (JsonSlice){ "0", 1 };
        return pool_submit(server_pool->pool, &call->request, failure);
}

static Call *call_free(Call *call) {
        call_file_free(call->file);
        free(call);
        return NULL;
}
DEFINE_CLEANUP(Call *, call_free, call_freep)

/* Files are looked through first, and the call goes on when that is done. */
static int begin(Call *call, const CallSpec *spec, Failure *failure) {
        const char *params = spec->params;
        size_t size = params ? strlen(params) : 0;
        int r;

        r = spec->file ? call_file_new(call, spec, failure) : check_size(call->manager, spec, size, failure);
        if (r >= 0 && spec->file)
                params = call_file_text(call->file, &size);
        if (r >= 0 && params) {
                call->bytes = size;
                r = read_params(spec, params, size, call->server->config, &call->request.params, failure);
        }
        if (r < 0)
                return r;

        call->request.params.tool = spec->tool;

        r = quota_charge_call(&call->manager->quota, call->client->uid, call->client->n_calls, call->bytes, failure);
        if (r < 0)
                return r;

        TAILQ_INSERT_TAIL(&call->client->calls, call, link);
        call->client->n_calls++;
        r = params ? call_submit(call, failure) : call_file_scan(call, failure);
        if (r < 0) {
                TAILQ_REMOVE(&call->client->calls, call, link);
                call->client->n_calls--;
                quota_release_call(&call->manager->quota, call->client->uid, call->bytes);
        }
        return r;
}

int call_start(Manager *manager, Client *client, const CallSpec *spec, Failure *failure) {
        _cleanup_(call_freep) Call *call = NULL;
        Server *server;
        int r;

        r = manager_get_callable(manager, spec->server, &server, failure);
        if (r >= 0)
                r = check(spec, server, failure);
        if (r < 0)
                return r;

        call = new0(Call, 1);
        if (!call)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        *call = (Call){
                .request = { .kind = spec->kind,
                             .uid = client->uid,
                             .caller = client,
                             .method = spec->method,
                             .large = spec->large,
                             .timeout = spec->timeout,
                             .done = on_done,
                             .progress = on_progress },
                .manager = manager,
                .client = client,
                .server = server,
                .server_name = spec->server,
                .started = now_monotonic(manager),
                .done = spec->done,
                .progress = spec->progress,
                .userdata = spec->userdata,
        };
        r = begin(call, spec, failure);
        if (r < 0)
                return r;

        TAKE_PTR(call);
        return 0;
}
