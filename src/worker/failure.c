#include "worker/failure.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

#define MESSAGE_MAX 4096
#define REMOTE_DATA_MAX 2048

static const char *const code_words[_FAILURE_CODE_MAX] = { [FAILURE_NONE] = "success",
#define X(code, word) [FAILURE_##code] = word,
                                                           FAILURE_CODES(X)
#undef X
};

const char *failure_code_to_string(FailureCode code) {
        return code_words[code];
}

int failure_set(Failure *failure, FailureCode code, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        va_list ap;
        int n;

        failure_done(failure);
        failure->code = code;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;
        else
                failure->message = text_escape(text, n, MESSAGE_MAX);

        return -EREMOTEIO;
}

int failure_set_remote(Failure *failure, const char *server, JsonSlice error) {
        _cleanup_(freep) char *text = json_decode(error);
        JsonSlice code = json_get(error, "code"), data = json_get(error, "data");
        _cleanup_(freep) char *message = json_decode(json_get(error, "message"));

        if (text)
                return failure_set(failure, FAILURE_REMOTE, "Server %s answered with an error: %s", server,
                                   *text ? text : "(no message)");

        return failure_set(failure, FAILURE_REMOTE, "Server %s answered with error %.*s: %s%s%.*s%s", server,
                           code.data ? (int)MIN(code.size, (size_t)24) : 1, code.data ?: "?", message ?: "(no message)",
                           data.data ? " (data: " : "", (int)MIN(data.size, (size_t)REMOTE_DATA_MAX), data.data ?: "",
                           data.data ? ")" : "");
}

void failure_copy(Failure *to, const Failure *from) {
        failure_set(to, from->code, "%s", failure_message(from));
}

void failure_done(Failure *failure) {
        free(failure->message);
        *failure = (Failure){};
}

const char *failure_message(const Failure *failure) {
        return failure->message ?: "Out of memory";
}
