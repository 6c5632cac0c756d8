#pragma once

#include "base/macro.h"
#include "unit.h"
#include "wire/json-edit.h"

/* For the tests of what writes JSON */

static inline JsonSlice slice(const char *text) {
        return text ? (JsonSlice){ text, strlen(text) } : (JsonSlice){};
}

static inline JsonPiece piece(const char *text) {
        return (JsonPiece){ slice(text), NULL };
}

#define assert_slice(got, wanted)                                                                                      \
        do {                                                                                                           \
                JsonSlice _slice = (got);                                                                              \
                const char *_text = (wanted);                                                                          \
                if (_text)                                                                                             \
                        assert_bytes(_slice.data, _slice.size, _text, strlen(_text));                                  \
                else                                                                                                   \
                        assert_true(!_slice.data);                                                                     \
        } while (0)

/* What was appended behind PREFIX is wanted, and valid JSON; empties the buffer. */
#define PREFIX "{\"before\":1}\n"
#define assert_appended(buffer, wanted)                                                                                \
        do {                                                                                                           \
                const char *_appended = buffer_data(buffer) + strlen(PREFIX);                                          \
                size_t _size = buffer_size(buffer) - strlen(PREFIX);                                                   \
                assert_bytes(buffer_data(buffer), strlen(PREFIX), PREFIX, strlen(PREFIX));                             \
                assert_bytes(_appended, _size, (wanted), strlen(wanted));                                              \
                assert_number(json_scan(_appended, _size, JSON_DEPTH_MAX, NULL, 0, NULL, NULL), 0);                    \
                start(buffer);                                                                                         \
        } while (0)

/* Nothing was appended: what a function leaves behind that fails */
#define assert_nothing_appended(buffer) assert_bytes(buffer_data(buffer), buffer_size(buffer), PREFIX, strlen(PREFIX))

static inline void start(Buffer *buffer) {
        buffer_truncate(buffer, 0);
        assert_number(buffer_append_string(buffer, PREFIX), 0);
}
