#include "fuzz.h"
#include "written.h"

/* The first bytes say what is changed, the rest is the text. */

#define DEPTH 64
#define N_CHANGES 4

static const char *const names[N_CHANGES] = { "a", "b", "_meta", "" };

static unsigned count(JsonSlice object, const char *name) {
        const char *position = NULL;
        JsonSlice key, value;
        unsigned n = 0;

        while (json_next_member(object, &position, &key, &value))
                n += json_equal(key, name);
        return n;
}

static bool changed_name(JsonSlice key) {
        for (size_t i = 0; i < N_CHANGES; i++)
                if (json_equal(key, names[i]))
                        return true;

        return false;
}

/* Members that no change names are there in their order and as they were. */
static void check_kept(JsonSlice from, const JsonTraits *traits, JsonSlice to) {
        const char *position_from = NULL, *position_to = NULL;
        JsonSlice key, value, to_key, to_value;

        while (json_next_member(from, &position_from, &key, &value)) {
                Buffer wanted_key = {}, wanted = {};

                if (changed_name(key))
                        continue;

                do
                        assert_true(json_next_member(to, &position_to, &to_key, &to_value));
                while (changed_name(to_key));

                assert_number(json_append(&wanted_key, key, traits), 0);
                assert_number(json_append(&wanted, value, traits), 0);
                assert_bytes(to_key.data, to_key.size, buffer_data(&wanted_key), buffer_size(&wanted_key));
                assert_bytes(to_value.data, to_value.size, buffer_data(&wanted), buffer_size(&wanted));
                buffer_done(&wanted_key);
                buffer_done(&wanted);
        }
        while (json_next_member(to, &position_to, &to_key, &to_value))
                assert_true(changed_name(to_key));
}

static void check_change(const JsonChange *change, JsonSlice from, const JsonTraits *traits, JsonSlice to) {
        unsigned before = count(from, change->name), after = count(to, change->name);
        JsonSlice value = json_get(to, change->name);

        switch (change->kind) {
        case JSON_SET:
                assert_number(after, 1);
                assert_bytes(value.data, value.size, change->value.text.data, change->value.text.size);
                break;
        case JSON_DEFAULT:
                assert_number(after, MAX(before, 1U));
                break;
        case JSON_REPLACE:
                assert_number(after, before > 0);
                break;
        case JSON_REMOVE:
                assert_number(after, 0);
                break;
        case JSON_INSIDE:
                assert_true(after <= 1 && (after == 0 || (json_is(value, '{') && value.size > 2)));
                if (after == 1)
                        check_change(change->inside, json_get(from, change->name), traits, value);
                break;
        }
}

static void check_changed(JsonPiece object, unsigned kinds) {
        static const JsonChange inside[] = {
                { .name = "a", .kind = JSON_SET, .value = JSON_LITERAL("[]") },
                { .name = "a", .kind = JSON_REMOVE },
        };
        JsonChange changes[N_CHANGES];
        Buffer buffer = {};
        JsonSlice written;

        for (size_t i = 0; i < N_CHANGES; i++)
                changes[i] = (JsonChange){
                        .name = names[i],
                        .kind = (kinds >> 3 * i & 7) % (JSON_INSIDE + 1),
                        .value = JSON_LITERAL("{\"x\":1}"),
                        .inside = &inside[kinds >> 12 & 1],
                        .n_inside = 1,
                };

        assert_number(json_append_changed(&buffer, object, changes, N_CHANGES), 0);
        written = assert_written(&buffer, object.text.size, object.traits, 128);
        check_kept(object.text, object.traits, written);
        for (size_t i = 0; i < N_CHANGES; i++)
                check_change(&changes[i], object.text, object.traits, written);
        buffer_done(&buffer);
}

/* Each value that bits selects is replaced: what is left has as many values, and the others as they were. */
static void check_edited(JsonPiece text, unsigned bits) {
        static const JsonChange change = { .name = "a", .kind = JSON_SET, .value = JSON_LITERAL("1") };
        const char *position = NULL, *position_written = NULL;
        JsonSlice element, other, written;
        JsonEdit edits[JSON_EDITS_MAX];
        Buffer buffer = {};
        size_t n = 0;
        int r;

        for (unsigned i = 0; n < JSON_EDITS_MAX && json_next_element(text.text, &position, &element); i++)
                if (bits >> i % 16 & 1)
                        edits[n++] = json_is(element, '{') && (bits & 1)
                                             ? (JsonEdit){ .old = element, .changes = &change, .n_changes = 1 }
                                             : (JsonEdit){ .old = element, .new = JSON_LITERAL("\"new\"") };

        r = json_append_edited(&buffer, text, edits, n);
        assert_number(r, 0);
        written = assert_written(&buffer, text.text.size, text.traits, JSON_EDITS_MAX * 8);

        position = NULL;
        while (json_next_element(text.text, &position, &element))
                assert_true(json_next_element(written, &position_written, &other));
        assert_false(json_next_element(written, &position_written, &other));
        buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        unsigned bits;
        JsonTraits traits;
        JsonPiece text;

        if (size < 2)
                return 0;

        bits = data[0] | data[1] << 8;
        text = (JsonPiece){ trimmed((const char *)data + 2, size - 2), &traits };
        if (json_scan(text.text.data, text.text.size, DEPTH, NULL, 0, &traits, NULL) < 0)
                return 0;

        if (json_is(text.text, '{'))
                check_changed(text, bits);
        else if (json_is(text.text, '['))
                check_edited(text, bits);
        return 0;
}
