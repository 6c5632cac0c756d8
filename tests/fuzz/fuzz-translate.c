#include "fuzz.h"
#include "wire/meta.h"
#include "wire/subscription.h"
#include "wire/task.h"
#include "wire/translate.h"
#include "written.h"

/* A text that is params of a client, the result of a worker, or an error: whatever it is, what is made of it for the
 * other era is valid, and no larger than it may be. */

#define DEPTH 64
#define EXTRA 2048

static const McpEra eras[] = { MCP_ERA_LEGACY, MCP_ERA_MODERN };
static const JsonPiece id = JSON_LITERAL("\"id\"");

static void check_params(const char *text, size_t size, const JsonTraits *traits) {
        static const char *const methods[] = { "tools/call", "resources/read" };
        McpParams params;
        JsonError error;

        if (mcp_params_read(text, size, DEPTH, &params, &error) < 0)
                return;

        for (size_t i = 0; i < 8; i++) {
                McpEra from = eras[i & 1], to = eras[i >> 1 & 1];
                const McpClient client = { .era = from,
                                           .profile = from == MCP_ERA_LEGACY ? _MCP_PROFILE_ALL : 0,
                                           .info = { "{\"name\":\"c\"}", 12 },
                                           .level = from == MCP_ERA_LEGACY ? MCP_LEVEL_INFO : _MCP_LEVEL_NONE };
                Buffer buffer = {};
                McpMessage message;
                JsonSlice meta;

                params.client = &client;
                assert_number(mcp_append_request(&buffer, 77, to, methods[i >> 2], &params), 0);
                message = assert_line(&buffer, MCP_REQUEST, size, traits, EXTRA);
                meta = json_get(message.params, "_meta");

                if (to == MCP_ERA_MODERN) {
                        assert_true(json_equal(json_get(meta, META_VERSION), MCP_VERSION_MODERN));
                        assert_true(json_get(meta, META_CAPABILITIES).data && json_get(meta, META_CLIENT).data);
                } else if (from == MCP_ERA_MODERN) {
                        assert_true(!json_get(meta, META_VERSION).data && !json_get(meta, META_CAPABILITIES).data &&
                                    !json_get(meta, META_CLIENT).data && !json_get(meta, META_LEVEL).data);
                        assert_true(!json_get(message.params, "requestState").data &&
                                    !json_get(message.params, "inputResponses").data);
                }
                buffer_done(&buffer);
        }
}

static void check_results(JsonPiece result) {
        static const char *const methods[] = { "tools/call", "tools/list", "prompts/get", "resources/read" };
        static const JsonPiece info = JSON_LITERAL("{\"name\":\"s\",\"version\":\"1\"}");

        for (size_t i = 0; i < 4 * ELEMENTSOF(methods); i++) {
                const char *method = methods[i / 4];
                McpEra worker = eras[i & 1], client = eras[i >> 1 & 1];
                Buffer buffer = {};
                McpMessage message;

                if (mcp_append_client_result(&buffer, id, method, result, worker, client, info) < 0) {
                        assert_true(!json_is(result.text, '{') && buffer_size(&buffer) == 0);
                        continue;
                }

                message = assert_line(&buffer, MCP_RESULT, result.text.size, result.traits, EXTRA);
                if (worker == MCP_ERA_LEGACY && client == MCP_ERA_MODERN)
                        assert_number(mcp_result_type(message.result, MCP_ERA_MODERN), MCP_RESULT_COMPLETE);
                if (worker == MCP_ERA_MODERN && client == MCP_ERA_LEGACY)
                        assert_true(!json_get(message.result, "resultType").data);
                buffer_done(&buffer);
        }
}

static void check_hello(JsonPiece result) {
        for (size_t i = 0; i < ELEMENTSOF(eras); i++) {
                const McpHello hello = { eras[i], result, "configured" };
                Buffer buffer = {};
                JsonSlice written;

                assert_number(mcp_append_discover_result(&buffer, &hello), 0);
                written = assert_written(&buffer, result.text.size, result.traits, EXTRA);
                assert_true(json_get(written, "ttlMs").data && json_is(json_get(written, "supportedVersions"), '['));
                buffer_done(&buffer);

                assert_number(mcp_append_initialize_result(&buffer, &hello, "2025-06-18"), 0);
                written = assert_written(&buffer, result.text.size, result.traits, EXTRA);
                assert_true(json_equal(json_get(written, "protocolVersion"), "2025-06-18"));
                buffer_done(&buffer);
                (void)mcp_hello_has(&hello, "tools", "listChanged");
        }
}

