/* What the broker answers itself, and how answers of servers are written */

#include <stdarg.h>
#include <stdio.h>

#include "broker/session-parts.h"

#define ERROR_PREFIX "org.example.McpExec.Error."

static void reply_broker_error(Session *session, JsonPiece id, int code, const char *message, const char *word) {
        Buffer *output = session_output(session, /* notification= */ false);
        char name[96];

        (void)snprintf(name, sizeof(name), ERROR_PREFIX "%s", word ?: "");
        if (output)
                session_sent(session, rpc_append_broker_error(output, id, code, message, word ? name : NULL));
}

void session_reply_error(Session *session, JsonPiece id, int code, const char *format, ...) {
        _cleanup_(freep) char *message = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&message, format, ap);
        va_end(ap);

        if (n < 0)
                message = NULL;
        reply_broker_error(session, id, code, message ?: "Out of memory", NULL);
}

void session_reply_failure(Session *session, JsonPiece id, const Failure *failure) {
        reply_broker_error(session, id, failure->code == FAILURE_INVALID_ARGUMENTS ? RPC_INVALID_PARAMS : RPC_BROKER,
                           failure_message(failure), failure_code_to_string(failure->code));
}

void session_reply_result(Session *session, JsonPiece id, JsonPiece result) {
        Buffer *output = session_output(session, /* notification= */ false);

        if (output)
                session_sent(session, rpc_append_result(output, id, result));
}

void session_reply_text(Session *session, JsonPiece id, const char *result) {
        session_reply_result(session, id, (JsonPiece){ { result, strlen(result) }, NULL });
}
