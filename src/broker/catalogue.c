#include "broker/catalogue.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define FILE_MAX_BYTES ((size_t)1 << 20)
#define FILES_MAX 1024
#define SETTLE_TIME (USEC_PER_SEC / 10) /* an editor's several steps become one reading */
#define RETRY_TIME (5 * USEC_PER_SEC)   /* after a reading for which there weren't the means */

/* The last good version of one file */
typedef struct File {
        TAILQ_ENTRY(File) link;
        char *path;
        ServerConfig **servers;
        size_t n_servers;
        bool seen; /* by the load under way */
} File;

/* A folder that is watched. name: only what happens to that entry of it counts; NULL: all. */
typedef struct Watch {
        Catalogue *catalogue;
        sd_event_source *source;
        char *name;
} Watch;

struct Catalogue {
        sd_event *event;
        char **folders;
        bool required; /* a folder that isn't there is a problem */
        catalogue_changed_handler changed;
        void *userdata;

        TAILQ_HEAD(FileList, File) files;
        ServerConfig **servers; /* of the files, each with a reference */
        size_t n_servers;
        bool starved; /* the load under way had no memory, or no descriptor, for something */
        Settings settings;
        ProblemList problems;

        Watch *watches;
        size_t n_watches;
        sd_event_source *settle_source;
};

static File *file_free(File *file) {
        for (size_t i = 0; i < file->n_servers; i++)
                server_config_unref(file->servers[i]);
        free(file->servers);
        free(file->path);
        free(file);
        return NULL;
}

/* What can't be had now isn't gone: all stays as it was, and is read once more later. */
static int note_shortage(Catalogue *catalogue, int r) {
        catalogue->starved = catalogue->starved || r == -ENOMEM || r == -EMFILE || r == -ENFILE;
        return r;
}

static File *find_file(Catalogue *catalogue, const char *path) {
        File *file;

        TAILQ_FOREACH(file, &catalogue->files, link)
                if (streq(file->path, path))
                        return file;

        return NULL;
}

/* Whether nobody but root and this user can have written it */
static bool trusted(const struct stat *st) {
        return (st->st_uid == 0 || st->st_uid == geteuid()) && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* 0 with the text; 1 where the file masks others and holds nothing; -errno, with the problem added. */
static int read_file(Catalogue *catalogue, int folder_fd, const char *name, const char *path, Buffer *text) {
        _cleanup_(closep) int fd = -EBADF;
        struct stat st;
        int r;

        /* O_NONBLOCK: a FIFO would wait for its writer. */
        fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0) {
                r = -errno;
                (void)problem_add(&catalogue->problems, path, "can't be read: %s", strerror(-r));
                return r;
        }

        if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
                return 1;

        if (!S_ISREG(st.st_mode)) {
                (void)problem_add(&catalogue->problems, path, "is no regular file");
                return -EINVAL;
        }
        if (!trusted(&st)) {
                (void)problem_add(
                        &catalogue->problems, path,
                        "refused: it can be written by others than root and this service's user (mode %03o, owner %u)",
                        st.st_mode & 0777, (unsigned)st.st_uid);
                return -EPERM;
        }
        if ((size_t)st.st_size > FILE_MAX_BYTES) {
                (void)problem_add(&catalogue->problems, path, "is larger than %zu bytes", FILE_MAX_BYTES);
                return -EFBIG;
        }

        for (;;) {
                ssize_t n;

                r = buffer_reserve(text, 4096);
                if (r < 0)
                        return r;
                n = read(fd, text->data + text->end, 4096);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        r = -errno;
                        (void)problem_add(&catalogue->problems, path, "can't be read: %s", strerror(-r));
                        return r;
                }
                if (n == 0 || buffer_size(text) > FILE_MAX_BYTES)
                        return 0;
                text->end += n;
        }
}

static bool same(const ServerConfig *a, const ServerConfig *b) {
        return streq(a->name, b->name) && streq(a->text, b->text) && a->access.n_uids == b->access.n_uids &&
               a->access.n_gids == b->access.n_gids &&
               (a->access.n_uids == 0 ||
                memcmp(a->access.uids, b->access.uids, a->access.n_uids * sizeof(uid_t)) == 0) &&
               (a->access.n_gids == 0 || memcmp(a->access.gids, b->access.gids, a->access.n_gids * sizeof(gid_t)) == 0);
}

/* A new version takes a file's place; servers that didn't change stay the objects that they were. */
static void keep_unchanged(const File *old, File *file) {
        for (size_t i = 0; i < file->n_servers; i++)
                for (size_t j = 0; j < old->n_servers; j++)
                        if (same(file->servers[i], old->servers[j])) {
                                server_config_unref(file->servers[i]);
                                file->servers[i] = server_config_ref(old->servers[j]);
                                break;
                        }
}

