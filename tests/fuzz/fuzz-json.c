#include <stdio.h>

#include "base/macro.h"
#include "base/text.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/json.h"

#define WALK_DEPTH_MAX 6
#define NAMES_MAX 4
#define REPLACEMENT "\xef\xbf\xbd"

static int scan(JsonSlice text, JsonTraits *traits) {
        return json_scan(text.data, text.size, JSON_DEPTH_MAX, NULL, 0, traits, NULL);
}

static void assert_utf8(const char *text) {
        size_t size = strlen(text);

        for (size_t i = 0; i < size;) {
                size_t n = utf8_sequence(text + i, size - i, NULL);

                assert_true(n > 0);
                i += n;
        }
}

static void check_string(JsonSlice value) {
        _cleanup_(freep) char *text = json_decode(value), *again = NULL;
        Buffer quoted = {};

        if (!json_is(value, '"')) {
                assert_true(!text);
                return;
        }

        assert_true(text);
        assert_true(strlen(text) <= value.size - 2);
        assert_utf8(text);
        /* Where nothing was replaced, it is that text. */
        if (!strstr(text, REPLACEMENT))
                assert_true(json_equal(value, text));

        assert_number(json_append_quoted(&quoted, text, strlen(text)), 0);
        assert_number(scan((JsonSlice){ buffer_data(&quoted), buffer_size(&quoted) }, NULL), 0);
        again = json_decode((JsonSlice){ buffer_data(&quoted), buffer_size(&quoted) });
        assert_string(again, text);
        buffer_done(&quoted);
}

/* Any bytes can be quoted, in whatever pieces they come. */
static void check_quoted(const char *text, size_t size, size_t piece) {
        Buffer whole = {}, pieces = {};
        JsonTraits traits;

        assert_number(json_append_quoted(&whole, text, size), 0);
        assert_number(scan((JsonSlice){ buffer_data(&whole), buffer_size(&whole) }, &traits), 0);
        assert_false(traits.newlines || traits.noncharacters);

        assert_number(buffer_append(&pieces, "\"", 1), 0);
        for (size_t at = 0, end = 0, used; at < size; at += used) {
                end = MIN(size, MAX(end, at) + piece);
                used = SIZE_MAX;
                assert_number(json_append_escaped(&pieces, text + at, end - at, /* last= */ end == size, &used), 0);
                assert_true(used <= end - at && (end == size ? used == end - at : end - at - used < 4));
        }
        assert_number(buffer_append(&pieces, "\"", 1), 0);
        assert_bytes(buffer_data(&pieces), buffer_size(&pieces), buffer_data(&whole), buffer_size(&whole));
        buffer_done(&whole);
        buffer_done(&pieces);
}

static void check_unsigned(JsonSlice value) {
        uint64_t number;
        char text[24];

        if (!json_unsigned(value, &number))
                return;
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
        assert_bytes(value.data, value.size, text, strlen(text));
}

/* The two are the same value, before and after json_append(). */
static void check_same(JsonSlice a, JsonSlice b, unsigned depth) {
        const char *position_a = NULL, *position_b = NULL;
        JsonSlice key_a, key_b, value_a, value_b;

        assert_true(a.size > 0 && b.size > 0);
        assert_number(a.data[0], b.data[0]);
        assert_number(scan(a, NULL), 0);
        check_string(a);
        check_unsigned(a);

        if (json_is(a, '"')) {
                _cleanup_(freep) char *text_a = json_decode(a), *text_b = json_decode(b);

                assert_string(text_b, text_a);
                return;
        }
        if (!json_is(a, '{') && !json_is(a, '[')) {
                assert_bytes(b.data, b.size, a.data, a.size);
                return;
        }
        if (depth == 0)
                return;

        for (;;) {
                bool more_a, more_b;

                if (json_is(a, '{')) {
                        more_a = json_next_member(a, &position_a, &key_a, &value_a);
                        more_b = json_next_member(b, &position_b, &key_b, &value_b);
                        if (more_a && more_b)
                                check_same(key_a, key_b, 0);
                } else {
                        more_a = json_next_element(a, &position_a, &value_a);
                        more_b = json_next_element(b, &position_b, &value_b);
                }
                assert_number(more_a, more_b);
                if (!more_a)
                        break;
                assert_true(value_a.data > a.data && value_a.data + value_a.size < a.data + a.size);
                check_same(value_a, value_b, depth - 1);
        }
}

