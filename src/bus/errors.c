#include "bus/errors.h"

static const char *const names[_FAILURE_CODE_MAX] = {
        [FAILURE_NONE] = SD_BUS_ERROR_FAILED,
        [FAILURE_NO_SUCH_SERVER] = BUS_ERROR("NoSuchServer"),
        [FAILURE_SERVER_DISABLED] = BUS_ERROR("ServerDisabled"),
        [FAILURE_INVALID_ARGUMENTS] = BUS_ERROR("InvalidArguments"),
        [FAILURE_INVALID_JSON] = BUS_ERROR("InvalidJson"),
        [FAILURE_TOO_LARGE] = BUS_ERROR("TooLarge"),
        [FAILURE_LAUNCH_FAILED] = BUS_ERROR("LaunchFailed"),
        [FAILURE_HANDSHAKE_FAILED] = BUS_ERROR("HandshakeFailed"),
        [FAILURE_UNAVAILABLE] = BUS_ERROR("Unavailable"),
        [FAILURE_WORKER_DIED] = BUS_ERROR("WorkerDied"),
        [FAILURE_PROTOCOL_ERROR] = BUS_ERROR("ProtocolError"),
        [FAILURE_TIMEOUT] = BUS_ERROR("Timeout"),
        [FAILURE_CANCELLED] = BUS_ERROR("Cancelled"),
        [FAILURE_LIMITS_EXCEEDED] = BUS_ERROR("LimitsExceeded"),
        [FAILURE_REMOTE] = BUS_ERROR("Remote"),
        [FAILURE_ACCESS_DENIED] = SD_BUS_ERROR_ACCESS_DENIED,
};

const char *bus_error_name(FailureCode code) {
        return names[code];
}

int bus_error_set_failure(sd_bus_error *error, Failure *failure) {
        int r;

        r = sd_bus_error_set(error, bus_error_name(failure->code), failure_message(failure));
        failure_done(failure);
        return r;
}

void bus_reply_failure(sd_bus_message *message, const Failure *failure) {
        sd_bus_error error = SD_BUS_ERROR_NULL;

        (void)sd_bus_error_set(&error, bus_error_name(failure->code), failure_message(failure));
        (void)sd_bus_reply_method_error(message, &error);
        sd_bus_error_free(&error);
}
