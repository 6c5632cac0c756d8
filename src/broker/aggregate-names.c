/* A session on several servers: what things are called in it */

#include <stdio.h>

#include "broker/aggregate.h"

void names_clear(Names *names) {
        for (size_t i = 0; i < names->n; i++)
                free(names->names[i]);
        free(names->names);
        *names = (Names){};
}

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *)a, *(char *const *)b);
}

bool names_have(const Names *names, const char *name) {
        return names->n > 0 && bsearch(&name, names->names, names->n, sizeof(char *), compare_names);
}

void names_take(Names *names, const ListItem *items, size_t n) {
        names_clear(names);
        names->names = new0(char *, n + 1);
        if (!names->names)
                return;

        for (size_t i = 0; i < n; i++)
                if ((names->names[names->n] = strdup(items[i].name)))
                        names->n++;
        qsort(names->names, names->n, sizeof(char *), compare_names);
        names->known = true;
}

char *aggregate_prefixed(const char *server, const ListItem *item) {
        JsonSlice whole = { item->text, strlen(item->text) }, name = json_get(whole, "name");
        JsonSlice before = { whole.data, name.data - whole.data },
                  behind = { name.data + name.size, whole.data + whole.size - (name.data + name.size) };
        _cleanup_(freep) char *full = NULL;
        Buffer text = {};
        int r;

        if (asprintf(&full, "%s" AGGREGATE_SEPARATOR "%s", server, item->name) < 0) {
                full = NULL;
                return NULL;
        }

        r = buffer_append(&text, before.data, before.size);
        if (r >= 0)
                r = json_append_quoted(&text, full, strlen(full));
        if (r >= 0)
                r = buffer_append(&text, behind.data, behind.size);
        if (r >= 0)
                r = buffer_append(&text, "", 1);
        if (r < 0)
                buffer_done(&text);
        return text.data;
}
