#pragma once

#include <stddef.h>
#include <systemd/sd-bus.h>

/* About how many bytes a message takes, which sd-bus doesn't tell: its body's strings and arrays, and what frames them.
 * Rewinds it. */
int message_size(sd_bus_message *message, size_t *ret);
