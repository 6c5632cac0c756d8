#include "wire/json.h"

#include <stdio.h>

#include "base/macro.h"
#include "base/text.h"
#include "unit.h"

#define SLICE(text)                                                                                                    \
        (JsonSlice) {                                                                                                  \
                (text), strlen(text)                                                                                   \
        }
#define assert_slice(slice, wanted) assert_bytes((slice).data, (slice).size, (wanted), strlen(wanted))

/* A copy of exactly that size, so that reading past its end shows under valgrind and AddressSanitizer */
static char *exact(const char *text, size_t size) {
        char *copy = malloc(size);

        assert_true(copy || size == 0);
        if (size > 0)
                memcpy(copy, text, size);
        return copy;
}

typedef struct Row {
        const char *text;
        size_t size;
        int result;
        size_t offset; /* of the error */
} Row;

#define GOOD(text)                                                                                                     \
        { (text), sizeof(text) - 1, 0, 0 }
#define BAD(text, offset)                                                                                              \
        { (text), sizeof(text) - 1, -EBADMSG, (offset) }
#define LONG "0123456789abcdef0123456789abcdef"

static const Row rows[] = {
        /* words */
        GOOD("true"),
        GOOD("false"),
        GOOD("null"),
        BAD("", 0),
        BAD("tru", 0),
        BAD("truE", 0),
        BAD("True", 0),
        BAD("truex", 4),
        BAD("nul", 0),
        BAD("fals", 0),
        BAD("[nul]", 1),
        BAD("[true false]", 6),
        BAD("undefined", 0),
        BAD("NaN", 0),
        BAD("Infinity", 0),
        BAD("[-Infinity]", 2),
        BAD("a", 0),
        BAD("'a'", 0),
        BAD("*", 0),

        /* numbers */
        GOOD("0"),
        GOOD("-0"),
        GOOD("-1"),
        GOOD("10"),
        GOOD("123456789012345678901234567890"),
        GOOD("0.5"),
        GOOD("-0.0"),
        GOOD("1.25e10"),
        GOOD("0e1"),
        GOOD("0e+1"),
        GOOD("1E5"),
        GOOD("1E+2"),
        GOOD("1E-2"),
        GOOD("1e00"),
        GOOD("1e999999"),
        GOOD("-123.456e-789"),
        GOOD("[0,1,-2]"),
        BAD("-", 1),
        BAD("+1", 0),
        BAD("01", 1),
        BAD("-01", 2),
        BAD("00", 1),
        BAD("[012]", 2),
        BAD("1.", 2),
        BAD("1.e1", 2),
        BAD(".5", 0),
        BAD("-.5", 1),
        BAD("1e", 2),
        BAD("1e+", 3),
        BAD("1E-", 3),
        BAD("1eE2", 2),
        BAD("1e1.5", 3),
        BAD("1.2.3", 3),
        BAD("1 000", 2),
        BAD("--1", 1),
        BAD("-a", 1),
        BAD("- 1", 1),
        BAD("0x1F", 1),
        BAD("1_000", 1),
        BAD("1a", 1),
        BAD("[1a]", 2),
        BAD("\xef\xbc\x91", 0), /* fullwidth 1 */
        BAD("1\0", 1),
        BAD("[1]\0", 3),

        /* strings */
        GOOD("\"\""),
        GOOD("\"a\""),
        GOOD("\"" LONG "\""),
        GOOD("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
        GOOD("\"\\u0000\""),
        GOOD("\"\\u0020\\uABCD\\uabcd\\u12eF\""),
        GOOD("\"\\ud83d\\ude00\""),
        GOOD("\"\\ud800\""), /* a lone surrogate is grammatical */
        GOOD("\"\\udc00\\ud800\""),
        GOOD("\"\\ud800\\ud800\\udc00\""),
        GOOD("\"\x7f\""),
        GOOD("\"\xc2\x80\xdf\xbf\""),
        GOOD("\"\xe0\xa0\x80\xef\xbf\xbd\""),
        GOOD("\"\xed\x9f\xbf\xee\x80\x80\""),
        GOOD("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbd\""),
        GOOD("\"\xe2\x80\xa8\xe2\x80\xa9\""), /* U+2028, U+2029 */
        GOOD("\"\xef\xbb\xbf\""),             /* a byte order mark inside */
        GOOD("\"/* no comment */\""),
        BAD("\"", 1),
        BAD("\"a", 2),
        BAD("\"" LONG, 33),
        BAD("\"\\", 2),
        BAD("\"\\\"", 3),
        BAD("\"\\x41\"", 2),
        BAD("\"\\a\"", 2),
        BAD("\"\\'\"", 2),
        BAD("\"\\0\"", 2),
        BAD("\"\\U0041\"", 2),
        BAD("\"\\\0\"", 2),
        BAD("\"\\\n\"", 2),
        BAD("\"\\\xc3\xa9\"", 2),
        BAD("\"\\u\"", 3),
        BAD("\"\\u", 3),
        BAD("\"\\u1", 4),
        BAD("\"\\u12\"", 5),
        BAD("\"\\u123\"", 6),
        BAD("\"\\u123g\"", 6),
        BAD("\"\\u 123\"", 3),
        BAD("\"\\u+123\"", 3),
        BAD("\"\\u12\0"
            "4\"",
            5),
        BAD("\"\\ud83d\\u\"", 9),
        BAD("\"\0\"", 1),
        BAD("\"a\0b\"", 2),
        BAD("\"\x01\"", 1),
        BAD("\"\n\"", 1),
        BAD("\"\r\"", 1),
        BAD("\"\t\"", 1),
        BAD("\"\x1f\"", 1),
        BAD("\"" LONG "\x1f\"", 33),
        BAD("\"0123\n" LONG "\"", 5),
        BAD("\"a\"b\"", 3),
        BAD("\"a\" \"b\"", 4),
        BAD("'a\"", 0),

        /* invalid UTF-8, also outside of strings */
        BAD("\"\x80\"", 1),
        BAD("\"\xbf\"", 1),
        BAD("\"\xc0\x80\"", 1),
        BAD("\"\xc1\xbf\"", 1),
        BAD("\"\xe0\x80\x80\"", 1),
        BAD("\"\xe0\x9f\xbf\"", 1),
        BAD("\"\xf0\x80\x80\x80\"", 1),
        BAD("\"\xf0\x8f\xbf\xbf\"", 1),
        BAD("\"\xed\xa0\x80\"", 1),
        BAD("\"\xed\xb0\x80\"", 1),
        BAD("\"\xed\xa0\xbd\xed\xb8\x80\"", 1), /* CESU-8 */
        BAD("\"\xf4\x90\x80\x80\"", 1),
        BAD("\"\xf5\x80\x80\x80\"", 1),
        BAD("\"\xf8\x88\x80\x80\x80\"", 1),
        BAD("\"\xfc\x84\x80\x80\x80\x80\"", 1),
        BAD("\"\xfe\"", 1),
        BAD("\"\xff\"", 1),
        BAD("\"\xc3\"", 1),
        BAD("\"\xc3", 1),
        BAD("\"\xe2\x82\"", 1),
        BAD("\"\xe2\x82", 1),
        BAD("\"\xf0\x9f\x98\"", 1),
        BAD("\"\xf0\x9f\x98", 1),
        BAD("\"\xc3\x28\"", 1),
        BAD("\"\xe2\x28\xa1\"", 1),
        BAD("\"ok \xe9t\xe9\"", 4), /* Latin-1 */
        BAD("\"" LONG "\xff\"", 33),
        BAD("{\"\xff\":1}", 2),
        BAD("\xef\xbb\xbf{}", 0), /* a byte order mark in front */
        BAD("\xff\xfe{\0}\0", 0), /* UTF-16 */
        BAD("[\xff]", 1),
        BAD("1\xc3\xa9", 1),

        /* arrays */
        GOOD("[]"),
        GOOD("[[]]"),
        GOOD("[[],[]]"),
        GOOD("[1,\"a\",null,true,false,{},[]]"),
        BAD("[", 1),
        BAD("[1", 2),
        BAD("[1,", 3),
        BAD("[1,]", 3),
        BAD("[,1]", 1),
        BAD("[,]", 1),
        BAD("[1,,2]", 3),
        BAD("[1 2]", 3),
        BAD("[1:2]", 2),
        BAD("[\"a\":1]", 4),
        BAD("]", 0),
        BAD("[]]", 2),
        BAD("[}", 1),
        BAD("[1}", 2),
        BAD("[[]", 3),
        BAD("[[] []]", 4),
        BAD("[1]x", 3),
        BAD("[1] // comment", 4),

        /* objects */
        GOOD("{}"),
        GOOD("{\"\":0}"),
        GOOD("{\"a\":{\"b\":{}},\"c\":[{}]}"),
        GOOD("{\"a\":1,\"a\":2}"),
        GOOD("{\"a\":1,\"\\u0061\":2}"),
        GOOD("{\"a\\\"b\":\"}\"}"),
        BAD("{", 1),
        BAD("}", 0),
        BAD("{}}", 2),
        BAD("{]", 1),
        BAD("{\"a\"", 4),
        BAD("{\"a\":", 5),
        BAD("{\"a\":1", 6),
        BAD("{\"a\":1,", 7),
        BAD("{\"a\":1,}", 7),
        BAD("{,\"a\":1}", 1),
        BAD("{\"a\":1,,\"b\":2}", 7),
        BAD("{\"a\":1 \"b\":2}", 7),
        BAD("{\"a\" 1}", 5),
        BAD("{\"a\",1}", 4),
        BAD("{\"a\"::1}", 5),
        BAD("{\"a\":}", 5),
        BAD("{a:1}", 1),
        BAD("{'a':1}", 1),
        BAD("{1:1}", 1),
        BAD("{null:1}", 1),
        BAD("{\"a\":1]", 6),
        BAD("{\"a\":[1}", 7),
        BAD("{\"a\":1}{}", 7),
        BAD("{\"a\":1}#", 7),
        BAD("{/**/}", 1),
        BAD("{\"a\":\"\n\"}", 6),

        /* white space */
        GOOD(" 1"),
        GOOD("1 "),
        GOOD(" \t\r\n1 \t\r\n"),
        GOOD(" [ ] "),
        GOOD("\t{\t}\t"),
        GOOD("{\r\n\"a\"\r\n:\r\n1\r\n,\r\n\"b\" : [ 1 , 2 ]\r\n}\r\n"),
        BAD(" ", 1),
        BAD("\n\n", 2),
        BAD("\f1", 0),
        BAD("1\f", 1),
        BAD("\v1", 0),
        BAD("\xc2\xa0"
            "1",
            0),                   /* no-break space */
        BAD("1\xe2\x80\xa8", 1),  /* U+2028 */
        BAD("[\xe2\x81\xa0]", 1), /* word joiner */
        BAD("\0"
            "1",
            0),
        BAD("[1,\0"
            "2]",
            3),
};

static void test_accept_and_reject(void) {
        _Static_assert(ELEMENTSOF(rows) >= 120, "a table worth its name");

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_(freep) char *text = exact(rows[i].text, rows[i].size);
                JsonMember member = { .name = "a" };
                JsonError error = { .offset = 12345 };
                int r, s;

                r = json_scan(text, rows[i].size, 64, NULL, 0, NULL, &error);
                s = json_scan(text, rows[i].size, 64, &member, 1, NULL, NULL);
                if (r != rows[i].result || s != r || (r < 0 && error.offset != rows[i].offset)) {
                        fprintf(stderr, "row %zu: %d, with members %d, offset %zu for ", i, r, s, error.offset);
                        print_bytes(rows[i].text, rows[i].size);
                }
                assert_number(r, rows[i].result);
                assert_number(s, r);
                if (r == 0)
                        continue;

                assert_number(error.offset, rows[i].offset);
                assert_true(error.reason && *error.reason);

                /* Looking for members changes nothing about an error. */
                error = (JsonError){};
                (void)json_scan(text, rows[i].size, 64, &member, 1, NULL, &error);
                assert_number(error.offset, rows[i].offset);
        }
}

