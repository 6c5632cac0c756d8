#include "wire/task.h"

#include <errno.h>

#include "base/macro.h"
#include "wire/meta.h"

static JsonSlice id_of(JsonSlice object) {
        JsonSlice id = json_get(object, "taskId");

        return json_is(id, '"') && id.size <= MCP_TASK_ID_MAX ? id : (JsonSlice){};
}

JsonSlice mcp_task_of_params(JsonSlice params) {
        return id_of(params);
}

JsonSlice mcp_task_of_notification(JsonSlice method, JsonSlice params) {
        if (!json_equal(method, "notifications/tasks/status") && !json_equal(method, "notifications/tasks"))
                return (JsonSlice){};

        return id_of(params);
}

JsonSlice mcp_task_of_related(JsonSlice params) {
        return id_of(json_get(json_get(params, "_meta"), META_RELATED_TASK));
}

JsonSlice mcp_task_created(JsonSlice result, McpEra worker) {
        if (worker != MCP_ERA_MODERN)
                return id_of(json_get(result, "task"));

        return json_equal(json_get(result, "resultType"), "task") ? id_of(result) : (JsonSlice){};
}

bool mcp_task_wanted(JsonSlice params) {
        return json_is(json_get(params, "task"), '{');
}

bool mcp_method_of_tasks(const char *method) {
        static const char *const methods[] = { "tasks/cancel", "tasks/get", "tasks/list", "tasks/result",
                                               "tasks/update" };

        for (size_t i = 0; i < ELEMENTSOF(methods); i++)
                if (streq(method, methods[i]))
                        return true;

        return false;
}

int mcp_append_task_list(Buffer *buffer, JsonPiece result, bool (*mine)(void *userdata, JsonSlice id), void *userdata) {
        static const JsonTraits none = {};
        JsonSlice tasks = json_get(result.text, "tasks"), task;
        const char *position = NULL, *comma = "";
        Buffer list = {};
        int r;

        if (!json_is(tasks, '['))
                return -EINVAL;

        r = buffer_append(&list, "[", 1);
        while (r >= 0 && json_next_element(tasks, &position, &task)) {
                JsonSlice id = id_of(task);

                if (!id.data || !mine(userdata, id))
                        continue;
                r = buffer_append_string(&list, comma);
                if (r >= 0)
                        r = json_append(&list, task, result.traits ?: &none);
                comma = ",";
        }
        if (r >= 0)
                r = buffer_append(&list, "]", 1);
        if (r >= 0) {
                const JsonChange change = { .name = "tasks",
                                            .kind = JSON_SET,
                                            .value = { { buffer_data(&list), buffer_size(&list) }, NULL } };

                r = json_append_changed(buffer, result, &change, 1);
        }
        buffer_done(&list);
        return r;
}
