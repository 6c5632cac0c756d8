#pragma once

#include <systemd/sd-bus.h>

#include "worker/failure.h"

#define BUS_NAME "org.example.McpExec"
#define BUS_PATH "/org/example/McpExec"
#define BUS_ERROR(name) BUS_NAME ".Error." name

/* The D-Bus error name of a failure */
const char *bus_error_name(FailureCode code);

/* Sets error from failure, which is released; returns the negative errno that a method handler returns. */
int bus_error_set_failure(sd_bus_error *error, Failure *failure);

/* Answers message with a failure. Errors of sending are nobody's to hear. */
void bus_reply_failure(sd_bus_message *message, const Failure *failure);

/* What was to be the one answer to a message was handed to sd-bus with the result r. Where that failed, the caller is
 * told so; where there is no memory for that either, the service leaves, and the bus tells all: nobody waits for ever.
 */
void bus_answered(sd_bus_message *message, int r);

/* What a method handler returns, once its error, if it has one, was handed to sd-bus as by bus_answered(): libsystemd
 * (252) drops the error that a handler returns where it has no memory to send it, and its caller would wait for ever.
 * An errno that D-Bus has no name for, as EMFILE, is Unavailable. */
int bus_answer_error(sd_bus_message *message, int r, sd_bus_error *error);

/* A vtable's entry calls answered_HANDLER. */
#define DEFINE_ANSWERED(handler)                                                                                       \
        static int answered_##handler(sd_bus_message *message, void *userdata, sd_bus_error *error) {                  \
                return bus_answer_error(message, handler(message, userdata, error), error);                            \
        }                                                                                                              \
        _Static_assert(1, "takes a semicolon")
