#pragma once

#include <stddef.h>
#include <systemd/sd-bus.h>

#define MESSAGE_FRAME 512 /* bytes: the header, and what sd-bus keeps of a message */

/* About how many bytes a message takes, which sd-bus doesn't tell: its body's strings and arrays, and what frames them.
 * Rewinds it. -E2BIG where it has more items than any call of ours: they would take long to look at. */
int message_size(sd_bus_message *message, size_t *ret);
