#pragma once

#include "wire/json.h"

#define RPC_ID_MAX ((size_t)1024) /* bytes of an id or a progress token, its quotes included */

typedef struct IdFinderLevel {
        unsigned key; /* of the member that the bytes are in */
        bool behind_colon;
        bool has_request_id;
        char request_id[24];
        size_t request_id_size; /* 0: none that fits */
} IdFinderLevel;

/* Follows a line that is too long to be held, or no valid JSON, fed in pieces, by its strings and brackets alone, and
 * keeps what says whose it is. The last member of a name counts. Zero-initialise; each protocol reads it at the line's
 * end. */
typedef struct IdFinder {
        unsigned depth;
        bool began, more; /* the object; something else around it */
        bool in_string, escaped, in_response;
        bool has_method, has_outcome; /* members of JSON-RPC: method; result or error */
        bool control_response;        /* type is that */
        IdFinderLevel levels[2];      /* the line's members; those of its member response */
        char token[RPC_ID_MAX];       /* a key or a value of these levels */
        size_t token_size;            /* more than RPC_ID_MAX: it was longer */
        char id[RPC_ID_MAX];
        size_t id_size; /* 0: none, or one that is no string, number or word */
} IdFinder;

void id_finder_feed(IdFinder *finder, const char *data, size_t size);

/* Whether the bytes look like one whole object: one that was cut off, or has other text around it, is no message. */
bool id_finder_whole(const IdFinder *finder);
