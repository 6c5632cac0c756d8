/* Finding out which era a server speaks, and its handshake. The specification, 2026-07-28, basic/transports/stdio,
 * "Backward Compatibility": server/discover first, and anything but its result or a modern error means legacy. Real
 * servers add that some die of the question and some fall silent, so a new process is asked the other way then. */

#include <stdio.h>

#include "base/text.h"
#include "worker/pool.h"
#include "worker/worker.h"

#define LOOK_INTERVAL (USEC_PER_SEC / 2)
#define ANSWER_TIME (2 * USEC_PER_SEC) /* from when a question has been read */
#define RELAUNCHES_MAX 3
#define SERVER_INFO_MAX 256
#define ERROR_UNSUPPORTED_VERSION "-32022"

static const McpParams no_params = {};

static int send_discover(Worker *worker, uint64_t *ret_id) {
        Buffer *input = channel_input(worker->channel);

        if (!input)
                return -EPIPE;

        *ret_id = ++worker->last_id;
        return worker_write(worker, mcp_append_request(input, *ret_id, MCP_ERA_MODERN, "server/discover", &no_params));
}

static int send_initialize(Worker *worker) {
        Buffer *input = channel_input(worker->channel);

        if (!input)
                return -EPIPE;

        worker->initialize_id = ++worker->last_id;
        return worker_write(worker, mcp_append_initialize(input, worker->initialize_id, worker->pool->profile));
}

int handshake_start(Worker *worker) {
        uint64_t deadline = usec_add(worker->started, worker->config->timeouts.start);

        /* Nothing is asked of others than MCP servers: they are ready as soon as they are there. */
        if (worker->wire != &mcp_protocol) {
                worker->step = HANDSHAKE_DONE;
                return 0;
        }

        if (worker->era == MCP_ERA_LEGACY) {
                worker->step = HANDSHAKE_INITIALIZE;
                worker_set_timer(worker, deadline);
                return send_initialize(worker);
        }

        worker->step = HANDSHAKE_PROBE;
        worker_set_timer(worker, worker->config->era == MCP_ERA_MODERN
                                         ? deadline
                                         : MIN(deadline, worker->started + LOOK_INTERVAL));
        return send_discover(worker, &worker->probe_id);
}

/* Lets the pool start another process, which is spoken to in that era from its first byte. */
static void relaunch(Worker *worker, McpEra era) {
        /* One that is another at each start could be asked for ever. */
        if (++worker->pool->n_relaunches > RELAUNCHES_MAX) {
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED, "it answers neither as a legacy nor as a modern server");
                return;
        }

        pool_set_era(worker->pool, era);
        worker->relaunch = true;
        worker_stop(worker, /* impatient= */ true);
}

bool handshake_died(Worker *worker) {
        if (worker->relaunch)
                return true;
        if (worker->config->era != MCP_ERA_AUTO || !worker->probe_id)
                return false;
        if (++worker->pool->n_relaunches > RELAUNCHES_MAX)
                return false;

        /* One that was modern once can have been replaced. */
        pool_set_era(worker->pool, worker->era_assumed ? MCP_ERA_AUTO : MCP_ERA_LEGACY);
        worker->relaunch = true;
        return true;
}

void handshake_hung_up(Worker *worker) {
        if (handshake_died(worker))
                worker_stop(worker, /* impatient= */ true);
        else
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED, "it closed its %s before the handshake was done",
                            worker->hung_up ?: "stdin");
}

static void try_initialize(Worker *worker) {
        worker->era = MCP_ERA_AUTO;
        worker->step = HANDSHAKE_INITIALIZE;
        worker_set_timer(worker, usec_add(worker->started, worker->config->timeouts.start));
        if (send_initialize(worker) < 0)
                handshake_hung_up(worker);
}

static bool contains(JsonSlice versions, const char *version) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(versions, &position, &element))
                if (json_equal(element, version))
                        return true;

        return false;
}

static bool contains_legacy(JsonSlice versions) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(versions, &position, &element)) {
                _cleanup_(freep) char *version = json_decode(element);

                if (version && mcp_legacy_version_supported(version))
                        return true;
        }

        return false;
}

