#pragma once

#include "base/macro.h"
#include "wire/json.h"

/* Why a call has no result, by the words that its D-Bus error and its journal record are named with */
#define FAILURE_CODES(X)                                                                                               \
        X(NO_SUCH_SERVER, "NoSuchServer")                                                                              \
        X(SERVER_DISABLED, "ServerDisabled")                                                                           \
        X(INVALID_ARGUMENTS, "InvalidArguments")                                                                       \
        X(INVALID_JSON, "InvalidJson")                                                                                 \
        X(TOO_LARGE, "TooLarge")                                                                                       \
        X(LAUNCH_FAILED, "LaunchFailed")                                                                               \
        X(HANDSHAKE_FAILED, "HandshakeFailed")                                                                         \
        X(UNAVAILABLE, "Unavailable")                                                                                  \
        X(WORKER_DIED, "WorkerDied")                                                                                   \
        X(PROTOCOL_ERROR, "ProtocolError")                                                                             \
        X(TIMEOUT, "Timeout")                                                                                          \
        X(CANCELLED, "Cancelled")                                                                                      \
        X(LIMITS_EXCEEDED, "LimitsExceeded")                                                                           \
        X(REMOTE, "Remote")                                                                                            \
        X(NOT_FINISHED, "NotFinished")

typedef enum FailureCode {
        FAILURE_NONE,
#define X(code, word) FAILURE_##code,
        FAILURE_CODES(X)
#undef X
                _FAILURE_CODE_MAX,
} FailureCode;

/* "success" for FAILURE_NONE */
const char *failure_code_to_string(FailureCode code);

/* message is valid UTF-8 without control characters, and owned. */
typedef struct Failure {
        FailureCode code;
        char *message;
} Failure;

/* Replaces what failure held. Always returns -EREMOTEIO, the return value of functions that fail with a Failure. */
int failure_set(Failure *failure, FailureCode code, const char *format, ...) _printf_(3, 4);

/* Sets failure from a server's own error: a JSON-RPC error object, or a string. */
int failure_set_remote(Failure *failure, const char *server, JsonSlice error);

void failure_copy(Failure *to, const Failure *from);
void failure_done(Failure *failure);

/* Never NULL, also where there was no memory for the text */
const char *failure_message(const Failure *failure);