/* Asked of a legacy client one by one, answered, and asked again */
static void check_input_required(JsonPiece result) {
        McpAsk asks[MCP_ASKS_MAX];
        const JsonTraits *traits[MCP_ASKS_MAX];
        Buffer buffer = {}, responses = {}, repeated = {};
        McpParams params = {};
        const char *reason;
        bool first = true;
        JsonSlice state;
        size_t n;

        if (mcp_read_input_required(result.text, asks, &n, &state, &reason) < 0)
                return;

        assert_number(buffer_append_string(&responses, "{"), 0);
        for (size_t i = 0; i < n; i++) {
                assert_number(mcp_append_ask(&buffer, (JsonPiece)JSON_LITERAL("7"), &asks[i], result.traits), 0);
                assert_line(&buffer, MCP_REQUEST, result.text.size, result.traits, EXTRA);
                buffer_done(&buffer);
                assert_number(mcp_append_input_response(&responses, &first, &asks[i], result.traits,
                                                        (JsonPiece)JSON_LITERAL("{\"action\":\"accept\"}")),
                              0);
                traits[i] = result.traits;
        }
        assert_number(buffer_append_string(&responses, "}"), 0);
        assert_written(&responses, result.text.size, result.traits, MCP_ASKS_MAX * 32);

        assert_number(
                mcp_append_repeat_params(&repeated, &params,
                                         (JsonPiece){ { buffer_data(&responses), buffer_size(&responses) }, NULL },
                                         (JsonPiece){ state, result.traits }),
                0);
        assert_written(&repeated, 2 * result.text.size, result.traits, MCP_ASKS_MAX * 32 + EXTRA);

        /* The other way round: as if a legacy worker had sent them */
        assert_number(mcp_append_input_required(&buffer, id, asks, traits, n, "state"), 0);
        assert_line(&buffer, MCP_RESULT, result.text.size, result.traits, EXTRA);
        buffer_done(&buffer);
        buffer_done(&responses);
        buffer_done(&repeated);
}

static void check_retry(JsonPiece params) {
        JsonSlice responses, state;
        const char *reason = NULL;
        Buffer buffer = {};
        int r;

        r = mcp_read_retry(params.text, &responses, &state, &reason);
        assert_true(r >= 0 || reason);
        if (r == 1) {
                r = mcp_append_response_of(&buffer, id, (JsonPiece){ responses, params.traits }, "a");
                if (r == 1)
                        assert_line(&buffer, MCP_RESULT, params.text.size, params.traits, EXTRA);
        }
        buffer_done(&buffer);

        if (mcp_append_url_elicitations(&buffer, id, params) >= 0)
                assert_line(&buffer, MCP_RESULT, params.text.size, params.traits, MCP_ASKS_MAX * 128 + EXTRA);
        buffer_done(&buffer);
}

static bool is_short(void *userdata, JsonSlice task) {
        assert_true(!userdata);
        return task.size < 4;
}

static void check_notifications(JsonPiece params) {
        static const JsonPiece method = JSON_LITERAL("\"notifications/x\"");
        const char *reason = NULL;
        McpFilter filter;
        Buffer buffer = {};
        McpMessage message;

        assert_number(mcp_append_subscribed(&buffer, method, params, id), 0);
        message = assert_line(&buffer, MCP_NOTIFICATION, params.text.size, params.traits, EXTRA);
        assert_true(json_equal(mcp_subscription_id(message.params), "id"));
        buffer_done(&buffer);

        assert_number(mcp_append_subscribed(&buffer, method, params, (JsonPiece){}), 0);
        message = assert_line(&buffer, MCP_NOTIFICATION, params.text.size, params.traits, EXTRA);
        assert_true(!mcp_subscription_id(message.params).data);
        buffer_done(&buffer);

        if (json_is(params.text, '{')) {
                assert_number(mcp_append_progress(&buffer, params, (JsonPiece)JSON_LITERAL("5")), 0);
                assert_line(&buffer, MCP_NOTIFICATION, params.text.size, params.traits, EXTRA);
                buffer_done(&buffer);
        }

        if (mcp_filter_read(params.text, params.traits, &filter, &reason) >= 0) {
                assert_number(mcp_append_acknowledged(&buffer, id, &filter), 0);
                assert_line(&buffer, MCP_NOTIFICATION, params.text.size, params.traits, EXTRA);
                buffer_done(&buffer);
                mcp_filter_limit(&filter, params.text, MCP_ERA_MODERN);
        } else
                assert_true(reason);

        if (mcp_append_task_list(&buffer, params, is_short, NULL) >= 0)
                assert_written(&buffer, params.text.size, params.traits, EXTRA);
        buffer_done(&buffer);
}

static void check_profile(JsonSlice capabilities) {
        McpProfile profile = mcp_profile_read(capabilities);
        Buffer buffer = {};
        JsonSlice written;

        assert_true((profile & ~_MCP_PROFILE_ALL) == 0);
        assert_number(mcp_append_profile(&buffer, profile, MCP_ERA_LEGACY), 0);
        written = assert_written(&buffer, 0, &(JsonTraits){}, EXTRA);
        assert_number(mcp_profile_read(written), mcp_profile_for(profile, MCP_ERA_LEGACY, MCP_ERA_LEGACY));
        buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = size > 0 ? (const char *)data : "", *version, *reason;
        McpProfile profile;
        JsonTraits traits;
        JsonPiece piece;
        JsonSlice info;

        if (json_scan(text, size, DEPTH, NULL, 0, &traits, NULL) < 0)
                return 0;

        piece = (JsonPiece){ trimmed(text, size), &traits };
        check_params(text, size, &traits);
        check_results(piece);
        if (json_is(piece.text, '{'))
                check_hello(piece);
        check_input_required(piece);
        check_retry(piece);
        check_notifications(piece);
        check_profile(piece.text);
        (void)mcp_task_created(piece.text, MCP_ERA_LEGACY);
        (void)mcp_task_created(piece.text, MCP_ERA_MODERN);
        (void)mcp_task_of_related(piece.text);
        (void)mcp_read_initialize(piece.text, &version, &profile, &info, &reason);
        return 0;
}
