#pragma once

#include "wire/json.h"

/* json_scan() for a text that is never there as a whole: fed in pieces, it checks the same, and says the same of what
 * is wrong. On the way it stops where a member of the outermost object begins and ends that somebody waits for. */

#define JSON_STREAM_KEY_MAX 96 /* bytes of a key with its quotes, as it is written, up to which it is looked at */

typedef enum JsonStreamEvent {
        JSON_STREAM_MORE,  /* all was taken */
        JSON_STREAM_BEGIN, /* the next byte is the first of the value of names[member] */
        JSON_STREAM_END,   /* the last byte was its last */
} JsonStreamEvent;

/* Zero-initialise it, and set the first block. */
typedef struct JsonStream {
        unsigned depth_max;
        const char *const *names; /* members to stop at */
        size_t n_names;
        const char *parent; /* they are those of the object that is its member of this name; NULL: its own */

        /* Of what was taken */
        uint64_t offset; /* bytes */
        JsonTraits traits;
        size_t member;         /* at JSON_STREAM_BEGIN and END */
        uint64_t n_members;    /* keys of the outermost object, so far */
        uint64_t key_offset;   /* of the last one of these */
        uint64_t comma_offset; /* of the comma before that, where it isn't the first */
        uint64_t open_offset;  /* of the outermost value's first byte */
        uint64_t close_offset; /* behind its last */
        bool is_object;        /* it is one */
        bool escapes;          /* a string has escapes */
        bool escaped_breaks;   /* among them line breaks */
        const char *reason;    /* what is wrong, once json_stream_feed() or _finish() has failed: at offset */

        /* Its own */
        unsigned state, depth, n_hex, hex, utf8_left, utf8_length;
        uint64_t containers[JSON_DEPTH_MAX / 64 + 1]; /* a bit for each level: it is an object */
        unsigned char utf8[4];
        const char *word;
        size_t word_at;
        bool in_key, in_parent, announced, watched;
        char key[JSON_STREAM_KEY_MAX];
        size_t key_size;
} JsonStream;

/* Takes bytes up to an event, or all: *ret_used is their number. A JsonStreamEvent; or -EBADMSG, or -E2BIG where it is
 * nested too deep, and nothing may be fed any more. */
int json_stream_feed(JsonStream *stream, const char *data, size_t size, size_t *ret_used);

/* Whether what comes next is within a string */
bool json_stream_in_string(const JsonStream *stream);

/* The text ends here: 0 where it is one whole value, or -EBADMSG. */
int json_stream_finish(JsonStream *stream);
