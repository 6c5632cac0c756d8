/* Params in files. Large ones are never held: a piece in each turn of the loop is checked, then the kernel moves them
 * from the file into the worker's pipe. A piece is what takes no longer than somebody else's small call can wait;
 * users take turns, and each rests behind his pieces where it is said so. */

#include "broker/call.h"
#include "broker/payload.h"

#define SMALL_MAX ((uint64_t)64 * 1024) /* bytes that are read at once, and sent as all others */
#define PIECE_MAX ((size_t)256 * 1024)
#define PIECE_MIN ((size_t)32 * 1024)
#define STEP ((size_t)16 * 1024)  /* bytes of a piece behind which the clock is looked at */
#define TURN_TIME ((uint64_t)100) /* usec, for which a piece is looked at: small objects take 1 ms for PIECE_MAX */
#define META_MAX ((uint64_t)64 * 1024)

struct CallFile {
        TAILQ_ENTRY(CallFile) link; /* of the manager's, while it is looked through */
        Call *call;
        RequestFile request;
        RequestFileScan scan;
        bool tool; /* they are its arguments */
        uint64_t at;
        size_t piece;         /* bytes of the next one: what fitted into the last turn, or more */
        uint64_t rests_until; /* its user does; usec, CLOCK_MONOTONIC */
        bool scanned;         /* or not begun */
        char *text;           /* all of it, or its _meta */
        size_t text_size;
        uid_t uid;
        uint64_t charged;
};

static int read_text(CallFile *file, uint64_t offset, uint64_t size, Failure *failure) {
        ssize_t n = -ENOMEM;

        file->text = malloc(size + 1);
        if (file->text)
                n = memory_file_read(file->request.file, offset, file->text, size);
        if (n < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "The file can't be read: %s", strerror((int)-n));

        file->text[n] = 0;
        file->text_size = (size_t)n;
        return 0;
}

int call_file_new(Call *call, const CallSpec *spec, Failure *failure) {
        const ServerConfig *config = call->server->config;
        uint64_t size = memory_file_size(spec->file), limit = config->limits.message;
        RequestFileForm form = server_config_wire(config)->file_form;
        CallFile *file;
        int r;

        if (size > limit)
                return failure_set(failure, FAILURE_TOO_LARGE,
                                   "%s has %llu bytes, and the limit is %llu (limits.message of the server)",
                                   spec->tool ? "arguments" : "params", (unsigned long long)size,
                                   (unsigned long long)limit);

        file = call->file = new0(CallFile, 1);
        if (!file)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        file->call = call;
        file->scanned = true;
        file->uid = call->client->uid;
        file->request.file = memory_file_ref(spec->file);
        if (size <= SMALL_MAX)
                return read_text(file, 0, size, failure);

        /* Its pages are the caller's, but are kept for the call when he has closed it. */
        r = payload_charge(call->manager, file->uid, size, failure);
        if (r < 0)
                return r;

        file->charged = size;
        file->scan.depth_max = config->limits.depth;
        file->scan.form = spec->tool && form <= REQUEST_FILE_CONTROL ? REQUEST_FILE_ARGUMENTS : form;
        file->tool = spec->tool;
        return 0;
}

const char *call_file_text(const CallFile *file, size_t *ret_size) {
        if (file->charged > 0)
                return NULL;

        *ret_size = file->text_size;
        return file->text;
}

CallFile *call_file_free(CallFile *file) {
        Manager *manager;

        if (!file)
                return NULL;

        manager = file->call->manager;
        if (!file->scanned)
                TAILQ_REMOVE(&manager->files, file, link);
        if (file->charged > 0)
                quota_release_payload(&manager->quota, file->uid, file->charged);
        memory_file_free(file->request.file);
        free(file->text);
        free(file);
        return NULL;
}

/* It is good: what was found in it becomes the request's. */
static int submit(CallFile *file, Failure *failure) {
        const RequestFileScan *scan = &file->scan;
        Call *call = file->call;
        uint64_t size = scan->meta_end - scan->meta;
        int r;

        if (scan->layout.has_meta) {
                if (size > META_MAX)
                        return failure_set(failure, FAILURE_TOO_LARGE, "_meta has %llu bytes, and the limit is %llu",
                                           (unsigned long long)size, (unsigned long long)META_MAX);
                r = read_text(file, scan->meta, size, failure);
                if (r < 0)
                        return r;

                call->request.params.meta = (JsonSlice){ file->text, file->text_size };
                call->request.params.token = json_get(call->request.params.meta, "progressToken");
                call->request.params.traits = scan->stream.traits;
        }

        file->request.layout = scan->layout;
        call->request.file = &file->request;
        return call_submit(call, failure);
}

