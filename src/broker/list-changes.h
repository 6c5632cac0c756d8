#pragma once

#include "base/sha256.h"
#include "broker/list-store.h"
#include "broker/lists.h"

/* Compares a server's tools with those that it listed the last time that anybody asked, be it years ago, remembers
 * these, and says in the log what is different: a tool's description is read by a model that acts on it. True where
 * something is. key's kind is not looked at. */
bool list_changes_note(ListStore *store, const ListKey *key, uint64_t now, const ListItem *tools, size_t n_tools);

/* What stands for all of the tools, in whatever order they are listed. -ENOMEM */
int list_changes_digest(const ListItem *tools, size_t n_tools, char hex[static SHA256_HEX_SIZE]);
