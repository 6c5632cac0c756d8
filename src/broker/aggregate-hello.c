/* A session on several servers: what they are together */

#include "broker/aggregate.h"
#include "wire/meta.h"

#define INSTRUCTIONS_MAX ((size_t)4096) /* bytes of one server's */
#define INSTRUCTIONS_ALL_MAX ((size_t)32 * 1024)

JsonSlice aggregate_greeting(const SessionServer *server) {
        const ServerPool *server_pool = server->pool;
        const Buffer *greeting;

        if (server->gone)
                return (JsonSlice){};
        if (!server_pool)
                server_pool = server_find_pool(server->server, server->session->client);
        if (!server_pool)
                return (JsonSlice){};

        greeting = &server_pool->pool->greeting;
        return (JsonSlice){ buffer_data(greeting), buffer_size(greeting) };
}

typedef struct Joined {
        bool all_known, subscribe, completions, logging, tasks;
} Joined;

static Joined join_capabilities(const Session *session) {
        Joined joined = { .all_known = !session->aggregate->all };

        for (size_t i = 0; i < session->n_servers; i++) {
                const SessionServer *member = &session->servers[i];
                JsonSlice greeting = aggregate_greeting(member), capabilities = json_get(greeting, "capabilities");

                if (member->gone)
                        continue;
                if (!greeting.data)
                        joined.all_known = false;
                joined.subscribe =
                        joined.subscribe || json_is(json_get(json_get(capabilities, "resources"), "subscribe"), 't');
                joined.completions = joined.completions || json_get(capabilities, "completions").data;
                joined.tasks =
                        joined.tasks || json_get(json_get(json_get(capabilities, "tasks"), "requests"), "tools").data;
                joined.logging = joined.logging || json_get(capabilities, "logging").data;
        }

        return joined;
}

/* Each server's own, as far as they are known without a start, and what the configuration says of it */
static int append_instructions(Buffer *text, const Session *session) {
        int r = buffer_append_string(text,
                                     "Several MCP servers behind one connection. The name of each tool and prompt "
                                     "begins with its server's name and two underscores.\n");

        for (size_t i = 0; i < session->n_servers && r >= 0; i++) {
                const SessionServer *member = &session->servers[i];
                _cleanup_(freep) char *own = json_decode(json_get(aggregate_greeting(member), "instructions"));
                const char *description = member->gone ? NULL : member->server->config->description;

                if (member->gone || (!own && !description) || buffer_size(text) > INSTRUCTIONS_ALL_MAX)
                        continue;
                r = buffer_append_string(text, "\n# ");
                if (r >= 0)
                        r = buffer_append_string(text, member->name);
                if (r >= 0)
                        r = buffer_append_string(text, "\n");
                if (r >= 0 && description)
                        r = buffer_append(text, description, MIN(strlen(description), INSTRUCTIONS_MAX));
                if (r >= 0 && description)
                        r = buffer_append_string(text, "\n");
                if (r >= 0 && own)
                        r = buffer_append(text, own, MIN(strlen(own), INSTRUCTIONS_MAX));
                if (r >= 0 && own)
                        r = buffer_append_string(text, "\n");
        }

        return r;
}

static int append_capabilities(Buffer *buffer, const Session *session) {
        Joined joined = join_capabilities(session);
        int r;

        r = buffer_append_string(buffer, "{\"tools\":{\"listChanged\":true},\"prompts\":{\"listChanged\":true},"
                                         "\"resources\":{\"listChanged\":true");
        if (r >= 0 && (joined.subscribe || !joined.all_known))
                r = buffer_append_string(buffer, ",\"subscribe\":true");
        if (r >= 0)
                r = buffer_append_string(buffer, "}");
        if (r >= 0 && (joined.completions || !joined.all_known))
                r = buffer_append_string(buffer, ",\"completions\":{}");
        if (r >= 0 && (joined.logging || !joined.all_known))
                r = buffer_append_string(buffer, ",\"logging\":{}");
        if (r >= 0 && joined.tasks)
                r = buffer_append_string(buffer, ",\"tasks\":{\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}");
        if (r >= 0)
                r = buffer_append_string(buffer, "}");
        return r;
}

int aggregate_hello(const Session *session, Buffer *text, McpHello *ret) {
        Buffer instructions = {};
        int r;

        r = buffer_append_string(text, "{\"protocolVersion\":\"" MCP_VERSION_LEGACY "\",\"capabilities\":");
        if (r >= 0)
                r = append_capabilities(text, session);
        if (r >= 0)
                r = buffer_append_string(text, ",\"serverInfo\":" MCP_BROKER_INFO ",\"instructions\":");
        if (r >= 0)
                r = append_instructions(&instructions, session);
        if (r >= 0)
                r = json_append_quoted(text, buffer_data(&instructions), buffer_size(&instructions));
        if (r >= 0)
                r = buffer_append_string(text, "}");
        buffer_done(&instructions);

        *ret = (McpHello){ MCP_ERA_LEGACY, { { buffer_data(text), buffer_size(text) }, NULL }, "mcp-exec" };
        return r;
}
