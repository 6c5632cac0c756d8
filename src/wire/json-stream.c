#include "wire/json-stream.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "base/text.h"

enum {
        VALUE,        /* a value is due */
        VALUE_OR_END, /* likewise, or the end of the array that has just begun */
        KEY_OR_END,   /* a key, or the end of the object that has just begun */
        KEY,          /* a key, behind a comma */
        COLON,        /* behind a key */
        COMMA_OR_END, /* behind a value in a container */
        NOTHING,      /* behind the outermost value */
        STRING,
        ESCAPE,      /* behind a backslash */
        HEXADECIMAL, /* behind \u */
        UTF8,        /* within a character */
        WORD,        /* within true, false or null */
        MINUS,       /* behind a number's sign */
        ZERO,        /* behind a leading 0 */
        INTEGER,
        DOT,
        FRACTION,
        EXPONENT, /* behind e */
        EXPONENT_SIGN,
        EXPONENT_DIGITS,
};

/* Signed, so that what isn't ASCII is less than a space too */
typedef signed char Block __attribute__((vector_size(16)));

/* The bytes at p that aren't plain, as bytes of ones */
static Block odd_bytes(const char *p) {
        Block block;

        memcpy(&block, p, sizeof(block));
        return (block < ' ') | (block == '"') | (block == '\\');
}

/* Where the plain bytes of a string end, of which most large texts are made: printable ASCII but the quote and the
 * backslash. Behind a block of such there are likely more. */
static const char *skip_plain(const char *p, const char *end) {
        uint64_t odd[2];

        while (end - p >= 16) {
                Block any = odd_bytes(p);

                memcpy(odd, &any, sizeof(odd));
                if (odd[0])
                        return p + __builtin_ctzll(htole64(odd[0])) / 8;
                if (odd[1])
                        return p + 8 + __builtin_ctzll(htole64(odd[1])) / 8;

                for (p += 16; end - p >= 64; p += 64) {
                        any = odd_bytes(p) | odd_bytes(p + 16) | odd_bytes(p + 32) | odd_bytes(p + 48);
                        memcpy(odd, &any, sizeof(odd));
                        if (odd[0] | odd[1])
                                break;
                }
        }

        while (p < end && (signed char)*p >= ' ' && *p != '"' && *p != '\\')
                p++;

        return p;
}

static int fail(JsonStream *stream, const char *reason) {
        stream->reason = reason;
        return -EBADMSG;
}

static bool in_object(const JsonStream *stream) {
        return stream->depth > 0 && stream->containers[(stream->depth - 1) / 64] >> (stream->depth - 1) % 64 & 1;
}

