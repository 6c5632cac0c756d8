#include "broker/list-store.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/sha256.h"
#include "broker/quota.h"

#define FILES_MAX 1024
#define FOLDER_MAX_BYTES ((uint64_t)64 << 20)
#define HEADER_MAX_BYTES 256
#define PART_SUFFIX ".new"
#define PART_SECONDS 60 /* one that is so old was left behind */

struct ListStore {
        char *folder; /* NULL: nothing is kept */
        bool complained;
};

static void feed_strings(Sha256 *hash, char *const *strings) {
        for (; strings && *strings; strings++)
                sha256_feed(hash, *strings, strlen(*strings) + 1);
        sha256_feed(hash, "\xff", 1);
}

/* A digest, because the environment can hold secrets, and nobody shall find another command of the same name. */
static void name_of(const ListKey *key, char *name) {
        char profile[16];
        Sha256 hash;

        (void)snprintf(profile, sizeof(profile), "%u", key->profile);
        sha256_init(&hash);
        feed_strings(&hash, key->config->argv);
        feed_strings(&hash, key->config->environment);
        feed_strings(&hash, (char *const[]){ (char *)(key->config->cwd ?: ""), (char *)key->owner, profile,
                                             (char *)key->kind, NULL });
        sha256_finish(&hash, name);
}

ListKey list_key(const ServerConfig *config, uid_t uid, unsigned profile, const char *kind) {
        ListKey key = { .config = config, .owner = "shared", .profile = profile, .kind = kind };

        if (uid != QUOTA_EVERYBODY)
                (void)snprintf(key.owner, sizeof(key.owner), "uid:%u", (unsigned)uid);
        return key;
}

static char *path_of(const ListStore *store, const ListKey *key, const char *suffix) {
        char name[SHA256_HEX_SIZE], *path = NULL;

        name_of(key, name);
        return asprintf(&path, "%s/%s%s", store->folder, name, suffix) < 0 ? NULL : path;
}

static void digest_of(const char *text, size_t size, char *hex) {
        Sha256 hash;

        sha256_init(&hash);
        sha256_feed(&hash, text, size);
        sha256_finish(&hash, hex);
}

/* The file's bytes, if nobody else can have written them: -errno, also -ENOENT where it isn't there. */
static int read_file(const char *path, Buffer *ret) {
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;
        size_t size = 0;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
                return -EPERM;
        if ((uint64_t)st.st_size > LIST_STORE_TEXT_MAX + HEADER_MAX_BYTES)
                return -EFBIG;

        r = buffer_reserve(ret, st.st_size);
        if (r < 0)
                return r;

        while (size < (size_t)st.st_size) {
                ssize_t n = pread(fd, ret->data + ret->end, st.st_size - size, (off_t)size);

                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -EBADMSG;
                ret->end += n;
                size += n;
        }

        return 0;
}

/* 0 with the place of the text in file; -EBADMSG; -ETIME where it is too old, or from the future: the clock was put
 * back, and how old it is can't be known. What never expires minds no clock. */
static int check_file(const Buffer *file, const ListKey *key, uint64_t now, size_t *ret_begin, uint64_t *ret_expires) {
        char header[HEADER_MAX_BYTES + 1] = {}, kind[32], digest[SHA256_HEX_SIZE], actual[SHA256_HEX_SIZE];
        size_t size = buffer_size(file), begin;
        uint64_t saved, expires, length;
        const char *end;

        memcpy(header, buffer_data(file) ?: "", MIN(size, (size_t)HEADER_MAX_BYTES));
        end = strchr(header, '\n');
        if (!end || sscanf(header, "mcp-exec-list 1 %31s %" SCNu64 " %" SCNu64 " %" SCNu64 " %64[0-9a-f]\n", kind,
                           &saved, &expires, &length, digest) != 5)
                return -EBADMSG;

        begin = end - header + 1;
        digest_of(buffer_data(file) + begin, size - begin, actual);
        if (!streq(kind, key->kind) || length != size - begin || !streq(digest, actual))
                return -EBADMSG;
        if (expires < USEC_INFINITY && (now >= expires || saved > now))
                return -ETIME;

        *ret_begin = begin;
        *ret_expires = expires;
        return 0;
}

int list_store_read(ListStore *store, const ListKey *key, uint64_t now, Buffer *ret, uint64_t *ret_expires) {
        _cleanup_(freep) char *path = NULL;
        Buffer file = {};
        size_t begin = 0;
        int r;

        if (!store->folder)
                return -ENOENT;
        path = path_of(store, key, "");
        if (!path)
                return -ENOENT;

        r = read_file(path, &file);
        if (r >= 0)
                r = check_file(&file, key, now, &begin, ret_expires);
        if (r >= 0)
                r = buffer_append(ret, buffer_data(&file) + begin, buffer_size(&file) - begin);
        buffer_done(&file);

        if (r == -ETIME)
                log_debug("%s: the kept %s is too old, or the clock was changed", key->config->name, key->kind);
        else if (r == -EBADMSG)
                log_notice("%s: the kept %s can't be used: %s isn't whole", key->config->name, key->kind, path);
        else if (r < 0 && r != -ENOENT)
                log_notice("%s: the kept %s can't be used: %s: %s", key->config->name, key->kind, path, strerror(-r));
        return r < 0 ? -ENOENT : 0;
}

