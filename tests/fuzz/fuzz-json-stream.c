#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/json-stream.h"

#define DEPTH 32

static const char *const names[] = { "a", "result" };

typedef struct Seen {
        uint64_t begin, end;
        unsigned count;
} Seen;

/* Feeds the text in pieces of that size. Returns as json_scan(). */
static int stream_in_pieces(const char *text, size_t size, size_t piece, JsonStream *stream, Seen seen[static 2]) {
        bool open = false;

        *stream = (JsonStream){ .depth_max = DEPTH, .names = names, .n_names = ELEMENTSOF(names) };
        for (size_t i = 0; i < size;) {
                size_t n = MIN(piece, size - i), used = SIZE_MAX;
                /* A copy that ends where the piece ends: what is behind it isn't there yet. */
                char *copy = malloc(n);
                int r;

                assert_true(copy);
                memcpy(copy, text + i, n);
                r = json_stream_feed(stream, copy, n, &used);
                free(copy);
                if (r < 0)
                        return r;

                assert_true(used <= n);
                i += used;
                assert_number(stream->offset, i);
                if (r == JSON_STREAM_MORE)
                        assert_number(used, n);
                else if (r == JSON_STREAM_BEGIN) {
                        assert_false(open);
                        open = true;
                        seen[stream->member].begin = i;
                } else {
                        assert_number(r, JSON_STREAM_END);
                        assert_true(open);
                        open = false;
                        seen[stream->member].end = i;
                        seen[stream->member].count++;
                }
        }

        return json_stream_finish(stream);
}

/* The members of a member: each time that it stands there, and is an object */
static void check_parent(const char *text, size_t size, size_t piece, JsonSlice outermost) {
        JsonStream stream = { .depth_max = DEPTH, .names = names, .n_names = ELEMENTSOF(names), .parent = "result" };
        const char *position = NULL, *inner_position = NULL;
        JsonSlice key, value, inner_key, inner = {};
        size_t at = 0, used;

        while (json_next_member(outermost, &position, &key, &value)) {
                if (!json_equal(key, "result") || !json_is(value, '{') || key.size >= JSON_STREAM_KEY_MAX)
                        continue;

                inner_position = NULL;
                while (json_next_member(value, &inner_position, &inner_key, &inner)) {
                        if ((!json_equal(inner_key, names[0]) && !json_equal(inner_key, names[1])) ||
                            inner_key.size >= JSON_STREAM_KEY_MAX)
                                continue;

                        for (JsonStreamEvent event = JSON_STREAM_BEGIN; event <= JSON_STREAM_END; event++) {
                                int r;

                                do {
                                        assert_true(at < size);
                                        r = json_stream_feed(&stream, text + at, MIN(piece, size - at), &used);
                                        at += used;
                                } while (r == JSON_STREAM_MORE);
                                assert_number(r, event);
                                assert_true(json_equal(inner_key, names[stream.member]));
                                assert_number(at, inner.data - text + (event == JSON_STREAM_END ? inner.size : 0));
                        }
                }
        }
        for (; at < size; at += used)
                assert_number(json_stream_feed(&stream, text + at, MIN(piece, size - at), &used), JSON_STREAM_MORE);
        assert_number(json_stream_finish(&stream), 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data;
        JsonMember members[] = { { .name = names[0] }, { .name = names[1] } };
        size_t pieces[] = { 1, 2, 3, 7, 64, 65, SIZE_MAX };
        JsonTraits traits = {};
        JsonError error = {};
        bool escapes = false, breaks = false;
        int scanned;

        /* Of the first byte the size of the pieces is made as well. */
        if (size > 0)
                pieces[2] = 1 + data[0];
        scanned = json_scan(text, size, DEPTH, members, ELEMENTSOF(members), &traits, NULL);
        assert_number(json_scan(text, size, DEPTH, NULL, 0, NULL, &error), scanned);

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                Seen seen[2] = {};
                JsonStream stream;

                assert_number(stream_in_pieces(text, size, pieces[i], &stream, seen), scanned);
                if (scanned < 0) {
                        assert_number(stream.offset, error.offset);
                        assert_string(stream.reason, error.reason);
                        continue;
                }

                assert_number(stream.traits.newlines, traits.newlines);
                assert_number(stream.traits.noncharacters, traits.noncharacters);
                assert_true(i == 0 || (stream.escapes == escapes && stream.escaped_breaks == breaks));
                escapes = stream.escapes;
                breaks = stream.escaped_breaks;
                assert_number(stream.is_object, text[stream.open_offset] == '{');
                assert_true(stream.close_offset > stream.open_offset && stream.close_offset <= size);
                for (size_t j = 0; j < ELEMENTSOF(members); j++) {
                        assert_number(seen[j].count, members[j].count);
                        if (members[j].count == 0)
                                continue;
                        assert_number(seen[j].begin, members[j].value.data - text);
                        assert_number(seen[j].end - seen[j].begin, members[j].value.size);
                }
                check_parent(text, size, pieces[i],
                             (JsonSlice){ text + stream.open_offset, stream.close_offset - stream.open_offset });
        }

        return 0;
}
