#include "base/text.h"

#include "base/macro.h"
#include "unit.h"

#define BYTES(text) (text), sizeof(text) - 1

static void test_utf8_good(void) {
        static const struct {
                const char *data;
                size_t size;
                unsigned character;
        } rows[] = {
                { BYTES("\0"), 0 },
                { BYTES("A"), 'A' },
                { BYTES("\x7f"), 0x7f },
                { BYTES("\xc2\x80"), 0x80 },
                { BYTES("\xdf\xbf"), 0x7ff },
                { BYTES("\xe0\xa0\x80"), 0x800 },
                { BYTES("\xe2\x82\xac"), 0x20ac },
                { BYTES("\xed\x9f\xbf"), 0xd7ff },
                { BYTES("\xee\x80\x80"), 0xe000 },
                { BYTES("\xef\xbf\xbf"), 0xffff },
                { BYTES("\xf0\x90\x80\x80"), 0x10000 },
                { BYTES("\xf0\x9f\x98\x80"), 0x1f600 },
                { BYTES("\xf4\x8f\xbf\xbf"), 0x10ffff },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                char longer[8];
                unsigned character = 1234;

                assert_number(utf8_sequence(rows[i].data, rows[i].size, &character), rows[i].size);
                assert_number(character, rows[i].character);
                assert_number(utf8_sequence(rows[i].data, rows[i].size, NULL), rows[i].size);

                /* More behind it is not looked at; less is not enough. */
                memset(longer, '\xff', sizeof(longer));
                memcpy(longer, rows[i].data, rows[i].size);
                assert_number(utf8_sequence(longer, sizeof(longer), NULL), rows[i].size);
                for (size_t size = 0; size < rows[i].size; size++)
                        assert_number(utf8_sequence(rows[i].data, size, NULL), 0);
        }
}

