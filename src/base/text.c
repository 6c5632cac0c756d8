#include "base/text.h"

#include <stdio.h>

#include "base/macro.h"

#define NAME_MAX_BYTES 64

static bool continues(unsigned char c) {
        return (c & 0xc0) == 0x80;
}

size_t utf8_sequence(const char *data, size_t size, unsigned *ret_character) {
        const unsigned char *p = (const unsigned char *)data;
        unsigned character;
        size_t length;

        if (size > 0 && p[0] < 0x80) {
                length = 1;
                character = p[0];
        } else if (size > 2 && (p[0] & 0xf0) == 0xe0 && continues(p[1]) && continues(p[2])) {
                length = 3;
                character = (p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU);
                if (character < 0x800 || (character & 0xf800) == 0xd800)
                        return 0;
        } else if (size > 1 && (p[0] & 0xe0) == 0xc0 && continues(p[1])) {
                length = 2;
                character = (p[0] & 0x1fU) << 6 | (p[1] & 0x3fU);
                if (character < 0x80)
                        return 0;
        } else if (size > 3 && (p[0] & 0xf8) == 0xf0 && continues(p[1]) && continues(p[2]) && continues(p[3])) {
                length = 4;
                character = (p[0] & 0x07U) << 18 | (p[1] & 0x3fU) << 12 | (p[2] & 0x3fU) << 6 | (p[3] & 0x3fU);
                if (character < 0x10000 || character > 0x10ffff)
                        return 0;
        } else
                return 0;

        if (ret_character)
                *ret_character = character;
        return length;
}

bool utf8_noncharacter(unsigned character) {
        return (character >= 0xfdd0 && character <= 0xfdef) || (character & 0xfffe) == 0xfffe;
}

/* Whether the character shows nothing itself, but what is around it in another line, or in another order */
static bool changes_lines(unsigned character) {
        return character == 0x2028 || character == 0x2029 ||                          /* separators */
               character == 0x061c || (character >= 0x200e && character <= 0x200f) || /* direction marks */
               (character >= 0x202a && character <= 0x202e) ||                        /* embeddings */
               (character >= 0x2066 && character <= 0x2069) || character == 0xfeff;   /* isolates, BOM */
}

void text_replace_noncharacters(char *text) {
        char *out = text, *end = text ? text + strlen(text) : NULL;

        for (char *p = text; p < end;) {
                unsigned character = 0;
                size_t length = utf8_sequence(p, end - p, &character);

                if (length >= 3 && utf8_noncharacter(character)) {
                        memcpy(out, "\xef\xbf\xbd", 3);
                        out += 3;
                } else {
                        length = MAX(length, (size_t)1);
                        memmove(out, p, length);
                        out += length;
                }
                p += length;
        }

        if (text)
                *out = 0;
}

char *text_escape(const char *data, size_t size, size_t max) {
        _cleanup_(freep) char *text = NULL;
        size_t used = 0, fits = 0;

        text = malloc(MIN(size * 4, max) + sizeof("..."));
        if (!text)
                return NULL;

        for (size_t i = 0; i < size;) {
                unsigned character = 0;
                size_t length = utf8_sequence(data + i, size - i, &character);
                char escaped[5];
                const char *piece = data + i;
                size_t n = length;

                if (length == 0 || character < 0x20 || (character >= 0x7f && character < 0xa0) ||
                    utf8_noncharacter(character) || changes_lines(character)) {
                        (void)snprintf(escaped, sizeof(escaped), "\\x%02x", (unsigned char)data[i]);
                        piece = escaped;
                        n = 4;
                        length = 1;
                }

                if (used + n > max) {
                        used = fits;
                        memcpy(text + used, "...", MIN(max - used, (size_t)3));
                        used += MIN(max - used, (size_t)3);
                        break;
                }

                memcpy(text + used, piece, n);
                used += n;
                i += length;
                if (used + 3 <= max)
                        fits = used;
        }

        text[used] = 0;
        return TAKE_PTR(text);
}

static char lower(char c) {
        return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Levenshtein's distance, one row at a time; capitals are no distance. */
static unsigned edit_distance(const char *a, const char *b) {
        unsigned row[64];
        size_t n = strlen(b);

        if (n >= ELEMENTSOF(row) || strlen(a) > n + TEXT_NEAR)
                return UINT32_MAX;

        for (size_t j = 0; j <= n; j++)
                row[j] = j;
        for (size_t i = 0; a[i]; i++) {
                unsigned diagonal = row[0];

                row[0] = i + 1;
                for (size_t j = 0; j < n; j++) {
                        unsigned change = diagonal + (lower(a[i]) != lower(b[j]));

                        diagonal = row[j + 1];
                        row[j + 1] = MIN(change, MIN(row[j], diagonal) + 1);
                }
        }

        return row[n];
}

void text_nearer(const char *word, const char *candidate, unsigned *best, const char **nearest) {
        unsigned distance = edit_distance(word, candidate);

        /* Where every character has to change, nothing is near. */
        if (distance < *best && distance < strlen(word)) {
                *best = distance;
                *nearest = candidate;
        }
}

bool text_is_name(const char *name) {
        size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

        return length > 0 && length <= NAME_MAX_BYTES && name[length] == 0;
}
