#pragma once

#include "base/macro.h"

/* What is written while a run of messages is handled that came in at once: it waits for the end of the run, and leaves
 * in one piece. Each write wakes up its reader, which costs more than the message. For one thread. */

typedef struct Cork {
        void (*flush)(void *userdata);
        void *userdata;
        bool waiting;
        TAILQ_ENTRY(Cork) link;
} Cork;

/* Around the handling of what came in; may be nested. The outermost end flushes what waits. */
void cork_begin(void);
void cork_end(void);

/* True: within a run, at whose end flush is called. False: write now. */
bool cork_hold(Cork *cork);

/* Before its owner is freed */
void cork_forget(Cork *cork);
