/* Tables and texts within the terminal's width. */

#include <stdarg.h>
#include <wchar.h>

#include "base/text.h"
#include "mcp-exec/cli.h"
#include "mcp-exec/output.h"

#define CELL_MAX 4096

/* Columns that are kept on a narrow terminal */
#define FIRST_COLUMN_MIN ((size_t)8)
#define LAST_COLUMN_MIN ((size_t)40)

#define ZERO_WIDTH_JOINER 0x200d

/* The first character of text: its length in bytes, which is at least 1, and its columns */
static size_t measure(const char *text, unsigned *ret_character, size_t *ret_columns) {
        size_t length = utf8_sequence(text, strnlen(text, 4), ret_character);
        int columns = length > 0 ? wcwidth(*ret_character) : 1;

        *ret_columns = columns >= 0 ? (size_t)columns : 1;
        return MAX(length, (size_t)1);
}

size_t text_width(const char *text) {
        size_t width = 0, columns;
        unsigned character = 0;

        for (; *text; text += measure(text, &character, &columns), width += columns)
                ;
        return width;
}

void put_cut(FILE *file, const char *text, size_t width) {
        size_t used = 0, columns, length;
        unsigned character = 0;

        if (text_width(text) <= width) {
                (void)fputs(text, file);
                return;
        }

        for (; width > 0 && *text; text += length) {
                length = measure(text, &character, &columns);
                used += columns;
                if (used > width - 1)
                        break;
                (void)fwrite(text, 1, length, file);
        }
        (void)fputs("…", file);
}

/* How much of text goes on a line of so many columns: all, or up to a blank or beside a wide character. 0 where its
 * first word is longer than that. */
static size_t line_length(const char *text, size_t columns_left) {
        size_t found = 0, used = 0, columns, before = 0;
        unsigned character = 0, character_before = 0;

        for (const char *p = text; *p; character_before = character, before = columns) {
                size_t length = measure(p, &character, &columns);

                if (p > text && (character == ' ' || (columns > 0 && character_before != ZERO_WIDTH_JOINER &&
                                                      (columns > 1 || (before > 1 && character != ' ')))))
                        found = p - text;
                used += columns;
                if (used > columns_left)
                        return found;
                p += length;
        }

        return strlen(text);
}

/* The first word, which is longer than a line: the terminal breaks it, so that it can be copied. */
static size_t word_length(const char *text) {
        size_t blanks = strspn(text, " ");

        return blanks + strcspn(text + blanks, " ");
}

/* A line without breaks */
static void put_wrapped_line(const char *text, size_t used, size_t indent) {
        size_t width = output_width(), left_margin = indent + strspn(text, " ");

        for (;;) {
                size_t length = line_length(text, width > used ? width - used : 0), shown;

                if (length == 0 && used <= left_margin)
                        length = word_length(text);
                for (shown = length; shown > 0 && text[shown - 1] == ' ';)
                        shown--;
                (void)fwrite(text, 1, shown, stdout);
                (void)fputc('\n', stdout);
                text += length;
                text += strspn(text, " ");
                if (!*text)
                        return;
                printf("%*s", (int)left_margin, "");
                used = left_margin;
        }
}

void put_wrapped(const char *text, size_t size, size_t used, size_t indent) {
        bool first = true;

        if (output_width() == SIZE_MAX) {
                put_lines(stdout, text, size);
                return;
        }

        while (size > 0 && strchr("\r\n", text[size - 1]))
                size--;
        for (const char *line = text, *end = text + size; first || line < end; first = false) {
                const char *line_end = memchr(line, '\n', end - line);
                size_t length = (line_end ?: end) - line;
                _cleanup_(freep) char *copy = strndup(line, length), *clean = NULL;

                if (!copy)
                        out_of_memory();
                for (char *p = copy; *p; p++)
                        if (strchr("\t\r", *p))
                                *p = ' ';
                clean = text_escape(copy, strlen(copy), length * 4 + 4);
                if (!clean)
                        out_of_memory();
                if (!first)
                        printf("%*s", (int)indent, "");
                put_wrapped_line(clean, first ? used : indent, indent);
                line += length + 1;
        }
}

char *one_line(const char *text) {
        char *copy = strdup(text), *out = copy, *clean;

        if (!copy)
                out_of_memory();
        for (const char *p = text; *p; p++)
                if (!strchr(" \t\r\n", *p))
                        *out++ = *p;
                else if (out > copy && out[-1] != ' ')
                        *out++ = ' ';
        *out = 0;

        clean = text_escape(copy, strlen(copy), CELL_MAX);
        if (!clean)
                out_of_memory();
        free(copy);
        return clean;
}

