#pragma once

#include "worker/server-config.h"

/* Which era a command was found to speak, so that each exact command (argv and environment) is asked once, also when
 * the service has left and come again: kept in a file that lives until the user has logged out or the machine restarts.
 */
typedef struct EraCache EraCache;

/* folder: where the file is, made where it isn't there; NULL: kept in memory alone. A file that can't be read counts as
 * empty. NULL when out of memory. */
EraCache *era_cache_new(const char *folder);
EraCache *era_cache_free(EraCache *cache);

/* The configuration's own word, else the last verdict, else MCP_ERA_AUTO */
McpEra era_cache_get(const EraCache *cache, const ServerConfig *config);

/* MCP_ERA_AUTO forgets. What can't be written is remembered all the same. */
void era_cache_set(EraCache *cache, const ServerConfig *config, McpEra era);
