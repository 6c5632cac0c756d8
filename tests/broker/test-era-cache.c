#include "broker/era-cache.h"

#include <stdio.h>
#include <sys/stat.h>

#include "unit.h"

static ServerConfig *command(const char *argument) {
        ServerConfig *config = server_config_new("a");

        config->argv = new0(char *, 3);
        config->argv[0] = strdup("/bin/true");
        config->argv[1] = strdup(argument);
        return config;
}

static char *folder(void) {
        static char path[] = "/tmp/test-era-cache-XXXXXX";

        return mkdtemp(path);
}

static void test_verdicts_are_per_command(void) {
        EraCache *cache = era_cache_new(NULL);
        ServerConfig *one = command("1"), *two = command("2");

        era_cache_set(cache, one, MCP_ERA_LEGACY);
        assert_true(era_cache_get(cache, one) == MCP_ERA_LEGACY);
        assert_true(era_cache_get(cache, two) == MCP_ERA_AUTO);
        era_cache_set(cache, one, MCP_ERA_MODERN);
        assert_true(era_cache_get(cache, one) == MCP_ERA_MODERN);
        era_cache_set(cache, one, MCP_ERA_AUTO);
        assert_true(era_cache_get(cache, one) == MCP_ERA_AUTO);

        two->era = MCP_ERA_MODERN;
        assert_true(era_cache_get(cache, two) == MCP_ERA_MODERN);

        server_config_unref(one);
        server_config_unref(two);
        era_cache_free(cache);
}

static void test_survives_in_its_file(void) {
        char *path = folder(), file[256];
        EraCache *cache = era_cache_new(path);
        ServerConfig *one = command("1"), *two = command("2");

        era_cache_set(cache, one, MCP_ERA_LEGACY);
        era_cache_set(cache, two, MCP_ERA_MODERN);
        era_cache_free(cache);

        cache = era_cache_new(path);
        assert_true(era_cache_get(cache, one) == MCP_ERA_LEGACY);
        assert_true(era_cache_get(cache, two) == MCP_ERA_MODERN);
        era_cache_set(cache, one, MCP_ERA_AUTO);
        era_cache_free(cache);

        cache = era_cache_new(path);
        assert_true(era_cache_get(cache, one) == MCP_ERA_AUTO);
        assert_true(era_cache_get(cache, two) == MCP_ERA_MODERN);
        era_cache_free(cache);

        (void)snprintf(file, sizeof(file), "%s/eras", path);
        assert_true(unlink(file) == 0 && rmdir(path) == 0);
        server_config_unref(one);
        server_config_unref(two);
}

static void test_rubbish_counts_as_empty(void) {
        char path[] = "/tmp/test-era-cache-XXXXXX", file[256];
        ServerConfig *one = command("1");
        EraCache *cache;
        FILE *out;

        assert_true(mkdtemp(path));
        (void)snprintf(file, sizeof(file), "%s/eras", path);
        out = fopen(file, "w");
        assert_true(out);
        (void)fputs("zzz legacy\n12 nothing\n13 auto\n\xff\xfe", out);
        (void)fclose(out);

        cache = era_cache_new(path);
        assert_true(era_cache_get(cache, one) == MCP_ERA_AUTO);
        era_cache_set(cache, one, MCP_ERA_LEGACY);
        assert_true(era_cache_get(cache, one) == MCP_ERA_LEGACY);
        era_cache_free(cache);

        assert_true(unlink(file) == 0 && rmdir(path) == 0);
        server_config_unref(one);
}

static void test_more_than_fit(void) {
        EraCache *cache = era_cache_new(NULL);
        char argument[16];

        for (int i = 0; i < 3000; i++) {
                ServerConfig *config;

                (void)snprintf(argument, sizeof(argument), "%d", i);
                config = command(argument);
                era_cache_set(cache, config, MCP_ERA_LEGACY);
                assert_true(era_cache_get(cache, config) == MCP_ERA_LEGACY);
                server_config_unref(config);
        }
        era_cache_free(cache);
}

int main(void) {
        test_verdicts_are_per_command();
        test_survives_in_its_file();
        test_rubbish_counts_as_empty();
        test_more_than_fit();
        return 0;
}