void table_add(Table *table, Color color, const char *text) {
        struct Cell *cell;
        /* Its own line breaks would end the row. */
        char *copy = table->wrap ? one_line(text) : text_escape(text, strcspn(text, "\r\n"), CELL_MAX);

        if (!copy)
                out_of_memory();
        if (table->n_cells == table->n_allocated) {
                table->n_allocated = MAX(table->n_allocated * 2, (size_t)64);
                cell = realloc(table->cells, table->n_allocated * sizeof(*cell));
                if (!cell)
                        out_of_memory();
                table->cells = cell;
        }

        table->cells[table->n_cells++] = (struct Cell){ copy, text_width(copy), color };
}

void table_addf(Table *table, Color color, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                out_of_memory();
        va_end(ap);

        table_add(table, color, text);
}

/* On a narrow terminal the first column, of names, makes room for the others. It is as wide as the widest name that
 * fits, and longer ones have a line of their own. */
static void shrink(const Table *table, size_t *widths, size_t indent) {
        size_t n = table->n_columns, space = output_width(), others = indent, limit;

        if (space == SIZE_MAX || n < 2)
                return;
        for (size_t i = 1; i + 1 < n; i++)
                others += widths[i] + 2;
        others += 2 + MIN(widths[n - 1], LAST_COLUMN_MIN);
        limit = MAX(space > others ? space - others : 0, FIRST_COLUMN_MIN);
        if (widths[0] <= limit)
                return;

        widths[0] = limit;
        if (table->cut)
                return;
        widths[0] = text_width(table->titles[0]);
        for (size_t i = 0; i < table->n_cells; i += n)
                if (table->cells[i].width <= limit)
                        widths[0] = MAX(widths[0], table->cells[i].width);
}

static void print_last_cell(const Table *table, const struct Cell *cell, size_t column) {
        size_t width = output_width();

        if (table->wrap && width != SIZE_MAX)
                put_wrapped(cell->text, strlen(cell->text), column, column);
        else {
                put_cut(stdout, cell->text, width > column ? width - column : 1);
                (void)fputc('\n', stdout);
        }
}

static void print_row(const Table *table, const size_t *widths, const char *indentation, const struct Cell *cells) {
        size_t column = strlen(indentation);

        (void)fputs(indentation, stdout);
        for (size_t i = 0; i < table->n_columns; i++) {
                const struct Cell *cell = &cells[i];
                int padding = (int)(widths[i] - MIN(cell->width, widths[i]));
                bool last = i + 1 == table->n_columns, right = table->right & 1U << i;

                if (right)
                        printf("%*s", padding, "");
                (void)fputs(color_on(cell->color), stdout);
                if (last) {
                        print_last_cell(table, cell, column);
                        (void)fputs(color_off(cell->color), stdout);
                        return;
                }
                put_cut(stdout, cell->text, i > 0 || table->cut ? widths[i] : SIZE_MAX);
                (void)fputs(color_off(cell->color), stdout);
                if (cell->width > widths[i] && !table->cut)
                        printf("\n%s%*s", indentation, (int)widths[i] + 2, "");
                else
                        printf("%*s", (right ? 0 : padding) + 2, "");
                column += widths[i] + 2;
        }
}

void table_print(Table *table, const char *indentation) {
        size_t *widths = new0(size_t, table->n_columns);
        struct Cell *titles = new0(struct Cell, table->n_columns);

        if (!widths || !titles)
                out_of_memory();

        for (size_t i = 0; i < table->n_columns; i++) {
                titles[i] = (struct Cell){ (char *)table->titles[i], text_width(table->titles[i]), COLOR_DIM };
                widths[i] = titles[i].width;
        }
        for (size_t i = 0; i < table->n_cells; i++)
                widths[i % table->n_columns] = MAX(widths[i % table->n_columns], table->cells[i].width);

        shrink(table, widths, strlen(indentation));
        print_row(table, widths, indentation, titles);
        for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns)
                print_row(table, widths, indentation, table->cells + i);

        free(widths);
        free(titles);
}

void table_done(Table *table) {
        for (size_t i = 0; i < table->n_cells; i++)
                free(table->cells[i].text);
        free(table->cells);
        table->cells = NULL;
        table->n_cells = table->n_allocated = 0;
}
