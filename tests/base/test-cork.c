#include "base/cork.h"

#include "unit.h"

typedef struct Writer {
        Cork cork;
        unsigned flushed;
} Writer;

static void on_flush(void *userdata) {
        Writer *writer = userdata;

        writer->flushed++;
}

static void writer_init(Writer *writer) {
        *writer = (Writer){ .cork = { .flush = on_flush, .userdata = writer } };
}

static void test_outside_of_a_run(void) {
        Writer writer;

        writer_init(&writer);
        assert_true(!cork_hold(&writer.cork));
        cork_begin();
        cork_end();
        assert_number(writer.flushed, 0);
}

static void test_once_at_the_outermost_end(void) {
        Writer one, other;

        writer_init(&one);
        writer_init(&other);
        cork_begin();
        assert_true(cork_hold(&one.cork));
        cork_begin();
        assert_true(cork_hold(&other.cork));
        assert_true(cork_hold(&one.cork));
        cork_end();
        assert_number(one.flushed, 0);
        cork_end();
        assert_number(one.flushed, 1);
        assert_number(other.flushed, 1);
        assert_true(!cork_hold(&one.cork));
}

static void test_forgotten(void) {
        Writer one, other;

        writer_init(&one);
        writer_init(&other);
        cork_begin();
        assert_true(cork_hold(&one.cork));
        assert_true(cork_hold(&other.cork));
        cork_forget(&one.cork);
        cork_forget(&one.cork);
        cork_end();
        assert_number(one.flushed, 0);
        assert_number(other.flushed, 1);
}

int main(void) {
        test_outside_of_a_run();
        test_once_at_the_outermost_end();
        test_forgotten();
        return 0;
}