/* What json_scan() locates is what the walkers see. */
static void check_members(const char *text, size_t size, JsonSlice object) {
        JsonMember members[NAMES_MAX] = {};
        char *names[NAMES_MAX] = {};
        const char *position = NULL;
        JsonSlice key, value;
        size_t n = 0;

        while (n < NAMES_MAX && json_next_member(object, &position, &key, &value)) {
                bool known;

                names[n] = json_decode(key);
                known = strstr(names[n], REPLACEMENT);
                for (size_t i = 0; i < n; i++)
                        known = known || streq(names[i], names[n]);
                if (known)
                        free(names[n]);
                else {
                        members[n].name = names[n];
                        n++;
                }
        }

        assert_number(json_scan(text, size, JSON_DEPTH_MAX, members, n, NULL, NULL), 0);
        for (size_t i = 0; i < n; i++) {
                unsigned count = 0;

                position = NULL;
                while (json_next_member(object, &position, &key, &value))
                        if (json_equal(key, names[i])) {
                                count++;
                                if (count == members[i].count) {
                                        assert_true(members[i].key.data == key.data && members[i].key.size == key.size);
                                        assert_true(members[i].value.data == value.data &&
                                                    members[i].value.size == value.size);
                                }
                        }
                assert_true(count > 0);
                assert_number(members[i].count, count);
                value = json_get(object, names[i]);
                assert_true(members[i].value.data == value.data && members[i].value.size == value.size);
        }
        for (size_t i = 0; i < n; i++)
                free(names[i]);
}

static JsonSlice strip(const char *text, size_t size) {
        while (size > 0 && memchr(" \t\r\n", text[0], 4)) {
                text++;
                size--;
        }
        while (size > 0 && memchr(" \t\r\n", text[size - 1], 4))
                size--;

        return (JsonSlice){ text, size };
}

static void check_append(JsonSlice value, const JsonTraits *traits) {
        JsonTraits again;
        Buffer buffer = {};
        JsonSlice copy;

        assert_number(json_append(&buffer, value, traits), 0);
        copy = (JsonSlice){ buffer_data(&buffer), buffer_size(&buffer) };
        assert_true(!memchr(copy.data, '\n', copy.size) && !memchr(copy.data, '\r', copy.size));
        assert_number(scan(copy, &again), 0);
        assert_false(again.newlines || again.noncharacters);
        if (!traits->newlines && !traits->noncharacters)
                assert_bytes(copy.data, copy.size, value.data, value.size);
        check_same(value, copy, WALK_DEPTH_MAX);
        buffer_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data;
        JsonMember member = { .name = "a" };
        JsonError error = {}, other = {};
        JsonTraits traits, same;
        JsonSlice value;
        int r;

        for (size_t piece = 1; piece <= 9; piece += 2)
                check_quoted(text, size, piece);
        if (size == 0)
                return 0;

        r = json_scan(text, size, 32, NULL, 0, &traits, &error);
        assert_number(json_scan(text, size, 32, &member, 1, &same, &other), r);
        if (r < 0) {
                assert_true(r == -EBADMSG || r == -E2BIG);
                assert_true(error.reason && *error.reason && error.offset <= size);
                assert_number(other.offset, error.offset);
                /* What is in front of the error is not to blame: cut there, the text fails at the same place or is
                 * good. */
                r = json_scan(text, error.offset, 32, NULL, 0, NULL, &other);
                assert_true(r == 0 || other.offset == error.offset);
                return 0;
        }

        assert_number(same.newlines, traits.newlines);
        assert_number(same.noncharacters, traits.noncharacters);
        value = strip(text, size);
        check_append(value, &traits);
        check_members(text, size, value);
        return 0;
}
