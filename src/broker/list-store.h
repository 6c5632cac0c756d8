#pragma once

#include "base/buffer.h"
#include "worker/server-config.h"

/* Texts that were learned from servers and outlive the service: a file for each, in one folder. What can't be written
 * isn't kept, and what can't be read, or isn't whole, counts as not there: neither is an error. */
typedef struct ListStore ListStore;

/* What a text is of: the exact command, for whom its worker ran, and as what it was told that its client is */
typedef struct ListKey {
        const ServerConfig *config;
        char owner[32]; /* "shared", or "uid:N": whose connection it was means nothing later */
        unsigned profile;
        const char *kind;
} ListKey;

/* uid: the pool's */
ListKey list_key(const ServerConfig *config, uid_t uid, unsigned profile, const char *kind);

#define LIST_STORE_TEXT_MAX ((size_t)8 << 20)

/* folder: made where it isn't there; NULL: nothing is kept. NULL when out of memory. */
ListStore *list_store_new(const char *folder);
ListStore *list_store_free(ListStore *store);

/* Appends the text to *ret. Times are usec, CLOCK_REALTIME; USEC_INFINITY: for ever. -ENOENT where there is none that
 * is good now. */
int list_store_read(ListStore *store, const ListKey *key, uint64_t now, Buffer *ret, uint64_t *ret_expires);

/* Replaces the text in one step. The oldest ones make room where there are too many. */
void list_store_write(ListStore *store, const ListKey *key, uint64_t now, uint64_t expires, const char *text,
                      size_t size);

void list_store_remove(ListStore *store, const ListKey *key);
