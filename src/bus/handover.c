#include "bus/handover.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>

#include "base/buffer.h"
#include "base/log.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

#define TEXTS_MAX ((size_t)64 << 20) /* bytes of one file: no larger message comes */

#define STALE_TIME 3600 /* seconds: nobody comes any more for what was left so long ago */

/* A file is named "BUS-JOB" by their ids, for its caller's name means something on that bus alone, and has these texts,
 * each with its NUL. */
#define NAME_SIZE (2 * SD_ID128_STRING_MAX)
enum { TEXT_UID, TEXT_CALLER, TEXT_SERVER, TEXT_METHOD, TEXT_TOOL, TEXT_TIMEOUT, TEXT_BOUND, TEXT_PARAMS, _TEXT_MAX };

static int write_texts(int folder, const char *name, const char *const texts[static _TEXT_MAX]) {
        Buffer bytes = {};
        _cleanup_(closep) int fd = -EBADF;
        int r = 0;

        for (size_t i = 0; i < _TEXT_MAX && r >= 0; i++)
                r = buffer_append(&bytes, texts[i], strlen(texts[i]) + 1);
        if (r >= 0) {
                fd = openat(folder, ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
                r = fd < 0 ? -errno : 0;
        }
        while (r >= 0 && buffer_size(&bytes) > 0) {
                ssize_t n = write(fd, buffer_data(&bytes), buffer_size(&bytes));

                if (n < 0)
                        r = -errno;
                else
                        buffer_consume(&bytes, (size_t)n);
        }
        if (r >= 0 && renameat(folder, ".new", folder, name) < 0)
                r = -errno;
        buffer_done(&bytes);
        return r;
}

static int open_folder(const Service *service) {
        int fd;

        (void)mkdir(service->jobs_folder, 0700);
        fd = open(service->jobs_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return fd < 0 ? -errno : fd;
}

/* "" where it has no id */
static const char *bus_id(const Service *service, char text[static SD_ID128_STRING_MAX]) {
        sd_id128_t id;

        return sd_bus_get_bus_id(service->bus, &id) < 0 ? "" : sd_id128_to_string(id, text);
}

/* Workers of the connection's own wouldn't go with it. */
static bool can_be_left(Service *service, const JobSpec *spec) {
        const Server *server = manager_find_server(service->manager, spec->server);
        const Peer *peer = service->caller->peer;

        return service->jobs_folder && !service->stopping && peer && !peer->connection &&
               !(server && server->config->scope == SERVER_SCOPE_CLIENT);
}

/* As a job and as a message that waits: users have the shares here that they have elsewhere. What is left is charged
 * for good, since this process has no other work than to leave. */
static int charge(Service *service, const JobSpec *spec, Failure *failure) {
        Quota *quota = &service->manager->quota;
        uid_t uid = service->caller->uid;
        int r;

        r = quota_charge_job(quota, uid, failure);
        if (r < 0)
                return r;

        r = quota_charge_waiting(quota, uid, strlen(spec->params), failure);
        if (r < 0)
                quota_release_job(quota, uid);
        return r;
}

int handover_job(Service *service, const JobSpec *spec, char **ret, Failure *failure) {
        _cleanup_(closep) int folder = -EBADF;
        _cleanup_(freep) char *path = NULL;
        char uid[16], timeout[24], id[SD_ID128_STRING_MAX], bus[SD_ID128_STRING_MAX], name[NAME_SIZE];
        sd_id128_t random;
        int r;

        if (!can_be_left(service, spec))
                return -EOPNOTSUPP;
        r = job_check(service->manager, spec, failure);
        if (r >= 0)
                r = charge(service, spec, failure);
        if (r < 0)
                return r;

        (void)snprintf(uid, sizeof(uid), "%u", (unsigned)service->caller->uid);
        (void)snprintf(timeout, sizeof(timeout), "%llu", (unsigned long long)spec->timeout);
        r = sd_id128_randomize(&random);
        if (r >= 0)
                r = folder = open_folder(service);
        if (r >= 0)
                r = job_path(sd_id128_to_string(random, id), &path);
        (void)snprintf(name, sizeof(name), "%s-%s", bus_id(service, bus), id);
        if (r >= 0)
                r = write_texts(folder, name,
                                (const char *const[]){ uid, service->caller->name, spec->server, spec->method,
                                                       spec->tool ?: "", timeout, spec->bound ? "bound" : "",
                                                       spec->params });
        if (r < 0) {
                quota_release_job(&service->manager->quota, service->caller->uid);
                quota_release_waiting(&service->manager->quota, service->caller->uid, strlen(spec->params));
                log_warning("a job can't be left to the next service: %s", strerror(-r));
                return -EOPNOTSUPP;
        }

        log_info("a job is left to the next service: %s", id);
        service->left_something = true;
        if (service->phase == SERVICE_RELEASED)
                handover_start_next(service);
        *ret = TAKE_PTR(path);
        return 0;
}

void handover_start_next(Service *service) {
        int r;

        if (!service->left_something)
                return;

        service->left_something = false;
        r = sd_bus_call_method_async(service->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "StartServiceByName", NULL, NULL, "su", BUS_NAME, 0);
        if (r < 0)
                log_warning("the next service can't be started before somebody calls: %s", strerror(-r));
}

static void take(Service *service, const char *id, char *const texts[static _TEXT_MAX]) {
        Client *client = client_new(texts[TEXT_CALLER]);
        Failure failure = {};
        Job *job;

        if (!client) {
                log_error("a job that was left can't be started: out of memory");
                return;
        }

        client->uid = (uid_t)strtoul(texts[TEXT_UID], NULL, 10);
        if (job_start(service->manager, client,
                      &(JobSpec){ .id = id,
                                  .server = texts[TEXT_SERVER],
                                  .method = texts[TEXT_METHOD],
                                  .tool = *texts[TEXT_TOOL] ? texts[TEXT_TOOL] : NULL,
                                  .params = texts[TEXT_PARAMS],
                                  .timeout = strtoull(texts[TEXT_TIMEOUT], NULL, 10),
                                  .bound = *texts[TEXT_BOUND] },
                      &job, &failure) < 0)
                log_error("a job that was left can't be started: %s", failure_message(&failure));
        else
                peers_meet(service, client->name);
        failure_done(&failure);
        client_free(client);
}

/* It is removed before it counts: it is never taken twice. */
static int read_texts(int folder, const char *name, Buffer *bytes) {
        _cleanup_(closep) int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;
        int r;

        if (fd < 0 || unlinkat(folder, name, 0) < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (uint64_t)st.st_size > TEXTS_MAX)
                return -EINVAL;

        r = buffer_reserve(bytes, (size_t)st.st_size);
        while (r >= 0 && buffer_size(bytes) < (size_t)st.st_size) {
                ssize_t n = read(fd, bytes->data + bytes->end, (size_t)st.st_size - buffer_size(bytes));

                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                bytes->end += (size_t)n;
        }
        return r;
}

static int split(Buffer *bytes, char *ret[static _TEXT_MAX]) {
        for (size_t i = 0; i < _TEXT_MAX; i++) {
                size_t length = strnlen(buffer_data(bytes) ?: "", buffer_size(bytes));

                if (length == buffer_size(bytes))
                        return -EINVAL;
                ret[i] = bytes->data + bytes->begin;
                bytes->begin += length + 1;
        }

        return buffer_size(bytes) == 0 ? 0 : -EINVAL;
}

static void remove_stale(int folder, const char *name) {
        struct stat st;

        if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) >= 0 && time(NULL) - st.st_mtime > STALE_TIME)
                (void)unlinkat(folder, name, 0);
}

