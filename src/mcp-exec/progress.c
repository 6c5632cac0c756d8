/* How far a call is: a line on the terminal while it is waited for. */

#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define BAR "##############################"

void progress_draw(double progress, double total, const char *message) {
        _cleanup_(freep) char *line = NULL, *text = NULL;
        size_t width = output_width() == SIZE_MAX ? 79 : output_width() - 1, filled;
        int r;

        (void)fputs("\r\x1b[K", stderr);
        if (total > 0) {
                filled = progress > 0 ? strlen(BAR) * MIN(progress / total, 1.0) : 0;
                fprintf(stderr, "[%.*s%*s] ", (int)filled, BAR, (int)(strlen(BAR) - filled), "");
                width -= MIN(width, strlen(BAR) + 3);
                r = asprintf(&text, "%g/%g %s", progress, total, message);
        } else
                r = asprintf(&text, "%g %s", progress, message);
        if (r < 0)
                out_of_memory();

        line = one_line(text);
        put_cut(stderr, line, width);
        (void)fflush(stderr);
}

void progress_clear(void) {
        (void)fputs("\r\x1b[K", stderr);
}
