#pragma once

#include "broker/manager.h"

typedef struct Payload Payload;

typedef enum JobState {
        JOB_RUNNING,
        JOB_SUCCEEDED,
        JOB_FAILED,
        JOB_CANCELLED,
} JobState;

/* A call that doesn't depend on its caller's patience, or on its connection: it is kept for a while when it is done. */
struct Job {
        TAILQ_ENTRY(Job) link; /* in the order in which they began; once done, in which they ended */
        Manager *manager;
        char id[33];
        Client *client; /* its own: the caller's name and uid, which the caller's connection need not outlive */
        char *server, *method, *tool, *params;
        bool bound;     /* ends with its caller's connection */
        bool inherited; /* promised by another service: its caller need not have called this one */
        JobState state;
        uint64_t started_realtime, finished_realtime; /* usec, CLOCK_REALTIME */
        uint64_t expires;                             /* usec, CLOCK_MONOTONIC, once it is done */
        double progress, total;                       /* what the server said last; total 0: it didn't */
        char *progress_message;
        Failure failure; /* where it has no result */
        Payload *result;
        JsonTraits traits; /* of the result */
};

typedef struct JobSpec {
        const char *server, *method;
        const char *tool;   /* or NULL */
        const char *params; /* JSON text, "" for none */
        uint64_t timeout;   /* usec; 0: the server's */
        bool bound;
        const char *id; /* it was promised already: where it can't be started, there is one that has failed; or NULL */
} JobSpec;

const char *job_state_to_string(JobState state);

/* Starts a call of client's, which is not told of it any more but by the manager's handlers. Fails with -EREMOTEIO and
 * *failure. *ret is NULL where there is one with the promised id that has failed. */
int job_start(Manager *manager, Client *client, const JobSpec *spec, Job **ret, Failure *failure);

/* Whether it would be started, as far as that can be told without doing it: 0, or -EREMOTEIO with *failure. */
int job_check(Manager *manager, const JobSpec *spec, Failure *failure);

/* Of one that is under way: its worker is told to give it up. Of one that is done: it is forgotten. */
void job_cancel(Job *job);

/* The client of that name has left. */
void jobs_client_gone(Manager *manager, const char *name);

/* The service leaves: what is under way fails, and says so. */
void jobs_fail(Manager *manager, const char *why);
void jobs_forget(Manager *manager); /* those that are done */

Job *manager_find_job(Manager *manager, const char *id); /* or NULL */
