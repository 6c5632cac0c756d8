#include "base/buffer.h"

#include "base/macro.h"
#include "unit.h"

#define assert_content(buffer, wanted) assert_bytes(buffer_data(buffer), buffer_size(buffer), (wanted), strlen(wanted))

static void test_empty(void) {
        Buffer buffer = {};

        assert_number(buffer_size(&buffer), 0);
        buffer_consume(&buffer, 10);
        buffer_truncate(&buffer, 10);
        assert_number(buffer_append(&buffer, NULL, 0), 0);
        assert_number(buffer_size(&buffer), 0);
        buffer_done(&buffer);
        buffer_done(&buffer);
}

static void test_append(void) {
        Buffer buffer = {};

        assert_number(buffer_append(&buffer, "one", 3), 0);
        assert_number(buffer_append_string(&buffer, ""), 0);
        assert_number(buffer_append_string(&buffer, " two"), 0);
        assert_number(buffer_append(&buffer, "\0", 1), 0);
        assert_bytes(buffer_data(&buffer), buffer_size(&buffer), "one two\0", 8);
        buffer_done(&buffer);
        assert_number(buffer_size(&buffer), 0);
        assert_number(buffer_append_string(&buffer, "again"), 0);
        assert_content(&buffer, "again");
        buffer_done(&buffer);
}

static void test_append_number(void) {
        static const struct {
                unsigned long long number;
                const char *text;
        } rows[] = {
                { 0, "0" },
                { 1, "1" },
                { 9, "9" },
                { 10, "10" },
                { 1000, "1000" },
                { UINT64_C(9223372036854775808), "9223372036854775808" },
                { UINT64_MAX, "18446744073709551615" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Buffer buffer = {};

                assert_number(buffer_append_number(&buffer, rows[i].number), 0);
                assert_content(&buffer, rows[i].text);
                buffer_done(&buffer);
        }
}

static void test_reserve(void) {
        Buffer buffer = {};
        const char *before;

        assert_number(buffer_append_string(&buffer, "kept"), 0);
        assert_number(buffer_reserve(&buffer, 100000), 0);
        assert_content(&buffer, "kept");

        /* What was reserved is there without another move. */
        before = buffer_data(&buffer);
        for (int i = 0; i < 100000; i++)
                assert_number(buffer_append(&buffer, "x", 1), 0);
        assert_true(buffer_data(&buffer) == before);
        assert_number(buffer_size(&buffer), 100004);
        buffer_done(&buffer);
}

static void test_reserve_too_much(void) {
        static const size_t sizes[] = { SIZE_MAX, SIZE_MAX - 4, SIZE_MAX / 2, SIZE_MAX / 2 + 1 };
        Buffer buffer = {};

        assert_number(buffer_append_string(&buffer, "kept"), 0);
        buffer_consume(&buffer, 1);
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                assert_number(buffer_reserve(&buffer, sizes[i]), -ENOMEM);
                assert_content(&buffer, "ept");
        }
        assert_number(buffer_append_string(&buffer, " on"), 0);
        assert_content(&buffer, "ept on");
        buffer_done(&buffer);
}

static void test_consume(void) {
        Buffer buffer = {};

        assert_number(buffer_append_string(&buffer, "abcdef"), 0);
        buffer_consume(&buffer, 0);
        assert_content(&buffer, "abcdef");
        buffer_consume(&buffer, 2);
        assert_content(&buffer, "cdef");
        assert_number(buffer_append_string(&buffer, "gh"), 0);
        buffer_consume(&buffer, 3);
        assert_content(&buffer, "fgh");
        buffer_consume(&buffer, SIZE_MAX);
        assert_number(buffer_size(&buffer), 0);
        assert_number(buffer_append_string(&buffer, "new"), 0);
        assert_content(&buffer, "new");
        buffer_done(&buffer);
}

static void test_emptied_gives_memory_back(void) {
        Buffer buffer = {};

        assert_number(buffer_reserve(&buffer, 1 << 20), 0);
        assert_number(buffer_append_string(&buffer, "x"), 0);
        buffer_consume(&buffer, 1);
        assert_true(buffer.allocated <= 4096);
        buffer_done(&buffer);
}

static void test_truncate(void) {
        Buffer buffer = {};

        assert_number(buffer_append_string(&buffer, "abcdef"), 0);
        buffer_consume(&buffer, 1);
        buffer_truncate(&buffer, 100);
        assert_content(&buffer, "bcdef");
        buffer_truncate(&buffer, 3);
        assert_content(&buffer, "bcd");
        assert_number(buffer_append_string(&buffer, "X"), 0);
        assert_content(&buffer, "bcdX");
        buffer_truncate(&buffer, 0);
        assert_number(buffer_size(&buffer), 0);
        buffer_done(&buffer);
}

/* A queue that is filled and drained in unequal pieces hands out what went in, and stays small. */
static void test_queue(void) {
        Buffer buffer = {};
        unsigned in = 0, out = 0, random = 1;

        for (int i = 0; i < 20000; i++) {
                size_t n;

                random = random * 1103515245 + 12345;
                n = random >> 16 & 63;
                for (size_t j = 0; j < n; j++) {
                        char c = in++ * 7;

                        assert_number(buffer_append(&buffer, &c, 1), 0);
                }

                random = random * 1103515245 + 12345;
                n = MIN((size_t)(random >> 16 & 63) + (buffer_size(&buffer) > 400 ? 200 : 0), buffer_size(&buffer));
                for (size_t j = 0; j < n; j++)
                        assert_number(buffer_data(&buffer)[j], (char)(out++ * 7));
                buffer_consume(&buffer, n);
                assert_number(buffer_size(&buffer), in - out);
        }
        assert_true(buffer.allocated <= 16384);
        buffer_done(&buffer);
}

int main(void) {
        test_empty();
        test_append();
        test_append_number();
        test_reserve();
        test_reserve_too_much();
        test_consume();
        test_emptied_gives_memory_back();
        test_truncate();
        test_queue();
        return 0;
}
