#include "broker/list-changes.h"

#include <stdio.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/message-ids.h"

#define NAMED_MAX 8
#define NAME_SHOWN ((size_t)64)

/* A line of the text that is kept: the digest of a tool's definition, a space, and the name as JSON */
typedef struct Seen {
        const char *digest, *name;
        size_t name_size;
        bool found;
} Seen;

static int compare_names(const void *a, const void *b) {
        const Seen *x = a, *y = b;
        int r = memcmp(x->name, y->name, MIN(x->name_size, y->name_size));

        return r ? r : (x->name_size > y->name_size) - (x->name_size < y->name_size);
}

static int append_seen(Buffer *text, const ListItem *tool) {
        char digest[SHA256_HEX_SIZE];
        Sha256 hash;
        int r;

        sha256_init(&hash);
        sha256_feed(&hash, tool->text, strlen(tool->text));
        sha256_finish(&hash, digest);

        r = buffer_append_string(text, digest);
        if (r >= 0)
                r = buffer_append(text, " ", 1);
        if (r >= 0)
                r = json_append_quoted(text, tool->name, strlen(tool->name));
        if (r >= 0)
                r = buffer_append(text, "\n", 1);
        return r;
}

/* Sorted by name. NULL when out of memory, or where there is none. */
static Seen *read_seen(const Buffer *text, size_t *ret_n) {
        const char *p = buffer_data(text) ?: "", *end = p + buffer_size(text), *line_end;
        Seen *seen;
        size_t n = 0;

        for (const char *q = p; q < end; q++)
                n += *q == '\n';
        seen = n > 0 ? new0(Seen, n) : NULL;
        n = 0;
        for (; seen && p < end && (line_end = memchr(p, '\n', end - p)); p = line_end + 1)
                if ((size_t)(line_end - p) > SHA256_HEX_SIZE)
                        seen[n++] = (Seen){ .digest = p,
                                            .name = p + SHA256_HEX_SIZE,
                                            .name_size = line_end - p - SHA256_HEX_SIZE };
        if (seen)
                qsort(seen, n, sizeof(Seen), compare_names);

        *ret_n = n;
        return seen;
}

typedef struct Names {
        Buffer text;
        size_t n;
} Names;

static void add_name(Names *names, const Seen *seen) {
        _cleanup_(freep) char *name = json_decode((JsonSlice){ seen->name, seen->name_size });
        _cleanup_(freep) char *shown = name ? text_escape(name, strlen(name), NAME_SHOWN) : NULL;

        names->n++;
        if (names->n <= NAMED_MAX && buffer_append_string(&names->text, names->n > 1 ? ", " : "") >= 0)
                (void)buffer_append_string(&names->text, shown ?: "?");
}

static void append_names(Buffer *message, const char *what, const Names *names) {
        char more[48] = "";

        if (names->n == 0)
                return;
        if (names->n > NAMED_MAX)
                (void)snprintf(more, sizeof(more), " and %zu more", names->n - NAMED_MAX);

        (void)buffer_append_string(message, buffer_size(message) > 0 ? "; " : "");
        (void)buffer_append_string(message, what);
        (void)buffer_append(message, buffer_data(&names->text), buffer_size(&names->text));
        (void)buffer_append_string(message, more);
}

static void tell(const ListKey *key, const Names *other, const Names *came, const Names *gone) {
        char server[80], owner[160];
        Buffer message = {};

        append_names(&message, "defined otherwise: ", other);
        append_names(&message, "new: ", came);
        append_names(&message, "gone: ", gone);
        (void)buffer_append(&message, "", 1);

        (void)snprintf(server, sizeof(server), "MCP_EXEC_SERVER=%s", key->config->name);
        (void)snprintf(owner, sizeof(owner), "MCP_EXEC_OWNER=%s", key->owner);
        log_fields(other->n > 0 ? LOG_WARNING : LOG_NOTICE,
                   (const char *const[]){ server, owner, "MESSAGE_ID=" MESSAGE_TOOLS_CHANGED, NULL },
                   "%s: its tools are not those that it had when they were last listed: %s", key->config->name,
                   buffer_data(&message) ?: "");
        buffer_done(&message);
}

/* Both are sorted. */
static bool compare(const ListKey *key, const Seen *before, size_t n_before, const Seen *now, size_t n_now) {
        Names other = {}, came = {}, gone = {};
        size_t i = 0, j = 0;
        bool changed;

        while (i < n_before || j < n_now) {
                int r = i == n_before ? 1 : j == n_now ? -1 : compare_names(&before[i], &now[j]);

                if (r < 0)
                        add_name(&gone, &before[i++]);
                else if (r > 0)
                        add_name(&came, &now[j++]);
                else if (memcmp(before[i++].digest, now[j].digest, SHA256_HEX_SIZE - 1) != 0)
                        add_name(&other, &now[j++]);
                else
                        j++;
        }

        changed = other.n + came.n + gone.n > 0;
        if (changed)
                tell(key, &other, &came, &gone);
        buffer_done(&other.text);
        buffer_done(&came.text);
        buffer_done(&gone.text);
        return changed;
}

bool list_changes_note(ListStore *store, const ListKey *key, uint64_t now, const ListItem *tools, size_t n_tools) {
        ListKey seen_key = *key;
        Buffer before = {}, text = {};
        uint64_t expires;
        bool known, changed = false, same;
        int r = 0;

        seen_key.kind = "seen";
        known = list_store_read(store, &seen_key, now, &before, &expires) >= 0;
        for (size_t i = 0; i < n_tools && r >= 0; i++)
                r = append_seen(&text, &tools[i]);

        same = known && buffer_size(&before) == buffer_size(&text) &&
               (buffer_size(&text) == 0 || memcmp(buffer_data(&before), buffer_data(&text), buffer_size(&text)) == 0);
        if (r >= 0 && known && !same) {
                size_t n_before = 0, n_now = 0;
                _cleanup_(freep) Seen *a = read_seen(&before, &n_before), *b = read_seen(&text, &n_now);

                changed = compare(key, a, n_before, b, n_now);
        }
        if (r >= 0 && !same)
                list_store_write(store, &seen_key, now, USEC_INFINITY, buffer_data(&text), buffer_size(&text));

        buffer_done(&before);
        buffer_done(&text);
        return changed;
}

int list_changes_digest(const ListItem *tools, size_t n_tools, char hex[static SHA256_HEX_SIZE]) {
        _cleanup_(freep) Seen *seen = NULL;
        Buffer text = {};
        Sha256 hash;
        size_t n;
        int r = 0;

        for (size_t i = 0; i < n_tools && r >= 0; i++)
                r = append_seen(&text, &tools[i]);
        seen = r < 0 ? NULL : read_seen(&text, &n);
        if (r >= 0 && !seen && n_tools > 0)
                r = -ENOMEM;

        sha256_init(&hash);
        for (size_t i = 0; seen && i < n; i++)
                sha256_feed(&hash, seen[i].digest, SHA256_HEX_SIZE + seen[i].name_size + 1);
        sha256_finish(&hash, hex);
        buffer_done(&text);
        return r;
}
