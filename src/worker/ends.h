#pragma once

#include "worker/server-config.h"

/* What connects a worker: its stdin, stdout and stderr, and our ends of what we write, read and log, in that order. All
 * are close-on-exec, ours don't block. On failure those that aren't -EBADF any more are the caller's to close. */
int ends_open(ServerTransport transport, int theirs[3], int ours[3]);
