#include "broker/list.h"

#include <stdio.h>
#include <string.h>

#define PAGES_MAX 256
#define ITEMS_MAX 4096
#define LIST_MAX_BYTES ((size_t)4 << 20)
#define CURSOR_MAX_BYTES ((size_t)16 << 10)
#define METHOD_NOT_FOUND "-32601"

static const struct {
        const char *method, *member, *name, *changed;
} kinds[_LIST_KIND_MAX] = {
        [LIST_TOOLS] = { "tools/list", "tools", "name", "notifications/tools/list_changed" },
        [LIST_PROMPTS] = { "prompts/list", "prompts", "name", "notifications/prompts/list_changed" },
        [LIST_RESOURCES] = { "resources/list", "resources", "uri", "notifications/resources/list_changed" },
        [LIST_TEMPLATES] = { "resources/templates/list", "resourceTemplates", "uriTemplate",
                             "notifications/resources/list_changed" },
};

const char *list_method(ListKind kind) {
        return kinds[kind].method;
}

const char *list_member(ListKind kind) {
        return kinds[kind].member;
}

const char *list_changed_method(ListKind kind) {
        return kinds[kind].changed;
}

void list_clear(List *list) {
        for (size_t i = 0; i < list->n; i++) {
                free(list->items[i].name);
                free(list->items[i].text);
        }
        free(list->items);
        *list = (List){};
}

bool list_equal(const List *a, const List *b) {
        if (a->n != b->n)
                return false;

        for (size_t i = 0; i < a->n; i++)
                if (!streq(a->items[i].text, b->items[i].text))
                        return false;

        return true;
}

int list_add(List *list, ListKind kind, JsonSlice element, const JsonTraits *traits) {
        JsonSlice name = json_get(element, kinds[kind].name);
        Buffer text = {};
        ListItem *items;

        if (!json_is(name, '"'))
                return 0;

        items = reallocarray(list->items, list->n + 1, sizeof(ListItem));
        if (!items)
                return -ENOMEM;
        list->items = items;
        items[list->n] = (ListItem){ .name = json_decode(name) };
        if (!items[list->n].name || json_append(&text, element, traits) < 0 || buffer_append(&text, "", 1) < 0) {
                free(items[list->n].name);
                buffer_done(&text);
                return -ENOMEM;
        }

        items[list->n++].text = text.data;
        list->bytes += buffer_size(&text);
        return list->n > ITEMS_MAX || list->bytes > LIST_MAX_BYTES ? -E2BIG : 0;
}

static int next_params(JsonSlice cursor, const JsonTraits *traits, char **ret) {
        Buffer params = {};
        int r;

        r = buffer_append_string(&params, "{\"cursor\":");
        if (r >= 0)
                r = json_append(&params, cursor, traits);
        if (r >= 0)
                r = buffer_append(&params, "}", 2);
        if (r < 0) {
                buffer_done(&params);
                return r;
        }

        *ret = params.data;
        return 0;
}

int list_add_page(List *list, ListKind kind, JsonSlice result, const JsonTraits *traits, char **ret_params) {
        JsonSlice cursor = json_get(result, "nextCursor"), items = json_get(result, kinds[kind].member), element;
        const char *position = NULL;
        int r = 0;

        *ret_params = NULL;
        if (!json_is(items, '['))
                return -EBADMSG;

        while (r >= 0 && json_next_element(items, &position, &element))
                r = list_add(list, kind, element, traits);
        if (r < 0 || !json_is(cursor, '"'))
                return r;

        return ++list->n_pages >= PAGES_MAX || cursor.size > CURSOR_MAX_BYTES ? -E2BIG
                                                                              : next_params(cursor, traits, ret_params);
}

int list_failed(Failure *failure, int r, ListKind kind, const char *server) {
        const char *member = kinds[kind].member;

        if (r == -E2BIG)
                return failure_set(failure, FAILURE_TOO_LARGE,
                                   "Server %s: its list of %s is longer than %u pages, %u of them or %zu bytes", server,
                                   member, PAGES_MAX, ITEMS_MAX, LIST_MAX_BYTES);
        if (r == -EBADMSG)
                return failure_set(failure, FAILURE_PROTOCOL_ERROR, "Server %s: its answer to %s has no array of %s",
                                   server, kinds[kind].method, member);
        return failure_set(failure, FAILURE_UNAVAILABLE, "Server %s: %s", server, strerror(ENOMEM));
}

/* Servers that have resources, and no templates, need not know how to list these. */
bool list_unknown(JsonSlice error) {
        JsonSlice code = json_get(error, "code");

        return code.size == strlen(METHOD_NOT_FOUND) && memcmp(code.data, METHOD_NOT_FOUND, code.size) == 0;
}
