#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Length in bytes (1 to 4) of the well-formed UTF-8 sequence at data (RFC 3629: no surrogates, no overlong
 * forms, nothing past U+10FFFF), or 0. *ret_character is optional. */
size_t utf8_sequence(const char *data, size_t size, unsigned *ret_character);

/* Whether sd-bus and some other D-Bus libraries refuse the character in a string: the Unicode noncharacters. */
bool utf8_noncharacter(unsigned character);

/* Replaces noncharacters in valid UTF-8 by U+FFFD, in place: sd-bus takes the text then. NULL is allowed. */
void text_replace_noncharacters(char *text);

/* A copy that is safe to show, log and put on the bus: valid UTF-8, with control characters, invalid bytes,
 * noncharacters and what breaks lines or changes the direction of writing as \xNN. Cut, with "..." at the end, so that
 * it has at most max bytes. NULL when out of memory. */
char *text_escape(const char *data, size_t size, size_t max);

/* For "did you mean": takes candidate for *nearest where it is fewer than *best single-character changes from word, and
 * says so in *best; capitals count for nothing. Start with TEXT_NEAR and NULL. Candidates of 64 bytes and more are
 * never near. */
#define TEXT_NEAR 3
void text_nearer(const char *word, const char *candidate, unsigned *best, const char **nearest);

/* Whether name is [a-z0-9-]{1,64}, the form of a server's name. */
bool text_is_name(const char *name);
