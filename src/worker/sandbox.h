#pragma once

#include <systemd/sd-bus.h>

#include "base/macro.h"
#include "wire/json.h"

/* In what a worker's unit runs: systemd properties by the names that they have in unit files, as a JSON object. One
 * table says which there are, how each is read, and how it is said to systemd; the service's own defaults and a
 * server's key "sandbox" are both read by it, and a server's may only hold what gives no privileges back. */

/* Whether a server's "sandbox" may hold this. 0; or -EINVAL with a sentence, owned by the caller, that says what is
 * wrong; -ENOMEM. */
int sandbox_check(const char *name, JsonSlice value, char **ret_problem);

/* The functions below take a "sandbox" whose keys have all passed that, as text; NULL: there is none. */

/* All properties of a worker's unit: the defaults of the system service or of a user's, and what the server changes.
 * NULL when out of memory. */
char *sandbox_effective(const char *sandbox, bool user);

/* Whether a worker of the system service reaches the network */
bool sandbox_network(const char *sandbox);

/* The first key that a user's own systemd would take and not enforce, or NULL */
const char *sandbox_needs_system(const char *sandbox);

/* Appends what sandbox_effective() gave to a message, as elements (sv) of StartTransientUnit's array. */
int sandbox_append(sd_bus_message *message, const char *effective);
