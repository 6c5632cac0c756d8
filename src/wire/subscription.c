#include "wire/subscription.h"

#include <errno.h>

#include "base/macro.h"
#include "wire/meta.h"
#include "wire/rpc.h"

static const struct {
        const char *member, *method, *capability;
} lists[] = {
        { "toolsListChanged", "notifications/tools/list_changed", "tools" },
        { "promptsListChanged", "notifications/prompts/list_changed", "prompts" },
        { "resourcesListChanged", "notifications/resources/list_changed", "resources" },
};

/* An array of strings, within bounds; nothing is fine as well. */
static bool strings_valid(JsonSlice array) {
        const char *position = NULL;
        JsonSlice element;
        unsigned n = 0;

        if (!array.data)
                return true;
        if (!json_is(array, '['))
                return false;

        while (json_next_element(array, &position, &element))
                if (!json_is(element, '"') || element.size > MCP_URI_MAX || ++n > MCP_FILTER_URIS_MAX)
                        return false;

        return true;
}

int mcp_filter_read(JsonSlice params, const JsonTraits *traits, McpFilter *ret, const char **reason) {
        JsonSlice notifications = json_get(params, "notifications");
        McpFilter filter = {
                .uris = { json_get(notifications, "resourceSubscriptions"), traits },
                .task_ids = { json_get(notifications, "taskIds"), traits },
        };

        *reason = "notifications has to be an object";
        if (!json_is(notifications, '{'))
                return -EINVAL;

        *reason = "a listChanged of notifications has to be true or false";
        for (size_t i = 0; i < ELEMENTSOF(lists); i++) {
                JsonSlice value = json_get(notifications, lists[i].member);

                if (json_is(value, 't'))
                        filter.lists |= 1U << i;
                else if (value.data && !json_is(value, 'f'))
                        return -EINVAL;
        }

        *reason = "resourceSubscriptions and taskIds have to be arrays of strings, and neither too many nor too long";
        if (!strings_valid(filter.uris.text) || !strings_valid(filter.task_ids.text))
                return -EINVAL;

        *ret = filter;
        return 0;
}

void mcp_filter_limit(McpFilter *filter, JsonSlice capabilities, McpEra worker) {
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                if (!json_is(json_get(json_get(capabilities, lists[i].capability), "listChanged"), 't'))
                        filter->lists &= ~(1U << i);

        if (!json_is(json_get(json_get(capabilities, "resources"), "subscribe"), 't'))
                filter->uris = (JsonPiece){};
        if (worker != MCP_ERA_MODERN || !json_is(json_get(json_get(capabilities, "extensions"), EXTENSION_TASKS), '{'))
                filter->task_ids = (JsonPiece){};
}

int mcp_append_filter(Buffer *buffer, const McpFilter *filter) {
        JsonChange changes[ELEMENTSOF(lists) + 2];
        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                if (filter->lists & 1U << i)
                        changes[n++] = (JsonChange){ .name = lists[i].member,
                                                     .kind = JSON_SET,
                                                     .value = JSON_LITERAL("true") };
        changes[n++] = (JsonChange){ .name = "resourceSubscriptions", .kind = JSON_SET, .value = filter->uris };
        changes[n++] = (JsonChange){ .name = "taskIds", .kind = JSON_SET, .value = filter->task_ids };

        return json_append_changed(buffer, (JsonPiece){}, changes, n);
}

int mcp_append_acknowledged(Buffer *buffer, JsonPiece id, const McpFilter *filter) {
        static const JsonPiece method = JSON_LITERAL("\"notifications/subscriptions/acknowledged\"");
        Buffer notifications = {};
        int r;

        r = mcp_append_filter(&notifications, filter);
        if (r >= 0) {
                const JsonChange subscription = { .name = META_SUBSCRIPTION, .kind = JSON_SET, .value = id };
                const JsonChange changes[] = {
                        { .name = "_meta", .kind = JSON_INSIDE, .inside = &subscription, .n_inside = 1 },
                        { .name = "notifications",
                          .kind = JSON_SET,
                          .value = { { buffer_data(&notifications), buffer_size(&notifications) }, NULL } },
                };

                r = rpc_append_notification(buffer, method, (JsonPiece){}, changes, ELEMENTSOF(changes));
        }
        buffer_done(&notifications);
        return r;
}

int mcp_append_listen_end(Buffer *buffer, JsonPiece id) {
        const JsonChange subscription = { .name = META_SUBSCRIPTION, .kind = JSON_SET, .value = id };
        const JsonChange changes[] = {
                { .name = "resultType", .kind = JSON_SET, .value = JSON_LITERAL("\"complete\"") },
                { .name = "_meta", .kind = JSON_INSIDE, .inside = &subscription, .n_inside = 1 },
        };

        return rpc_append_result_changed(buffer, id, (JsonPiece){}, changes, ELEMENTSOF(changes));
}

unsigned mcp_list_changed(JsonSlice method) {
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                if (json_equal(method, lists[i].method))
                        return 1U << i;

        return 0;
}

JsonSlice mcp_subscription_id(JsonSlice params) {
        return json_get(json_get(params, "_meta"), META_SUBSCRIPTION);
}

int mcp_append_subscribed(Buffer *buffer, JsonPiece method, JsonPiece params, JsonPiece id) {
        const JsonChange subscription = { .name = META_SUBSCRIPTION,
                                          .kind = id.text.data ? JSON_SET : JSON_REMOVE,
                                          .value = id };
        const JsonChange meta = { .name = "_meta", .kind = JSON_INSIDE, .inside = &subscription, .n_inside = 1 };

        if (!json_is(params.text, '{') && !id.text.data)
                return rpc_append_notification(buffer, method, (JsonPiece){}, NULL, 0);
        if (!json_is(params.text, '{'))
                params = (JsonPiece){};

        return rpc_append_notification(buffer, method, params, &meta, 1);
}

int mcp_append_progress(Buffer *buffer, JsonPiece params, JsonPiece token) {
        static const JsonPiece method = JSON_LITERAL("\"notifications/progress\"");
        const JsonChange change = { .name = "progressToken", .kind = JSON_SET, .value = token };

        return rpc_append_notification(buffer, method, params, &change, 1);
}
