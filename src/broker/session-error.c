/* What the broker answers itself */

#include <stdarg.h>
#include <stdio.h>

#include "broker/session-parts.h"

#define ERROR_PREFIX "org.example.McpExec.Error."

static const JsonTraits no_traits = {};
static const JsonSlice no_id = { "null", 4 };

/* word: of the failure that it is about, so that the broker's own errors don't look like the server's; or NULL */
int session_append_error(Buffer *buffer, JsonSlice id, int code, const char *message, const char *word) {
        Buffer error = {};
        char number[16];
        int r;

        (void)snprintf(number, sizeof(number), "%d", code);
        r = buffer_append_string(&error, "{\"code\":");
        if (r >= 0)
                r = buffer_append_string(&error, number);
        if (r >= 0)
                r = buffer_append_string(&error, ",\"message\":");
        if (r >= 0)
                r = json_append_quoted(&error, message, strlen(message));
        if (r >= 0)
                r = buffer_append_string(&error, ",\"data\":{\"source\":\"mcp-exec\"");
        if (r >= 0 && word) {
                r = buffer_append_string(&error, ",\"error\":\"" ERROR_PREFIX);
                if (r >= 0)
                        r = buffer_append_string(&error, word);
                if (r >= 0)
                        r = buffer_append(&error, "\"", 1);
        }
        if (r >= 0)
                r = buffer_append_string(&error, "}}");
        if (r >= 0)
                r = mcp_append_error(buffer, id.data ? id : no_id,
                                     (JsonSlice){ buffer_data(&error), buffer_size(&error) }, &no_traits);
        buffer_done(&error);
        return r;
}

void session_reply_error(Session *session, JsonSlice id, int code, const char *format, ...) {
        Buffer *output = session_output(session, /* notification= */ false);
        _cleanup_(freep) char *message = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&message, format, ap);
        va_end(ap);

        if (output)
                session_sent(session, session_append_error(output, id, code, n < 0 ? "Out of memory" : message, NULL));
}

void session_reply_failure(Session *session, JsonSlice id, const Failure *failure) {
        Buffer *output = session_output(session, /* notification= */ false);
        int code = failure->code == FAILURE_INVALID_ARGUMENTS ? RPC_INVALID_PARAMS : RPC_BROKER_ERROR;

        if (output)
                session_sent(session, session_append_error(output, id, code, failure_message(failure),
                                                           failure_code_to_string(failure->code)));
}

void session_reply_result(Session *session, JsonSlice id, JsonSlice result, const JsonTraits *traits) {
        Buffer *output = session_output(session, /* notification= */ false);

        if (output)
                session_sent(session, mcp_append_result(output, id, result, traits));
}

void session_reply_text(Session *session, JsonSlice id, const char *result) {
        session_reply_result(session, id, (JsonSlice){ result, strlen(result) }, &no_traits);
}

/* The server's own error goes as the server wrote it. */
void session_reply_outcome(Session *session, JsonSlice id, const Outcome *outcome) {
        Buffer *output;

        if (!outcome->failure)
                session_reply_result(session, id, outcome->result, &outcome->traits);
        else if (!outcome->error.data)
                session_reply_failure(session, id, outcome->failure);
        else if ((output = session_output(session, /* notification= */ false)))
                session_sent(session, mcp_append_error(output, id, outcome->error, &outcome->traits));
}
