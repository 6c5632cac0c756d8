#include "broker/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-id128.h>

#include "broker/call.h"
#include "broker/payload.h"

#define PROGRESS_MESSAGE_MAX 1024

const char *job_state_to_string(JobState state) {
        static const char *const names[] = {
                [JOB_RUNNING] = "running",
                [JOB_SUCCEEDED] = "succeeded",
                [JOB_FAILED] = "failed",
                [JOB_CANCELLED] = "cancelled",
        };

        return names[state];
}

static uint64_t now(const Manager *manager, clockid_t clock) {
        uint64_t usec = 0;

        (void)sd_event_now(manager->event, clock, &usec);
        return usec;
}

static Job *job_free(Job *job) {
        if (!job)
                return NULL;

        client_free(job->client);
        free(job->server);
        free(job->method);
        free(job->tool);
        free(job->params);
        free(job->progress_message);
        failure_done(&job->failure);
        payload_free(job->result);
        free(job);
        return NULL;
}
DEFINE_CLEANUP(Job *, job_free, job_freep)

static void forget(Job *job) {
        Manager *manager = job->manager;

        manager->handlers->job_removed(manager->userdata, job);
        TAILQ_REMOVE(&manager->jobs, job, link);
        job_free(job);
        manager->handlers->maybe_idle(manager->userdata);
}

/* One that is done: of that user's, or of anybody's, and no longer to be kept at that time. The first one is the
 * oldest. To be asked anew after each: what goes may take others with it. */
static Job *find_done(Manager *manager, uid_t uid, uint64_t expired) {
        Job *job;

        TAILQ_FOREACH(job, &manager->jobs, link)
                if (job->state != JOB_RUNNING && job->expires <= expired &&
                    (uid == QUOTA_EVERYBODY || job->client->uid == uid))
                        return job;

        return NULL;
}

