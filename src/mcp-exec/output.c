#include "mcp-exec/output.h"

#include <stdarg.h>
#include <sys/ioctl.h>

#include "base/text.h"
#include "mcp-exec/cli.h"

static bool use_colors, errors_as_json, silent;
static char *failure, *failure_name;

static const char *const color_codes[] = {
        [COLOR_NONE] = "",          [COLOR_BOLD] = "\x1b[1m",     [COLOR_DIM] = "\x1b[2m",
        [COLOR_RED] = "\x1b[1;31m", [COLOR_GREEN] = "\x1b[1;32m", [COLOR_YELLOW] = "\x1b[1;33m",
};

int color_choice_from_string(const char *word) {
        static const char *const words[] = {
                [COLORS_AUTO] = "auto", [COLORS_ALWAYS] = "always", [COLORS_NEVER] = "never"
        };

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (streq(word, words[i]))
                        return i;

        return -1;
}

void output_open(ColorChoice colors, bool json) {
        const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

        errors_as_json = json;
        use_colors = colors == COLORS_ALWAYS || (colors == COLORS_AUTO && isatty(STDOUT_FILENO) &&
                                                 !(no_color && *no_color) && !(term && streq(term, "dumb")));
}

void output_silence(bool be_silent) {
        silent = be_silent;
}

size_t output_width(void) {
        struct winsize size;

        if (!isatty(STDOUT_FILENO))
                return SIZE_MAX;
        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) >= 0 && size.ws_col > 0 ? size.ws_col : 80;
}

size_t output_height(void) {
        struct winsize size;

        return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) >= 0 && size.ws_row > 0 ? size.ws_row
                                                                                                        : SIZE_MAX;
}

const char *color_on(Color color) {
        return use_colors ? color_codes[color] : "";
}

const char *color_off(Color color) {
        return use_colors && color != COLOR_NONE ? "\x1b[0m" : "";
}

Color state_color(const char *state) {
        static const struct {
                const char *state;
                Color color;
        } table[] = {
                { "active", COLOR_GREEN },    { "ready", COLOR_GREEN },     { "starting", COLOR_YELLOW },
                { "draining", COLOR_YELLOW }, { "stopping", COLOR_YELLOW }, { "failing", COLOR_RED },
                { "disabled", COLOR_DIM },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (streq(state, table[i].state))
                        return table[i].color;

        return COLOR_NONE;
}

/* Characters that a terminal may obey: C0 but for tabs and line breaks, DEL, C1 */
static bool obeyed(unsigned character) {
        return (character < 0x20 && character != '\n' && character != '\t') || (character >= 0x7f && character < 0xa0);
}

void put_text(FILE *file, const char *text, size_t size) {
        if (!isatty(fileno(file))) {
                (void)fwrite(text, 1, size, file);
                return;
        }

        for (size_t i = 0; i < size;) {
                unsigned character = 0;
                size_t length = utf8_sequence(text + i, size - i, &character);

                if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n')
                        length = 1;
                else if (length == 0) {
                        fprintf(file, "\\x%02x", (unsigned char)text[i]);
                        length = 1;
                } else if (obeyed(character))
                        fprintf(file, "\\x%02x", character);
                else
                        (void)fwrite(text + i, 1, length, file);
                i += length;
        }
}

void put_lines(FILE *file, const char *text, size_t size) {
        put_text(file, text, size);
        if (size == 0 || text[size - 1] != '\n')
                (void)fputc('\n', file);
}

static void keep(char **where, const char *text) {
        free(*where);
        *where = strdup(text);
}

int fail_named(int status, const char *name, const char *message) {
        if (silent)
                return status;

        keep(&failure, message);
        keep(&failure_name, name);

        (void)fflush(stdout);
        if (errors_as_json) {
                Buffer text = {};

                add_json_string(&text, "{\"error\":", name);
                add_json_string(&text, ",\"message\":", message);
                must(buffer_append_string(&text, ",\"status\":"));
                must(buffer_append_number(&text, status));
                must(buffer_append_string(&text, "}\n"));
                put_text(stderr, buffer_data(&text), buffer_size(&text));
                buffer_done(&text);
        } else {
                (void)fputs("mcp-exec: ", stderr);
                put_lines(stderr, message, strlen(message));
        }

        return status;
}

const char *last_failure(const char **ret_name) {
        *ret_name = failure_name ?: "";
        return failure ?: "";
}

int fail(int status, const char *format, ...) {
        static const char *const names[] = {
                [STATUS_OK] = "",
                [STATUS_TOOL] = "Failed",
                [STATUS_USAGE] = "Usage",
                [STATUS_UNKNOWN] = "NotFound",
                [STATUS_DENIED] = "AccessDenied",
                [STATUS_TIMEOUT] = "Timeout",
                [STATUS_UNREACHABLE] = "Unreachable",
                [STATUS_SERVER] = "ServerFailed",
                [STATUS_REMOTE] = "Remote",
                [STATUS_LIMIT] = "LimitsExceeded",
        };
        _cleanup_(freep) char *message = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&message, format, ap) < 0)
                out_of_memory();
        va_end(ap);

        return fail_named(status, names[status], message);
}