/* Each valid text is valid inside of containers too, and comes out of them as it went in. */
static void test_contained(void) {
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Buffer buffer = {};
                JsonSlice value, whole, key;
                JsonTraits traits;
                const char *position = NULL;

                if (rows[i].result < 0)
                        continue;

                value = (JsonSlice){ rows[i].text, rows[i].size };
                while (strchr(" \t\r\n", value.data[0])) {
                        value.data++;
                        value.size--;
                }
                while (strchr(" \t\r\n", value.data[value.size - 1]))
                        value.size--;

                assert_number(buffer_append_string(&buffer, "[ {\t\"k\"\n:\r"), 0);
                assert_number(buffer_append(&buffer, value.data, value.size), 0);
                assert_number(buffer_append_string(&buffer, " } ,"), 0);
                assert_number(buffer_append(&buffer, value.data, value.size), 0);
                assert_number(buffer_append_string(&buffer, "\n]"), 0);
                whole = (JsonSlice){ buffer_data(&buffer), buffer_size(&buffer) };
                assert_number(json_scan(whole.data, whole.size, 64, NULL, 0, &traits, NULL), 0);
                assert_true(traits.newlines);

                assert_true(json_next_element(whole, &position, &key));
                key = json_get(key, "k");
                assert_bytes(key.data, key.size, value.data, value.size);
                assert_true(json_next_element(whole, &position, &key));
                assert_bytes(key.data, key.size, value.data, value.size);
                assert_false(json_next_element(whole, &position, &key));
                buffer_done(&buffer);
        }
}