static int on_timer(sd_event_source *source, uint64_t usec _unused_, void *userdata) {
        Manager *manager = userdata;
        uint64_t next = USEC_INFINITY, present = now(manager, CLOCK_MONOTONIC);
        Job *job;

        while ((job = find_done(manager, QUOTA_EVERYBODY, present)))
                forget(job);
        TAILQ_FOREACH(job, &manager->jobs, link)
                if (job->state != JOB_RUNNING)
                        next = MIN(next, job->expires);

        if (next < USEC_INFINITY) {
                (void)sd_event_source_set_time(source, next);
                (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        }
        return 0;
}

/* The timer fires at what was the next end when it was set, as others here. */
static void watch(Manager *manager, uint64_t expires) {
        int enabled = SD_EVENT_OFF;
        uint64_t armed = USEC_INFINITY;

        if (!manager->job_timer) {
                (void)sd_event_add_time(manager->event, &manager->job_timer, CLOCK_MONOTONIC, expires, 0, on_timer,
                                        manager);
                return;
        }

        (void)sd_event_source_get_enabled(manager->job_timer, &enabled);
        (void)sd_event_source_get_time(manager->job_timer, &armed);
        if (enabled != SD_EVENT_OFF && armed <= expires)
                return;
        (void)sd_event_source_set_time(manager->job_timer, expires);
        (void)sd_event_source_set_enabled(manager->job_timer, SD_EVENT_ONESHOT);
}

static unsigned count_done(const Manager *manager, uid_t uid) {
        const Job *job;
        unsigned n = 0;

        TAILQ_FOREACH(job, &manager->jobs, link)
                n += job->state != JOB_RUNNING && job->client->uid == uid;

        return n;
}

/* Where a user has too many that are done, the oldest go. */
static void make_room(Manager *manager, uid_t uid) {
        while (count_done(manager, uid) > manager->quota.settings.limits.finished_jobs_per_user)
                forget(find_done(manager, uid, USEC_INFINITY));
}

static void keep(Job *job) {
        Manager *manager = job->manager;

        /* What it was asked is charged while the call is under way, and isn't kept for longer. */
        free(job->params);
        job->params = NULL;
        job->finished_realtime = now(manager, CLOCK_REALTIME);
        job->expires = usec_add(now(manager, CLOCK_MONOTONIC), manager->quota.settings.keep_jobs);
        TAILQ_INSERT_TAIL(&manager->jobs, job, link);

        manager->handlers->job_finished(manager->userdata, job);
        watch(manager, job->expires);
        make_room(manager, job->client->uid);
}

static void on_done(Call *call, const Outcome *outcome) {
        Job *job = call->userdata;
        Manager *manager = job->manager;

        if (!outcome) {
                job->state = JOB_CANCELLED;
                failure_set(&job->failure, FAILURE_CANCELLED, "The job was cancelled");
        } else if (outcome->failure) {
                job->state = outcome->failure->code == FAILURE_CANCELLED ? JOB_CANCELLED : JOB_FAILED;
                failure_copy(&job->failure, outcome->failure);
        } else if (payload_new(manager, job->client->uid, outcome, &job->result, &job->failure) < 0)
                job->state = JOB_FAILED;
        else {
                job->state = JOB_SUCCEEDED;
                job->traits = outcome->traits;
        }

        quota_release_job(&manager->quota, job->client->uid);
        TAILQ_REMOVE(&manager->jobs, job, link);
        keep(job);
}

static double number(JsonSlice value) {
        char text[40] = "";

        if (value.size == 0 || value.size >= sizeof(text) || !strchr("-0123456789", value.data[0]))
                return 0;

        memcpy(text, value.data, value.size);
        return strtod(text, NULL);
}

static void on_progress(Call *call, JsonSlice params) {
        Job *job = call->userdata;
        JsonSlice message = json_get(params, "message");

        free(job->progress_message);
        job->progress = number(json_get(params, "progress"));
        job->total = number(json_get(params, "total"));
        job->progress_message = message.size <= PROGRESS_MESSAGE_MAX ? json_decode(message) : NULL;
        if (call_tells_progress(call))
                job->manager->handlers->job_progress(job->manager->userdata, job);
}

static int copy(const char *text, char **ret) {
        *ret = text ? strdup(text) : NULL;
        return text && !*ret ? -ENOMEM : 0;
}

static int job_new(Manager *manager, const Client *client, const JobSpec *spec, Job **ret) {
        _cleanup_(job_freep) Job *job = new0(Job, 1);
        sd_id128_t id;
        int r;

        if (!job)
                return -ENOMEM;

        job->manager = manager;
        job->bound = spec->bound;
        job->inherited = spec->id != NULL;
        job->started_realtime = now(manager, CLOCK_REALTIME);
        job->client = client_new(client->name);
        if (!job->client)
                return -ENOMEM;
        job->client->uid = client->uid;

        r = spec->id ? sd_id128_from_string(spec->id, &id) : sd_id128_randomize(&id);
        if (r < 0)
                return r;
        sd_id128_to_string(id, job->id);

        if (copy(spec->server, &job->server) < 0 || copy(spec->method, &job->method) < 0 ||
            copy(spec->tool, &job->tool) < 0 || copy(spec->params, &job->params) < 0)
                return -ENOMEM;

        *ret = TAKE_PTR(job);
        return 0;
}

static int start(Job *job, const JobSpec *spec, Failure *failure) {
        Quota *quota = &job->manager->quota;
        int r;

        r = quota_charge_job(quota, job->client->uid, failure);
        if (r < 0)
                return r;

        r = call_start(job->manager, job->client,
                       &(CallSpec){ .kind = REQUEST_CALL,
                                    .server = job->server,
                                    .method = job->method,
                                    .tool = job->tool,
                                    .params = job->params,
                                    .timeout = spec->timeout,
                                    .large = true,
                                    .done = on_done,
                                    .progress = on_progress,
                                    .userdata = job },
                       failure);
        if (r < 0)
                quota_release_job(quota, job->client->uid);
        return r;
}

int job_check(Manager *manager, const JobSpec *spec, Failure *failure) {
        return call_check(manager,
                          &(CallSpec){ .kind = REQUEST_CALL,
                                       .server = spec->server,
                                       .method = spec->method,
                                       .tool = spec->tool,
                                       .params = spec->params,
                                       .timeout = spec->timeout },
                          failure);
}

int job_start(Manager *manager, Client *client, const JobSpec *spec, Job **ret, Failure *failure) {
        Server *server = manager_find_server(manager, spec->server);
        _cleanup_(job_freep) Job *job = NULL;
        int r;

        /* The connection's own workers go with it, also those that nothing but a job has used. */
        r = server ? client_note_server(client, server) : 0;
        if (r >= 0)
                r = job_new(manager, client, spec, &job);
        if (r < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "The job can't be started: %s", strerror(-r));

        r = start(job, spec, failure);
        if (r < 0 && spec->id) {
                job->state = JOB_FAILED;
                failure_copy(&job->failure, failure);
                failure_done(failure);
                manager->handlers->job_added(manager->userdata, job);
                keep(TAKE_PTR(job));
                *ret = NULL;
                return 0;
        }
        if (r < 0)
                return r;

        TAILQ_INSERT_TAIL(&manager->jobs, job, link);
        manager->handlers->job_added(manager->userdata, job);
        *ret = TAKE_PTR(job);
        return 0;
}

void job_cancel(Job *job) {
        if (job->state == JOB_RUNNING)
                call_cancel(TAILQ_FIRST(&job->client->calls), "its caller has cancelled it");
        else
                forget(job);
}

/* One that is under way, of that name's connection alone where there is one. To be asked anew after each: what ends may
 * make others go. */
static Job *find_running(Manager *manager, const char *bound_to) {
        Job *job;

        TAILQ_FOREACH(job, &manager->jobs, link)
                if (job->state == JOB_RUNNING && (!bound_to || (job->bound && streq(job->client->name, bound_to))))
                        return job;

        return NULL;
}

void jobs_client_gone(Manager *manager, const char *name) {
        Job *job;

        while ((job = find_running(manager, name)))
                call_cancel(TAILQ_FIRST(&job->client->calls), "its caller has left");
}

void jobs_fail(Manager *manager, const char *why) {
        Failure failure = {};
        Job *job;

        failure_set(&failure, FAILURE_UNAVAILABLE, "The job didn't come to its end: %s", why);
        while ((job = find_running(manager, /* bound_to= */ NULL)))
                call_fail(TAILQ_FIRST(&job->client->calls), &failure);
        failure_done(&failure);
}

void jobs_forget(Manager *manager) {
        Job *job;

        while ((job = find_done(manager, QUOTA_EVERYBODY, USEC_INFINITY)))
                forget(job);
}

Job *manager_find_job(Manager *manager, const char *id) {
        Job *job;

        TAILQ_FOREACH(job, &manager->jobs, link)
                if (streq(job->id, id))
                        return job;

        return NULL;
}