static void take_server_info(Worker *worker, JsonSlice info) {
        _cleanup_(freep) char *name = json_decode(json_get(info, "name")), *text = NULL,
                              *version = json_decode(json_get(info, "version"));

        if (!name)
                return;
        if (asprintf(&text, "%s%s%s", name, version ? " " : "", version ?: "") < 0) {
                text = NULL;
                return;
        }

        free(worker->server_info);
        worker->server_info = text_escape(text, strlen(text), SERVER_INFO_MAX);
}

void worker_listen(Worker *worker, JsonSlice uris) {
        static const char lists[] = "\"toolsListChanged\":true,\"promptsListChanged\":true,"
                                    "\"resourcesListChanged\":true";
        uint64_t before = worker->listen_id, id = worker->last_id + 1;
        Buffer *input = channel_input(worker->channel), text = {};
        McpParams params = {};
        int r;

        r = buffer_append_string(&text, "{\"notifications\":{");
        if (r >= 0 && worker->lists_change)
                r = buffer_append_string(&text, lists);
        if (r >= 0 && uris.size > 0) {
                r = buffer_append_string(&text, worker->lists_change ? ",\"resourceSubscriptions\":["
                                                                     : "\"resourceSubscriptions\":[");
                if (r >= 0)
                        r = buffer_append(&text, uris.data, uris.size);
                if (r >= 0)
                        r = buffer_append(&text, "]", 1);
        }
        if (r >= 0)
                r = buffer_append_string(&text, "}}");

        if (r >= 0 && input && (worker->lists_change || uris.size > 0)) {
                params.text = (JsonSlice){ buffer_data(&text), buffer_size(&text) };
                r = mcp_append_request(input, id, MCP_ERA_MODERN, "subscriptions/listen", &params);
                if (r >= 0)
                        worker->listen_id = worker->last_id = id;
        } else
                worker->listen_id = 0;
        buffer_done(&text);

        /* Only now, so that nothing is missed in between */
        if (r >= 0 && input && before) {
                r = mcp_append_cancelled(input, before, "something else is listened to");
                worker->n_told++;
        }
        if (r >= 0 && input)
                (void)worker_write(worker, r);
}

static void ready_modern(Worker *worker, JsonSlice result, const JsonTraits *traits) {
        JsonSlice capabilities = json_get(result, "capabilities");

        worker->lists_change = json_equal(json_get(result, "resultType"), "complete") && capabilities.data &&
                               (json_is(json_get(json_get(capabilities, "tools"), "listChanged"), 't') ||
                                json_is(json_get(json_get(capabilities, "prompts"), "listChanged"), 't') ||
                                json_is(json_get(json_get(capabilities, "resources"), "listChanged"), 't'));

        worker->era = MCP_ERA_MODERN;
        pool_set_era(worker->pool, MCP_ERA_MODERN);
        (void)snprintf(worker->protocol_version, sizeof(worker->protocol_version), "%s", MCP_VERSION_MODERN);
        take_server_info(worker, json_get(json_get(result, "_meta"), "io.modelcontextprotocol/serverInfo"));
        pool_set_greeting(worker->pool, result, traits);
        if (worker->lists_change)
                worker_listen(worker, (JsonSlice){});
        worker_became_ready(worker);
}

