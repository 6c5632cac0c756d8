#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

/* Whether what a caller of the launcher says can be taken. All return 0, or negative with error set. */

/* A server's name, an owner's tag ("shared", "uid:N", "client:NAME"; only shown) and a worker's id */
int request_check_names(const char *server, const char *owner, const char *id, sd_bus_error *error);
int request_check_id(const char *id, sd_bus_error *error);

/* Whether fd is an end of a pipe without a name, for reading or writing; name: what it is for. Any other file could be
 * a device, or have systemd wait for it, or not be the caller's to read. */
int request_check_pipe(int fd, const char *name, bool reading, sd_bus_error *error);

/* Whether it is a Unix socket that listens: the stdin of a worker that is reached by one. Likewise. */
int request_check_socket(int fd, const char *name, sd_bus_error *error);
