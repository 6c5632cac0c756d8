#pragma once

#include <stdarg.h>
#include <syslog.h>

#include "base/macro.h"

/* Log records go to the journal with their fields when stderr is connected to it, and as lines of text to stderr
 * otherwise. */

/* Picks the target; records less important than level (LOG_ERR to LOG_DEBUG) are dropped from then on. */
void log_open(int level);

bool log_enabled(int level);

/* fields: "NAME=value" strings (journal-fields(7)) that go with the record, ended by NULL; may be NULL. */
void log_fields(int level, const char *const *fields, const char *format, ...) _printf_(3, 4);

#define log_error(...) log_fields(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_fields(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_fields(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_fields(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_fields(LOG_DEBUG, NULL, __VA_ARGS__)

/* -1 where the word is none of error, warning, notice, info, debug. */
int log_level_from_string(const char *word);
