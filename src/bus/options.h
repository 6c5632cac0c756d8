#pragma once

#include <systemd/sd-bus.h>

/* One of a method's options: a{sv}. target is a uint64_t, a bool (as int) or a const char *, by its signature. */
typedef struct BusOption {
        const char *name, *signature; /* "t", "b" or "s" */
        void *target;
} BusOption;

/* Reads a{sv}. An unknown option, or one of another type, is InvalidArguments. What strings point to is the message's.
 */
int bus_read_options(sd_bus_message *message, const BusOption *options, size_t n_options, sd_bus_error *error);
