#pragma once

#include <stddef.h>
#include <systemd/sd-bus.h>

/* About how many bytes a message takes, which sd-bus doesn't tell: its body's strings and arrays, and what frames them.
 * Rewinds it. Negative with error set where it has more items than any call of ours: they would take long to look at.
 */
int message_size(sd_bus_message *message, size_t *ret, sd_bus_error *error);
