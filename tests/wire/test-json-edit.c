#include "wire/json-edit.h"

#include <errno.h>

#include "wire.h"

#define SET(n, v)                                                                                                      \
        { .name = (n), .kind = JSON_SET, .value = JSON_LITERAL(v) }
#define DEFAULT(n, v)                                                                                                  \
        { .name = (n), .kind = JSON_DEFAULT, .value = JSON_LITERAL(v) }
#define REPLACE(n, v)                                                                                                  \
        { .name = (n), .kind = JSON_REPLACE, .value = JSON_LITERAL(v) }
#define REMOVE(n)                                                                                                      \
        { .name = (n), .kind = JSON_REMOVE }

static void test_members(void) {
        static const struct {
                const char *object;
                JsonChange change;
                const char *wanted;
        } rows[] = {
                { NULL, SET("a", "1"), "{\"a\":1}" },
                { "{}", SET("a", "1"), "{\"a\":1}" },
                { "{ }", REMOVE("a"), "{}" },
                { "{\"b\":2}", SET("a", "1"), "{\"b\":2,\"a\":1}" },
                { "{\"a\":0}", SET("a", "1"), "{\"a\":1}" },
                { "{\"a\":0,\"b\":2}", SET("a", "1"), "{\"b\":2,\"a\":1}" },
                { "{\"b\":2,\"a\":0,\"c\":3}", SET("a", "1"), "{\"b\":2,\"c\":3,\"a\":1}" },
                { "{\"a\":0,\"\\u0061\":5,\"b\":2,\"a\":6}", SET("a", "1"), "{\"b\":2,\"a\":1}" },
                { "{\"a\":0}", DEFAULT("a", "1"), "{\"a\":0}" },
                { "{\"a\":null,\"b\":2}", DEFAULT("a", "1"), "{\"a\":null,\"b\":2}" },
                { "{\"b\":2}", DEFAULT("a", "1"), "{\"b\":2,\"a\":1}" },
                { "{\"a\":0,\"b\":2}", REPLACE("a", "1"), "{\"b\":2,\"a\":1}" },
                { "{\"b\":2}", REPLACE("a", "1"), "{\"b\":2}" },
                { "{\"a\":0}", REMOVE("a"), "{}" },
                { "{\"a\":0,\"b\":2}", REMOVE("a"), "{\"b\":2}" },
                { "{\"b\":2,\"a\":0}", REMOVE("a"), "{\"b\":2}" },
                { "{\"b\":2,\"a\":0,\"c\":3}", REMOVE("a"), "{\"b\":2,\"c\":3}" },
                { "{\"b\":{\"a\":1},\"c\":[\"a\"]}", REMOVE("a"), "{\"b\":{\"a\":1},\"c\":[\"a\"]}" },
                /* Bytes that aren't touched stay, white space included. */
                { "{ \"b\" : 2.0e1 , \"c\" : \"\\u0041\\/\" }", REMOVE("a"),
                  "{\"b\" : 2.0e1 , \"c\" : \"\\u0041\\/\"}" },
                { "{\"n\":1}", SET("a\"b", "1"), "{\"n\":1,\"a\\u0022b\":1}" },
                /* No text, no change */
                { "{\"a\":0}", { .name = "a", .kind = JSON_SET }, "{\"a\":0}" },
                { "{}", { .name = "a", .kind = JSON_DEFAULT }, "{}" },
                { "{\"a\":0}", { .name = "a", .kind = JSON_REPLACE }, "{\"a\":0}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                assert_number(json_append_changed(&buffer, piece(rows[i].object), &rows[i].change, 1), 0);
                assert_appended(&buffer, rows[i].wanted);
        }
        buffer_done(&buffer);
}

static void test_order(void) {
        static const JsonChange changes[] = { SET("c", "3"), REMOVE("a"), DEFAULT("b", "9"), SET("d", "4"),
                                              REPLACE("e", "5") };
        Buffer buffer = {};

        start(&buffer);
        assert_number(json_append_changed(&buffer, piece("{\"e\":0,\"x\":1,\"a\":0,\"b\":2,\"c\":0,\"y\":{}}"), changes,
                                          ELEMENTSOF(changes)),
                      0);
        assert_appended(&buffer, "{\"x\":1,\"b\":2,\"y\":{},\"c\":3,\"d\":4,\"e\":5}");
        buffer_done(&buffer);
}

static void test_inside(void) {
        static const JsonChange set[] = { SET("a", "1") }, removal[] = { REMOVE("a") };
        static const struct {
                const char *object;
                const JsonChange *inside;
                const char *wanted;
        } rows[] = {
                { "{}", set, "{\"m\":{\"a\":1}}" },
                { "{\"m\":{\"b\":2},\"n\":1}", set, "{\"n\":1,\"m\":{\"b\":2,\"a\":1}}" },
                { "{\"m\":[1]}", set, "{\"m\":{\"a\":1}}" },
                { "{\"m\":null}", removal, "{}" },
                { "{\"m\":{\"a\":1}}", removal, "{}" },
                { "{\"m\":{}}", removal, "{}" },
                { "{\"n\":1}", removal, "{\"n\":1}" },
                { "{\"m\":{\"a\":1,\"b\":2}}", removal, "{\"m\":{\"b\":2}}" },
                /* The last one counts. */
                { "{\"m\":{\"c\":3},\"m\":{\"b\":2}}", set, "{\"m\":{\"b\":2,\"a\":1}}" },
        };
        Buffer buffer = {};

        start(&buffer);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const JsonChange change = { .name = "m", .kind = JSON_INSIDE, .inside = rows[i].inside, .n_inside = 1 };

                assert_number(json_append_changed(&buffer, piece(rows[i].object), &change, 1), 0);
                assert_appended(&buffer, rows[i].wanted);
        }
        buffer_done(&buffer);
}

