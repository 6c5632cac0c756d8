#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* A strict scanner for JSON text (RFC 8259): it checks and locates, and never builds a tree, so that its cost
 * is one pass and no memory, whatever the text holds. */

#define JSON_DEPTH_MAX 1024

/* A run of bytes inside a text that somebody else owns. data is NULL where there is none. */
typedef struct JsonSlice {
        const char *data;
        size_t size;
} JsonSlice;

/* What a valid text holds that has to change before it goes on a line or on the bus */
typedef struct JsonTraits {
        bool newlines;      /* line breaks between its tokens */
        bool noncharacters; /* Unicode noncharacters, which D-Bus libraries refuse */
} JsonTraits;

typedef struct JsonError {
        size_t offset; /* in bytes from the text's start */
        const char *reason;
} JsonError;

/* A member of the outermost object that json_scan() shall locate */
typedef struct JsonMember {
        const char *name;
        JsonSlice value; /* the last one of that name, as JavaScript does */
        JsonSlice key;   /* with its quotes */
        unsigned count;
} JsonMember;

/* Checks that text is one JSON value in valid UTF-8, its containers nested at most depth_max (≤ JSON_DEPTH_MAX)
 * deep, with nothing but white space around it. Where it is an object, fills members. traits, members and error
 * are optional. Returns 0, or -EBADMSG with *error set, or -E2BIG, likewise, where it is nested too deep. */
int json_scan(const char *text, size_t size, unsigned depth_max, JsonMember *members, size_t n_members,
              JsonTraits *traits, JsonError *error);

/* Appends valid JSON text to buffer, with the line breaks between its tokens removed and noncharacters escaped
 * where traits says that it has any. -ENOMEM. */
int json_append(Buffer *buffer, JsonSlice value, const JsonTraits *traits);

/* Appends a piece of a string, as json_append_quoted() without the quotes. *ret_used: bytes that were taken: all but a
 * character's beginning where last isn't set. -ENOMEM. */
int json_append_escaped(Buffer *buffer, const char *piece, size_t size, bool last, size_t *ret_used);

/* Appends string (any bytes; invalid UTF-8 becomes U+FFFD, noncharacters are escaped) as a quoted JSON string. -ENOMEM.
 */
int json_append_quoted(Buffer *buffer, const char *string, size_t size);

/* The functions below take values that json_scan() has passed, without white space around them. */

static inline bool json_is(JsonSlice value, char first) {
        return value.size > 0 && value.data[0] == first;
}

/* Walk an array's elements or an object's members. *position is NULL for the first call. False at the end, or
 * where container is none. */
bool json_next_element(JsonSlice array, const char **position, JsonSlice *ret);
bool json_next_member(JsonSlice object, const char **position, JsonSlice *ret_key, JsonSlice *ret);

/* The member of that name (the last one), or an empty slice */
JsonSlice json_get(JsonSlice object, const char *name);

/* Whether value is a string whose text is string */
bool json_equal(JsonSlice value, const char *string);

/* The text of a string, with lone surrogates, noncharacters and U+0000 replaced by U+FFFD: NULL when out of memory or
 * when value is no string. */
char *json_decode(JsonSlice value);

/* Likewise a piece of a string's text without its quotes, in place, where data has room for one byte more: its size
 * then. *ret_used: bytes that were taken: all but what may be cut off at the end, where last isn't set. */
size_t json_decode_piece(char *data, size_t size, bool last, size_t *ret_used);

/* False where value is not an unsigned integer without fraction or exponent that fits. */
bool json_unsigned(JsonSlice value, uint64_t *ret);
