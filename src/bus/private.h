#pragma once

#include "bus/peers.h"

/* Between the files of the private socket */

#define DBUS_NAME "org.freedesktop.DBus"
#define OWN_NAME ":0.0" /* the service's own; clients get the numbers behind it */

#define PRIVATE_PRIORITY (SD_EVENT_PRIORITY_NORMAL - 1) /* ahead of sd-bus */

/* Closes the connection when the loop is back, for it may be in use now. why: for the log */
void private_close_soon(Connection *connection, const char *why);

bool private_reading_paused(const Connection *connection);

/* Has private_input_check() called then, or earlier. */
void private_check_at(Connection *connection, uint64_t usec);

/* private-input.c: messages that are too large or don't end */

int private_input_watch(Connection *connection);
void private_input_authenticated(Connection *connection);
void private_input_message(Connection *connection); /* sd-bus has brought one */
void private_input_check(Connection *connection);
void private_input_process(Connection *connection); /* the next message of sd-bus's queue */
void private_input_resumed(Connection *connection); /* is read again: what came meanwhile has begun only now */
void private_input_unseen(Connection *connection);  /* sd-bus may have read by itself */

/* private-output.c: answers that aren't read */

bool private_reads(const Connection *connection); /* or else it had its chance */

/* private-bus.c: answers a call of the bus's own methods, as a method handler does */
int private_answer_as_bus(Connection *connection, sd_bus_message *message, sd_bus_error *error);