/* The files stand in the order in which the load under way has come by them, which is their precedence. */
static void keep(Catalogue *catalogue, File *file) {
        TAILQ_REMOVE(&catalogue->files, file, link);
        TAILQ_INSERT_TAIL(&catalogue->files, file, link);
        file->seen = true;
}

static void load_file(Catalogue *catalogue, int folder_fd, const char *name, const char *path) {
        _cleanup_(freep) char *stem = strndup(name, strlen(name) - strlen(".json"));
        File *old = find_file(catalogue, path), *file;
        Buffer text = {};
        int r;

        file = new0(File, 1);
        if (!file || !stem || !(file->path = strdup(path))) {
                free(file);
                (void)problem_add(&catalogue->problems, path, "out of memory");
                note_shortage(catalogue, -ENOMEM);
                if (old)
                        keep(catalogue, old);
                return;
        }

        r = read_file(catalogue, folder_fd, name, path, &text);
        if (r == 0)
                r = config_read_servers(path, stem, text.data ? buffer_data(&text) : "", buffer_size(&text),
                                        &catalogue->problems, &file->servers, &file->n_servers);
        buffer_done(&text);

        if (note_shortage(catalogue, r) < 0) {
                file_free(file);
                /* Refused, it isn't trusted any more; broken, its last good version is. */
                if (old && r != -EPERM)
                        keep(catalogue, old);
                return;
        }

        if (old) {
                keep_unchanged(old, file);
                TAILQ_REMOVE(&catalogue->files, old, link);
                file_free(old);
        }
        TAILQ_INSERT_TAIL(&catalogue->files, file, link);
        keep(catalogue, file);
}

static int is_json(const struct dirent *entry) {
        size_t length = strlen(entry->d_name);

        return entry->d_name[0] != '.' && length > strlen(".json") &&
               streq(entry->d_name + length - strlen(".json"), ".json");
}

static bool masked(char *const *names, size_t n, const char *name) {
        for (size_t i = 0; i < n; i++)
                if (streq(names[i], name))
                        return true;

        return false;
}

static void load_folder(Catalogue *catalogue, const char *folder, char **names, size_t *n_names) {
        _cleanup_(freep) char *path = NULL;
        _cleanup_(closep) int fd = -EBADF;
        struct dirent **entries = NULL;
        struct stat st;
        int n = -1;

        if (asprintf(&path, "%s/servers.d", folder) < 0) {
                path = NULL;
                note_shortage(catalogue, -ENOMEM);
                return;
        }

        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT && !catalogue->required)
                return;
        if (fd >= 0 && fstat(fd, &st) >= 0) {
                if (!trusted(&st) && !(st.st_mode & S_ISVTX)) {
                        (void)problem_add(&catalogue->problems, path,
                                          "refused: the folder can be written by others than root and this service's "
                                          "user (mode %03o, owner %u)",
                                          st.st_mode & 0777, (unsigned)st.st_uid);
                        return;
                }
                n = scandirat(fd, ".", &entries, is_json, alphasort);
        }
        if (n < 0) {
                int r = note_shortage(catalogue, -errno);

                (void)problem_add(&catalogue->problems, path, "can't be read: %s", strerror(-r));
                return;
        }

        for (int i = 0; i < n; i++) {
                _cleanup_(freep) char *file = NULL;

                if (*n_names < FILES_MAX && !masked(names, *n_names, entries[i]->d_name) && !catalogue->starved) {
                        names[*n_names] = strdup(entries[i]->d_name);
                        if (names[*n_names] && asprintf(&file, "%s/%s", path, entries[i]->d_name) >= 0)
                                load_file(catalogue, fd, entries[i]->d_name, file);
                        else {
                                file = NULL;
                                note_shortage(catalogue, -ENOMEM);
                        }
                        *n_names += names[*n_names] != NULL;
                }
                free(entries[i]);
        }
        free(entries);
}

static int compare_servers(const void *a, const void *b) {
        return strcmp((*(ServerConfig *const *)a)->name, (*(ServerConfig *const *)b)->name);
}

static void release_servers(Catalogue *catalogue) {
        for (size_t i = 0; i < catalogue->n_servers; i++)
                server_config_unref(catalogue->servers[i]);
        free(catalogue->servers);
        catalogue->servers = NULL;
        catalogue->n_servers = 0;
}

/* The servers of all files by name. Two of one name: the first file's counts, in the order of the folders, then of
 * the names. */
