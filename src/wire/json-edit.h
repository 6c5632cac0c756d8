#pragma once

#include "wire/json.h"

/* Writes a JSON text anew with some of it changed and the rest as it stands, byte for byte: no trees. All texts here
 * have passed json_scan() and have no white space around them.
 *
 * What is appended is never more than the text, thrice over where its traits have noncharacters, and what the changes
 * bring in. Each function returns 0, -ENOMEM, or -EINVAL as it says; the buffer is as it was then. */

/* A piece of JSON that comes from somewhere else */
typedef struct JsonPiece {
        JsonSlice text;
        const JsonTraits *traits; /* of the line that it stands in; NULL: it needs no change */
} JsonPiece;

typedef enum JsonChangeKind {
        JSON_SET,     /* the member has this value, whether it was there or not */
        JSON_DEFAULT, /* it gets this value where it isn't there */
        JSON_REPLACE, /* it gets this value where it is there */
        JSON_REMOVE,
        JSON_INSIDE, /* its value, an object, is changed in turn: made where it isn't there, or is none, and something
                      * is set in it; left out where nothing remains in it */
} JsonChangeKind;

/* What shall become of the members of one name in an object */
typedef struct JsonChange {
        const char *name;
        JsonChangeKind kind;
        JsonPiece value;                 /* SET, DEFAULT, REPLACE: no text at all means that there is no such change */
        const struct JsonChange *inside; /* INSIDE */
        size_t n_inside;
} JsonChange;

/* For values that are written in the source, as "\"complete\"" */
#define JSON_LITERAL(text)                                                                                             \
        { { (text), sizeof(text) - 1 }, NULL }

/* How deep JSON_INSIDE may go, and how many changes an object may have */
#define JSON_INSIDE_MAX 3
#define JSON_CHANGES_MAX 24

/* Appends object (nothing counts as {}) with the changes made. What is kept stays as it is and in its order, duplicates
 * included; what is set, replaced or changed inside stands behind it, once each, in the order of changes: of several
 * members of that name the last one counted, as in JavaScript. -EINVAL where there are too many changes, or object is
 * none. */
int json_append_changed(Buffer *buffer, JsonPiece object, const JsonChange *changes, size_t n_changes);

/* A slice of the text that is replaced by other JSON, or changed as an object */
typedef struct JsonEdit {
        JsonSlice old;
        JsonPiece new;
        const JsonChange *changes; /* set: old with these made, and new isn't used */
        size_t n_changes;
} JsonEdit;

#define JSON_EDITS_MAX 8

/* Appends text with slices replaced, which have to be values within it (an empty one is no edit), in any order. The
 * rest isn't looked at: the way to change one value in a large text. -EINVAL where two overlap, one stands elsewhere,
 * or there are too many. */
int json_append_edited(Buffer *buffer, JsonPiece text, const JsonEdit *edits, size_t n_edits);

/* Appends a member, and the comma in front of it where *first isn't set; clears that. For objects that are made anew.
 */
int json_append_member(Buffer *buffer, bool *first, const char *name, JsonPiece value);