static void discover_answered(Worker *worker, const McpMessage *message) {
        JsonSlice versions = {};
        bool modern = false;

        if (message->kind == MCP_RESULT) {
                versions = json_get(message->result, "supportedVersions");
                modern = json_is(versions, '[');
        } else {
                JsonSlice code = json_get(message->error, "code");

                if (code.size == strlen(ERROR_UNSUPPORTED_VERSION) &&
                    memcmp(code.data, ERROR_UNSUPPORTED_VERSION, code.size) == 0) {
                        versions = json_get(json_get(message->error, "data"), "supported");
                        modern = true;
                }
        }

        if (modern && contains(versions, MCP_VERSION_MODERN)) {
                /* After an initialize it may have taken this connection for a legacy one. */
                if (worker->step == HANDSHAKE_BOTH)
                        relaunch(worker, MCP_ERA_MODERN);
                else
                        ready_modern(worker, message->result, &message->traits);
        } else if (modern && !contains_legacy(versions))
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED,
                            "it supports none of the protocol versions spoken here, but %.*s",
                            (int)MIN(versions.size, (size_t)200), versions.data ?: "");
        else if (worker->step == HANDSHAKE_PROBE) {
                if (worker->config->era == MCP_ERA_MODERN)
                        worker_fail(worker, FAILURE_HANDSHAKE_FAILED,
                                    "it is configured as era modern, but doesn't know server/discover");
                else
                        try_initialize(worker);
        } else
                worker->step = HANDSHAKE_INITIALIZE;
}

static void initialize_answered(Worker *worker, const McpMessage *message) {
        _cleanup_(freep) char *version = NULL;
        Buffer *input;

        if (message->kind != MCP_RESULT) {
                Failure remote = {};

                /* A server that was legacy once can have been updated. */
                if (worker->era_assumed) {
                        relaunch(worker, MCP_ERA_AUTO);
                        return;
                }

                failure_set_remote(&remote, worker->config->name, message->error);
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED, "it refused initialize: %s", failure_message(&remote));
                failure_done(&remote);
                return;
        }

        version = json_decode(json_get(message->result, "protocolVersion"));
        if (!version || !mcp_legacy_version_supported(version)) {
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED,
                            "it answered initialize with protocol version %s, which isn't spoken here",
                            version ?: "(none)");
                return;
        }

        (void)snprintf(worker->protocol_version, sizeof(worker->protocol_version), "%s", version);
        take_server_info(worker, json_get(message->result, "serverInfo"));
        worker->era = MCP_ERA_LEGACY;
        pool_set_era(worker->pool, MCP_ERA_LEGACY);
        pool_set_greeting(worker->pool, message->result, &message->traits);

        input = channel_input(worker->channel);
        if (!input ||
            worker_write(worker, mcp_append_notification(input, "notifications/initialized", &no_params)) < 0) {
                handshake_hung_up(worker);
                return;
        }

        worker_became_ready(worker);
}

void handshake_answer(Worker *worker, const McpMessage *message) {
        if (message->number == worker->probe_id && worker->step <= HANDSHAKE_BOTH)
                discover_answered(worker, message);
        else if (message->number == worker->initialize_id && worker->step >= HANDSHAKE_BOTH)
                initialize_answered(worker, message);
        else
                worker->late_answers++;
}

/* Whether the last question has been read, and long enough ago to have been answered. A server that is still being
 * downloaded or compiled has not read it: it isn't silent, but slow. */
static bool left_unanswered(Worker *worker, uint64_t now) {
        if (channel_unread(worker->channel) > 0)
                worker->question_read = 0;
        else if (worker->question_read == 0)
                worker->question_read = now;

        return worker->question_read > 0 && now - worker->question_read >= ANSWER_TIME;
}

void handshake_timeout(Worker *worker) {
        uint64_t deadline = usec_add(worker->started, worker->config->timeouts.start), now = worker_now(worker);

        if (worker->step == HANDSHAKE_DONE) {
                worker_became_ready(worker);
                return;
        }

        if (now >= deadline) {
                worker_fail(worker, FAILURE_HANDSHAKE_FAILED, "it answered no handshake within %.3g s (timeouts.start)",
                            (double)worker->config->timeouts.start / USEC_PER_SEC);
                return;
        }

        worker_set_timer(worker, MIN(deadline, now + LOOK_INTERVAL));
        if (!left_unanswered(worker, now))
                return;

        if (worker->era_assumed)
                relaunch(worker, MCP_ERA_AUTO);
        else if (worker->step == HANDSHAKE_PROBE) {
                worker->step = HANDSHAKE_BOTH;
                worker->question_read = 0;
                if (send_initialize(worker) < 0)
                        handshake_hung_up(worker);
        } else
                relaunch(worker, MCP_ERA_LEGACY);
}
