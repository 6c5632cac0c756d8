#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/mcp.h"

#define META_VERSION "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define META_CLIENT "io.modelcontextprotocol/clientInfo"
#define ID UINT64_C(1234567890123)

static bool find_id(const char *text, size_t size, size_t step, uint64_t *ret) {
        IdFinder finder = {};

        for (size_t i = 0; i < size; i += step)
                id_finder_feed(&finder, text + i, MIN(step, size - i));

        return mcp_found_id(&finder, ret);
}

/* An answer to the broker, as mcp_parse() sees it, is found without parsing as well: where it is a line, and its keys
 * are plain. */
static void check_id_finder(const char *text, size_t size, const McpMessage *message) {
        uint64_t number = 0, other = 0;
        bool found;

        found = find_id(text, size, SIZE_MAX / 2, &number);
        for (size_t step = 1; step <= 13; step += 3) {
                assert_number(find_id(text, size, step, &other), found);
                assert_true(number == other);
        }

        if (message && message->ours && (message->kind == MCP_RESULT || message->kind == MCP_ERROR) &&
            !memchr(text, '\\', size) && !memchr(text, '\n', size)) {
                assert_true(found);
                assert_true(number == message->number);
        }
}

static void check_line(const Buffer *buffer, size_t before, McpMessage *ret) {
        const char *line = buffer_data(buffer) + before;
        size_t size = buffer_size(buffer) - before;

        assert_true(size > 0 && memchr(line, '\n', size) == line + size - 1);
        assert_true(!memchr(line, '\r', size));
        assert_number(mcp_parse(line, size - 1, JSON_DEPTH_MAX, ret, NULL), 0);
        assert_false(ret->traits.newlines);
}

static void check_answer(JsonSlice id) {
        Buffer buffer = {};
        McpMessage message;

        assert_number(mcp_append_empty_result(&buffer, id), 0);
        check_line(&buffer, 0, &message);
        assert_number(message.kind, MCP_RESULT);
        assert_bytes(message.id.data, message.id.size, id.data, id.size);
        buffer_truncate(&buffer, 0);
        assert_number(mcp_append_method_not_found(&buffer, id), 0);
        check_line(&buffer, 0, &message);
        assert_number(message.kind, MCP_ERROR);
        assert_bytes(message.id.data, message.id.size, id.data, id.size);
        buffer_done(&buffer);
}

static void check_parse(const char *text, size_t size) {
        JsonError error = {};
        McpMessage message;

        if (mcp_parse(text, size, 64, &message, &error) < 0) {
                assert_true(error.reason && error.offset <= size);
                check_id_finder(text, size, NULL);
                return;
        }

        check_id_finder(text, size, &message);
        switch (message.kind) {
        case MCP_REQUEST:
                assert_true(json_is(message.method, '"') && message.id.size > 0);
                check_answer(message.id);
                break;
        case MCP_NOTIFICATION:
                assert_true(json_is(message.method, '"') && !message.id.data);
                break;
        case MCP_RESULT:
                assert_true(message.id.size > 0 && message.result.data && !message.error.data && !message.method.data);
                break;
        case MCP_ERROR:
                assert_true(message.id.size > 0 && json_is(message.error, '{') && !message.result.data &&
                            !message.method.data);
                break;
        case MCP_NOISE:
                break;
        }
}

static unsigned count(JsonSlice object, const char *name) {
        const char *position = NULL;
        JsonSlice key, value;
        unsigned n = 0;

        while (json_next_member(object, &position, &key, &value))
                n += !name || json_equal(key, name);
        return n;
}

static bool same_bytes(JsonSlice slice, const Buffer *buffer) {
        return slice.size == buffer_size(buffer) && memcmp(slice.data, buffer_data(buffer), slice.size) == 0;
}

/* Every member of from stands in to, unchanged but for its traits, except those in skip. */
static void check_kept(JsonSlice from, JsonSlice to, const JsonTraits *traits, const char *const *skip) {
        const char *position_from = NULL, *position_to = NULL;
        JsonSlice key, value, to_key, to_value;

        while (json_next_member(from, &position_from, &key, &value)) {
                Buffer wanted_key = {}, wanted = {};
                bool skipped = false;

                for (const char *const *s = skip; *s; s++)
                        skipped = skipped || json_equal(key, *s);
                if (skipped)
                        continue;

                /* In the same order, with others in front of them only */
                assert_number(json_append(&wanted_key, key, traits), 0);
                assert_number(json_append(&wanted, value, traits), 0);
                do
                        assert_true(json_next_member(to, &position_to, &to_key, &to_value));
                while (!same_bytes(to_key, &wanted_key) || !same_bytes(to_value, &wanted));
                buffer_done(&wanted_key);
                buffer_done(&wanted);
        }
}