static int scan_nested(const char *open, const char *close, unsigned n, unsigned depth_max, size_t *ret_offset) {
        static JsonMember member = { .name = "k" };
        Buffer buffer = {};
        JsonError error = {};
        int r, s;

        for (unsigned i = 0; i < n; i++)
                assert_number(buffer_append_string(&buffer, open), 0);
        for (unsigned i = 0; i < n; i++)
                assert_number(buffer_append_string(&buffer, close), 0);

        r = json_scan(buffer_data(&buffer), buffer_size(&buffer), depth_max, NULL, 0, NULL, &error);
        *ret_offset = error.offset;
        s = json_scan(buffer_data(&buffer), buffer_size(&buffer), depth_max, &member, 1, NULL, &error);
        assert_number(s, r);
        assert_number(error.offset, *ret_offset);
        buffer_done(&buffer);
        return r;
}

static void test_depth(void) {
        static const unsigned limits[] = { 1, 2, 5, 63, 64, 65, 127, 128, 1023, 1024 };
        size_t offset;

        for (size_t i = 0; i < ELEMENTSOF(limits); i++) {
                unsigned limit = limits[i];

                assert_number(scan_nested("[", "]", limit, limit, &offset), 0);
                assert_number(scan_nested("[", "]", limit + 1, limit, &offset), -E2BIG);
                assert_number(offset, limit);
                if (limit > 1)
                        assert_number(scan_nested("{\"k\":[", "]}", limit / 2, limit, &offset), 0);
                assert_number(scan_nested("{\"k\":[", "]}", limit / 2 + 1, limit, &offset), -E2BIG);
                assert_number(scan_nested("[", "", limit + 1, limit, &offset), -E2BIG);
                assert_number(scan_nested("[", "", limit, limit, &offset), -EBADMSG);
                assert_number(offset, limit);
        }

        assert_number(scan_nested("[", "]", 10000, JSON_DEPTH_MAX, &offset), -E2BIG);
        assert_number(offset, JSON_DEPTH_MAX);
        assert_number(scan_nested("{\"k\":", "}", 10000, 64, &offset), -E2BIG);
        assert_number(offset, 64 * strlen("{\"k\":"));
        assert_number(scan_nested("[", "", 100000, 64, &offset), -E2BIG);

        /* More than JSON_DEPTH_MAX is not to be had. */
        assert_number(scan_nested("[", "]", 1025, UINT32_MAX, &offset), -E2BIG);
        assert_number(json_scan("1", 1, 0, NULL, 0, NULL, NULL), 0);
        assert_number(json_scan("{}", 2, 0, NULL, 0, NULL, NULL), -E2BIG);

        /* Depth is how deep, not how many. */
        assert_number(json_scan("[[],[],[[]],{},{\"a\":[]}]", 24, 3, NULL, 0, NULL, NULL), 0);
}