void note(const char *format, ...) {
        _cleanup_(freep) char *message = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&message, format, ap) < 0)
                out_of_memory();
        va_end(ap);

        if (silent)
                return;

        (void)fflush(stdout);
        put_lines(stderr, message, strlen(message));
}

/* A string of JSON has no C0 characters; DEL and C1 can be written as escapes. */
static void put_json_run(FILE *file, const char *text, size_t size) {
        bool terminal = isatty(fileno(file));

        for (size_t i = 0; i < size;) {
                unsigned character = 0;
                size_t length = utf8_sequence(text + i, size - i, &character);

                if (length == 0)
                        length = 1;
                if (terminal && character >= 0x7f && obeyed(character))
                        fprintf(file, "\\u%04x", character);
                else
                        (void)fwrite(text + i, 1, length, file);
                i += length;
        }
}

static void indent(FILE *file, unsigned depth) {
        fprintf(file, "\n%*s", (int)depth * 2, "");
}

void put_json_indented(FILE *file, JsonSlice value) {
        const char *end = value.data + value.size;
        unsigned depth = 0;

        for (const char *p = value.data; p < end;) {
                const char *start = p;

                if (*p == '"') {
                        for (p++; p < end && *p != '"'; p++)
                                if (*p == '\\')
                                        p++;
                        p++;
                        put_json_run(file, start, MIN(p, end) - start);
                        continue;
                }

                p++;
                if (strchr(" \t\r\n", *start))
                        continue;
                if (*start == '{' || *start == '[') {
                        while (p < end && strchr(" \t\r\n", *p))
                                p++;
                        (void)fputc(*start, file);
                        if (p < end && (*p == '}' || *p == ']'))
                                (void)fputc(*p++, file);
                        else
                                indent(file, ++depth);
                } else if (*start == '}' || *start == ']') {
                        indent(file, --depth);
                        (void)fputc(*start, file);
                } else if (*start == ',') {
                        (void)fputc(',', file);
                        indent(file, depth);
                } else if (*start == ':')
                        (void)fputs(": ", file);
                else
                        (void)fputc(*start, file);
        }
        (void)fputc('\n', file);
}

void put_json(FILE *file, JsonSlice value) {
        if (isatty(fileno(file)))
                put_json_indented(file, value);
        else {
                Buffer line = {};

                must(json_append(&line, value, &(JsonTraits){ .newlines = true }));
                put_json_run(file, buffer_data(&line), buffer_size(&line));
                (void)fputc('\n', file);
                buffer_done(&line);
        }
}

void add_json_string(Buffer *buffer, const char *text, const char *string) {
        must(buffer_append_string(buffer, text));
        must(json_append_quoted(buffer, string, strlen(string)));
}

static char *next_buffer(size_t *ret_size) {
        static char buffers[4][32];
        static unsigned next;

        *ret_size = sizeof(buffers[0]);
        return buffers[next++ % ELEMENTSOF(buffers)];
}

const char *format_duration(uint64_t usec) {
        size_t size;
        char *text = next_buffer(&size);
        uint64_t seconds = usec / USEC_PER_SEC;

        if (usec < USEC_PER_SEC)
                (void)snprintf(text, size, "%.3g ms", (double)usec / USEC_PER_MSEC);
        else if (seconds < 60)
                (void)snprintf(text, size, "%u s", (unsigned)seconds);
        else if (seconds < 3600)
                (void)snprintf(text, size, "%u min %u s", (unsigned)seconds / 60, (unsigned)seconds % 60);
        else if (seconds < 86400)
                (void)snprintf(text, size, "%u h %u min", (unsigned)seconds / 3600, (unsigned)seconds / 60 % 60);
        else
                (void)snprintf(text, size, "%llu d %u h", (unsigned long long)seconds / 86400,
                               (unsigned)(seconds / 3600 % 24));
        return text;
}

const char *format_bytes(uint64_t bytes) {
        static const char *const units[] = { "B", "K", "M", "G", "T" };
        double value = bytes;
        size_t unit = 0, size;
        char *text = next_buffer(&size);

        for (; value >= 1024 && unit + 1 < ELEMENTSOF(units); unit++)
                value /= 1024;
        (void)snprintf(text, size, value < 10 && unit > 0 ? "%.1f%s" : "%.0f%s", value, units[unit]);
        return text;
}
