#include "broker/era-cache.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define VERDICTS_MAX 1024

typedef struct Verdict {
        uint64_t command;
        McpEra era;
} Verdict;

struct EraCache {
        char *path; /* NULL: no file */
        Verdict verdicts[VERDICTS_MAX];
        size_t n;
};

/* FNV-1a of the strings with their ends. A hash, because the environment can hold secrets; two commands that had the
 * same would cost a start that fails and is repeated. */
static uint64_t hash_strings(uint64_t hash, char *const *strings) {
        for (; strings && *strings; strings++) {
                const char *p = *strings;

                do
                        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
                while (*p++);
        }

        return (hash ^ 0xff) * UINT64_C(0x100000001b3);
}

static uint64_t command_of(const ServerConfig *config) {
        return hash_strings(hash_strings(UINT64_C(0xcbf29ce484222325), config->argv), config->environment);
}

static Verdict *find(const EraCache *cache, uint64_t command) {
        for (size_t i = 0; i < cache->n; i++)
                if (cache->verdicts[i].command == command)
                        return (Verdict *)&cache->verdicts[i];

        return NULL;
}

static void load(EraCache *cache) {
        int fd = open(cache->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
        uint64_t command;
        char word[16];

        if (!file) {
                safe_close(fd);
                return;
        }

        while (cache->n < VERDICTS_MAX && fscanf(file, "%16" SCNx64 " %15s", &command, word) == 2) {
                int era = mcp_era_from_string(word, strlen(word));

                if (era > MCP_ERA_AUTO && !find(cache, command))
                        cache->verdicts[cache->n++] = (Verdict){ command, era };
        }
        (void)fclose(file);
}

/* Whole or not at all: another service may read it meanwhile. */
static void save(const EraCache *cache) {
        _cleanup_(freep) char *part = NULL;
        FILE *file;
        bool good;

        if (!cache->path || asprintf(&part, "%s.new", cache->path) < 0) {
                part = NULL;
                return;
        }

        file = fopen(part, "we");
        if (!file)
                return;
        for (size_t i = 0; i < cache->n; i++)
                (void)fprintf(file, "%016" PRIx64 " %s\n", cache->verdicts[i].command,
                              mcp_era_to_string(cache->verdicts[i].era));

        good = !ferror(file);
        good = fclose(file) == 0 && good;
        if (!good || rename(part, cache->path) < 0)
                (void)unlink(part);
}

EraCache *era_cache_new(const char *folder) {
        EraCache *cache = new0(EraCache, 1);

        if (!cache || !folder)
                return cache;

        (void)mkdir(folder, 0700);
        if (asprintf(&cache->path, "%s/eras", folder) < 0)
                cache->path = NULL;
        else
                load(cache);

        return cache;
}

EraCache *era_cache_free(EraCache *cache) {
        if (cache)
                free(cache->path);
        free(cache);
        return NULL;
}

McpEra era_cache_get(const EraCache *cache, const ServerConfig *config) {
        const Verdict *verdict;

        if (config->era != MCP_ERA_AUTO)
                return config->era;

        verdict = find(cache, command_of(config));
        return verdict ? verdict->era : MCP_ERA_AUTO;
}

void era_cache_set(EraCache *cache, const ServerConfig *config, McpEra era) {
        uint64_t command = command_of(config);
        Verdict *verdict = find(cache, command);

        if (config->era != MCP_ERA_AUTO || (verdict ? verdict->era == era : era == MCP_ERA_AUTO))
                return;

        if (era == MCP_ERA_AUTO)
                *verdict = cache->verdicts[--cache->n];
        else {
                /* Full: the oldest are as good to forget as any. */
                if (!verdict && cache->n == VERDICTS_MAX)
                        memmove(cache->verdicts, cache->verdicts + 1, sizeof(Verdict) * --cache->n);
                if (!verdict)
                        verdict = &cache->verdicts[cache->n++];
                *verdict = (Verdict){ command, era };
        }

        save(cache);
}
