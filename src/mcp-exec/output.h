#pragma once

#include <stdio.h>

#include "base/macro.h"
#include "wire/json.h"

/* What goes to the terminal. Words of servers are other people's: on a terminal their control characters are shown,
 * not obeyed; into files and pipes their bytes go as they are. */

typedef enum Color { COLOR_NONE, COLOR_BOLD, COLOR_DIM, COLOR_RED, COLOR_GREEN, COLOR_YELLOW } Color;

typedef enum ColorChoice { COLORS_AUTO, COLORS_ALWAYS, COLORS_NEVER } ColorChoice;

/* -1 where the word is none of them */
int color_choice_from_string(const char *word);

/* Whether fail() and note() say nothing */
void output_silence(bool silent);

void output_open(ColorChoice colors, bool json);
/* Columns of the terminal; SIZE_MAX where there is none */
size_t output_width(void);
/* Lines of the terminal, likewise */
size_t output_height(void);

/* Escape sequences, or "" */
const char *color_on(Color color);
const char *color_off(Color color);

/* The color of a server's or worker's state */
Color state_color(const char *state);

/* Tells what is wrong on stderr, as "mcp-exec: ..." or, with --json, as an object. Returns status. */
int fail(int status, const char *format, ...) _printf_(2, 3);
int fail_named(int status, const char *name, const char *message);
/* The text of what was told last, and its name. Valid until the next failure. */
const char *last_failure(const char **ret_name);
/* The same without the program's end */
void note(const char *format, ...) _printf_(1, 2);

void put_text(FILE *file, const char *text, size_t size);
/* The same, with a line's end if it has none */
void put_lines(FILE *file, const char *text, size_t size);

/* A valid JSON text: indented on a terminal, otherwise as it is on one line; and always indented. */
void put_json(FILE *file, JsonSlice value);
void put_json_indented(FILE *file, JsonSlice value);

/* Appends text, then string as JSON. */
void add_json_string(Buffer *buffer, const char *text, const char *string);

/* Texts within the terminal's width (table.c). Without a terminal nothing is cut or wrapped. */

/* Columns that it takes */
size_t text_width(const char *text);
/* Prints text, or what of it fits into width columns. */
void put_cut(FILE *file, const char *text, size_t width);
/* Prints a server's words to the line's end, wrapped between words. The cursor is at column used, further lines begin
 * at column indent. Its own line breaks and indentation are kept. */
void put_wrapped(const char *text, size_t size, size_t used, size_t indent);
/* What others wrote as one line that is safe to show, freed by the caller */
char *one_line(const char *text);

/* Rows of cells, each column as wide as needed. On a narrow terminal the last one is cut, or wrapped, and a first one
 * that is too long stands on a line of its own, or is cut as well. */
typedef struct Table {
        const char *const *titles;
        size_t n_columns;
        unsigned right; /* bits: columns of numbers */
        bool wrap;      /* the last column */
        bool cut;       /* the first column */
        struct Cell {
                char *text;
                size_t width;
                Color color;
        } * cells;
        size_t n_cells, n_allocated;
} Table;

void table_add(Table *table, Color color, const char *text);
void table_addf(Table *table, Color color, const char *format, ...) _printf_(3, 4);
void table_print(Table *table, const char *indent);
void table_done(Table *table);

/* "3 min", "2.5 s": for people. Valid until the fourth call after it. */
const char *format_duration(uint64_t usec);
const char *format_bytes(uint64_t bytes);