static void check_request(const McpParams *params, McpEra era, const char *method) {
        static const char *const skip[] = { "_meta", NULL }, *const skip_token[] = { "progressToken", NULL },
                                 *const skip_modern[] = { "progressToken", META_VERSION, NULL };
        bool progress = params->tool || params->token.data || streq(method, "tools/call");
        Buffer buffer = {};
        McpMessage message;
        JsonSlice meta;

        assert_number(buffer_append_string(&buffer, "before\n"), 0);
        assert_number(mcp_append_request(&buffer, ID, era, method, params), 0);
        assert_bytes(buffer_data(&buffer), 7, "before\n", 7);
        check_line(&buffer, 7, &message);
        assert_number(message.kind, MCP_REQUEST);
        assert_true(message.ours && message.number == ID);
        assert_false(message.traits.noncharacters);
        assert_true(json_equal(message.method, method));
        assert_true(json_is(message.params, '{') ||
                    (!message.params.data && !params->text.data && era != MCP_ERA_MODERN));

        meta = json_get(message.params, "_meta");
        if (era == MCP_ERA_MODERN) {
                assert_number(count(message.params, "_meta"), 1);
                assert_number(count(meta, META_VERSION), 1);
                assert_true(json_equal(json_get(meta, META_VERSION), MCP_VERSION_MODERN));
                assert_true(count(meta, META_CAPABILITIES) > 0 && count(meta, META_CLIENT) > 0);
        }
        if (progress && message.params.data) {
                uint64_t token = 0;

                assert_number(count(meta, "progressToken"), 1);
                assert_true(json_unsigned(json_get(meta, "progressToken"), &token) && token == ID);
        }

        if (params->tool) {
                assert_number(count(message.params, NULL), 3);
                assert_true(json_equal(json_get(message.params, "name"), params->tool));
                if (params->text.data) {
                        Buffer arguments = {};
                        JsonSlice got = json_get(message.params, "arguments");

                        assert_number(json_append(&arguments, params->text, &params->traits), 0);
                        assert_bytes(got.data, got.size, buffer_data(&arguments), buffer_size(&arguments));
                        buffer_done(&arguments);
                }
        } else {
                check_kept(params->text, message.params, &params->traits, skip);
                check_kept(params->meta, meta, &params->traits, era == MCP_ERA_MODERN ? skip_modern : skip_token);
        }
        buffer_done(&buffer);
}

static void check_params(const char *text, size_t size) {
        static const McpEra eras[] = { MCP_ERA_AUTO, MCP_ERA_LEGACY, MCP_ERA_MODERN };
        char tool[20] = "";
        McpParams params;
        JsonError error = {};
        Buffer buffer = {};
        McpMessage message;
        int r;

        r = mcp_params_read(text, size, 64, &params, &error);
        if (r < 0) {
                assert_true(r == -EBADMSG || r == -E2BIG || r == -EINVAL);
                assert_true(error.reason && error.offset <= size);
                return;
        }

        assert_true(!params.tool);
        assert_true(!params.text.data || (json_is(params.text, '{') && params.text.data[params.text.size - 1] == '}'));
        for (size_t i = 0; i < ELEMENTSOF(eras); i++) {
                check_request(&params, eras[i], "resources/read");
                check_request(&params, eras[i], "tools/call");
        }

        assert_number(mcp_append_notification(&buffer, "notifications/x", &params), 0);
        check_line(&buffer, 0, &message);
        assert_number(message.kind, MCP_NOTIFICATION);
        buffer_done(&buffer);

        /* Valid UTF-8 is the bus's promise for a tool's name. */
        for (size_t i = 0; i < MIN(size, sizeof(tool) - 1); i++)
                tool[i] = text[i] & 0x7f;
        params.tool = tool;
        for (size_t i = 0; i < ELEMENTSOF(eras); i++)
                check_request(&params, eras[i], "tools/call");
}

/* What stands in a key of a valid text is sent as a reason, whatever it is. */
static void check_cancelled(const char *text, size_t size) {
        _cleanup_(freep) char *reason = strndup(text, MIN(size, (size_t)64));
        Buffer buffer = {};
        McpMessage message;

        assert_true(reason);
        assert_number(mcp_append_cancelled(&buffer, ID, reason), 0);
        check_line(&buffer, 0, &message);
        assert_number(message.kind, MCP_NOTIFICATION);
        assert_true(json_is(json_get(message.params, "reason"), '"'));
        buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data;

        if (size > 0) {
                check_parse(text, size);
                check_cancelled(text, size);
        }
        check_params(size > 0 ? text : "", size);
        return 0;
}
