#include "wire/profile.h"

#include <limits.h>
#include <string.h>

#include "base/macro.h"
#include "wire/meta.h"

#define UI_HTML "text/html;profile=mcp-app"

static bool has(JsonSlice object, const char *name) {
        return json_is(json_get(object, name), '{');
}

static bool lists_html(JsonSlice types) {
        const char *position = NULL;
        JsonSlice type;

        while (json_is(types, '[') && json_next_element(types, &position, &type))
                if (json_equal(type, UI_HTML))
                        return true;

        return false;
}

static McpProfile read_tasks(JsonSlice tasks) {
        JsonSlice requests = json_get(tasks, "requests");
        McpProfile profile = MCP_PROFILE_TASKS;

        if (!json_is(tasks, '{'))
                return 0;

        if (has(tasks, "list"))
                profile |= MCP_PROFILE_TASKS_LIST;
        if (has(tasks, "cancel"))
                profile |= MCP_PROFILE_TASKS_CANCEL;
        if (has(json_get(requests, "sampling"), "createMessage"))
                profile |= MCP_PROFILE_TASKS_SAMPLING;
        if (has(json_get(requests, "elicitation"), "create"))
                profile |= MCP_PROFILE_TASKS_ELICITATION;
        return profile;
}

McpProfile mcp_profile_read(JsonSlice capabilities) {
        JsonSlice roots = json_get(capabilities, "roots"), sampling = json_get(capabilities, "sampling"),
                  elicitation = json_get(capabilities, "elicitation"),
                  extensions = json_get(capabilities, "extensions");
        McpProfile profile = read_tasks(json_get(capabilities, "tasks"));

        if (json_is(roots, '{')) {
                profile |= MCP_PROFILE_ROOTS;
                if (json_is(json_get(roots, "listChanged"), 't'))
                        profile |= MCP_PROFILE_ROOTS_CHANGED;
        }

        if (json_is(sampling, '{')) {
                profile |= MCP_PROFILE_SAMPLING;
                if (has(sampling, "tools"))
                        profile |= MCP_PROFILE_SAMPLING_TOOLS;
                if (has(sampling, "context"))
                        profile |= MCP_PROFILE_SAMPLING_CONTEXT;
        }

        if (json_is(elicitation, '{')) {
                bool url = has(elicitation, "url");

                /* Before there were two modes, there was that one. */
                if (has(elicitation, "form") || !url)
                        profile |= MCP_PROFILE_ELICITATION_FORM;
                if (url)
                        profile |= MCP_PROFILE_ELICITATION_URL;
        }

        if (lists_html(json_get(json_get(extensions, EXTENSION_UI), "mimeTypes")))
                profile |= MCP_PROFILE_UI;
        if (has(extensions, EXTENSION_TASKS))
                profile |= MCP_PROFILE_EXTENSION_TASKS;

        return profile;
}

#define TASKS                                                                                                          \
        (MCP_PROFILE_TASKS | MCP_PROFILE_TASKS_LIST | MCP_PROFILE_TASKS_CANCEL | MCP_PROFILE_TASKS_SAMPLING |          \
         MCP_PROFILE_TASKS_ELICITATION)

McpProfile mcp_profile_for(McpProfile profile, McpEra client, McpEra worker) {
        if (worker == MCP_ERA_MODERN)
                return 0;

        profile &= ~MCP_PROFILE_EXTENSION_TASKS;
        if (client == MCP_ERA_MODERN)
                profile &= ~(MCP_PROFILE_ROOTS_CHANGED | TASKS);
        return profile;
}

/* Opens an object for whatever of it is declared, and closes it behind that. */
typedef struct Writer {
        Buffer *buffer;
        McpProfile profile;
        bool first;
        int r;
} Writer;

static void append(Writer *writer, const char *text) {
        if (writer->r >= 0)
                writer->r = buffer_append_string(writer->buffer, text);
}

static void open_object(Writer *writer, const char *name) {
        append(writer, writer->first ? "\"" : ",\"");
        append(writer, name);
        append(writer, "\":{");
        writer->first = true;
}

static void close_object(Writer *writer) {
        append(writer, "}");
        writer->first = false;
}

static void member(Writer *writer, McpProfile bit, const char *name, const char *value) {
        if (!(writer->profile & bit))
                return;

        append(writer, writer->first ? "\"" : ",\"");
        append(writer, name);
        append(writer, "\":");
        append(writer, value);
        writer->first = false;
}

