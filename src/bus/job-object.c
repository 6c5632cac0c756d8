#include "broker/job.h"

#include "broker/payload.h"
#include "bus/errors.h"
#include "bus/handover.h"
#include "bus/objects.h"
#include "bus/options.h"
#include "bus/peers.h"

#define PREFIX BUS_PATH "/job"

int job_path(const char *id, char **ret) {
        return sd_bus_path_encode(PREFIX, id, ret);
}

char *job_object_path(const Job *job) {
        char *path = NULL;

        return job_path(job->id, &path) < 0 ? NULL : path;
}

/* StartJob, of the root object */
int method_start_job(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        _cleanup_(freep) char *path = NULL;
        JobSpec spec = {};
        Failure failure = {};
        int bound = false, r;
        const BusOption options[] = {
                { "timeout", "t", &spec.timeout },
                { "tool", "s", &spec.tool },
                { "cancel_on_disconnect", "b", &bound },
        };
        Question question;
        Job *job;

        r = sd_bus_message_read(message, "sss", &spec.server, &spec.method, &spec.params);
        if (r >= 0)
                r = bus_read_options(message, options, ELEMENTSOF(options), error);
        if (r < 0)
                return r;

        question = (Question){ spec.server, spec.method, spec.tool };
        r = authorize_call(service, message, &question, spec.params, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        spec.bound = bound;
        if (service->phase != SERVICE_RUNNING) {
                r = handover_job(service, &spec, &path, &failure);
                if (r >= 0)
                        return sd_bus_reply_method_return(message, "o", path);
                if (r == -EOPNOTSUPP)
                        (void)failure_set(&failure, FAILURE_UNAVAILABLE,
                                          "The service is leaving: start the job again, and the next one has it");
                authorize_record(service, &question, failure.code);
                return bus_error_set_failure(error, &failure);
        }

        r = job_start(service->manager, service->caller, &spec, &job, &failure);
        if (r < 0) {
                authorize_record(service, &question, failure.code);
                return bus_error_set_failure(error, &failure);
        }

        path = job_object_path(job);
        if (!path) {
                job_cancel(job);
                return -ENOMEM;
        }

        /* Nobody could find one that nobody was told of. */
        r = sd_bus_reply_method_return(message, "o", path);
        if (r < 0)
                job_cancel(job);
        return r;
}

/* Its own user needs no leave; who sees it otherwise may manage, and is asked for that. */
static int authorize_own(const Job *job, sd_bus_message *message, const char *method, sd_bus_error *error) {
        Service *service = job->manager->userdata;

        if (service->caller->uid == job->client->uid)
                return 1;

        return authorize_manage(service, message, &(Question){ job->server, method, job->tool }, error);
}

static int method_cancel(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Job *job = userdata;
        int r;

        r = authorize_own(job, message, "Cancel", error);
        if (r <= 0)
                return r < 0 ? r : 1;

        job_cancel(job);
        return sd_bus_reply_method_return(message, NULL);
}

/* 1 where it has a result, or negative with error set */
static int check_result(const Job *job, sd_bus_error *error) {
        if (job->state == JOB_RUNNING)
                return sd_bus_error_set(error, bus_error_name(FAILURE_NOT_FINISHED),
                                        "The job is still under way: its signal Finished tells when it is done");
        if (!job->result)
                return sd_bus_error_set(error, bus_error_name(job->failure.code), failure_message(&job->failure));

        return 1;
}

static int method_get_result(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        const Job *job = userdata;
        _cleanup_(closep) int fd = -EBADF;
        int r;

        r = authorize_own(job, message, "GetResult", error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = check_result(job, error);
        if (r < 0)
                return r;
        if (sd_bus_can_send(sd_bus_message_get_bus(message), 'h') <= 0)
                return sd_bus_error_set(error, SD_BUS_ERROR_NOT_SUPPORTED,
                                        "No file descriptors can be passed on this connection: use GetResultText, or "
                                        "the bus");

        fd = memory_file_share(payload_file(job->result));
        if (fd < 0)
                return fd;
        return peers_reply_fd(job->manager->userdata, message, fd);
}

static int read_text(const Job *job, Buffer *text) {
        uint64_t size = memory_file_size(payload_file(job->result));
        Buffer bytes = {};
        ssize_t n;
        int r;

        r = buffer_reserve(&bytes, size + 1);
        if (r < 0)
                return r;

        n = memory_file_read(payload_file(job->result), 0, bytes.data, size);
        r = n < 0 ? (int)n : json_append(text, (JsonSlice){ bytes.data, (size_t)n }, &job->traits);
        if (r >= 0)
                r = buffer_append(text, "", 1);
        buffer_done(&bytes);
        return r;
}

static int method_get_result_text(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        const Job *job = userdata;
        uint64_t limit = job->manager->quota.settings.limits.message, size;
        Buffer text = {};
        int r;

        r = authorize_own(job, message, "GetResultText", error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = check_result(job, error);
        if (r < 0)
                return r;

        size = memory_file_size(payload_file(job->result));
        if (size > limit)
                return sd_bus_error_setf(error, BUS_ERROR("TooLarge"),
                                         "The result has %llu bytes, and the limit for an inline reply is %llu "
                                         "(limits.message in mcp-exec.json): use GetResult",
                                         (unsigned long long)size, (unsigned long long)limit);

        r = read_text(job, &text);
        if (r >= 0)
                r = peers_reply_text(job->manager->userdata, message, buffer_data(&text));
        buffer_done(&text);
        return r;
}

static int property_string(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                           const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Job *job = userdata;
        const char *value = streq(property, "Id")       ? job->id
                            : streq(property, "Server") ? job->server
                            : streq(property, "Method") ? job->method
                            : streq(property, "Tool")   ? job->tool ?: ""
                                                        : job_state_to_string(job->state);

        return sd_bus_message_append(reply, "s", value);
}

static int property_owner(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error _unused_) {
        const Job *job = userdata;

        return sd_bus_message_append(reply, "u", (uint32_t)job->client->uid);
}

static int property_number(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                           const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Job *job = userdata;
        uint64_t value = streq(property, "StartedTimestamp")    ? job->started_realtime
                         : streq(property, "FinishedTimestamp") ? job->finished_realtime
                         : job->result                          ? memory_file_size(payload_file(job->result))
                                                                : 0;

        return sd_bus_message_append(reply, "t", value);
}

static int property_progress(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                             const char *property _unused_, sd_bus_message *reply, void *userdata,
                             sd_bus_error *error _unused_) {
        const Job *job = userdata;

        return sd_bus_message_append(reply, "(dds)", job->progress, job->total, job->progress_message ?: "");
}

static int property_error(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error _unused_) {
        const Job *job = userdata;
        bool failed = job->failure.code != FAILURE_NONE;

        return sd_bus_message_append(reply, "(ss)", failed ? bus_error_name(job->failure.code) : "",
                                     failed ? failure_message(&job->failure) : "");
}

DEFINE_ANSWERED(method_cancel);
DEFINE_ANSWERED(method_get_result);
DEFINE_ANSWERED(method_get_result_text);

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Cancel", "", "", answered_method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("GetResult", "", , "h", SD_BUS_PARAM(result), answered_method_get_result,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_NAMES("GetResultText", "", , "s", SD_BUS_PARAM(result), answered_method_get_result_text,
                                 SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Id", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Server", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Method", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Tool", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Owner", "u", property_owner, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StartedTimestamp", "t", property_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("FinishedTimestamp", "t", property_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Error", "(ss)", property_error, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ResultSize", "t", property_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LastProgress", "(dds)", property_progress, 0, 0),
        SD_BUS_SIGNAL_WITH_NAMES("Progress", "dds", SD_BUS_PARAM(progress) SD_BUS_PARAM(total) SD_BUS_PARAM(message),
                                 0),
        SD_BUS_SIGNAL_WITH_NAMES("Finished", "sss", SD_BUS_PARAM(state) SD_BUS_PARAM(error) SD_BUS_PARAM(text), 0),
        SD_BUS_VTABLE_END,
};

static bool visible(const Job *job, uid_t viewer) {
        return viewer == QUOTA_EVERYBODY || viewer == job->client->uid;
}

/* Another user's job is as one that isn't there. */
static int find(sd_bus *bus, const char *path, const char *interface _unused_, void *userdata, void **ret,
                sd_bus_error *error _unused_) {
        Service *service = userdata;
        _cleanup_(freep) char *id = NULL;
        Job *job;
        int r;

        r = sd_bus_path_decode(path, PREFIX, &id);
        if (r <= 0)
                return r;

        job = manager_find_job(service->manager, id);
        if (!job) {
                /* Its path may be known before what was left is noticed. */
                handover_take(service);
                job = manager_find_job(service->manager, id);
        }
        if (!job || !visible(job, authorize_viewer(service, bus)))
                return 0;

        *ret = job;
        return 1;
}

static int enumerate(sd_bus *bus, const char *prefix _unused_, void *userdata, char ***ret,
                     sd_bus_error *error _unused_) {
        Service *service = userdata;
        uid_t viewer = authorize_viewer(service, bus);
        char **paths;
        size_t n = 0;
        Job *job;

        TAILQ_FOREACH(job, &service->manager->jobs, link)
                n++;
        paths = new0(char *, n + 1);
        if (!paths)
                return -ENOMEM;

        n = 0;
        TAILQ_FOREACH(job, &service->manager->jobs, link)
                if (visible(job, viewer)) {
                        paths[n] = job_object_path(job);
                        if (!paths[n++]) {
                                strings_free(paths);
                                return -ENOMEM;
                        }
                }

        *ret = paths;
        return 0;
}

const BusObject job_object = {
        .path = PREFIX,
        .interface = BUS_NAME ".Job",
        .vtable = vtable,
        .find = find,
        .enumerate = enumerate,
};
