#pragma once

#include <stddef.h>
#include <systemd/sd-bus.h>

#define MESSAGE_FRAME 512 /* bytes: the header, and what sd-bus keeps of a message */

/* Descriptors that come along with a message are open for as long as it is kept, and sd-bus doesn't tell how many there
 * are; where none are left it gives up the bus. Fails, with error set, where three quarters are in use: the lowest free
 * number tells. */
int message_check_descriptors(sd_bus_error *error);

/* About how many bytes a message takes, which sd-bus doesn't tell: its body's strings and arrays, and what frames them.
 * Rewinds it. Negative with error set where it may not be held: it has more items than any call of ours, which would
 * take long to look at, or too many descriptors are open. */
int message_size(sd_bus_message *message, size_t *ret, sd_bus_error *error);