static void test_utf8_bad(void) {
        static const struct {
                const char *data;
                size_t size;
        } rows[] = {
                { BYTES("") },
                { BYTES("\x80") }, /* continuation alone */
                { BYTES("\xbf") },
                { BYTES("\xc0\x80") }, /* overlong */
                { BYTES("\xc0\xaf") },
                { BYTES("\xc1\xbf") },
                { BYTES("\xe0\x80\x80") },
                { BYTES("\xe0\x9f\xbf") },
                { BYTES("\xf0\x80\x80\x80") },
                { BYTES("\xf0\x8f\xbf\xbf") },
                { BYTES("\xed\xa0\x80") }, /* surrogates */
                { BYTES("\xed\xaf\xbf") },
                { BYTES("\xed\xb0\x80") },
                { BYTES("\xed\xbf\xbf") },
                { BYTES("\xf4\x90\x80\x80") }, /* past U+10FFFF */
                { BYTES("\xf7\xbf\xbf\xbf") },
                { BYTES("\xf8\x88\x80\x80\x80") },
                { BYTES("\xfc\x84\x80\x80\x80\x80") },
                { BYTES("\xfe") },
                { BYTES("\xff") },
                { BYTES("\xc3\x28") }, /* the second byte is none */
                { BYTES("\xe2\x28\xa1") },
                { BYTES("\xe2\x82\x28") },
                { BYTES("\xf0\x28\x8c\xbc") },
                { BYTES("\xf0\x90\x28\xbc") },
                { BYTES("\xf0\x90\x8c\x28") },
                { BYTES("\xc3\xc3\xa9") },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_number(utf8_sequence(rows[i].data, rows[i].size, NULL), 0);
}

static void test_noncharacters(void) {
        unsigned n = 0;

        for (unsigned character = 0; character <= 0x10ffff; character++)
                n += utf8_noncharacter(character);
        assert_number(n, 66);

        assert_true(utf8_noncharacter(0xfdd0));
        assert_true(utf8_noncharacter(0xfdef));
        assert_true(utf8_noncharacter(0xfffe));
        assert_true(utf8_noncharacter(0xffff));
        assert_true(utf8_noncharacter(0x1fffe));
        assert_true(utf8_noncharacter(0x10ffff));
        assert_false(utf8_noncharacter(0));
        assert_false(utf8_noncharacter(0xfdcf));
        assert_false(utf8_noncharacter(0xfdf0));
        assert_false(utf8_noncharacter(0xfffd));
        assert_false(utf8_noncharacter(0x10000));
        assert_false(utf8_noncharacter(0x10fffd));
}

static void test_escape(void) {
        static const struct {
                const char *data;
                size_t size, max;
                const char *wanted;
        } rows[] = {
                { BYTES(""), 100, "" },
                { BYTES("plain text"), 100, "plain text" },
                { BYTES("Gr\xc3\xbc\xc3\x9f"
                        "e \xf0\x9f\x98\x80"),
                  100,
                  "Gr\xc3\xbc\xc3\x9f"
                  "e \xf0\x9f\x98\x80" },
                { BYTES("a\nb\tc\rd"), 100, "a\\x0ab\\x09c\\x0dd" },
                { BYTES("\0"), 100, "\\x00" },
                { BYTES("\x1b[31mred"), 100, "\\x1b[31mred" },
                { BYTES("\x7f"), 100, "\\x7f" },
                { BYTES("\xc2\x85"), 100, "\\xc2\\x85" }, /* NEL, a control character */
                { BYTES("\xc2\xa0"), 100, "\xc2\xa0" },
                { BYTES("\xe2\x80\xa8"), 100, "\\xe2\\x80\\xa8" }, /* LINE SEPARATOR */
                { BYTES("\xe2\x80\xae"), 100, "\\xe2\\x80\\xae" }, /* RIGHT-TO-LEFT OVERRIDE */
                { BYTES("\xef\xbb\xbf"), 100, "\\xef\\xbb\\xbf" }, /* BYTE ORDER MARK */
                { BYTES("\xff"
                        "a\xc3"),
                  100, "\\xffa\\xc3" },
                { BYTES("\xed\xa0\x80"), 100, "\\xed\\xa0\\x80" },
                { BYTES("\xef\xbf\xbe"), 100, "\\xef\\xbf\\xbe" }, /* U+FFFE */
                { BYTES("\xef\xbf\xbd"), 100, "\xef\xbf\xbd" },
                { BYTES("\xf0\x9f\xbf\xbf"), 100, "\\xf0\\x9f\\xbf\\xbf" }, /* U+1FFFF */
                /* cut */
                { BYTES("0123456789"), 10, "0123456789" },
                { BYTES("0123456789"), 9, "012345..." },
                { BYTES("0123456789"), 4, "0..." },
                { BYTES("0123456789"), 3, "..." },
                { BYTES("01\xe2\x82\xac"
                        "56789"),
                  7, "01..." },
                { BYTES("01\xe2\x82\xac"
                        "56789"),
                  8, "01\xe2\x82\xac..." },
                { BYTES("0\xff"
                        "23456789"),
                  7, "0..." },
                { BYTES("\xff\xff"), 8, "\\xff\\xff" },
                { BYTES("\xff\xff\xff"), 11, "\\xff\\xff..." },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_(freep) char *text = text_escape(rows[i].data, rows[i].size, rows[i].max);

                assert_string(text, rows[i].wanted);
        }
}

/* Whatever goes in, what comes out has at most max bytes and is clean, so a second pass changes nothing. */
static void test_escape_any_bytes(void) {
        unsigned random = 7;

        for (int round = 0; round < 3000; round++) {
                _cleanup_(freep) char *data = NULL, *text = NULL, *again = NULL;
                size_t size = round % 40, max = 3 + round % 61;

                data = malloc(size);
                assert_true(data || size == 0);
                for (size_t i = 0; i < size; i++) {
                        random = random * 1103515245 + 12345;
                        data[i] = random >> 16;
                }

                text = text_escape(data, size, max);
                assert_true(text);
                assert_true(strlen(text) <= max);
                again = text_escape(text, strlen(text), 1000);
                assert_string(again, text);
        }
}

static void test_is_name(void) {
        char name[66];

        assert_true(text_is_name("a"));
        assert_true(text_is_name("everything-2"));
        assert_true(text_is_name("0"));
        assert_true(text_is_name("-"));
        assert_false(text_is_name(""));
        assert_false(text_is_name("A"));
        assert_false(text_is_name("a_b"));
        assert_false(text_is_name("a b"));
        assert_false(text_is_name("a/b"));
        assert_false(text_is_name("a."));
        assert_false(text_is_name("a\n"));
        assert_false(text_is_name("\xc3\xa9"));

        memset(name, 'x', sizeof(name));
        name[64] = 0;
        assert_true(text_is_name(name));
        name[64] = 'x';
        name[65] = 0;
        assert_false(text_is_name(name));
}

static void test_replace_noncharacters(void) {
        char text[] = "a\xef\xbf\xbe"
                      "b\xf0\x9f\xbf\xbf"
                      "c\xef\xb7\x90\xc3\xa9",
             plain[] = "plain";

        text_replace_noncharacters(text);
        assert_string(text, "a\xef\xbf\xbd"
                            "b\xef\xbf\xbd"
                            "c\xef\xbf\xbd\xc3\xa9");
        text_replace_noncharacters(plain);
        assert_string(plain, "plain");
        text_replace_noncharacters(NULL);
}

static const char *nearest_of(const char *word) {
        static const char *const candidates[] = { "python", "everything", "time", "" };
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < ELEMENTSOF(candidates); i++)
                text_nearer(word, candidates[i], &best, &nearest);
        return nearest ?: "none";
}

static void test_nearer(void) {
        char endless[4096];

        memset(endless, 'x', sizeof(endless));
        endless[sizeof(endless) - 1] = 0;
        assert_string(nearest_of("pyhton"), "python");
        assert_string(nearest_of("pythn"), "python");
        assert_string(nearest_of("everythingg"), "everything");
        assert_string(nearest_of("tame"), "time");
        assert_string(nearest_of("PYTHON"), "python");
        assert_string(nearest_of("unlike"), "none");
        assert_string(nearest_of(endless), "none");
}

int main(void) {
        test_replace_noncharacters();
        test_nearer();
        test_utf8_good();
        test_utf8_bad();
        test_noncharacters();
        test_escape();
        test_escape_any_bytes();
        test_is_name();
        return 0;
}