typedef struct Entry {
        char name[SHA256_HEX_SIZE];
        uint64_t size;
        struct timespec modified;
} Entry;

static int compare_age(const void *a, const void *b) {
        const Entry *x = a, *y = b;

        if (x->modified.tv_sec != y->modified.tv_sec)
                return x->modified.tv_sec < y->modified.tv_sec ? -1 : 1;
        if (x->modified.tv_nsec != y->modified.tv_nsec)
                return x->modified.tv_nsec < y->modified.tv_nsec ? -1 : 1;
        return 0;
}

static bool is_digest(const char *name) {
        return strspn(name, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
}

/* Removes what an earlier service left half written, and the oldest where there are too many. It looks each time: other
 * services may share the folder, and writing is rare. */
static void make_room(const ListStore *store, uint64_t now, uint64_t size) {
        _cleanup_(freep) Entry *entries = new0(Entry, 2 * FILES_MAX);
        DIR *folder = entries ? opendir(store->folder) : NULL;
        struct dirent *found;
        uint64_t total = size;
        size_t n = 0;

        if (!folder)
                return;

        while ((found = readdir(folder))) {
                struct stat st;
                const char *suffix = found->d_name + SHA256_HEX_SIZE - 1;

                if (!is_digest(found->d_name) || fstatat(dirfd(folder), found->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                    !S_ISREG(st.st_mode))
                        continue;
                if (streq(suffix, PART_SUFFIX) && (uint64_t)st.st_mtim.tv_sec + PART_SECONDS < now / USEC_PER_SEC)
                        (void)unlinkat(dirfd(folder), found->d_name, 0);
                if (*suffix || n >= 2 * FILES_MAX)
                        continue;

                (void)snprintf(entries[n].name, sizeof(entries->name), "%.64s", found->d_name);
                entries[n].size = st.st_size;
                entries[n++].modified = st.st_mtim;
                total += st.st_size;
        }

        qsort(entries, n, sizeof(Entry), compare_age);
        for (size_t i = 0; i < n && (n - i >= FILES_MAX || total > FOLDER_MAX_BYTES); i++)
                if (unlinkat(dirfd(folder), entries[i].name, 0) >= 0)
                        total -= entries[i].size;
        (void)closedir(folder);
}

static int write_all(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0)
                        return -errno;
                data += n;
                size -= n;
        }

        return 0;
}

void list_store_write(ListStore *store, const ListKey *key, uint64_t now, uint64_t expires, const char *text,
                      size_t size) {
        _cleanup_(freep) char *path = NULL, *part = NULL;
        _cleanup_(closep) int fd = -EBADF;
        char header[HEADER_MAX_BYTES], digest[SHA256_HEX_SIZE];
        int r;

        if (!store->folder || size > LIST_STORE_TEXT_MAX)
                return;
        path = path_of(store, key, "");
        part = path_of(store, key, PART_SUFFIX);
        if (!path || !part)
                return;

        digest_of(text, size, digest);
        (void)snprintf(header, sizeof(header), "mcp-exec-list 1 %s %" PRIu64 " %" PRIu64 " %zu %s\n", key->kind, now,
                       expires, size, digest);

        make_room(store, now, size);
        (void)unlink(part);
        fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = fd < 0 ? -errno : write_all(fd, header, strlen(header));
        if (r >= 0)
                r = write_all(fd, text, size);
        if (r >= 0 && rename(part, path) < 0)
                r = -errno;
        if (r < 0) {
                (void)unlink(part);
                /* An outdated one is worse than none. */
                (void)unlink(path);
        }

        if (r < 0 && !store->complained)
                log_notice("%s: the %s can't be kept in %s: %s", key->config->name, key->kind, store->folder,
                           strerror(-r));
        store->complained = r < 0;
}

void list_store_remove(ListStore *store, const ListKey *key) {
        _cleanup_(freep) char *path = store->folder ? path_of(store, key, "") : NULL;

        if (path)
                (void)unlink(path);
}

static void make_folders(char *path) {
        for (char *p = path + 1; *p; p++)
                if (*p == '/') {
                        *p = 0;
                        (void)mkdir(path, 0700);
                        *p = '/';
                }
        (void)mkdir(path, 0700);
}

ListStore *list_store_new(const char *folder) {
        ListStore *store = new0(ListStore, 1);

        if (!store || !folder || !*folder)
                return store;

        store->folder = strdup(folder);
        if (!store->folder)
                return list_store_free(store);

        make_folders(store->folder);
        return store;
}

ListStore *list_store_free(ListStore *store) {
        if (store)
                free(store->folder);
        free(store);
        return NULL;
}
