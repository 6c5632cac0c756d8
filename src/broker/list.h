#pragma once

#include "wire/json.h"
#include "worker/failure.h"

/* What a server lists, read from its answers page by page */

typedef enum ListKind {
        LIST_TOOLS,
        LIST_PROMPTS,
        LIST_RESOURCES,
        LIST_TEMPLATES,
        _LIST_KIND_MAX,
} ListKind;

typedef struct ListItem {
        char *name; /* a tool's or prompt's name, a resource's uri, a template's uriTemplate */
        char *text; /* the whole object, as JSON on one line */
} ListItem;

typedef struct List {
        ListItem *items;
        size_t n, bytes;
        unsigned n_pages;
} List;

/* "tools/list", the member of its result, and what says that it is another one now */
const char *list_method(ListKind kind);
const char *list_member(ListKind kind);
const char *list_changed_method(ListKind kind);

void list_clear(List *list);
bool list_equal(const List *a, const List *b);

/* Appends one item; what has no name is passed over. -ENOMEM; -E2BIG: the list is too long. */
int list_add(List *list, ListKind kind, JsonSlice element, const JsonTraits *traits);

/* Appends a result's items. *ret_params: those of the request for the next page, owned by the caller, or NULL at the
 * end. As list_add(), or -EBADMSG where it is no list. */
int list_add_page(List *list, ListKind kind, JsonSlice result, const JsonTraits *traits, char **ret_params);

/* -EREMOTEIO with *failure: what list_add_page() found */
int list_failed(Failure *failure, int r, ListKind kind, const char *server);

/* Whether a server's error says that it doesn't know the method */
bool list_unknown(JsonSlice error);
