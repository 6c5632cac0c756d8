#include "wire/json-edit.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

static int append_piece(Buffer *buffer, JsonPiece piece) {
        static const JsonTraits none = {};

        return json_append(buffer, piece.text, piece.traits ?: &none);
}

static int append_key(Buffer *buffer, bool *first, const char *name) {
        int r = 0;

        if (!*first)
                r = buffer_append(buffer, ",", 1);
        if (r >= 0)
                r = json_append_quoted(buffer, name, strlen(name));
        if (r >= 0)
                r = buffer_append(buffer, ":", 1);

        *first = false;
        return r;
}

int json_append_member(Buffer *buffer, bool *first, const char *name, JsonPiece value) {
        size_t before = buffer_size(buffer);
        bool was_first = *first;
        int r;

        r = append_key(buffer, first, name);
        if (r >= 0)
                r = append_piece(buffer, value);
        if (r < 0) {
                buffer_truncate(buffer, before);
                *first = was_first;
        }
        return r;
}

/* Members that follow each other, with all that stands between them */
static int append_run(Buffer *buffer, bool *first, JsonPiece run) {
        int r = 0;

        if (run.text.size == 0)
                return 0;

        if (!*first)
                r = buffer_append(buffer, ",", 1);
        if (r >= 0)
                r = append_piece(buffer, run);

        *first = false;
        return r;
}

static int append_object(Buffer *buffer, JsonPiece object, const JsonChange *changes, size_t n_changes,
                         unsigned inside);

static int append_inside(Buffer *buffer, bool *first, const JsonChange *change, JsonPiece object, unsigned inside) {
        size_t before = buffer_size(buffer), begin;
        bool was_first = *first;
        int r;

        if (!json_is(object.text, '{'))
                object.text = (JsonSlice){};

        r = append_key(buffer, first, change->name);
        begin = buffer_size(buffer);
        if (r >= 0)
                r = append_object(buffer, object, change->inside, change->n_inside, inside + 1);
        if (r >= 0 && buffer_size(buffer) - begin == strlen("{}")) {
                buffer_truncate(buffer, before);
                *first = was_first;
        }
        return r;
}

static int append_object(Buffer *buffer, JsonPiece object, const JsonChange *changes, size_t n_changes,
                         unsigned inside) {
        JsonPiece run = { .traits = object.traits };
        JsonSlice key, value, found[JSON_CHANGES_MAX] = {};
        const char *position = NULL;
        bool first = true;
        int r;

        if (n_changes > JSON_CHANGES_MAX || inside > JSON_INSIDE_MAX ||
            (object.text.data && !json_is(object.text, '{')))
                return -EINVAL;

        r = buffer_append(buffer, "{", 1);
        while (r >= 0 && json_next_member(object.text, &position, &key, &value)) {
                const JsonChange *change = NULL;

                for (size_t i = 0; i < n_changes && !change; i++)
                        if (json_equal(key, changes[i].name)) {
                                change = &changes[i];
                                found[i] = value;
                        }

                if (change && change->kind != JSON_DEFAULT &&
                    (change->kind == JSON_REMOVE || change->kind == JSON_INSIDE || change->value.text.data)) {
                        r = append_run(buffer, &first, run);
                        run.text = (JsonSlice){};
                } else {
                        if (!run.text.data)
                                run.text.data = key.data;
                        run.text.size = value.data + value.size - run.text.data;
                }
        }
        if (r >= 0)
                r = append_run(buffer, &first, run);

        for (size_t i = 0; i < n_changes && r >= 0; i++) {
                const JsonChange *change = &changes[i];

                if (change->kind == JSON_INSIDE)
                        r = append_inside(buffer, &first, change, (JsonPiece){ found[i], object.traits }, inside);
                else if (change->value.text.data && change->kind != JSON_REMOVE &&
                         (change->kind == JSON_SET || !found[i].data == (change->kind == JSON_DEFAULT)))
                        r = json_append_member(buffer, &first, change->name, change->value);
        }

        if (r >= 0)
                r = buffer_append(buffer, "}", 1);
        return r;
}

int json_append_changed(Buffer *buffer, JsonPiece object, const JsonChange *changes, size_t n_changes) {
        size_t before = buffer_size(buffer);
        int r;

        r = append_object(buffer, object, changes, n_changes, 0);
        if (r < 0)
                buffer_truncate(buffer, before);
        return r;
}

static bool stands_in(JsonSlice inner, JsonSlice outer) {
        return inner.data >= outer.data && inner.data <= outer.data + outer.size &&
               inner.size <= (size_t)(outer.data + outer.size - inner.data);
}

/* The edit whose slice comes next at or behind at */
static const JsonEdit *next_edit(const JsonEdit *edits, size_t n_edits, const char *at) {
        const JsonEdit *next = NULL;

        for (size_t i = 0; i < n_edits; i++)
                if (edits[i].old.size > 0 && edits[i].old.data >= at && (!next || edits[i].old.data < next->old.data))
                        next = &edits[i];

        return next;
}

static bool edits_valid(JsonSlice text, const JsonEdit *edits, size_t n_edits) {
        if (n_edits > JSON_EDITS_MAX)
                return false;

        for (size_t i = 0; i < n_edits; i++) {
                const JsonSlice *a = &edits[i].old;

                if (a->size > 0 && !stands_in(*a, text))
                        return false;
                for (size_t j = 0; j < i; j++) {
                        const JsonSlice *b = &edits[j].old;

                        if (a->size > 0 && b->size > 0 && a->data < b->data + b->size && b->data < a->data + a->size)
                                return false;
                }
        }

        return true;
}

int json_append_edited(Buffer *buffer, JsonPiece text, const JsonEdit *edits, size_t n_edits) {
        const char *at = text.text.data, *end = at + text.text.size;
        size_t before = buffer_size(buffer);
        const JsonEdit *edit;
        int r = 0;

        if (!edits_valid(text.text, edits, n_edits))
                return -EINVAL;

        while (r >= 0 && (edit = next_edit(edits, n_edits, at))) {
                r = append_piece(buffer, (JsonPiece){ { at, edit->old.data - at }, text.traits });
                if (r >= 0 && edit->changes)
                        r = append_object(buffer, (JsonPiece){ edit->old, text.traits }, edit->changes, edit->n_changes,
                                          0);
                else if (r >= 0)
                        r = append_piece(buffer, edit->new);
                at = edit->old.data + edit->old.size;
        }

        if (r >= 0)
                r = append_piece(buffer, (JsonPiece){ { at, end - at }, text.traits });
        if (r < 0)
                buffer_truncate(buffer, before);
        return r;
}
