#include "wire/profile.h"

#include <limits.h>

#include "wire.h"

static void test_read(void) {
        static const struct {
                const char *capabilities;
                McpProfile profile;
        } rows[] = {
                { NULL, 0 },
                { "{}", 0 },
                { "[]", 0 },
                { "null", 0 },
                { "{\"roots\":{}}", MCP_PROFILE_ROOTS },
                { "{\"roots\":{\"listChanged\":true}}", MCP_PROFILE_ROOTS | MCP_PROFILE_ROOTS_CHANGED },
                { "{\"roots\":{\"listChanged\":false}}", MCP_PROFILE_ROOTS },
                { "{\"roots\":true}", 0 },
                { "{\"sampling\":{}}", MCP_PROFILE_SAMPLING },
                { "{\"sampling\":{\"tools\":{},\"context\":{}}}",
                  MCP_PROFILE_SAMPLING | MCP_PROFILE_SAMPLING_TOOLS | MCP_PROFILE_SAMPLING_CONTEXT },
                { "{\"sampling\":{\"tools\":true}}", MCP_PROFILE_SAMPLING },
                { "{\"elicitation\":{}}", MCP_PROFILE_ELICITATION_FORM },
                { "{\"elicitation\":{\"form\":{}}}", MCP_PROFILE_ELICITATION_FORM },
                { "{\"elicitation\":{\"url\":{}}}", MCP_PROFILE_ELICITATION_URL },
                { "{\"elicitation\":{\"form\":{},\"url\":{}}}",
                  MCP_PROFILE_ELICITATION_FORM | MCP_PROFILE_ELICITATION_URL },
                { "{\"tasks\":{}}", MCP_PROFILE_TASKS },
                { "{\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"sampling\":{\"createMessage\":{}},"
                  "\"elicitation\":{\"create\":{}}}}}",
                  MCP_PROFILE_TASKS | MCP_PROFILE_TASKS_LIST | MCP_PROFILE_TASKS_CANCEL | MCP_PROFILE_TASKS_SAMPLING |
                          MCP_PROFILE_TASKS_ELICITATION },
                { "{\"tasks\":[],\"x\":{\"list\":{}}}", 0 },
                { "{\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}}", MCP_PROFILE_EXTENSION_TASKS },
                { "{\"extensions\":{\"io.modelcontextprotocol/ui\":{\"mimeTypes\":[\"a\",\"text/"
                  "html;profile=mcp-app\"]}}}",
                  MCP_PROFILE_UI },
                { "{\"extensions\":{\"io.modelcontextprotocol/ui\":{\"mimeTypes\":[]}}}", 0 },
                { "{\"experimental\":{\"x\":{}},\"extensions\":{\"com.example/y\":{}}}", 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_number(mcp_profile_read(slice(rows[i].capabilities)), rows[i].profile);
}

/* What is declared for every set of bits that can be, reads as the same one. */
static void test_round_trip(void) {
        Buffer buffer = {};

        for (McpProfile profile = 0; profile <= _MCP_PROFILE_ALL; profile++) {
                McpProfile read, legacy, modern;
                size_t size;

                start(&buffer);
                assert_number(mcp_append_profile(&buffer, profile, MCP_ERA_LEGACY), 0);
                size = buffer_size(&buffer) - strlen(PREFIX);
                read = mcp_profile_read((JsonSlice){ buffer_data(&buffer) + strlen(PREFIX), size });
                assert_number(json_scan(buffer_data(&buffer) + strlen(PREFIX), size, 8, NULL, 0, NULL, NULL), 0);
                legacy = mcp_profile_for(read, MCP_ERA_LEGACY, MCP_ERA_LEGACY);
                assert_number(legacy, read);

                start(&buffer);
                assert_number(mcp_append_profile(&buffer, read, MCP_ERA_MODERN), 0);
                size = buffer_size(&buffer) - strlen(PREFIX);
                modern = mcp_profile_read((JsonSlice){ buffer_data(&buffer) + strlen(PREFIX), size });
                assert_number(modern, mcp_profile_for(read, MCP_ERA_MODERN, MCP_ERA_LEGACY));
        }
        buffer_done(&buffer);
}

static void test_written(void) {
        static const struct {
                McpProfile profile;
                const char *legacy, *modern;
        } rows[] = {
                { 0, "{}", "{}" },
                { MCP_PROFILE_ROOTS | MCP_PROFILE_ROOTS_CHANGED, "{\"roots\":{\"listChanged\":true}}",
                  "{\"roots\":{}}" },
                { MCP_PROFILE_SAMPLING | MCP_PROFILE_ELICITATION_FORM | MCP_PROFILE_ELICITATION_URL,
                  "{\"sampling\":{},\"elicitation\":{\"form\":{},\"url\":{}}}",
                  "{\"sampling\":{},\"elicitation\":{\"form\":{},\"url\":{}}}" },
                { MCP_PROFILE_TASKS | MCP_PROFILE_TASKS_LIST | MCP_PROFILE_TASKS_ELICITATION,
                  "{\"tasks\":{\"list\":{},\"requests\":{\"elicitation\":{\"create\":{}}}}}", "{}" },
                { MCP_PROFILE_EXTENSION_TASKS, "{}", "{\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}}" },
                { MCP_PROFILE_UI,
                  "{\"extensions\":{\"io.modelcontextprotocol/ui\":{\"mimeTypes\":[\"text/html;profile=mcp-app\"]}}}",
                  "{\"extensions\":{\"io.modelcontextprotocol/ui\":{\"mimeTypes\":[\"text/html;profile=mcp-app\"]}}}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_number(mcp_append_profile(&buffer, rows[i].profile, MCP_ERA_LEGACY), 0);
                assert_appended(&buffer, rows[i].legacy);
                assert_number(mcp_append_profile(&buffer, rows[i].profile, MCP_ERA_MODERN), 0);
                assert_appended(&buffer, rows[i].modern);
        }
        buffer_done(&buffer);
}

static void test_pools(void) {
        assert_number(mcp_profile_for(_MCP_PROFILE_ALL, MCP_ERA_LEGACY, MCP_ERA_MODERN), 0);
        assert_number(mcp_profile_for(_MCP_PROFILE_ALL, MCP_ERA_LEGACY, MCP_ERA_LEGACY),
                      _MCP_PROFILE_ALL & ~MCP_PROFILE_EXTENSION_TASKS);
        assert_number(mcp_profile_for(MCP_PROFILE_ROOTS | MCP_PROFILE_ROOTS_CHANGED | MCP_PROFILE_TASKS, MCP_ERA_MODERN,
                                      MCP_ERA_LEGACY),
                      MCP_PROFILE_ROOTS);
}

static void test_missing(void) {
        static const struct {
                McpProfile profile;
                const char *method, *params;
                McpProfile missing;
        } rows[] = {
                { MCP_PROFILE_ROOTS, "\"roots/list\"", NULL, 0 },
                { 0, "\"roots/list\"", "{}", MCP_PROFILE_ROOTS },
                { MCP_PROFILE_SAMPLING, "\"sampling/createMessage\"", "{\"messages\":[]}", 0 },
                { MCP_PROFILE_SAMPLING, "\"sampling/createMessage\"", "{\"tools\":[]}", MCP_PROFILE_SAMPLING_TOOLS },
                { 0, "\"sampling/createMessage\"", "{\"toolChoice\":{}}",
                  MCP_PROFILE_SAMPLING | MCP_PROFILE_SAMPLING_TOOLS },
                { MCP_PROFILE_ELICITATION_FORM, "\"elicitation/create\"", "{\"message\":\"\"}", 0 },
                { MCP_PROFILE_ELICITATION_FORM, "\"elicitation/create\"", "{\"mode\":\"form\"}", 0 },
                { MCP_PROFILE_ELICITATION_FORM, "\"elicitation/create\"", "{\"mode\":\"url\"}",
                  MCP_PROFILE_ELICITATION_URL },
                { _MCP_PROFILE_ALL, "\"tools/call\"", "{}", UINT_MAX },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_number(mcp_profile_missing(rows[i].profile, slice(rows[i].method), slice(rows[i].params)),
                              rows[i].missing);
}

static void test_levels(void) {
        static const char *const wrong[] = { "\"warn\"", "\"\"", "1", "null", "\"Debug\"" };

        for (McpLevel level = 0; level < _MCP_LEVEL_MAX; level++) {
                char quoted[24];

                (void)snprintf(quoted, sizeof(quoted), "\"%s\"", mcp_level_to_string(level));
                assert_number(mcp_level_read(slice(quoted)), level);
        }
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                assert_number(mcp_level_read(slice(wrong[i])), _MCP_LEVEL_NONE);
        assert_number(mcp_level_read((JsonSlice){}), _MCP_LEVEL_NONE);
}

int main(void) {
        test_read();
        test_round_trip();
        test_written();
        test_pools();
        test_missing();
        test_levels();
        return 0;
}