/* The kinds of the containers on the way are remembered at every depth. */
static void test_mixed_brackets(void) {
        for (unsigned depth = 1; depth <= 200; depth += 7)
                for (unsigned wrong = 0; wrong <= depth; wrong += 5) {
                        Buffer buffer = {};

                        for (unsigned i = 0; i < depth; i++)
                                assert_number(buffer_append_string(&buffer, i % 3 ? "[" : "{\"k\":"), 0);
                        assert_number(buffer_append_string(&buffer, "1"), 0);
                        for (unsigned i = depth; i-- > 0;)
                                assert_number(buffer_append_string(&buffer, (i % 3 == 0) != (i == wrong) ? "}" : "]"),
                                              0);
                        assert_number(json_scan(buffer_data(&buffer), buffer_size(&buffer), 256, NULL, 0, NULL, NULL),
                                      wrong < depth ? -EBADMSG : 0);
                        buffer_done(&buffer);
                }
}

static void test_members(void) {
        static const char text[] =
                " { \"b\" : 1 ,\n\"a\":[ {\"c\":0} ] , \"x\\\"\" :2,\"\\u005fmeta\"\t: {\"a\":5}, \"b\":\"two\"}\n";
        JsonMember members[] = {
                { .name = "a" }, { .name = "b" }, { .name = "c" }, { .name = "_meta" }, { .name = "x\"" },
        };

        assert_number(json_scan(text, strlen(text), 64, members, ELEMENTSOF(members), NULL, NULL), 0);
        assert_number(members[0].count, 1);
        assert_slice(members[0].key, "\"a\"");
        assert_slice(members[0].value, "[ {\"c\":0} ]");
        assert_number(members[1].count, 2);
        assert_slice(members[1].key, "\"b\"");
        assert_slice(members[1].value, "\"two\"");
        assert_number(members[2].count, 0);
        assert_true(!members[2].value.data && !members[2].key.data);
        assert_number(members[3].count, 1);
        assert_slice(members[3].key, "\"\\u005fmeta\"");
        assert_slice(members[3].value, "{\"a\":5}");
        assert_number(members[4].count, 1);
        assert_slice(members[4].value, "2");
        assert_true(members[1].key.data > members[3].value.data && members[1].key.data < text + sizeof(text));

        /* What an earlier scan found is forgotten. */
        assert_number(json_scan("[{\"a\":1}]", 9, 64, members, ELEMENTSOF(members), NULL, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(members); i++)
                assert_true(members[i].count == 0 && !members[i].value.data && members[i].name);
        assert_number(json_scan("{}", 2, 64, members, ELEMENTSOF(members), NULL, NULL), 0);
        assert_number(json_scan("7", 1, 64, members, ELEMENTSOF(members), NULL, NULL), 0);
        assert_number(members[0].count, 0);
}

static void test_traits(void) {
        static const struct {
                const char *text;
                bool newlines, noncharacters;
                const char *appended;
        } table[] = {
                { "{\"a\":1}", false, false, "{\"a\":1}" },
                { "{ \"a\" :\t1 }", false, false, "{ \"a\" :\t1 }" },
                { "{\n\"a\"\r:\r\n1}", true, false, "{\"a\":1}" },
                { "[1,\r2]", true, false, "[1,2]" },
                { "\"\\n\\r\"", false, false, "\"\\n\\r\"" },
                { "\"\xef\xbf\xbd\"", false, false, "\"\xef\xbf\xbd\"" },
                { "\"\\uffff\"", false, false, "\"\\uffff\"" },
                { "\"\xef\xbf\xbe\"", false, true, "\"\\ufffe\"" },
                { "\"\xef\xbf\xbf\"", false, true, "\"\\uffff\"" },
                { "\"\xef\xb7\x90\xef\xb7\xaf\"", false, true, "\"\\ufdd0\\ufdef\"" },
                { "\"\xef\xb7\x8f\xef\xb7\xb0\"", false, false, "\"\xef\xb7\x8f\xef\xb7\xb0\"" },
                { "\"\xf0\x9f\xbf\xbe\"", false, true, "\"\\ud83f\\udffe\"" },
                { "\"a\xf4\x8f\xbf\xbf"
                  "b\"",
                  false, true, "\"a\\udbff\\udfffb\"" },
                { "{\"k\xef\xbf\xbf\":\n\"\xe2\x82\xac\xef\xbf\xbe\xf0\x9f\x98\x80\"}", true, true,
                  "{\"k\\uffff\":\"\xe2\x82\xac\\ufffe\xf0\x9f\x98\x80\"}" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                JsonTraits traits = {}, again = {};
                Buffer buffer = {};

                assert_number(json_scan(table[i].text, strlen(table[i].text), 64, NULL, 0, &traits, NULL), 0);
                assert_number(traits.newlines, table[i].newlines);
                assert_number(traits.noncharacters, table[i].noncharacters);
                assert_number(buffer_append_string(&buffer, "before "), 0);
                assert_number(json_append(&buffer, SLICE(table[i].text), &traits), 0);
                assert_bytes(buffer_data(&buffer), 7, "before ", 7);
                buffer_consume(&buffer, 7);
                assert_bytes(buffer_data(&buffer), buffer_size(&buffer), table[i].appended, strlen(table[i].appended));
                assert_number(json_scan(buffer_data(&buffer), buffer_size(&buffer), 64, NULL, 0, &again, NULL), 0);
                assert_false(again.newlines || again.noncharacters);
                buffer_done(&buffer);
        }
}

/* All 66 of them: noticed, escaped, replaced when decoded; raw or escaped, the text is the same. */
static void test_every_noncharacter(void) {
        unsigned n = 0;

        for (unsigned c = 0xfdd0; c <= 0x10ffff; c++) {
                char raw[5] = "", quoted[8];
                JsonTraits traits;
                Buffer buffer = {};
                JsonSlice escaped;
                _cleanup_(freep) char *decoded = NULL, *decoded_raw = NULL;

                if (!utf8_noncharacter(c))
                        continue;
                n++;

                if (c < 0x10000)
                        memcpy(raw, (char[]){ 0xe0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63) }, 3);
                else
                        memcpy(raw,
                               (char[]){ 0xf0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63), 0x80 | (c & 63) },
                               4);
                (void)snprintf(quoted, sizeof(quoted), "\"%s\"", raw);
                assert_number(json_scan(quoted, strlen(quoted), 1, NULL, 0, &traits, NULL), 0);
                assert_true(traits.noncharacters);

                assert_number(json_append(&buffer, SLICE(quoted), &traits), 0);
                for (size_t i = 0; i < buffer_size(&buffer); i++)
                        assert_true((unsigned char)buffer_data(&buffer)[i] < 0x80);
                escaped = (JsonSlice){ buffer_data(&buffer), buffer_size(&buffer) };
                decoded = json_decode(escaped);
                assert_string(decoded, "\xef\xbf\xbd");
                decoded_raw = json_decode(SLICE(quoted));
                assert_string(decoded_raw, "\xef\xbf\xbd");
                assert_number(json_equal(escaped, raw), json_equal(SLICE(quoted), raw));
                assert_number(json_equal(escaped, "\xef\xbf\xbd"), json_equal(SLICE(quoted), "\xef\xbf\xbd"));
                buffer_done(&buffer);
        }
        assert_number(n, 66);
}

