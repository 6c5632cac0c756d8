#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* All here walks text that json_scan() has passed: brackets and quotes are enough to find one's way. */

/* p stands behind the opening quote; the result behind the closing one, which is the first with an even number of
 * backslashes in front of it. */
static const char *string_end(const char *p, const char *end) {
        const char *begin = p;

        while ((p = memchr(p, '"', end - p))) {
                const char *backslash = p;

                while (backslash > begin && backslash[-1] == '\\')
                        backslash--;
                p++;
                if ((p - 1 - backslash) % 2 == 0)
                        return p;
        }

        return end;
}

/* Behind the value that starts at p */
static const char *value_end(const char *p, const char *end) {
        unsigned depth = 0;

        do
                switch (*p++) {
                case '"':
                        p = string_end(p, end);
                        break;
                case '{':
                case '[':
                        depth++;
                        break;
                case '}':
                case ']':
                        depth--;
                        break;
                default:
                        if (depth > 0)
                                break;
                        while (p < end && !strchr(",]} \t\r\n", *p))
                                p++;
                }
        while (depth > 0 && p < end);

        return p;
}

static const char *skip_filling(const char *p, const char *end) {
        while (p < end && strchr(" \t\r\n,:", *p))
                p++;

        return p;
}

bool json_next_element(JsonSlice array, const char **position, JsonSlice *ret) {
        const char *end, *p;

        if (!json_is(array, '[') && !json_is(array, '{'))
                return false;

        end = array.data + array.size;
        p = skip_filling(*position ?: array.data + 1, end);
        if (p >= end - 1)
                return false;

        *position = value_end(p, end);
        *ret = (JsonSlice){ p, *position - p };
        return true;
}

bool json_next_member(JsonSlice object, const char **position, JsonSlice *ret_key, JsonSlice *ret) {
        return json_is(object, '{') && json_next_element(object, position, ret_key) &&
               json_next_element(object, position, ret);
}

JsonSlice json_get(JsonSlice object, const char *name) {
        JsonSlice key, value, found = {};
        const char *position = NULL;

        while (json_next_member(object, &position, &key, &value))
                if (json_equal(key, name))
                        found = value;

        return found;
}

static unsigned hexadecimal(const char *p) {
        unsigned value = 0;

        for (int i = 0; i < 4; i++)
                value = value << 4 | (p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);

        return value;
}

/* Decodes the escape behind a backslash at *p into at most four bytes, which never are more than the escape has. */
static size_t decode_escape(const char **p, const char *end, char out[4]) {
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        const char *simple = strchr(from, **p);
        unsigned character;

        if (**p != 'u') {
                out[0] = simple ? to[simple - from] : **p;
                (*p)++;
                return 1;
        }

        character = hexadecimal(*p + 1);
        *p += 5;

        if (character >= 0xd800 && character < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
                unsigned low = hexadecimal(*p + 2);

                if (low >= 0xdc00 && low < 0xe000) {
                        *p += 6;
                        character = 0x10000 + ((character - 0xd800) << 10) + (low - 0xdc00);
                }
        }
        if (character == 0 || (character & 0xfffff800) == 0xd800)
                character = 0xfffd;

        if (character < 0x80) {
                out[0] = character;
                return 1;
        }
        if (character < 0x800) {
                out[0] = 0xc0 | character >> 6;
                out[1] = 0x80 | (character & 0x3f);
                return 2;
        }
        if (character < 0x10000) {
                out[0] = 0xe0 | character >> 12;
                out[1] = 0x80 | (character >> 6 & 0x3f);
                out[2] = 0x80 | (character & 0x3f);
                return 3;
        }
        out[0] = 0xf0 | character >> 18;
        out[1] = 0x80 | (character >> 12 & 0x3f);
        out[2] = 0x80 | (character >> 6 & 0x3f);
        out[3] = 0x80 | (character & 0x3f);
        return 4;
}

bool json_equal(JsonSlice value, const char *string) {
        size_t length = strlen(string);
        const char *p, *end;

        if (!json_is(value, '"'))
                return false;

        p = value.data + 1;
        end = value.data + value.size - 1;
        if (!memchr(p, '\\', end - p))
                return (size_t)(end - p) == length && memcmp(p, string, length) == 0;

        while (p < end) {
                char out[4];
                size_t n = 1;

                if (*p == '\\') {
                        p++;
                        n = decode_escape(&p, end, out);
                } else
                        out[0] = *p++;

                if (n > length || memcmp(out, string, n) != 0)
                        return false;
                string += n;
                length -= n;
        }

        return length == 0;
}

char *json_decode(JsonSlice value) {
        const char *p, *end;
        char *text, *out;

        if (!json_is(value, '"'))
                return NULL;

        p = value.data + 1;
        end = value.data + value.size - 1;
        text = out = malloc(value.size);
        if (!text)
                return NULL;

        while (p < end)
                if (*p == '\\') {
                        char decoded[4];
                        size_t n;

                        p++;
                        n = decode_escape(&p, end, decoded);
                        memcpy(out, decoded, n);
                        out += n;
                } else
                        *out++ = *p++;

        *out = 0;
        text_replace_noncharacters(text);
        return text;
}

/* Of an escape with at least 12 bytes from it: two that are a pair count as one. */
static size_t escape_size(const char *escape) {
        if (escape[1] != 'u')
                return 2;

        return (hexadecimal(escape + 2) & 0xfc00) == 0xd800 && escape[6] == '\\' && escape[7] == 'u' &&
                               (hexadecimal(escape + 8) & 0xfc00) == 0xdc00
                       ? 12
                       : 6;
}

/* Up to where a piece of a string can be decoded: an escape has up to 12 bytes, a pair's, and a character up to 4. */
static const char *whole_characters(const char *data, const char *end) {
        const char *p = data;

        for (const char *escape; (escape = memchr(p, '\\', (size_t)(end - p)));) {
                if (end - escape < 12)
                        return escape;
                p = escape + escape_size(escape);
        }

        for (int i = 1; i < 4 && end - i >= p; i++) {
                unsigned char c = (unsigned char)end[-i];

                if (c >= 0xc0)
                        return utf8_sequence(end - i, (size_t)i, NULL) == 0 ? end - i : end;
        }
        return end;
}

size_t json_decode_piece(char *data, size_t size, bool last, size_t *ret_used) {
        const char *p = data, *end = last ? data + size : whole_characters(data, data + size);
        char *out = data;

        *ret_used = (size_t)(end - data);
        while (p < end) {
                const char *escape = memchr(p, '\\', (size_t)(end - p)) ?: end;
                char decoded[4];
                size_t n = (size_t)(escape - p);

                memmove(out, p, n);
                out += n;
                p = escape;
                if (p == end)
                        break;
                p++;
                n = decode_escape(&p, end, decoded);
                memcpy(out, decoded, n);
                out += n;
        }

        *out = 0;
        text_replace_noncharacters(data);
        return strlen(data);
}

bool json_unsigned(JsonSlice value, uint64_t *ret) {
        uint64_t number = 0;

        if (value.size == 0)
                return false;

        for (size_t i = 0; i < value.size; i++) {
                if (value.data[i] < '0' || value.data[i] > '9')
                        return false;
                if (__builtin_mul_overflow(number, 10, &number) ||
                    __builtin_add_overflow(number, (uint64_t)(value.data[i] - '0'), &number))
                        return false;
        }

        *ret = number;
        return true;
}
