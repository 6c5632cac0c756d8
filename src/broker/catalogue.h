#pragma once

#include <systemd/sd-event.h>

#include "broker/config-file.h"

/* What is configured: the servers and settings that the files of the configuration folders say, read again when
 * they change. A file that can't be used leaves its last good version in force. */
typedef struct Catalogue Catalogue;

/* changed() is called after the files were read again by themselves; problems are what is wrong with them now. */
typedef void (*catalogue_changed_handler)(void *userdata);

/* folders: NULL-terminated, the first takes precedence; copied. required: one that isn't there is a problem. */
int catalogue_new(sd_event *event, const char *const *folders, bool required, catalogue_changed_handler changed,
                  void *userdata, Catalogue **ret);
Catalogue *catalogue_free(Catalogue *catalogue);

/* Reads the files now; changed() is not called. */
void catalogue_load(Catalogue *catalogue);

/* Of the last load. The servers are sorted by name; an unchanged one is the same object as before. */
ServerConfig *const *catalogue_servers(const Catalogue *catalogue, size_t *ret_n);
const Settings *catalogue_settings(const Catalogue *catalogue);
const ProblemList *catalogue_problems(const Catalogue *catalogue);

/* The standard folders of section "Files" in mcp-exec.json(5), for the system or the user. NULL when out of memory;
 * freed with strings_free(). */
char **catalogue_standard_folders(bool user);

DEFINE_CLEANUP(Catalogue *, catalogue_free, catalogue_freep)
