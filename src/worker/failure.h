#pragma once

#include "base/macro.h"
#include "wire/json.h"

/* Why a call has no result. The bus layer gives each its D-Bus error name. */
typedef enum FailureCode {
        FAILURE_NONE,
        FAILURE_NO_SUCH_SERVER,
        FAILURE_SERVER_DISABLED,
        FAILURE_INVALID_ARGUMENTS,
        FAILURE_INVALID_JSON,
        FAILURE_TOO_LARGE,
        FAILURE_LAUNCH_FAILED,
        FAILURE_HANDSHAKE_FAILED,
        FAILURE_UNAVAILABLE,
        FAILURE_WORKER_DIED,
        FAILURE_PROTOCOL_ERROR,
        FAILURE_TIMEOUT,
        FAILURE_CANCELLED,
        FAILURE_LIMITS_EXCEEDED,
        FAILURE_REMOTE,
        FAILURE_ACCESS_DENIED,
        _FAILURE_CODE_MAX,
} FailureCode;

/* message is valid UTF-8 without control characters, and owned. */
typedef struct Failure {
        FailureCode code;
        char *message;
} Failure;

/* Replaces what failure held. Always returns -EREMOTEIO, the return value of functions that fail with a Failure. */
int failure_set(Failure *failure, FailureCode code, const char *format, ...) _printf_(3, 4);

/* Sets failure from a server's own JSON-RPC error object. */
int failure_set_remote(Failure *failure, const char *server, JsonSlice error);

void failure_copy(Failure *to, const Failure *from);
void failure_done(Failure *failure);

/* Never NULL, also where there was no memory for the text */
const char *failure_message(const Failure *failure);