static void test_bounds(void) {
        const JsonChange set = SET("a", "1");
        JsonChange deep[JSON_INSIDE_MAX + 2], many[JSON_CHANGES_MAX + 1];
        Buffer buffer = {};

        deep[0] = set;
        for (size_t i = 1; i < ELEMENTSOF(deep); i++)
                deep[i] = (JsonChange){ .name = "m", .kind = JSON_INSIDE, .inside = &deep[i - 1], .n_inside = 1 };
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i] = set;

        start(&buffer);
        assert_number(json_append_changed(&buffer, piece("{}"), &deep[JSON_INSIDE_MAX], 1), 0);
        assert_appended(&buffer, "{\"m\":{\"m\":{\"m\":{\"a\":1}}}}");
        assert_number(json_append_changed(&buffer, piece("{}"), &deep[JSON_INSIDE_MAX + 1], 1), -EINVAL);
        assert_nothing_appended(&buffer);
        assert_number(json_append_changed(&buffer, piece("{}"), many, ELEMENTSOF(many)), -EINVAL);
        assert_nothing_appended(&buffer);
        assert_number(json_append_changed(&buffer, piece("[]"), &set, 1), -EINVAL);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);
}

/* Line breaks and noncharacters go, wherever what has them comes from. */
static void test_traits(void) {
        const JsonTraits both = { .newlines = true, .noncharacters = true };
        const JsonChange changes[] = {
                { .name = "a", .kind = JSON_SET, .value = { slice("[\n\"\xef\xbf\xbf\"\r]"), &both } },
                REMOVE("x"),
        };
        Buffer buffer = {};

        start(&buffer);
        assert_number(json_append_changed(
                              &buffer,
                              (JsonPiece){ slice("{\n\"k\xef\xbf\xbe\":\n1\n,\n\"x\":\n2,\r\n\"l\"\n:3}"), &both },
                              changes, ELEMENTSOF(changes)),
                      0);
        assert_appended(&buffer, "{\"k\\ufffe\":1,\"l\":3,\"a\":[\"\\uffff\"]}");
        buffer_done(&buffer);
}

static JsonSlice part(const char *text, const char *what) {
        return (JsonSlice){ strstr(text, what), strlen(what) };
}

static void test_edits(void) {
        static const char text[] = "{\"a\" : [1,22,\"x\"], \"m\":{\"b\":2} }";
        const JsonChange change = SET("c", "3");
        const JsonEdit two[] = {
                { .old = part(text, "\"x\""), .new = JSON_LITERAL("{}") },
                { .old = part(text, "22"), .new = JSON_LITERAL("[2]") },
                { .old = {} },
                { .old = part(text, "{\"b\":2}"), .changes = &change, .n_changes = 1 },
        };
        const JsonEdit whole = { .old = slice(text), .new = JSON_LITERAL("1") };
        Buffer buffer = {};

        start(&buffer);
        assert_number(json_append_edited(&buffer, piece(text), two, ELEMENTSOF(two)), 0);
        assert_appended(&buffer, "{\"a\" : [1,[2],{}], \"m\":{\"b\":2,\"c\":3} }");
        assert_number(json_append_edited(&buffer, piece(text), &whole, 1), 0);
        assert_appended(&buffer, "1");
        assert_number(json_append_edited(&buffer, piece(text), NULL, 0), 0);
        assert_appended(&buffer, text);
        buffer_done(&buffer);
}

static void test_edits_refused(void) {
        static const char text[] = "{\"a\":[1,22]}", other[] = "22";
        const JsonEdit twice[] = { { .old = part(text, "22"), .new = JSON_LITERAL("1") },
                                   { .old = part(text, "22"), .new = JSON_LITERAL("2") } },
                       overlapping[] = { { .old = part(text, "[1,22]"), .new = JSON_LITERAL("1") },
                                         { .old = part(text, "22"), .new = JSON_LITERAL("2") } },
                       elsewhere[] = { { .old = slice(other), .new = JSON_LITERAL("1") } },
                       beyond[] = { { .old = { text + strlen(text) - 1, 2 }, .new = JSON_LITERAL("1") } };
        JsonEdit many[JSON_EDITS_MAX + 1] = {};
        Buffer buffer = {};

        start(&buffer);
        assert_number(json_append_edited(&buffer, piece(text), twice, 2), -EINVAL);
        assert_number(json_append_edited(&buffer, piece(text), overlapping, 2), -EINVAL);
        assert_number(json_append_edited(&buffer, piece(text), elsewhere, 1), -EINVAL);
        assert_number(json_append_edited(&buffer, piece(text), beyond, 1), -EINVAL);
        assert_number(json_append_edited(&buffer, piece(text), many, ELEMENTSOF(many)), -EINVAL);
        assert_nothing_appended(&buffer);
        buffer_done(&buffer);
}

static void test_member(void) {
        Buffer buffer = {};
        bool first = true;

        start(&buffer);
        assert_number(buffer_append_string(&buffer, "{"), 0);
        assert_number(json_append_member(&buffer, &first, "a", piece("1")), 0);
        assert_number(json_append_member(&buffer, &first, "b\n", piece("[]")), 0);
        assert_number(buffer_append_string(&buffer, "}"), 0);
        assert_appended(&buffer, "{\"a\":1,\"b\\u000a\":[]}");
        buffer_done(&buffer);
}

int main(void) {
        test_members();
        test_order();
        test_inside();
        test_bounds();
        test_traits();
        test_edits();
        test_edits_refused();
        test_member();
        return 0;
}