static void test_append_quoted(void) {
        static const struct {
                const char *data;
                size_t size;
                const char *decoded;
        } table[] = {
                { "", 0, "" },
                { "plain", 5, "plain" },
                { "\"\\/", 3, "\"\\/" },
                { "a\nb\rc\td\x01\x1f\x7f", 10, "a\nb\rc\td\x01\x1f\x7f" },
                { "\xe2\x82\xac\xf0\x9f\x98\x80", 7, "\xe2\x82\xac\xf0\x9f\x98\x80" },
                { "a\xff"
                  "b",
                  3,
                  "a\xef\xbf\xbd"
                  "b" },
                { "\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
                { "\xe2\x82", 2, "\xef\xbf\xbd\xef\xbf\xbd" },
                { "a\0b", 3,
                  "a\xef\xbf\xbd"
                  "b" }, /* json_decode() replaces U+0000 */
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_(freep) char *data = exact(table[i].data, table[i].size), *decoded = NULL;
                JsonTraits traits;
                Buffer buffer = {};

                assert_number(json_append_quoted(&buffer, data, table[i].size), 0);
                assert_number(json_scan(buffer_data(&buffer), buffer_size(&buffer), 1, NULL, 0, &traits, NULL), 0);
                assert_false(traits.newlines);
                decoded = json_decode((JsonSlice){ buffer_data(&buffer), buffer_size(&buffer) });
                assert_string(decoded, table[i].decoded);
                buffer_done(&buffer);
        }
}

static void test_next_element(void) {
        const char *text = "[ 1 ,\n\"a,]\" ,\t[ 2,[3] ] , {\"b\" : [ ] } ,null\r\n]", *position = NULL;
        static const char *const wanted[] = { "1", "\"a,]\"", "[ 2,[3] ]", "{\"b\" : [ ] }", "null" };
        JsonSlice element;

        assert_number(json_scan(text, strlen(text), 64, NULL, 0, NULL, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(wanted); i++) {
                assert_true(json_next_element(SLICE(text), &position, &element));
                assert_slice(element, wanted[i]);
        }
        assert_false(json_next_element(SLICE(text), &position, &element));
        assert_false(json_next_element(SLICE(text), &position, &element));

        position = NULL;
        assert_false(json_next_element(SLICE("[]"), &position, &element));
        position = NULL;
        assert_false(json_next_element(SLICE("[ \r\n ]"), &position, &element));
        position = NULL;
        assert_false(json_next_element(SLICE("\"[1]\""), &position, &element));
        position = NULL;
        assert_false(json_next_element(SLICE("12"), &position, &element));
        position = NULL;
        assert_false(json_next_element((JsonSlice){}, &position, &element));
        position = NULL;
        assert_true(json_next_element(SLICE("[[[]]]"), &position, &element));
        assert_slice(element, "[[]]");
}

static void test_next_member(void) {
        const char *text = "{\"a\":1,\"b \" : { \"c\" : [ 1 , 2 ] } ,\r\n\"\\\"}\"\t:\"{\\\"\" , \"\":[]\n}",
                   *position = NULL;
        static const char *const wanted[][2] = {
                { "\"a\"", "1" },
                { "\"b \"", "{ \"c\" : [ 1 , 2 ] }" },
                { "\"\\\"}\"", "\"{\\\"\"" },
                { "\"\"", "[]" },
        };
        JsonSlice key, value;

        assert_number(json_scan(text, strlen(text), 64, NULL, 0, NULL, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(wanted); i++) {
                assert_true(json_next_member(SLICE(text), &position, &key, &value));
                assert_slice(key, wanted[i][0]);
                assert_slice(value, wanted[i][1]);
        }
        assert_false(json_next_member(SLICE(text), &position, &key, &value));

        position = NULL;
        assert_false(json_next_member(SLICE("{}"), &position, &key, &value));
        position = NULL;
        assert_false(json_next_member(SLICE("{ \t\n}"), &position, &key, &value));
        position = NULL;
        assert_false(json_next_member(SLICE("[\"a\",1]"), &position, &key, &value));
        position = NULL;
        assert_false(json_next_member((JsonSlice){}, &position, &key, &value));
}

static void test_get(void) {
        JsonSlice object = SLICE("{\"a\":1,\"b\":{\"a\":2},\"\\u0061\":3,\"c\\/d\":4}");

        assert_slice(json_get(object, "a"), "3");
        assert_slice(json_get(json_get(object, "b"), "a"), "2");
        assert_slice(json_get(object, "c/d"), "4");
        assert_true(!json_get(object, "d").data);
        assert_true(!json_get(object, "").data);
        assert_true(!json_get(object, "A").data);
        assert_true(!json_get(SLICE("[\"a\",1]"), "a").data);
        assert_true(!json_get(SLICE("\"a\""), "a").data);
        assert_true(!json_get((JsonSlice){}, "a").data);
        assert_slice(json_get(SLICE("{\"\":5}"), ""), "5");
}

static void test_equal(void) {
        assert_true(json_equal(SLICE("\"\""), ""));
        assert_true(json_equal(SLICE("\"abc\""), "abc"));
        assert_true(json_equal(SLICE("\"\\u0061b\\u0063\""), "abc"));
        assert_true(json_equal(SLICE("\"\\n\\t\\/\\\\\\\"\""), "\n\t/\\\""));
        assert_true(json_equal(SLICE("\"\\ud83d\\ude00\""), "\xf0\x9f\x98\x80"));
        assert_true(json_equal(SLICE("\"\xf0\x9f\x98\x80\""), "\xf0\x9f\x98\x80"));
        assert_false(json_equal(SLICE("\"abc\""), "ab"));
        assert_false(json_equal(SLICE("\"ab\""), "abc"));
        assert_false(json_equal(SLICE("\"\\u0061bc\""), "ab"));
        assert_false(json_equal(SLICE("\"\\u0061b\""), "abc"));
        assert_false(json_equal(SLICE("\"\\u20ac\""), "\xe2"));
        assert_false(json_equal(SLICE("\"a\\u0000b\""), "a"));
        assert_false(json_equal(SLICE("12"), "12"));
        assert_false(json_equal(SLICE("null"), "null"));
        assert_false(json_equal((JsonSlice){}, ""));
}

static void test_decode(void) {
        static const struct {
                const char *text, *wanted; /* NULL: no string */
        } table[] = {
                { "\"\"", "" },
                { "\"plain\"", "plain" },
                { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
                { "\"\\u0041\\u007f\"", "A\x7f" },
                { "\"\\u0080\\u07ff\"", "\xc2\x80\xdf\xbf" },
                { "\"\\u0800\\uFFFd\"", "\xe0\xa0\x80\xef\xbf\xbd" },
                { "\"\\ud800\\udc00\"", "\xf0\x90\x80\x80" },
                { "\"\\uDBFF\\uDFFD\"", "\xf4\x8f\xbf\xbd" },
                { "\"\\u0000\"", "\xef\xbf\xbd" },
                { "\"a\\u0000b\"", "a\xef\xbf\xbd"
                                   "b" },
                { "\"\\ud800\"", "\xef\xbf\xbd" },
                { "\"\\udc00\"", "\xef\xbf\xbd" },
                { "\"\\ud800x\"", "\xef\xbf\xbdx" },
                { "\"\\ud800\\n\"", "\xef\xbf\xbd\n" },
                { "\"\\ud800\\u0041\"", "\xef\xbf\xbd"
                                        "A" },
                { "\"\\udc00\\ud800\"", "\xef\xbf\xbd\xef\xbf\xbd" },
                { "\"\\ud800\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
                { "\"\\ud83d\\ude00\\ude00\"", "\xf0\x9f\x98\x80\xef\xbf\xbd" },
                { "\"\\\\ud800\"", "\\ud800" },
                { "\"\xe2\x82\xac\"", "\xe2\x82\xac" },
                { "12", NULL },
                { "null", NULL },
                { "{}", NULL },
                { "[\"a\"]", NULL },
                { "", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_(freep) char *text = exact(table[i].text, strlen(table[i].text));
                JsonSlice value = { text, strlen(table[i].text) };
                _cleanup_(freep) char *decoded = json_decode(value);

                if (!table[i].wanted) {
                        assert_true(!decoded);
                        continue;
                }
                assert_string(decoded, table[i].wanted);
                assert_true(json_equal(value, table[i].wanted));
        }
        assert_true(!json_decode((JsonSlice){}));
}

static void test_unsigned(void) {
        static const struct {
                const char *text;
                bool good;
                uint64_t number;
        } table[] = {
                { "0", true, 0 },
                { "1", true, 1 },
                { "4294967296", true, UINT64_C(4294967296) },
                { "9223372036854775807", true, INT64_MAX },
                { "9999999999999999999", true, UINT64_C(9999999999999999999) },
                { "18446744073709551616", false, 0 },
                { "99999999999999999999", false, 0 },
                { "100000000000000000000000000", false, 0 },
                { "-0", false, 0 },
                { "-1", false, 0 },
                { "1.0", false, 0 },
                { "1e3", false, 0 },
                { "\"1\"", false, 0 },
                { "null", false, 0 },
                { "[1]", false, 0 },
                { "", false, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                uint64_t number = 77;

                assert_number(json_unsigned(SLICE(table[i].text), &number), table[i].good);
                assert_number(number, table[i].good ? table[i].number : 77);
        }
        assert_false(json_unsigned((JsonSlice){}, &(uint64_t){ 0 }));
}

/* "that fits" is up to 2^64 - 1. */
static void test_unsigned_largest(void) {
        uint64_t number = 0;

        assert_true(json_unsigned(SLICE("10000000000000000000"), &number));
        assert_true(number == UINT64_C(10000000000000000000));
        assert_true(json_unsigned(SLICE("18446744073709551615"), &number));
        assert_true(number == UINT64_MAX);
}

int main(void) {
        test_accept_and_reject();
        test_contained();
        test_depth();
        test_mixed_brackets();
        test_members();
        test_traits();
        test_every_noncharacter();
        test_append_quoted();
        test_next_element();
        test_next_member();
        test_get();
        test_equal();
        test_decode();
        test_unsigned();
        test_unsigned_largest();
        return 0;
}
