#include "broker/quota.h"

struct QuotaUser {
        TAILQ_ENTRY(QuotaUser) link;
        uid_t uid;
        unsigned calls, workers, sessions, jobs, waiting, checks;
        uint64_t queued_bytes, payload_bytes, waiting_bytes, answer_bytes;
};

void quota_init(Quota *quota) {
        *quota = (Quota){};
        settings_init(&quota->settings);
        TAILQ_INIT(&quota->users);
}

void quota_done(Quota *quota) {
        QuotaUser *user;

        while ((user = TAILQ_FIRST(&quota->users))) {
                TAILQ_REMOVE(&quota->users, user, link);
                free(user);
        }
}

/* NULL when out of memory */
static QuotaUser *get_user(Quota *quota, uid_t uid) {
        QuotaUser *user;

        TAILQ_FOREACH(user, &quota->users, link)
                if (user->uid == uid)
                        return user;

        user = new0(QuotaUser, 1);
        if (user) {
                user->uid = uid;
                TAILQ_INSERT_TAIL(&quota->users, user, link);
        }

        return user;
}

/* A user of whom nothing is charged isn't kept. */
static void put_user(Quota *quota, QuotaUser *user) {
        if (user->calls > 0 || user->workers > 0 || user->sessions > 0 || user->jobs > 0 || user->waiting > 0 ||
            user->checks > 0 || user->queued_bytes > 0 || user->payload_bytes > 0 || user->answer_bytes > 0)
                return;

        TAILQ_REMOVE(&quota->users, user, link);
        free(user);
}

int quota_exceeded(Failure *failure, const char *what, unsigned long long limit, const char *key) {
        return failure_set(failure, FAILURE_LIMITS_EXCEEDED,
                           "Too many %s: the limit is %llu (limits.%s in mcp-exec.json)", what, limit, key);
}

/* Fair shares of what is there for all: nobody has more than he leaves to the others. So there is something left for
 * one who has nothing, however many want everything, and who has more than that gets no more before it is less. */
static int check_all(uint64_t own, uint64_t all, uint64_t n, uint64_t limit, const char *what, const char *key,
                     Failure *failure) {
        uint64_t left = limit - MIN(all, limit);

        if (n > left)
                return quota_exceeded(failure, what, limit, key);
        if (n > 0 && own > left - n)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED,
                                   "Too many %s: the limit is %llu (limits.%s in mcp-exec.json), this user has %llu of "
                                   "these, and the %llu that are left are for others",
                                   what, (unsigned long long)limit, key, (unsigned long long)own,
                                   (unsigned long long)left);
        return 0;
}

