#include "broker/list-store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "unit.h"

#define NOW UINT64_C(1000000)

static ServerConfig *command(const char *argument) {
        ServerConfig *config = server_config_new("a");

        config->argv = new0(char *, 3);
        config->argv[0] = strdup("/bin/true");
        config->argv[1] = strdup(argument);
        return config;
}

static char *folder(char *path) {
        strcpy(path, "/tmp/test-list-store-XXXXXX");
        return mkdtemp(path);
}

/* The path of the only file there is, or the number of files */
static size_t only_file(const char *path, char *file, size_t size) {
        DIR *dir = opendir(path);
        struct dirent *entry;
        size_t n = 0;

        assert_true(dir);
        while ((entry = readdir(dir)))
                if (entry->d_name[0] != '.') {
                        n++;
                        if (file)
                                (void)snprintf(file, size, "%s/%s", path, entry->d_name);
                }
        closedir(dir);
        return n;
}

static void clean(const char *path) {
        char file[512];

        while (only_file(path, file, sizeof(file)) > 0)
                (void)unlink(file);
        (void)rmdir(path);
}

static bool has(ListStore *store, const ListKey *key, uint64_t now, const char *text) {
        Buffer found = {};
        uint64_t expires = 0;
        bool there = list_store_read(store, key, now, &found, &expires) >= 0;

        if (there)
                assert_bytes(buffer_data(&found), buffer_size(&found), text, strlen(text));
        buffer_done(&found);
        return there;
}

static void write_text(ListStore *store, const ListKey *key, uint64_t expires, const char *text) {
        list_store_write(store, key, NOW, expires, text, strlen(text));
}

static void test_kept_per_command_owner_profile_and_kind(void) {
        ServerConfig *one = command("1"), *two = command("2");
        char path[64];
        ListStore *store = list_store_new(folder(path));
        ListKey key = { one, "uid:1", 0, "tools" };

        write_text(store, &key, USEC_INFINITY, "first");
        assert_true(has(store, &key, NOW, "first"));
        assert_false(has(store, &(ListKey){ two, "uid:1", 0, "tools" }, NOW, ""));
        assert_false(has(store, &(ListKey){ one, "uid:2", 0, "tools" }, NOW, ""));
        assert_false(has(store, &(ListKey){ one, "uid:1", 1, "tools" }, NOW, ""));
        assert_false(has(store, &(ListKey){ one, "uid:1", 0, "prompts" }, NOW, ""));
        two->environment = new0(char *, 2);
        two->environment[0] = strdup("SECRET=1");
        write_text(store, &(ListKey){ two, "uid:1", 0, "tools" }, USEC_INFINITY, "");
        assert_true(has(store, &(ListKey){ two, "uid:1", 0, "tools" }, NOW, ""));

        list_store_free(store);
        store = list_store_new(path);
        assert_true(has(store, &key, NOW, "first"));
        write_text(store, &key, USEC_INFINITY, "second");
        assert_true(has(store, &key, NOW, "second"));
        list_store_remove(store, &key);
        assert_false(has(store, &key, NOW, ""));

        list_store_free(store);
        server_config_unref(one);
        server_config_unref(two);
        clean(path);
}

static void test_time_passes(void) {
        ServerConfig *one = command("1");
        char path[64];
        ListStore *store = list_store_new(folder(path));
        ListKey key = { one, "shared", 0, "tools" };

        write_text(store, &key, NOW + 10, "text");
        assert_true(has(store, &key, NOW + 9, "text"));
        assert_false(has(store, &key, NOW + 10, ""));
        assert_false(has(store, &key, NOW - 1, "")); /* the clock was put back */

        write_text(store, &key, USEC_INFINITY, "text");
        assert_true(has(store, &key, NOW - 1, "text"));
        assert_true(has(store, &key, 0, "text"));
        assert_true(has(store, &key, USEC_INFINITY, "text"));

        list_store_free(store);
        server_config_unref(one);
        clean(path);
}

static void test_damage_is_no_list(void) {
        ServerConfig *one = command("1");
        char path[64], file[512], text[] = "a text of some length";
        ListStore *store = list_store_new(folder(path));
        ListKey key = { one, "shared", 0, "tools" };
        struct stat st;

        write_text(store, &key, USEC_INFINITY, text);
        assert_number(only_file(path, file, sizeof(file)), 1);
        assert_true(stat(file, &st) >= 0);
        assert_number(st.st_mode & 0777, 0600);

        for (off_t offset = 0; offset < st.st_size; offset++) {
                char before, after;
                int fd = open(file, O_RDWR);

                assert_number(pread(fd, &before, 1, offset), 1);
                after = before ^ 1;
                assert_number(pwrite(fd, &after, 1, offset), 1);
                /* A digit of the time when it was written may be another one. */
                if (has(store, &key, UINT64_C(10) * NOW, text))
                        assert_true(offset < 64);
                assert_number(pwrite(fd, &before, 1, offset), 1);
                close(fd);
        }

        for (off_t size = st.st_size - 1; size >= 0; size--) {
                assert_true(truncate(file, size) >= 0);
                assert_false(has(store, &key, NOW, ""));
        }

        write_text(store, &key, USEC_INFINITY, text);
        assert_true(chmod(file, 0620) >= 0);
        assert_false(has(store, &key, NOW, ""));
        assert_true(unlink(file) >= 0 && symlink("/dev/zero", file) >= 0);
        assert_false(has(store, &key, NOW, ""));
        write_text(store, &key, USEC_INFINITY, text);
        assert_true(has(store, &key, NOW, text));

        list_store_free(store);
        server_config_unref(one);
        clean(path);
}

static void test_no_room(void) {
        ServerConfig *one = command("1");
        ListStore *store = list_store_new("/dev/null/nowhere");
        ListKey key = { one, "shared", 0, "tools" };

        write_text(store, &key, USEC_INFINITY, "text");
        assert_false(has(store, &key, NOW, ""));
        list_store_free(store);

        store = list_store_new(NULL);
        write_text(store, &key, USEC_INFINITY, "text");
        assert_false(has(store, &key, NOW, ""));
        list_store_free(store);
        server_config_unref(one);
}

static void test_number_is_bounded(void) {
        ServerConfig *one = command("1");
        char path[64];
        ListStore *store = list_store_new(folder(path));

        for (unsigned i = 0; i < 1100; i++) {
                ListKey key = { one, "shared", i, "tools" };

                write_text(store, &key, USEC_INFINITY, "text");
                assert_true(has(store, &key, NOW, "text"));
        }
        assert_true(only_file(path, NULL, 0) <= 1024);

        list_store_free(store);
        server_config_unref(one);
        clean(path);
}

int main(void) {
        test_kept_per_command_owner_profile_and_kind();
        test_time_passes();
        test_damage_is_no_list();
        test_no_room();
        test_number_is_bounded();
        return 0;
}
