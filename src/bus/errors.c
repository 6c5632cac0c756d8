#include "bus/errors.h"

#include "base/log.h"

static const char *const names[_FAILURE_CODE_MAX] = { [FAILURE_NONE] = SD_BUS_ERROR_FAILED,
#define X(code, word) [FAILURE_##code] = BUS_ERROR(word),
                                                      FAILURE_CODES(X)
#undef X
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
        bus_answered(message, sd_bus_reply_method_error(message, &error));
        sd_bus_error_free(&error);
}

/* What sd-bus has a name of D-Bus for has that one. */
static int reply_errno(sd_bus_message *message, int r, const sd_bus_error *error) {
        sd_bus_error plain = SD_BUS_ERROR_NULL;
        bool known;

        if (sd_bus_error_is_set(error))
                return sd_bus_reply_method_error(message, error);

        (void)sd_bus_error_set_errno(&plain, r);
        known = plain.name && strncmp(plain.name, "System.Error.", strlen("System.Error.")) != 0;
        r = known ? sd_bus_reply_method_error(message, &plain)
                  : sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "It can't be done now: %s",
                                               strerror(-r));
        sd_bus_error_free(&plain);
        return r;
}

void bus_answered(sd_bus_message *message, int r) {
        if (r >= 0)
                return;

        log_warning("an answer can't be sent: %s", strerror(-r));
        r = reply_errno(message, r, NULL);
        if (r == -ENOMEM) {
                _cleanup_(sd_event_unrefp) sd_event *event = NULL;

                /* The connection has none while it isn't read. */
                log_error("a call can't be answered, for want of memory: leaving");
                (void)sd_event_default(&event);
                (void)sd_event_exit(event, r);
        }
}

int bus_answer_error(sd_bus_message *message, int r, sd_bus_error *error) {
        if (r >= 0)
                return r;

        bus_answered(message, reply_errno(message, r, error));
        sd_bus_error_free(error);
        return 1;
}
