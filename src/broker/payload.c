#include "broker/payload.h"

#include <search.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

/* What an empty file takes of the kernel's memory, and of watches: fs.inotify.max_user_watches, inotify(7) */
#define CHARGE_MIN ((uint64_t)64 << 10)

struct Payload {
        int watch; /* the key in the manager's tree */
        Manager *manager;
        MemoryFile *file; /* NULL: is open elsewhere alone */
        uid_t uid;
        uint64_t charged;
        bool seen;     /* while it is found out which are still there */
        Payload *gone; /* the next one that isn't */
};

static int compare(const void *a, const void *b) {
        const Payload *one = a, *other = b;

        return (one->watch > other->watch) - (one->watch < other->watch);
}

static void release(Payload *payload) {
        quota_release_payload(&payload->manager->quota, payload->uid, payload->charged);
        memory_file_free(payload->file);
        free(payload);
}

static Payload *find(const Manager *manager, int watch) {
        const Payload key = { .watch = watch };
        Payload *const *found = tfind(&key, &manager->payloads, compare);

        return found ? *found : NULL;
}

static void on_gone(Manager *manager, Payload *payload) {
        (void)tdelete(payload, &manager->payloads, compare);
        release(payload);
}

static void forget_seen(const void *node, VISIT visit, void *userdata _unused_) {
        if (visit == preorder || visit == leaf)
                (*(Payload *const *)node)->seen = false;
}

static void find_unseen(const void *node, VISIT visit, void *userdata) {
        Payload *payload = *(Payload *const *)node, **gone = userdata;

        if ((visit == preorder || visit == leaf) && !payload->seen) {
                payload->gone = *gone;
                *gone = payload;
        }
}

/* Where more files were closed at once than the kernel has room for news, its list of watches tells which are left. */
static void look_at_all(Manager *manager) {
        char path[48], *line = NULL;
        Payload *payload, *gone = NULL;
        size_t size = 0;
        FILE *list;
        int watch;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", manager->payload_news);
        list = fopen(path, "re");
        if (!list)
                return;

        twalk_r(manager->payloads, forget_seen, NULL);
        while (getline(&line, &size, list) > 0)
                if (sscanf(line, "inotify wd:%x", (unsigned *)&watch) == 1 && (payload = find(manager, watch)))
                        payload->seen = true;
        free(line);
        (void)fclose(list);

        twalk_r(manager->payloads, find_unseen, &gone);
        while ((payload = gone)) {
                gone = payload->gone;
                on_gone(manager, payload);
        }
}

/* The watch goes with the file, when its last descriptor and mapping are gone, in whatever process. */
static void read_news(Manager *manager) {
        char news[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        bool lost = false;
        ssize_t n;

        while ((n = read(manager->payload_news, news, sizeof(news))) > 0)
                for (char *p = news; p < news + n;) {
                        const struct inotify_event *event = (const struct inotify_event *)p;
                        Payload *payload = find(manager, event->wd);

                        lost = lost || (event->mask & IN_Q_OVERFLOW);
                        if (payload)
                                on_gone(manager, payload);
                        p += sizeof(*event) + event->len;
                }
        if (lost)
                look_at_all(manager);
}

static int on_news(sd_event_source *source _unused_, int fd _unused_, uint32_t revents _unused_, void *userdata) {
        read_news(userdata);
        return 0;
}

static int watch_news(Manager *manager) {
        int r;

        if (manager->payload_source)
                return 0;

        manager->payload_news = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (manager->payload_news < 0)
                return -errno;
        r = sd_event_add_io(manager->event, &manager->payload_source, manager->payload_news, EPOLLIN, on_news, manager);
        if (r < 0)
                manager->payload_news = safe_close(manager->payload_news);
        return r;
}

/* A watch alone keeps no file, and takes no descriptor. */
static int watch_file(Payload *payload) {
        Manager *manager = payload->manager;
        Payload **node;
        char path[40];
        int r;

        r = watch_news(manager);
        if (r < 0)
                return r;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", memory_file_fd(payload->file));
        payload->watch = inotify_add_watch(manager->payload_news, path, IN_DELETE_SELF);
        if (payload->watch < 0)
                return errno == ENOSPC ? -EUSERS : -errno;
        if (!(node = tsearch(payload, &manager->payloads, compare))) {
                (void)inotify_rm_watch(manager->payload_news, payload->watch);
                return -ENOMEM;
        }
        return *node == payload ? 0 : -EEXIST;
}

/* Where there is no descriptor now, the first file tries again. */
void payloads_init(Manager *manager) {
        manager->payload_news = -EBADF;
        (void)watch_news(manager);
}

int payload_charge(Manager *manager, uid_t uid, uint64_t bytes, Failure *failure) {
        int r;

        r = quota_charge_payload(&manager->quota, uid, bytes, failure);
        if (r >= 0 || !manager->payload_source)
                return r;

        failure_done(failure);
        read_news(manager);
        return quota_charge_payload(&manager->quota, uid, bytes, failure);
}

static int write_result(const Outcome *outcome, MemoryFile **ret) {
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        int r;

        r = memory_file_new(&file);
        if (r >= 0)
                r = memory_file_append(file, outcome->result.data, outcome->result.size);
        if (r >= 0)
                r = memory_file_seal(file);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(file);
        return 0;
}

int payload_new(Manager *manager, uid_t uid, const Outcome *outcome, Payload **ret, Failure *failure) {
        uint64_t bytes = outcome->file ? memory_file_size(*outcome->file) : outcome->result.size;
        Payload *payload;
        int r;

        bytes = MAX(bytes, CHARGE_MIN);
        r = payload_charge(manager, uid, bytes, failure);
        if (r < 0)
                return r;

        payload = new0(Payload, 1);
        if (!payload) {
                quota_release_payload(&manager->quota, uid, bytes);
                return failure_set(failure, FAILURE_UNAVAILABLE, "The result can't be held: out of memory");
        }

        *payload = (Payload){ .manager = manager, .uid = uid, .charged = bytes };
        if (outcome->file)
                payload->file = memory_file_ref(*outcome->file);
        r = outcome->file ? 0 : write_result(outcome, &payload->file);
        if (r >= 0)
                r = watch_file(payload);
        if (r < 0) {
                release(payload);
                return failure_set(failure, FAILURE_UNAVAILABLE, "The result can't be held: %s",
                                   r == -EUSERS ? "no watch is left (fs.inotify.max_user_watches)" : strerror(-r));
        }

        if (outcome->file)
                *outcome->file = memory_file_free(*outcome->file);
        *ret = payload;
        return 0;
}

Payload *payload_free(Payload *payload) {
        if (payload)
                payload->file = memory_file_free(payload->file);
        return NULL;
}

const MemoryFile *payload_file(const Payload *payload) {
        return payload->file;
}

static void free_node(void *node) {
        release(node);
}

void payloads_forget(Manager *manager) {
        tdestroy(manager->payloads, free_node);
        manager->payloads = NULL;
        manager->payload_source = sd_event_source_disable_unref(manager->payload_source);
        manager->payload_news = safe_close(manager->payload_news);
}