/* 1: there is more; 0: it is submitted; or -EREMOTEIO with *failure. until: when it is time for others */
static int look(CallFile *file, uint64_t until, Failure *failure) {
        static char piece[PIECE_MAX];
        size_t size, taken = 0;
        uint64_t now;
        ssize_t n;
        int r;

        n = memory_file_read(file->request.file, file->at, piece, file->piece);
        if (n < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "The file can't be read: %s", strerror((int)-n));

        size = (size_t)n;
        do {
                size_t step = MIN(size - taken, STEP);

                r = request_file_scan_feed(&file->scan, piece + taken, step);
                taken += step;
                now = clock_usec();
        } while (r >= 0 && taken < size && now < until);

        file->at += taken;
        file->piece = MIN(MAX(now < until ? taken * 2 : taken, PIECE_MIN), PIECE_MAX);
        if (r >= 0 && file->at < memory_file_size(file->request.file))
                return 1;
        if (r >= 0)
                r = request_file_scan_finish(&file->scan);
        if (r < 0)
                return call_refuse_params(file->tool ? "arguments" : "params", r, file->scan.depth_max,
                                          &file->scan.error, failure);

        return submit(file, failure);
}

/* The one whose turn is next; NULL: all rest until *ret_usec. */
static CallFile *next_file(const Manager *manager, uint64_t *ret_usec) {
        uint64_t now = clock_usec();
        CallFile *file;

        *ret_usec = USEC_INFINITY;
        TAILQ_FOREACH(file, &manager->files, link) {
                if (file->rests_until <= now)
                        return file;
                *ret_usec = MIN(*ret_usec, file->rests_until);
        }

        return NULL;
}

/* The user has had his turn: his other files stand behind those of all others, the one that was looked at behind them.
 */
static void put_back(Manager *manager, uid_t uid, uint64_t rests_until, CallFile *looked_at) {
        TAILQ_HEAD(, CallFile) his = TAILQ_HEAD_INITIALIZER(his);
        CallFile *file, *next;

        TAILQ_FOREACH_SAFE(file, &manager->files, link, next)
                if (file->uid == uid) {
                        TAILQ_REMOVE(&manager->files, file, link);
                        TAILQ_INSERT_TAIL(&his, file, link);
                }
        if (looked_at)
                TAILQ_INSERT_TAIL(&his, looked_at, link);
        TAILQ_FOREACH(file, &his, link)
                file->rests_until = rests_until;
        TAILQ_CONCAT(&manager->files, &his, link);
}

static int look_again(Manager *manager);

/* One piece of one file, in turn. */
static int on_turn(sd_event_source *source _unused_, void *userdata) {
        Manager *manager = userdata;
        uint64_t usec, before = clock_usec(), rests_until;
        CallFile *file = next_file(manager, &usec);
        Failure failure = {};
        uid_t uid;
        int r;

        if (file) {
                uid = file->uid;
                TAILQ_REMOVE(&manager->files, file, link);
                file->scanned = true;
                r = look(file, before + TURN_TIME, &failure);
                rests_until = manager->handlers->worked(manager->userdata, uid, clock_usec() - before);
                if (r > 0)
                        file->scanned = false;
                put_back(manager, uid, rests_until, r > 0 ? file : NULL);
                if (r < 0)
                        call_end(file->call, &(Outcome){ .failure = &failure });
                failure_done(&failure);
        }

        if (look_again(manager) < 0)
                while ((file = TAILQ_FIRST(&manager->files))) {
                        failure_set(&failure, FAILURE_UNAVAILABLE, "Out of memory");
                        call_end(file->call, &(Outcome){ .failure = &failure });
                        failure_done(&failure);
                }
        return 0;
}

static int on_rested(sd_event_source *source, uint64_t usec _unused_, void *userdata) {
        return on_turn(source, userdata);
}

/* A new source each time: one that is enabled again is ahead of all others of its priority. */
static int look_again(Manager *manager) {
        sd_event_source *source = NULL;
        uint64_t usec;
        int r = 0;

        if (next_file(manager, &usec))
                r = sd_event_add_defer(manager->event, &source, on_turn, manager);
        else if (usec != USEC_INFINITY)
                r = sd_event_add_time(manager->event, &source, CLOCK_MONOTONIC, usec, 1, on_rested, manager);
        if (r < 0)
                return r;

        sd_event_source_disable_unref(manager->files_source);
        manager->files_source = source;
        return 0;
}

int call_file_scan(Call *call, Failure *failure) {
        Manager *manager = call->manager;
        CallFile *file = call->file;

        TAILQ_INSERT_TAIL(&manager->files, file, link);
        file->scanned = false;
        file->piece = PIECE_MIN;
        file->rests_until = manager->handlers->worked(manager->userdata, file->uid, 0);
        if (look_again(manager) >= 0)
                return 0;

        TAILQ_REMOVE(&manager->files, file, link);
        file->scanned = true;
        return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
}
