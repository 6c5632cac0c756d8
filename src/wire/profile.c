#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/mcp.h"

/* Each bit and the path of the object that declares it; a path comes behind that of the object around it. */
static const struct {
        unsigned bit;
        const char *path[4];
} declarations[] = {
        { MCP_PROFILE_ROOTS, { "roots" } },
        { MCP_PROFILE_SAMPLING, { "sampling" } },
        { MCP_PROFILE_SAMPLING_CONTEXT, { "sampling", "context" } },
        { MCP_PROFILE_SAMPLING_TOOLS, { "sampling", "tools" } },
        { MCP_PROFILE_ELICITATION_FORM, { "elicitation", "form" } },
        { MCP_PROFILE_ELICITATION_URL, { "elicitation", "url" } },
        { MCP_PROFILE_TASKS_LIST, { "tasks", "list" } },
        { MCP_PROFILE_TASKS_CANCEL, { "tasks", "cancel" } },
        { MCP_PROFILE_TASKS_SAMPLING, { "tasks", "requests", "sampling", "createMessage" } },
        { MCP_PROFILE_TASKS_ELICITATION, { "tasks", "requests", "elicitation", "create" } },
};

unsigned mcp_profile_read(JsonSlice capabilities) {
        JsonSlice elicitation = json_get(capabilities, "elicitation");
        unsigned profile = 0;

        for (size_t i = 0; i < ELEMENTSOF(declarations); i++) {
                JsonSlice value = capabilities;

                for (size_t j = 0; j < ELEMENTSOF(declarations[i].path) && declarations[i].path[j]; j++)
                        value = json_get(value, declarations[i].path[j]);
                if (json_is(value, '{'))
                        profile |= declarations[i].bit;
        }

        /* From before there were two kinds of it */
        if (json_is(elicitation, '{') && !(profile & MCP_PROFILE_ELICITATION_URL))
                profile |= MCP_PROFILE_ELICITATION_FORM;
        if (json_is(json_get(json_get(capabilities, "roots"), "listChanged"), 't'))
                profile |= MCP_PROFILE_ROOTS_CHANGED;
        return profile;
}

/* A member with what it has inside, where profile has any of bits */
static int append_member(Buffer *buffer, const char **comma, unsigned profile, unsigned bits, const char *name,
                         const char *members[], const unsigned *member_bits, size_t n_members) {
        const char *inner = "";
        int r;

        if (!(profile & bits))
                return 0;

        r = buffer_append_string(buffer, *comma);
        if (r >= 0)
                r = buffer_append_string(buffer, name);
        for (size_t i = 0; i < n_members && r >= 0; i++)
                if (profile & member_bits[i]) {
                        r = buffer_append_string(buffer, inner);
                        if (r >= 0)
                                r = buffer_append_string(buffer, members[i]);
                        inner = ",";
                }
        *comma = ",";
        return r < 0 ? r : buffer_append(buffer, "}", 1);
}

#define MEMBER(bits, name, members, member_bits)                                                                       \
        append_member(buffer, &comma, profile, (bits), (name), (members), (member_bits), ELEMENTSOF(members))

int mcp_append_profile(Buffer *buffer, unsigned profile) {
        static const char *roots[] = { "\"listChanged\":true" }, *sampling[] = { "\"context\":{}", "\"tools\":{}" },
                          *elicitation[] = { "\"form\":{}", "\"url\":{}" },
                          *tasks[] = { "\"list\":{}", "\"cancel\":{}" },
                          *requests[] = { "\"sampling\":{\"createMessage\":{}}", "\"elicitation\":{\"create\":{}}" };
        static const unsigned roots_bits[] = { MCP_PROFILE_ROOTS_CHANGED },
                              sampling_bits[] = { MCP_PROFILE_SAMPLING_CONTEXT, MCP_PROFILE_SAMPLING_TOOLS },
                              elicitation_bits[] = { MCP_PROFILE_ELICITATION_FORM, MCP_PROFILE_ELICITATION_URL },
                              tasks_bits[] = { MCP_PROFILE_TASKS_LIST, MCP_PROFILE_TASKS_CANCEL },
                              requests_bits[] = { MCP_PROFILE_TASKS_SAMPLING, MCP_PROFILE_TASKS_ELICITATION };
        const unsigned asked = MCP_PROFILE_TASKS_SAMPLING | MCP_PROFILE_TASKS_ELICITATION,
                       any_tasks = asked | MCP_PROFILE_TASKS_LIST | MCP_PROFILE_TASKS_CANCEL;
        size_t before = buffer_size(buffer);
        const char *comma = "";
        int r;

        r = buffer_append(buffer, "{", 1);
        if (r >= 0)
                r = MEMBER(MCP_PROFILE_ROOTS, "\"roots\":{", roots, roots_bits);
        if (r >= 0)
                r = MEMBER(MCP_PROFILE_SAMPLING, "\"sampling\":{", sampling, sampling_bits);
        if (r >= 0)
                r = MEMBER(MCP_PROFILE_ELICITATION_FORM | MCP_PROFILE_ELICITATION_URL, "\"elicitation\":{", elicitation,
                           elicitation_bits);
        if (r >= 0 && (profile & any_tasks)) {
                r = MEMBER(any_tasks, "\"tasks\":{", tasks, tasks_bits);
                if (r >= 0 && (profile & asked)) {
                        /* Inside of tasks, whose bracket comes behind it */
                        buffer_truncate(buffer, buffer_size(buffer) - 1);
                        comma = profile & (MCP_PROFILE_TASKS_LIST | MCP_PROFILE_TASKS_CANCEL) ? "," : "";
                        r = MEMBER(asked, "\"requests\":{", requests, requests_bits);
                        if (r >= 0)
                                r = buffer_append(buffer, "}", 1);
                }
        }
        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        if (r < 0)
                buffer_truncate(buffer, before);
        return r;
}
