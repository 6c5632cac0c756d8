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