static void collect_servers(Catalogue *catalogue) {
        size_t n = 0, kept = 0;
        ServerConfig **servers;
        File *file;

        TAILQ_FOREACH(file, &catalogue->files, link)
                n += file->n_servers;

        servers = new0(ServerConfig *, n + 1);
        if (!servers) {
                note_shortage(catalogue, -ENOMEM);
                return;
        }

        TAILQ_FOREACH(file, &catalogue->files, link)
                for (size_t i = 0; i < file->n_servers; i++) {
                        const ServerConfig *first = NULL;

                        for (size_t j = 0; j < kept && !first; j++)
                                if (streq(servers[j]->name, file->servers[i]->name))
                                        first = servers[j];
                        if (first)
                                (void)problem_add(&catalogue->problems, file->path,
                                                  "server %s is defined in %s already", first->name, first->file);
                        else
                                servers[kept++] = server_config_ref(file->servers[i]);
                }

        qsort(servers, kept, sizeof(ServerConfig *), compare_servers);
        release_servers(catalogue);
        catalogue->servers = servers;
        catalogue->n_servers = kept;
}

static void load_settings(Catalogue *catalogue) {
        Settings settings;

        settings_init(&settings);
        for (char **folder = catalogue->folders; *folder; folder++) {
                _cleanup_(freep) char *path = NULL;
                Buffer text = {};
                int r;

                if (asprintf(&path, "%s/mcp-exec.json", *folder) < 0) {
                        path = NULL;
                        note_shortage(catalogue, -ENOMEM);
                        return;
                }
                if (access(path, F_OK) < 0 && errno == ENOENT)
                        continue;

                r = read_file(catalogue, AT_FDCWD, path, path, &text);
                if (r == 0)
                        r = config_read_settings(path, text.data ? buffer_data(&text) : "", buffer_size(&text),
                                                 &catalogue->problems, &settings);
                buffer_done(&text);
                if (note_shortage(catalogue, r) < 0)
                        return; /* the last good ones stay */
                break;
        }

        catalogue->settings = settings;
}

static int on_settled(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Catalogue *catalogue = userdata;

        catalogue_load(catalogue);
        catalogue->changed(catalogue->userdata);
        return 0;
}

static int on_inotify(sd_event_source *source _unused_, const struct inotify_event *event, void *userdata) {
        const Watch *watch = userdata;
        Catalogue *catalogue = watch->catalogue;
        int enabled = SD_EVENT_OFF;

        if (watch->name && event->len > 0 && !streq(event->name, watch->name))
                return 0;

        /* Not put off by further changes: a file that is replaced without end is read all the same. */
        (void)sd_event_source_get_enabled(catalogue->settle_source, &enabled);
        if (enabled == SD_EVENT_OFF) {
                (void)sd_event_source_set_time_relative(catalogue->settle_source, SETTLE_TIME);
                (void)sd_event_source_set_enabled(catalogue->settle_source, SD_EVENT_ONESHOT);
        }

        return 0;
}

/* 0, or -errno; -ENOENT where the folder isn't there. */
static int watch_folder(Catalogue *catalogue, const char *path, const char *name) {
        Watch *watch = &catalogue->watches[catalogue->n_watches];
        int r;

        *watch = (Watch){ .catalogue = catalogue, .name = name ? strdup(name) : NULL };
        r = sd_event_add_inotify(catalogue->event, &watch->source, path,
                                 IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
                                         IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
                                 on_inotify, watch);
        if (r < 0) {
                free(watch->name);
                return note_shortage(catalogue, r);
        }

        catalogue->n_watches++;
        return 0;
}

static void unwatch(Catalogue *catalogue) {
        for (size_t i = 0; i < catalogue->n_watches; i++) {
                sd_event_source_disable_unref(catalogue->watches[i].source);
                free(catalogue->watches[i].name);
        }
        free(catalogue->watches);
        catalogue->watches = NULL;
        catalogue->n_watches = 0;
}

/* Each folder and its servers.d; where one isn't there, its parent, in which it would appear. Without inotify,
 * Reload and SIGHUP remain. */
static void watch_folders(Catalogue *catalogue) {
        size_t n = 0;

        unwatch(catalogue);
        while (catalogue->folders[n])
                n++;
        catalogue->watches = new0(Watch, n * 2);
        if (!catalogue->watches) {
                note_shortage(catalogue, -ENOMEM);
                return;
        }

        for (char **folder = catalogue->folders; *folder; folder++) {
                _cleanup_(freep) char *servers = NULL, *parent = strdup(*folder);
                char *slash = parent ? strrchr(parent, '/') : NULL;

                if (asprintf(&servers, "%s/servers.d", *folder) < 0) {
                        servers = NULL;
                        continue;
                }

                if (watch_folder(catalogue, *folder, NULL) >= 0)
                        (void)watch_folder(catalogue, servers, NULL);
                else if (slash && slash > parent) {
                        *slash = 0;
                        (void)watch_folder(catalogue, parent, slash + 1);
                }
        }
}

