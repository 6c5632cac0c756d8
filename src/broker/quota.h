#pragma once

#include "broker/config-file.h"
#include "worker/failure.h"

/* What callers may make grow: counted per user and for all, charged here and released here. Of what is for all nobody
 * gets more than he leaves to the others; of workers QUOTA_EVERYBODY does. */

#define QUOTA_EVERYBODY ((uid_t)-1) /* for what belongs to no user: counted for all only */

typedef struct QuotaUser QuotaUser;

typedef struct QuotaCounts {
        uint64_t calls, workers, sessions, jobs, waiting, checks;
        uint64_t queued_bytes, payload_bytes, waiting_bytes, answer_bytes;
} QuotaCounts;

typedef struct Quota {
        Settings settings;  /* its limits */
        QuotaCounts counts; /* of all */
        TAILQ_HEAD(, QuotaUser) users;
} Quota;

void quota_init(Quota *quota);
void quota_done(Quota *quota);

/* LimitsExceeded for too many of what: the words are the same for all limits. key: in limits of mcp-exec.json. Returns
 * -EREMOTEIO. */
int quota_exceeded(Failure *failure, const char *what, unsigned long long limit, const char *key);

/* 0, or -EREMOTEIO with *failure: LimitsExceeded, which names the limit and the key that changes it. What was charged
 * is released with the same arguments. n_connection: the calls that the caller's connection has under way. */
int quota_charge_call(Quota *quota, uid_t uid, unsigned n_connection, size_t bytes, Failure *failure);
void quota_release_call(Quota *quota, uid_t uid, size_t bytes);

int quota_charge_session(Quota *quota, uid_t uid, Failure *failure);
void quota_release_session(Quota *quota, uid_t uid);

int quota_charge_worker(Quota *quota, uid_t uid, Failure *failure);
void quota_release_worker(Quota *quota, uid_t uid);
/* Whether it is his own limit that keeps a user from one more, and not what is left for all */
bool quota_user_has_all_workers(const Quota *quota, uid_t uid);

/* Jobs that are under way; their calls are charged as all others. */
int quota_charge_job(Quota *quota, uid_t uid, Failure *failure);
void quota_release_job(Quota *quota, uid_t uid);

/* Bytes of results that stand in files, for as long as anybody has them open */
int quota_charge_payload(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure);
void quota_release_payload(Quota *quota, uid_t uid, uint64_t bytes);

/* Messages that wait before anything is made of them, for their turn, for polkit, or for their sender to read, with so
 * many bytes. A user's first one is as large as it is. Their descriptors aren't counted: nothing tells how many there
 * are, so they are bounded by the number of messages. */
int quota_charge_waiting(Quota *quota, uid_t uid, size_t bytes, Failure *failure);
void quota_release_waiting(Quota *quota, uid_t uid, size_t bytes);

/* Those of them that wait for polkit */
int quota_charge_check(Quota *quota, uid_t uid, Failure *failure);
void quota_release_check(Quota *quota, uid_t uid);

/* Answers that wait until their users have read others: they may have four times limits.unread_bytes, which all calls
 * under way can come to. */
int quota_charge_answer(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure);
void quota_release_answer(Quota *quota, uid_t uid, uint64_t bytes);
