#include "worker/failure.h"

#include "base/text.h"
#include "unit.h"

#define SLICE(text)                                                                                                    \
        (JsonSlice) {                                                                                                  \
                (text), strlen(text)                                                                                   \
        }

/* What the header promises of every message: valid UTF-8 without control characters, and what the bus takes */
static void assert_clean(const Failure *failure) {
        const char *message = failure_message(failure);
        size_t size = strlen(message);

        assert_true(size > 0 && size <= 8192);
        for (size_t i = 0; i < size;) {
                unsigned character;
                size_t n = utf8_sequence(message + i, size - i, &character);

                assert_true(n > 0);
                assert_true(character >= 0x20 && (character < 0x7f || character >= 0xa0));
                assert_false(utf8_noncharacter(character));
                i += n;
        }
}

static void test_set(void) {
        Failure failure = {};

        assert_number(failure_set(&failure, FAILURE_TIMEOUT, "after %d s", 5), -EREMOTEIO);
        assert_number(failure.code, FAILURE_TIMEOUT);
        assert_string(failure_message(&failure), "after 5 s");

        /* Replaces, and leaks nothing. */
        assert_number(failure_set(&failure, FAILURE_CANCELLED, "%s", "other"), -EREMOTEIO);
        assert_number(failure.code, FAILURE_CANCELLED);
        assert_string(failure_message(&failure), "other");

        failure_done(&failure);
        assert_number(failure.code, FAILURE_NONE);
        assert_true(!failure.message);
        failure_done(&failure);
}

static void test_set_hostile(void) {
        static const char *const texts[] = {
                "line\nline\r\n\t", "\x1b[2Jcleared", "\xff\xfe\x80",  "\xed\xa0\x80", "\xef\xbf\xbf\xf0\x9f\xbf\xbe",
                "\xc2\x85",         "%s%n%d",         "half \xe2\x82",
        };
        Failure failure = {};

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                assert_number(failure_set(&failure, FAILURE_PROTOCOL_ERROR, "%s", texts[i]), -EREMOTEIO);
                assert_clean(&failure);
        }
        failure_set(&failure, FAILURE_PROTOCOL_ERROR, "a\nb");
        assert_string(failure_message(&failure), "a\\x0ab");
        failure_done(&failure);
}

static void test_set_long(void) {
        _cleanup_(freep) char *text = malloc(100001);
        Failure failure = {};

        assert_true(text);
        memset(text, '\xff', 100000);
        text[100000] = 0;
        failure_set(&failure, FAILURE_INVALID_JSON, "%s", text);
        assert_clean(&failure);
        failure_done(&failure);
}

static void test_no_memory(void) {
        assert_string(failure_message(&(Failure){ .code = FAILURE_TIMEOUT }), "Out of memory");
}

static void test_copy(void) {
        Failure from = {}, to = {};

        failure_set(&from, FAILURE_WORKER_DIED, "exit status 3, 100%%s");
        failure_set(&to, FAILURE_TIMEOUT, "old");
        failure_copy(&to, &from);
        assert_number(to.code, FAILURE_WORKER_DIED);
        assert_string(failure_message(&to), "exit status 3, 100%s");
        assert_true(to.message != from.message);

        failure_done(&from);
        assert_string(failure_message(&to), "exit status 3, 100%s");
        failure_done(&to);

        failure_copy(&to, &(Failure){ .code = FAILURE_UNAVAILABLE });
        assert_number(to.code, FAILURE_UNAVAILABLE);
        assert_string(failure_message(&to), "Out of memory");
        failure_done(&to);
}

static const char *remote(Failure *failure, const char *error) {
        assert_number(failure_set_remote(failure, "weather", SLICE(error)), -EREMOTEIO);
        assert_number(failure->code, FAILURE_REMOTE);
        assert_clean(failure);
        assert_true(strstr(failure_message(failure), "weather"));
        return failure_message(failure);
}

static void test_remote(void) {
        Failure failure = {};
        const char *message;

        message = remote(&failure,
                         "{\"code\":-32602,\"message\":\"no \\\"such\\\" city\",\"data\":{\"city\":\"\xc3\x96\"}}");
        assert_true(strstr(message, "-32602"));
        assert_true(strstr(message, "no \"such\" city"));
        assert_true(strstr(message, "{\"city\":\"\xc3\x96\"}"));

        message = remote(&failure, "{\"message\":\"only this\"}");
        assert_true(strstr(message, "only this"));
        assert_false(strstr(message, "data"));
        message = remote(&failure, "{ \"code\" : 1 }");
        assert_true(strstr(message, "error 1"));
        failure_done(&failure);
}

static void test_remote_hostile(void) {
        static const char *const errors[] = {
                "{}",
                "{\"message\":5,\"code\":\"text\"}",
                "{\"message\":null,\"code\":null,\"data\":null}",
                "{\"message\":{\"a\":1},\"code\":{\"b\":[1,2,3,4,5,6,7,8,9,10,11,12]}}",
                "{\"message\":\"a\\nb\\u0000c\\u001b[2J\\uffff\\ud800\"}",
                "{\"message\":\"\xef\xbf\xbf\",\"data\":\"\xef\xbf\xbe\"}",
                "{\"message\":\"%s%n\",\"data\":\"%s%n\"}",
                "{\"data\":[\r\n1]}",
        };
        Failure failure = {};

        for (size_t i = 0; i < ELEMENTSOF(errors); i++)
                remote(&failure, errors[i]);
        assert_true(strstr(remote(&failure, "{\"code\":7,\"message\":\"%s%n\"}"), "%s%n"));
        failure_done(&failure);
}

/* However much a server says, the message stays one that can be shown, cut in no character's middle. */
static void test_remote_long(void) {
        for (size_t shift = 0; shift < 4; shift++) {
                Buffer error = {};
                Failure failure = {};

                assert_number(buffer_append_string(&error, "{\"code\":"), 0);
                for (int i = 0; i < 5000; i++)
                        assert_number(buffer_append_string(&error, "1"), 0);
                assert_number(buffer_append_string(&error, ",\"data\":\""), 0);
                assert_number(buffer_append(&error, "xxx", shift), 0);
                for (int i = 0; i < 5000; i++)
                        assert_number(buffer_append_string(&error, "\xf0\x9f\x98\x80"), 0);
                assert_number(buffer_append_string(&error, "\",\"message\":\""), 0);
                for (int i = 0; i < 1000; i++)
                        assert_number(buffer_append_string(&error, "\xe2\x82\xac"), 0);
                assert_number(buffer_append(&error, "\"}", 3), 0);
                assert_true(strlen(remote(&failure, buffer_data(&error))) <= 4096);
                failure_done(&failure);
                buffer_done(&error);
        }
}

int main(void) {
        test_set();
        test_set_hostile();
        test_set_long();
        test_no_memory();
        test_copy();
        test_remote();
        test_remote_hostile();
        test_remote_long();
        return 0;
}