int quota_charge_call(Quota *quota, uid_t uid, unsigned n_connection, size_t bytes, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = get_user(quota, uid);
        int r = 0;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (n_connection >= limits->calls_per_connection)
                r = quota_exceeded(failure, "calls of this connection are under way", limits->calls_per_connection,
                                   "calls_per_connection");
        else if (user->calls >= limits->calls_per_user)
                r = quota_exceeded(failure, "calls of this user are under way", limits->calls_per_user,
                                   "calls_per_user");
        else if (bytes > limits->queued_bytes_per_user - MIN(user->queued_bytes, limits->queued_bytes_per_user))
                r = quota_exceeded(failure, "bytes of this user's calls are held", limits->queued_bytes_per_user,
                                   "queued_bytes_per_user");
        else
                r = check_all(user->calls, quota->calls, 1, limits->calls, "calls are under way", "calls", failure);
        if (r >= 0)
                r = check_all(user->queued_bytes, quota->queued_bytes, bytes, limits->queued_bytes,
                              "bytes of calls are held", "queued_bytes", failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->calls++;
        user->queued_bytes += bytes;
        quota->calls++;
        quota->queued_bytes += bytes;
        return 0;
}

void quota_release_call(Quota *quota, uid_t uid, size_t bytes) {
        QuotaUser *user = get_user(quota, uid);

        quota->calls--;
        quota->queued_bytes -= bytes;
        if (!user)
                return;

        user->calls--;
        user->queued_bytes -= bytes;
        put_user(quota, user);
}

int quota_charge_session(Quota *quota, uid_t uid, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = get_user(quota, uid);
        int r = 0;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user->sessions >= limits->sessions_per_user)
                r = quota_exceeded(failure, "sessions of this user are open", limits->sessions_per_user,
                                   "sessions_per_user");
        else
                r = check_all(user->sessions, quota->sessions, 1, limits->sessions, "sessions are open", "sessions",
                              failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->sessions++;
        quota->sessions++;
        return 0;
}

void quota_release_session(Quota *quota, uid_t uid) {
        QuotaUser *user = get_user(quota, uid);

        quota->sessions--;
        if (!user)
                return;

        user->sessions--;
        put_user(quota, user);
}

int quota_charge_worker(Quota *quota, uid_t uid, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = uid == QUOTA_EVERYBODY ? NULL : get_user(quota, uid);
        int r;

        if (uid != QUOTA_EVERYBODY && !user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user && user->workers >= limits->workers_per_user)
                r = quota_exceeded(failure, "workers of this user are running", limits->workers_per_user,
                                   "workers_per_user");
        else
                r = check_all(user ? user->workers : 0, quota->workers, 1, limits->workers, "workers are running",
                              "workers", failure);
        if (r >= 0) {
                quota->workers++;
                if (user)
                        user->workers++;
        }

        if (user)
                put_user(quota, user);
        return r;
}

bool quota_user_has_all_workers(const Quota *quota, uid_t uid) {
        const QuotaUser *user;

        TAILQ_FOREACH(user, &quota->users, link)
                if (user->uid == uid)
                        return user->workers >= quota->settings.limits.workers_per_user;

        return false;
}

void quota_release_worker(Quota *quota, uid_t uid) {
        quota->workers--;
        if (uid != QUOTA_EVERYBODY) {
                QuotaUser *user = get_user(quota, uid);

                if (user) {
                        user->workers--;
                        put_user(quota, user);
                }
        }
}

int quota_charge_job(Quota *quota, uid_t uid, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = get_user(quota, uid);
        int r = 0;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user->jobs >= limits->jobs_per_user)
                r = quota_exceeded(failure, "jobs of this user are under way", limits->jobs_per_user, "jobs_per_user");
        else
                r = check_all(user->jobs, quota->jobs, 1, limits->jobs, "jobs are under way", "jobs", failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->jobs++;
        quota->jobs++;
        return 0;
}

void quota_release_job(Quota *quota, uid_t uid) {
        QuotaUser *user = get_user(quota, uid);

        quota->jobs--;
        if (!user)
                return;

        user->jobs--;
        put_user(quota, user);
}

int quota_charge_payload(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = uid == QUOTA_EVERYBODY ? NULL : get_user(quota, uid);
        int r = 0;

        if (uid != QUOTA_EVERYBODY && !user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user && bytes > limits->payload_bytes_per_user - MIN(user->payload_bytes, limits->payload_bytes_per_user))
                r = quota_exceeded(failure, "bytes of results are held for this user", limits->payload_bytes_per_user,
                                   "payload_bytes_per_user");
        else
                r = check_all(user ? user->payload_bytes : 0, quota->payload_bytes, bytes, limits->payload_bytes,
                              "bytes of results are held", "payload_bytes", failure);
        if (r >= 0) {
                quota->payload_bytes += bytes;
                if (user)
                        user->payload_bytes += bytes;
        }

        if (user)
                put_user(quota, user);
        return r;
}

void quota_release_payload(Quota *quota, uid_t uid, uint64_t bytes) {
        QuotaUser *user = uid == QUOTA_EVERYBODY ? NULL : get_user(quota, uid);

        quota->payload_bytes -= bytes;
        if (!user)
                return;

        user->payload_bytes -= bytes;
        put_user(quota, user);
}

int quota_charge_waiting(Quota *quota, uid_t uid, size_t bytes, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = get_user(quota, uid);
        int r = 0;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user->waiting >= limits->waiting_messages_per_user)
                r = quota_exceeded(failure, "messages of this user are waiting", limits->waiting_messages_per_user,
                                   "waiting_messages_per_user");
        else if (user->waiting > 0 && user->waiting_bytes + bytes > limits->queued_bytes_per_user)
                r = quota_exceeded(failure, "bytes of this user's messages are waiting", limits->queued_bytes_per_user,
                                   "queued_bytes_per_user");
        else
                r = check_all(user->waiting, quota->waiting, 1, limits->waiting_messages, "messages are waiting",
                              "waiting_messages", failure);
        if (r >= 0 && user->waiting > 0)
                r = check_all(user->waiting_bytes, quota->waiting_bytes, bytes, limits->queued_bytes,
                              "bytes of messages are waiting", "queued_bytes", failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->waiting++;
        user->waiting_bytes += bytes;
        quota->waiting++;
        quota->waiting_bytes += bytes;
        return 0;
}

void quota_release_waiting(Quota *quota, uid_t uid, size_t bytes) {
        QuotaUser *user = get_user(quota, uid);

        quota->waiting--;
        quota->waiting_bytes -= bytes;
        if (!user)
                return;

        user->waiting--;
        user->waiting_bytes -= bytes;
        put_user(quota, user);
}

int quota_charge_check(Quota *quota, uid_t uid, Failure *failure) {
        const __typeof__(quota->settings.limits) *limits = &quota->settings.limits;
        QuotaUser *user = get_user(quota, uid);
        int r;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        if (user->checks >= limits->polkit_checks_per_user)
                r = quota_exceeded(failure, "calls of this user wait to be authorised", limits->polkit_checks_per_user,
                                   "polkit_checks_per_user");
        else
                r = check_all(user->checks, quota->checks, 1, limits->polkit_checks, "calls wait to be authorised",
                              "polkit_checks", failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->checks++;
        quota->checks++;
        return 0;
}

void quota_release_check(Quota *quota, uid_t uid) {
        QuotaUser *user = get_user(quota, uid);

        quota->checks--;
        if (!user)
                return;

        user->checks--;
        put_user(quota, user);
}

int quota_charge_answer(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure) {
        QuotaUser *user = get_user(quota, uid);
        int r;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        r = check_all(user->answer_bytes, quota->answer_bytes, bytes,
                      QUOTA_ANSWERS_TIMES * quota->settings.limits.unread_bytes, "bytes of answers are waiting",
                      "unread_bytes", failure);
        if (r < 0) {
                put_user(quota, user);
                return r;
        }

        user->answer_bytes += bytes;
        quota->answer_bytes += bytes;
        return 0;
}

void quota_release_answer(Quota *quota, uid_t uid, uint64_t bytes) {
        QuotaUser *user = get_user(quota, uid);

        quota->answer_bytes -= bytes;
        if (!user)
                return;

        user->answer_bytes -= bytes;
        put_user(quota, user);
}