static void take_file(Service *service, int folder, const char *name) {
        char *texts[_TEXT_MAX], bus[SD_ID128_STRING_MAX];
        const char *dash = strchr(name, '-'), *ours = bus_id(service, bus);
        Buffer bytes = {};
        sd_id128_t id;
        int r;

        if (!dash || sd_id128_from_string(dash + 1, &id) < 0)
                return;
        if (strlen(ours) != (size_t)(dash - name) || strncmp(ours, name, dash - name) != 0) {
                remove_stale(folder, name);
                return;
        }

        r = read_texts(folder, name, &bytes);
        if (r >= 0)
                r = split(&bytes, texts);
        if (r >= 0)
                take(service, dash + 1, texts);
        else
                log_warning("what was left as job %s can't be read: %s", name, strerror(-r));
        buffer_done(&bytes);
}

void handover_take(Service *service) {
        DIR *folder = service->jobs_folder && service->phase == SERVICE_RUNNING ? opendir(service->jobs_folder) : NULL;
        const struct dirent *entry;

        if (!folder)
                return;

        while ((entry = readdir(folder)))
                take_file(service, dirfd(folder), entry->d_name);
        (void)closedir(folder);
}

static int on_left(sd_event_source *source _unused_, const struct inotify_event *event _unused_, void *userdata) {
        handover_take(userdata);
        return 0;
}

/* Without a watch, jobs are found when somebody asks for them. */
void handover_watch(Service *service) {
        _cleanup_(closep) int folder = service->jobs_folder ? open_folder(service) : -ENOENT;
        int r;

        if (folder < 0)
                return;

        r = sd_event_add_inotify(service->event, &service->left_source, service->jobs_folder, IN_MOVED_TO | IN_ONLYDIR,
                                 on_left, service);
        if (r < 0)
                log_warning("what other services leave in %s isn't seen at once: %s", service->jobs_folder,
                            strerror(-r));
        handover_take(service);
}
