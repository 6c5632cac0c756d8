#pragma once

/* For the spawn launcher: forks, and returns in the child, which becomes the broker. The parent stays behind as its
 * guard. It passes on SIGTERM, SIGINT and SIGHUP, kills a broker that
 * doesn't stop within 10 s, and when the broker ends, however that happens, kills all that the
 * broker has left, and ends in the same way. The broker gets SIGTERM when its guard is killed. Wants these signals and
 * SIGCHLD blocked. Returns -errno where it can't fork. */
int supervise(void);