static bool is_space(JsonStream *stream, char c) {
        if (c == '\n' || c == '\r')
                stream->traits.newlines = true;
        return c == '\n' || c == '\r' || c == ' ' || c == '\t';
}

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static bool is_hexadecimal(char c) {
        return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static unsigned hexadecimal(char c) {
        return (unsigned)(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* Bytes of the escape at p; 0 where it is cut off or wrong */
static size_t skip_escape(JsonStream *stream, const char *p, const char *end) {
        unsigned character = (unsigned char)p[1];

        if (character == 'u') {
                if (end - p < 6)
                        return 0;
                character = 0;
                for (int i = 2; i < 6; i++) {
                        if (!is_hexadecimal(p[i]))
                                return 0;
                        character = character << 4 | hexadecimal(p[i]);
                }
                if (character == '\n' || character == '\r')
                        stream->escaped_breaks = true;
        } else if (character == 'n' || character == 'r')
                stream->escaped_breaks = true;
        else if (character == 0 || !strchr("\"\\/bft", (int)character))
                return 0;

        stream->escapes = true;
        return p[1] == 'u' ? 6 : 2;
}

/* Bytes of the escape or character at p, in a string; 0 where it is neither, is cut off or wrong: that is looked at
 * byte by byte. */
static size_t skip_odd(JsonStream *stream, const char *p, const char *end) {
        unsigned character;
        size_t length;

        if (end - p < 4)
                return 0;
        if (*p == '\\')
                return skip_escape(stream, p, end);
        if ((unsigned char)*p < 0x80)
                return 0;

        length = utf8_sequence(p, 4, &character);
        if (length > 0 && character >= 0xfdd0 && utf8_noncharacter(character))
                stream->traits.noncharacters = true;
        return length;
}

static const char *skip_text(JsonStream *stream, const char *p, const char *end) {
        for (;;) {
                size_t length;

                p = skip_plain(p, end);
                do {
                        length = skip_odd(stream, p, end);
                        p += length;
                } while (length > 0 && p < end && (signed char)*p < ' ');
                if (length == 0)
                        return p;
        }
}

/* Where what is looked at byte by byte begins: most of a text is in strings, numbers and indentation. */
static const char *skip_run(JsonStream *stream, const char *p, const char *end) {
        switch (stream->state) {
        case STRING:
                return skip_text(stream, p, end);
        case INTEGER:
        case FRACTION:
        case EXPONENT_DIGITS:
                while (p < end && is_digit(*p))
                        p++;
                return p;
        case VALUE ... NOTHING:
                while (p < end && *p == ' ')
                        p++;
                return p;
        default:
                return p;
        }
}

/* Depth of the members that are waited for */
static unsigned level(const JsonStream *stream) {
        return stream->parent ? 2 : 1;
}

static void keep_key(JsonStream *stream, const char *data, size_t size) {
        if (!stream->in_key || stream->depth > level(stream))
                return;

        size = MIN(size, sizeof(stream->key) - stream->key_size);
        memcpy(stream->key + stream->key_size, data, size);
        stream->key_size += size;
}

/* The offset in front of the byte that is being looked at becomes the one behind it, or stays where that is a value's
 * first byte, which is looked at once more. */
static void value_done(JsonStream *stream, uint64_t behind) {
        stream->state = stream->depth > 0 ? COMMA_OR_END : NOTHING;
        if (stream->depth == 0)
                stream->close_offset = behind;
}

static int open_container(JsonStream *stream, bool object) {
        uint64_t bit = UINT64_C(1) << stream->depth % 64;

        if (stream->depth >= MIN(stream->depth_max, JSON_DEPTH_MAX)) {
                stream->reason = "nested too deep";
                return -E2BIG;
        }

        if (object)
                stream->containers[stream->depth / 64] |= bit;
        else
                stream->containers[stream->depth / 64] &= ~bit;
        if (stream->depth == 0)
                stream->is_object = object;
        stream->depth++;
        stream->state = object ? KEY_OR_END : VALUE_OR_END;
        return 0;
}

static int begin_value(JsonStream *stream, char c) {
        if (stream->depth == 0)
                stream->open_offset = stream->offset;

        switch (c) {
        case '{':
        case '[':
                return open_container(stream, c == '{');
        case '"':
                stream->in_key = false;
                stream->state = STRING;
                return 0;
        case '-':
                stream->state = MINUS;
                return 0;
        case '0':
                stream->state = ZERO;
                return 0;
        case '1' ... '9':
                stream->state = INTEGER;
                return 0;
        case 't':
        case 'f':
        case 'n':
                stream->word = c == 't' ? "true" : c == 'f' ? "false" : "null";
                stream->word_at = 1;
                stream->state = WORD;
                return 0;
        default:
                return fail(stream, "expected a value");
        }
}

static int begin_key(JsonStream *stream, char c) {
        if (c != '"')
                return fail(stream, "expected a string as the key");

        if (stream->depth == 1) {
                stream->n_members++;
                stream->key_offset = stream->offset;
        }
        if (stream->depth <= level(stream))
                stream->key_size = 0;
        stream->in_key = true;
        keep_key(stream, &c, 1);
        stream->state = STRING;
        return 0;
}

static void end_container(JsonStream *stream) {
        stream->depth--;
        value_done(stream, stream->offset + 1);
}

/* Whether somebody waits for the member whose key has been read */
static void match_key(JsonStream *stream) {
        JsonSlice key = { stream->key, stream->key_size };

        stream->watched = false;
        if (stream->depth == 1)
                stream->in_parent =
                        stream->parent && stream->key_size < sizeof(stream->key) && json_equal(key, stream->parent);
        if (stream->depth != level(stream) || (stream->parent && !stream->in_parent) ||
            stream->key_size == sizeof(stream->key))
                return;

        for (size_t i = 0; i < stream->n_names && !stream->watched; i++)
                if (json_equal(key, stream->names[i])) {
                        stream->watched = true;
                        stream->announced = false;
                        stream->member = i;
                }
}

static void end_string(JsonStream *stream) {
        if (!stream->in_key) {
                value_done(stream, stream->offset + 1);
                return;
        }

        stream->in_key = false;
        stream->state = COLON;
        match_key(stream);
}

static int take_escape(JsonStream *stream, char c) {
        stream->escapes = true;
        if (c == 'n' || c == 'r')
                stream->escaped_breaks = true;
        if (c == 'u') {
                stream->n_hex = 4;
                stream->hex = 0;
                stream->state = HEXADECIMAL;
        } else if (c && strchr("\"\\/bfnrt", c))
                stream->state = STRING;
        else
                return fail(stream, "unknown escape in a string");

        return 0;
}

static int take_hexadecimal(JsonStream *stream, char c) {
        if (!is_hexadecimal(c))
                return fail(stream, "\\u needs four hexadecimal digits");
        stream->hex = stream->hex << 4 | hexadecimal(c);
        if (--stream->n_hex == 0) {
                stream->state = STRING;
                if (stream->hex == '\n' || stream->hex == '\r')
                        stream->escaped_breaks = true;
        }

        return 0;
}

static int begin_character(JsonStream *stream, unsigned char c) {
        stream->utf8_length = (c & 0xe0) == 0xc0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : (c & 0xf8) == 0xf0 ? 4 : 0;
        if (stream->utf8_length == 0)
                return fail(stream, "invalid UTF-8");

        stream->utf8[0] = c;
        stream->utf8_left = stream->utf8_length - 1;
        stream->state = UTF8;
        return 0;
}

static int fail_character(JsonStream *stream) {
        stream->offset -= stream->utf8_length - stream->utf8_left;
        return fail(stream, "invalid UTF-8");
}

static int take_character(JsonStream *stream, unsigned char c) {
        unsigned character;

        if ((c & 0xc0) != 0x80)
                return fail_character(stream);

        stream->utf8[stream->utf8_length - stream->utf8_left] = c;
        if (stream->utf8_left > 1) {
                stream->utf8_left--;
                return 0;
        }

        if (utf8_sequence((const char *)stream->utf8, stream->utf8_length, &character) == 0)
                return fail_character(stream);
        if (utf8_noncharacter(character))
                stream->traits.noncharacters = true;
        stream->state = STRING;
        return 0;
}

static int take_string(JsonStream *stream, char c) {
        switch (c) {
        case '"':
                end_string(stream);
                return 0;
        case '\\':
                stream->state = ESCAPE;
                return 0;
        default:
                if ((unsigned char)c < 0x20)
                        return fail(stream, "a control character in a string has to be escaped");
                return (unsigned char)c < 0x80 ? 0 : begin_character(stream, (unsigned char)c);
        }
}

static int take_word(JsonStream *stream, char c) {
        if (c != stream->word[stream->word_at]) {
                stream->offset -= stream->word_at;
                return fail(stream, "expected a value");
        }
        if (!stream->word[++stream->word_at])
                value_done(stream, stream->offset + 1);

        return 0;
}

/* 1: the byte belongs to the number; 0: it has ended in front of it */
static int take_number(JsonStream *stream, char c) {
        bool digit = is_digit(c);

        switch (stream->state) {
        case MINUS:
                if (!digit)
                        return fail(stream, "a digit is missing");
                stream->state = c == '0' ? ZERO : INTEGER;
                return 1;
        case DOT:
        case EXPONENT_SIGN:
                if (!digit)
                        return fail(stream, "a digit is missing");
                stream->state = stream->state == DOT ? FRACTION : EXPONENT_DIGITS;
                return 1;
        case EXPONENT:
                if (!digit && c != '+' && c != '-')
                        return fail(stream, "a digit is missing");
                stream->state = digit ? EXPONENT_DIGITS : EXPONENT_SIGN;
                return 1;
        case ZERO:
                if (digit)
                        return fail(stream, "a number can't start with 0");
                break;
        default:
                if (digit)
                        return 1;
        }

        if (c == '.' && (stream->state == ZERO || stream->state == INTEGER))
                stream->state = DOT;
        else if ((c == 'e' || c == 'E') && stream->state != EXPONENT_DIGITS)
                stream->state = EXPONENT;
        else {
                value_done(stream, stream->offset);
                return 0;
        }

        return 1;
}

/* One byte between the tokens, or a token's first. 1: it was taken; 0: it is what somebody waits for. */
static int take_between(JsonStream *stream, char c) {
        int r = 0;

        if (is_space(stream, c))
                return 1;

        switch (stream->state) {
        case VALUE_OR_END:
                if (c == ']') {
                        end_container(stream);
                        return 1;
                }
                __attribute__((fallthrough));
        case VALUE:
                if (stream->depth == level(stream) && stream->watched && !stream->announced)
                        return 0;
                r = begin_value(stream, c);
                break;
        case KEY_OR_END:
                if (c == '}') {
                        end_container(stream);
                        return 1;
                }
                __attribute__((fallthrough));
        case KEY:
                r = begin_key(stream, c);
                break;
        case COLON:
                if (c != ':')
                        return fail(stream, "expected ':' behind the key");
                stream->state = VALUE;
                break;
        case COMMA_OR_END:
                if (c == (in_object(stream) ? '}' : ']')) {
                        end_container(stream);
                        return 1;
                }
                if (c != ',')
                        return fail(stream, in_object(stream) ? "expected ',' or '}'" : "expected ',' or ']'");
                if (stream->depth == 1)
                        stream->comma_offset = stream->offset;
                stream->state = in_object(stream) ? KEY : VALUE;
                break;
        case NOTHING:
                return fail(stream, "there is more behind the value");
        }

        return r < 0 ? r : 1;
}

/* 1: the byte was taken; 0: it wasn't, and is to be looked at again */
static int take(JsonStream *stream, char c) {
        int r;

        switch (stream->state) {
        case STRING:
                r = take_string(stream, c);
                break;
        case ESCAPE:
                r = take_escape(stream, c);
                break;
        case HEXADECIMAL:
                r = take_hexadecimal(stream, c);
                break;
        case UTF8:
                r = take_character(stream, (unsigned char)c);
                break;
        case WORD:
                r = take_word(stream, c);
                break;
        case MINUS ... EXPONENT_DIGITS:
                return take_number(stream, c);
        default:
                return take_between(stream, c);
        }

        return r < 0 ? r : 1;
}

int json_stream_feed(JsonStream *stream, const char *data, size_t size, size_t *ret_used) {
        const char *p = data, *end = size > 0 ? data + size : data; /* NULL, of nothing */

        while (p < end) {
                const char *run = skip_run(stream, p, end);
                bool key = stream->in_key;
                int r;

                keep_key(stream, p, (size_t)(run - p));
                stream->offset += (uint64_t)(run - p);
                p = run;
                if (p == end)
                        break;

                if (key)
                        keep_key(stream, p, 1);
                r = take(stream, *p);
                if (r < 0)
                        return r;
                if (r > 0) {
                        stream->offset++;
                        p++;
                }

                *ret_used = (size_t)(p - data);
                if (r == 0 && stream->watched && !stream->announced && stream->state == VALUE) {
                        stream->announced = true;
                        return JSON_STREAM_BEGIN;
                }
                if (stream->announced && stream->depth == level(stream) && stream->state == COMMA_OR_END) {
                        stream->announced = stream->watched = false;
                        return JSON_STREAM_END;
                }
        }

        *ret_used = size;
        return JSON_STREAM_MORE;
}

bool json_stream_in_string(const JsonStream *stream) {
        return stream->state >= STRING && stream->state <= UTF8;
}

int json_stream_finish(JsonStream *stream) {
        switch (stream->state) {
        case NOTHING:
                return 0;
        case VALUE:
                return fail(stream, "expected a value, the text ends");
        case VALUE_OR_END:
                return fail(stream, "the text ends inside an array");
        case KEY_OR_END:
                return fail(stream, "the text ends inside an object");
        case KEY:
                return fail(stream, "expected a string as the key");
        case COLON:
                return fail(stream, "expected ':' behind the key");
        case COMMA_OR_END:
                return fail(stream,
                            in_object(stream) ? "the text ends inside an object" : "the text ends inside an array");
        case UTF8:
                return fail_character(stream);
        case WORD:
                stream->offset -= stream->word_at;
                return fail(stream, "expected a value");
        case HEXADECIMAL:
                return fail(stream, "\\u needs four hexadecimal digits");
        case STRING:
        case ESCAPE:
                return fail(stream, "the text ends inside a string");
        case ZERO:
        case INTEGER:
        case FRACTION:
        case EXPONENT_DIGITS:
                /* Within a container the text has not ended with it. */
                value_done(stream, stream->offset);
                return stream->depth == 0 ? 0 : json_stream_finish(stream);
        default:
                return fail(stream, "a digit is missing");
        }
}
