#include "base/cork.h"

static TAILQ_HEAD(, Cork) corks = TAILQ_HEAD_INITIALIZER(corks);
static unsigned depth;

void cork_begin(void) {
        depth++;
}

void cork_end(void) {
        Cork *cork;

        if (--depth > 0)
                return;

        while ((cork = TAILQ_FIRST(&corks))) {
                cork_forget(cork);
                cork->flush(cork->userdata);
        }
}

bool cork_hold(Cork *cork) {
        if (depth == 0)
                return false;

        if (!cork->waiting)
                TAILQ_INSERT_TAIL(&corks, cork, link);
        cork->waiting = true;
        return true;
}

void cork_forget(Cork *cork) {
        if (cork->waiting)
                TAILQ_REMOVE(&corks, cork, link);
        cork->waiting = false;
}
