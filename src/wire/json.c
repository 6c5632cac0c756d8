#include "wire/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"
#include "base/text.h"

typedef struct Scanner {
        const char *start, *at, *end;
        unsigned depth_max;
        JsonTraits traits;
        const char *reason;
        bool too_deep;
} Scanner;

static bool fail(Scanner *scanner, const char *reason) {
        scanner->reason = reason;
        return false;
}

static void skip_space(Scanner *scanner) {
        for (; scanner->at < scanner->end; scanner->at++)
                switch (*scanner->at) {
                case '\n':
                case '\r':
                        scanner->traits.newlines = true;
                        break;
                case ' ':
                case '\t':
                        break;
                default:
                        return;
                }
}

/* True where all eight bytes are printable ASCII other than the quote and the backslash */
static bool plain_bytes(const char *p) {
        const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
        uint64_t w, quote, backslash, control;

        memcpy(&w, p, sizeof(w));
        quote = w ^ ones * '"';
        backslash = w ^ ones * '\\';
        control = w - ones * 0x20;

        return ((w | control | ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & high) == 0;
}

static bool scan_escape(Scanner *scanner) {
        if (scanner->at == scanner->end)
                return fail(scanner, "the text ends inside a string");

        switch (*scanner->at++) {
        case '"':
        case '\\':
        case '/':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't':
                return true;
        case 'u':
                for (int i = 0; i < 4; i++, scanner->at++)
                        if (scanner->at == scanner->end || !strchr("0123456789abcdefABCDEF", *scanner->at) ||
                            !*scanner->at)
                                return fail(scanner, "\\u needs four hexadecimal digits");
                return true;
        default:
                scanner->at--;
                return fail(scanner, "unknown escape in a string");
        }
}

/* at stands behind the opening quote, and afterwards behind the closing one. */
static bool scan_string(Scanner *scanner) {
        for (;;) {
                unsigned character;
                size_t length;

                while (scanner->end - scanner->at >= 8 && plain_bytes(scanner->at))
                        scanner->at += 8;

                if (scanner->at == scanner->end)
                        return fail(scanner, "the text ends inside a string");

                switch (*scanner->at) {
                case '"':
                        scanner->at++;
                        return true;
                case '\\':
                        scanner->at++;
                        if (!scan_escape(scanner))
                                return false;
                        continue;
                default:
                        if ((unsigned char)*scanner->at < 0x20)
                                return fail(scanner, "a control character in a string has to be escaped");
                }

                length = utf8_sequence(scanner->at, scanner->end - scanner->at, &character);
                if (length == 0)
                        return fail(scanner, "invalid UTF-8");
                if (length > 1 && utf8_noncharacter(character))
                        scanner->traits.noncharacters = true;
                scanner->at += length;
        }
}

static bool scan_digits(Scanner *scanner) {
        const char *first = scanner->at;

        while (scanner->at < scanner->end && *scanner->at >= '0' && *scanner->at <= '9')
                scanner->at++;

        return scanner->at > first || fail(scanner, "a digit is missing");
}

static bool scan_number(Scanner *scanner) {
        if (*scanner->at == '-')
                scanner->at++;

        if (scanner->at < scanner->end && *scanner->at == '0') {
                scanner->at++;
                if (scanner->at < scanner->end && *scanner->at >= '0' && *scanner->at <= '9')
                        return fail(scanner, "a number can't start with 0");
        } else if (!scan_digits(scanner))
                return false;

        if (scanner->at < scanner->end && *scanner->at == '.') {
                scanner->at++;
                if (!scan_digits(scanner))
                        return false;
        }

        if (scanner->at < scanner->end && (*scanner->at == 'e' || *scanner->at == 'E')) {
                scanner->at++;
                if (scanner->at < scanner->end && (*scanner->at == '+' || *scanner->at == '-'))
                        scanner->at++;
                if (!scan_digits(scanner))
                        return false;
        }

        return true;
}

static bool scan_word(Scanner *scanner, const char *word) {
        size_t length = strlen(word);

        if ((size_t)(scanner->end - scanner->at) < length || memcmp(scanner->at, word, length) != 0)
                return fail(scanner, "expected a value");

        scanner->at += length;
        return true;
}

/* A string as an object's key, and the colon behind it */
static bool scan_key(Scanner *scanner) {
        if (scanner->at == scanner->end || *scanner->at != '"')
                return fail(scanner, "expected a string as the key");

        scanner->at++;
        if (!scan_string(scanner))
                return false;

        skip_space(scanner);
        if (scanner->at == scanner->end || *scanner->at != ':')
                return fail(scanner, "expected ':' behind the key");

        scanner->at++;
        return true;
}

/* One value with all inside it. The nesting is kept in a bit per level instead of on the C stack, so that its
 * depth costs nothing. at stands at the value's first byte, afterwards behind its last. */
static bool scan_value(Scanner *scanner, unsigned outer) {
        uint64_t is_object[JSON_DEPTH_MAX / 64 + 1];
        unsigned depth = outer;

        for (;;) {
                bool opened = false;

                skip_space(scanner);
                if (scanner->at == scanner->end)
                        return fail(scanner, "expected a value, the text ends");

                switch (*scanner->at) {
                case '{':
                case '[':
                        if (depth >= scanner->depth_max) {
                                scanner->too_deep = true;
                                return fail(scanner, "nested too deep");
                        }
                        if (*scanner->at == '{')
                                is_object[depth / 64] |= UINT64_C(1) << depth % 64;
                        else
                                is_object[depth / 64] &= ~(UINT64_C(1) << depth % 64);
                        depth++;
                        scanner->at++;
                        opened = true;
                        break;
                case '"':
                        scanner->at++;
                        if (!scan_string(scanner))
                                return false;
                        break;
                case '-':
                case '0' ... '9':
                        if (!scan_number(scanner))
                                return false;
                        break;
                case 't':
                        if (!scan_word(scanner, "true"))
                                return false;
                        break;
                case 'f':
                        if (!scan_word(scanner, "false"))
                                return false;
                        break;
                case 'n':
                        if (!scan_word(scanner, "null"))
                                return false;
                        break;
                default:
                        return fail(scanner, "expected a value");
                }

                for (;;) {
                        bool object;

                        if (depth == outer)
                                return true;

                        object = is_object[(depth - 1) / 64] >> (depth - 1) % 64 & 1;
                        skip_space(scanner);
                        if (scanner->at == scanner->end)
                                return fail(scanner, object ? "the text ends inside an object"
                                                            : "the text ends inside an array");

                        if (*scanner->at == (object ? '}' : ']')) {
                                scanner->at++;
                                depth--;
                                opened = false;
                                continue;
                        }

                        if (!opened) {
                                if (*scanner->at != ',')
                                        return fail(scanner, object ? "expected ',' or '}'" : "expected ',' or ']'");
                                scanner->at++;
                                skip_space(scanner);
                        }

                        if (object && !scan_key(scanner))
                                return false;
                        break;
                }
        }
}

static bool scan_members(Scanner *scanner, JsonMember *members, size_t n_members) {
        scanner->at++;
        skip_space(scanner);
        if (scanner->at < scanner->end && *scanner->at == '}') {
                scanner->at++;
                return true;
        }

        for (;;) {
                JsonSlice key = { .data = scanner->at }, value;
                const char *behind;

                if (!scan_key(scanner))
                        return false;

                /* The key ends at its quote; white space can stand between that and the colon. */
                for (behind = scanner->at - 1; behind[-1] != '"'; behind--)
                        ;
                key.size = behind - key.data;

                skip_space(scanner);
                value.data = scanner->at;
                if (!scan_value(scanner, 1))
                        return false;
                value.size = scanner->at - value.data;

                for (size_t i = 0; i < n_members; i++)
                        if (json_equal(key, members[i].name)) {
                                members[i].key = key;
                                members[i].value = value;
                                members[i].count++;
                                break;
                        }

                skip_space(scanner);
                if (scanner->at == scanner->end)
                        return fail(scanner, "the text ends inside an object");
                if (*scanner->at == '}') {
                        scanner->at++;
                        return true;
                }
                if (*scanner->at != ',')
                        return fail(scanner, "expected ',' or '}'");
                scanner->at++;
                skip_space(scanner);
        }
}

int json_scan(const char *text, size_t size, unsigned depth_max, JsonMember *members, size_t n_members,
              JsonTraits *traits, JsonError *error) {
        Scanner scanner = {
                .start = text,
                .at = text,
                .end = text + size,
                .depth_max = MIN(depth_max, JSON_DEPTH_MAX),
        };
        bool good;

        for (size_t i = 0; i < n_members; i++)
                members[i] = (JsonMember){ .name = members[i].name };

        skip_space(&scanner);
        if (n_members > 0 && scanner.at < scanner.end && *scanner.at == '{' && scanner.depth_max > 0)
                good = scan_members(&scanner, members, n_members);
        else
                good = scan_value(&scanner, 0);

        if (good) {
                skip_space(&scanner);
                if (scanner.at < scanner.end)
                        good = fail(&scanner, "there is more behind the value");
        }

        if (!good) {
                if (error)
                        *error = (JsonError){ .offset = scanner.at - text, .reason = scanner.reason };
                return scanner.too_deep ? -E2BIG : -EBADMSG;
        }

        if (traits)
                *traits = scanner.traits;
        return 0;
}

static void escape(unsigned character, char escaped[static 16]) {
        if (character < 0x10000)
                (void)snprintf(escaped, 16, "\\u%04x", character);
        else
                (void)snprintf(escaped, 16, "\\u%04x\\u%04x", 0xd800 + ((character - 0x10000) >> 10),
                               0xdc00 + (character & 0x3ff));
}

/* Copies a text whose line breaks or noncharacters have to change. Line breaks stand only between tokens of valid
 * JSON, noncharacters only in strings. */
static int append_changed(Buffer *buffer, JsonSlice value) {
        size_t kept = 0;
        int r;

        for (size_t i = 0; i < value.size;) {
                char escaped[16];
                unsigned character;
                size_t length;

                if (value.data[i] == '\n' || value.data[i] == '\r') {
                        length = 1;
                        escaped[0] = 0;
                } else if ((unsigned char)value.data[i] < 0x80) {
                        i++;
                        continue;
                } else {
                        length = utf8_sequence(value.data + i, value.size - i, &character);
                        if (!utf8_noncharacter(character)) {
                                i += length;
                                continue;
                        }
                        escape(character, escaped);
                }

                r = buffer_append(buffer, value.data + kept, i - kept);
                if (r < 0)
                        return r;
                r = buffer_append_string(buffer, escaped);
                if (r < 0)
                        return r;
                i += length;
                kept = i;
        }

        return buffer_append(buffer, value.data + kept, value.size - kept);
}

int json_append(Buffer *buffer, JsonSlice value, const JsonTraits *traits) {
        if (traits->newlines || traits->noncharacters)
                return append_changed(buffer, value);

        return buffer_append(buffer, value.data, value.size);
}

static bool is_plain(unsigned char c) {
        return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

int json_append_escaped(Buffer *buffer, const char *piece, size_t size, bool last, size_t *ret_used) {
        size_t i = 0;
        int r = 0;

        while (i < size && r >= 0) {
                unsigned character = 0;
                size_t length = 0;

                while (i + length < size && is_plain((unsigned char)piece[i + length]))
                        length++;
                if (length > 0)
                        r = buffer_append(buffer, piece + i, length);
                else {
                        unsigned char c = piece[i];
                        char escaped[16];

                        length = utf8_sequence(piece + i, size - i, &character);
                        if (length == 0 && !last && c >= 0xc0 && size - i < 4)
                                break;
                        if (length == 0) {
                                r = buffer_append_string(buffer, "\xef\xbf\xbd");
                                length = 1;
                        } else if (length == 1 || utf8_noncharacter(character)) {
                                escape(length > 1 ? character : c, escaped);
                                r = buffer_append_string(buffer, escaped);
                        } else
                                r = buffer_append(buffer, piece + i, length);
                }
                i += length;
        }

        *ret_used = i;
        return r;
}

int json_append_quoted(Buffer *buffer, const char *string, size_t size) {
        size_t used;
        int r;

        r = buffer_append(buffer, "\"", 1);
        if (r >= 0)
                r = json_append_escaped(buffer, string, size, /* last= */ true, &used);
        return r < 0 ? r : buffer_append(buffer, "\"", 1);
}