void catalogue_load(Catalogue *catalogue) {
        char **names = new0(char *, FILES_MAX + 1);
        size_t n_names = 0;
        File *file, *next;

        (void)sd_event_source_set_enabled(catalogue->settle_source, SD_EVENT_OFF);
        problems_clear(&catalogue->problems);
        TAILQ_FOREACH(file, &catalogue->files, link)
                file->seen = false;

        /* Watched first: a change while the files are read is seen, at the cost of one reading too many. */
        catalogue->starved = !names;
        watch_folders(catalogue);
        for (char **folder = catalogue->folders; names && *folder; folder++)
                load_folder(catalogue, *folder, names, &n_names);
        load_settings(catalogue);
        strings_free(names);

        TAILQ_FOREACH_SAFE(file, &catalogue->files, link, next)
                if (!file->seen && !catalogue->starved) {
                        TAILQ_REMOVE(&catalogue->files, file, link);
                        file_free(file);
                }

        collect_servers(catalogue);
        if (catalogue->starved) {
                (void)sd_event_source_set_time_relative(catalogue->settle_source, RETRY_TIME);
                (void)sd_event_source_set_enabled(catalogue->settle_source, SD_EVENT_ONESHOT);
        }
}

ServerConfig *const *catalogue_servers(const Catalogue *catalogue, size_t *ret_n) {
        *ret_n = catalogue->n_servers;
        return catalogue->servers;
}

const Settings *catalogue_settings(const Catalogue *catalogue) {
        return &catalogue->settings;
}

const ProblemList *catalogue_problems(const Catalogue *catalogue) {
        return &catalogue->problems;
}

int catalogue_new(sd_event *event, const char *const *folders, bool required, catalogue_changed_handler changed,
                  void *userdata, Catalogue **ret) {
        _cleanup_(catalogue_freep) Catalogue *catalogue = new0(Catalogue, 1);
        size_t n = 0;
        int r;

        if (!catalogue)
                return -ENOMEM;

        *catalogue = (Catalogue){
                .event = sd_event_ref(event), .required = required, .changed = changed, .userdata = userdata
        };
        TAILQ_INIT(&catalogue->files);
        TAILQ_INIT(&catalogue->problems);
        settings_init(&catalogue->settings);

        while (folders[n])
                n++;
        catalogue->folders = new0(char *, n + 1);
        if (!catalogue->folders)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                catalogue->folders[i] = strdup(folders[i]);
                if (!catalogue->folders[i])
                        return -ENOMEM;
        }

        r = sd_event_add_time(event, &catalogue->settle_source, CLOCK_MONOTONIC, USEC_INFINITY, 0, on_settled,
                              catalogue);
        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(catalogue->settle_source, SD_EVENT_OFF);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(catalogue);
        return 0;
}

Catalogue *catalogue_free(Catalogue *catalogue) {
        File *file;

        if (!catalogue)
                return NULL;

        unwatch(catalogue);
        sd_event_source_disable_unref(catalogue->settle_source);
        while ((file = TAILQ_FIRST(&catalogue->files))) {
                TAILQ_REMOVE(&catalogue->files, file, link);
                file_free(file);
        }
        release_servers(catalogue);
        problems_clear(&catalogue->problems);
        strings_free(catalogue->folders);
        sd_event_unref(catalogue->event);
        free(catalogue);
        return NULL;
}

char **catalogue_standard_folders(bool user) {
        const char *config_home = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME") ?: "/";
        static const char *const system[] = { "/etc/mcp-exec", "/run/mcp-exec", "/usr/local/lib/mcp-exec",
                                              "/usr/lib/mcp-exec" };
        char **folders = new0(char *, ELEMENTSOF(system) + 3);
        size_t n = 0;

        if (!folders)
                return NULL;

        if (user) {
                if (asprintf(&folders[n++], "%s/%s", config_home && config_home[0] == '/' ? config_home : home,
                             config_home && config_home[0] == '/' ? "mcp-exec" : ".config/mcp-exec") < 0)
                        goto fail;
                folders[n] = strdup("/etc/xdg/mcp-exec");
                if (!folders[n++])
                        goto fail;
        }

        for (size_t i = 0; i < ELEMENTSOF(system); i++) {
                folders[n] = strdup(system[i]);
                if (!folders[n++])
                        goto fail;
        }

        return folders;

fail:
        folders[n - 1] = NULL;
        strings_free(folders);
        return NULL;
}