static void append_tasks(Writer *writer) {
        open_object(writer, "tasks");
        member(writer, MCP_PROFILE_TASKS_LIST, "list", "{}");
        member(writer, MCP_PROFILE_TASKS_CANCEL, "cancel", "{}");
        if (writer->profile & (MCP_PROFILE_TASKS_SAMPLING | MCP_PROFILE_TASKS_ELICITATION)) {
                open_object(writer, "requests");
                member(writer, MCP_PROFILE_TASKS_SAMPLING, "sampling", "{\"createMessage\":{}}");
                member(writer, MCP_PROFILE_TASKS_ELICITATION, "elicitation", "{\"create\":{}}");
                close_object(writer);
        }
        close_object(writer);
}

int mcp_append_profile(Buffer *buffer, McpProfile profile, McpEra worker) {
        Writer writer = { .buffer = buffer, .profile = profile, .first = true };
        size_t before = buffer_size(buffer);

        /* What the other era doesn't know */
        writer.profile &=
                worker == MCP_ERA_MODERN ? ~(MCP_PROFILE_ROOTS_CHANGED | TASKS) : ~MCP_PROFILE_EXTENSION_TASKS;

        append(&writer, "{");
        if (writer.profile & MCP_PROFILE_ROOTS) {
                open_object(&writer, "roots");
                member(&writer, MCP_PROFILE_ROOTS_CHANGED, "listChanged", "true");
                close_object(&writer);
        }
        if (writer.profile & MCP_PROFILE_SAMPLING) {
                open_object(&writer, "sampling");
                member(&writer, MCP_PROFILE_SAMPLING_TOOLS, "tools", "{}");
                member(&writer, MCP_PROFILE_SAMPLING_CONTEXT, "context", "{}");
                close_object(&writer);
        }
        if (writer.profile & (MCP_PROFILE_ELICITATION_FORM | MCP_PROFILE_ELICITATION_URL)) {
                open_object(&writer, "elicitation");
                member(&writer, MCP_PROFILE_ELICITATION_FORM, "form", "{}");
                member(&writer, MCP_PROFILE_ELICITATION_URL, "url", "{}");
                close_object(&writer);
        }
        if (writer.profile & MCP_PROFILE_TASKS)
                append_tasks(&writer);
        if (writer.profile & (MCP_PROFILE_UI | MCP_PROFILE_EXTENSION_TASKS)) {
                open_object(&writer, "extensions");
                member(&writer, MCP_PROFILE_UI, EXTENSION_UI, "{\"mimeTypes\":[\"" UI_HTML "\"]}");
                member(&writer, MCP_PROFILE_EXTENSION_TASKS, EXTENSION_TASKS, "{}");
                close_object(&writer);
        }
        append(&writer, "}");

        if (writer.r < 0)
                buffer_truncate(buffer, before);
        return writer.r;
}

McpProfile mcp_profile_missing(McpProfile profile, JsonSlice method, JsonSlice params) {
        McpProfile needed;

        if (json_equal(method, "roots/list"))
                needed = MCP_PROFILE_ROOTS;
        else if (json_equal(method, "sampling/createMessage"))
                needed = MCP_PROFILE_SAMPLING | (json_get(params, "tools").data || json_get(params, "toolChoice").data
                                                         ? MCP_PROFILE_SAMPLING_TOOLS
                                                         : 0);
        else if (json_equal(method, "elicitation/create"))
                needed = json_equal(json_get(params, "mode"), "url") ? MCP_PROFILE_ELICITATION_URL
                                                                     : MCP_PROFILE_ELICITATION_FORM;
        else
                return UINT_MAX;

        return needed & ~profile;
}

static const char *const level_names[] = {
        [MCP_LEVEL_DEBUG] = "debug",     [MCP_LEVEL_INFO] = "info",           [MCP_LEVEL_NOTICE] = "notice",
        [MCP_LEVEL_WARNING] = "warning", [MCP_LEVEL_ERROR] = "error",         [MCP_LEVEL_CRITICAL] = "critical",
        [MCP_LEVEL_ALERT] = "alert",     [MCP_LEVEL_EMERGENCY] = "emergency",
};

const char *mcp_level_to_string(McpLevel level) {
        return level_names[level];
}

McpLevel mcp_level_read(JsonSlice value) {
        for (size_t i = 0; i < ELEMENTSOF(level_names); i++)
                if (json_equal(value, level_names[i]))
                        return i;

        return _MCP_LEVEL_NONE;
}
