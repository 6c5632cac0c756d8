#include "broker/quota.h"

struct QuotaUser {
        TAILQ_ENTRY(QuotaUser) link;
        uid_t uid;
        QuotaCounts counts;
};

typedef struct Limit {
        size_t offset, size; /* of the number, in Settings */
        const char *what, *key;
        unsigned times; /* so many times that number; 0: no limit */
} Limit;

/* Something that can grow, and what one user and all may have of it */
typedef struct Kind {
        size_t count; /* its offset in QuotaCounts */
        Limit user, all;
        bool shared; /* what belongs to no user has no more than a user's share either */
} Kind;

typedef struct Charge {
        const Kind *kind;
        uint64_t n;
        bool unchecked;
} Charge;

#define TIMES(n, member, words)                                                                                        \
        { offsetof(Settings, limits.member), sizeof(((Settings *)NULL)->limits.member), words, #member, n }
#define LIMIT(member, words) TIMES(1, member, words)

#define KIND(counted, ...)                                                                                             \
        { .count = offsetof(QuotaCounts, counted), __VA_ARGS__ }

static const Kind calls = KIND(calls, .user = LIMIT(calls_per_user, "calls of this user are under way"),
                               .all = LIMIT(calls, "calls are under way"));
static const Kind queued_bytes =
        KIND(queued_bytes, .user = LIMIT(queued_bytes_per_user, "bytes of this user's calls are held"),
             .all = LIMIT(queued_bytes, "bytes of calls are held"));
static const Kind sessions = KIND(sessions, .user = LIMIT(sessions_per_user, "sessions of this user are open"),
                                  .all = LIMIT(sessions, "sessions are open"));
static const Kind workers = KIND(workers, .user = LIMIT(workers_per_user, "workers of this user are running"),
                                 .all = LIMIT(workers, "workers are running"));
static const Kind jobs = KIND(jobs, .user = LIMIT(jobs_per_user, "jobs of this user are under way"),
                              .all = LIMIT(jobs, "jobs are under way"));
static const Kind payload_bytes =
        KIND(payload_bytes, .user = LIMIT(payload_bytes_per_user, "bytes of results are held for this user"),
             .all = LIMIT(payload_bytes, "bytes of results are held"), .shared = true);
static const Kind waiting = KIND(waiting, .user = LIMIT(waiting_messages_per_user, "messages of this user are waiting"),
                                 .all = LIMIT(waiting_messages, "messages are waiting"));
static const Kind waiting_bytes =
        KIND(waiting_bytes, .user = LIMIT(queued_bytes_per_user, "bytes of this user's messages are waiting"),
             .all = LIMIT(queued_bytes, "bytes of messages are waiting"));
static const Kind checks =
        KIND(checks, .user = LIMIT(polkit_checks_per_user, "calls of this user wait to be authorised"),
             .all = LIMIT(polkit_checks, "calls wait to be authorised"));
static const Kind answer_bytes = KIND(answer_bytes, .all = TIMES(4, unread_bytes, "bytes of answers are waiting"));

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

static QuotaUser *find_user(const Quota *quota, uid_t uid) {
        QuotaUser *user;

        TAILQ_FOREACH(user, &quota->users, link)
                if (user->uid == uid)
                        return user;

        return NULL;
}

/* NULL when out of memory */
static QuotaUser *get_user(Quota *quota, uid_t uid) {
        QuotaUser *user = find_user(quota, uid);

        if (!user && (user = new0(QuotaUser, 1))) {
                user->uid = uid;
                TAILQ_INSERT_TAIL(&quota->users, user, link);
        }
        return user;
}

/* A user of whom nothing is charged isn't kept. */
static void put_user(Quota *quota, QuotaUser *user) {
        static const QuotaCounts none = {};

        if (!user || memcmp(&user->counts, &none, sizeof(none)) != 0)
                return;

        TAILQ_REMOVE(&quota->users, user, link);
        free(user);
}

int quota_exceeded(Failure *failure, const char *what, unsigned long long limit, const char *key) {
        return failure_set(failure, FAILURE_LIMITS_EXCEEDED,
                           "Too many %s: the limit is %llu (limits.%s in mcp-exec.json)", what, limit, key);
}

static uint64_t *count_of(QuotaCounts *counts, const Kind *kind) {
        return (uint64_t *)((char *)counts + kind->count);
}

static uint64_t number_of(const Quota *quota, const Limit *limit) {
        const char *number = (const char *)&quota->settings + limit->offset;

        if (limit->times == 0)
                return UINT64_MAX;

        return limit->times * (limit->size == sizeof(unsigned) ? *(const unsigned *)number : *(const uint64_t *)number);
}

/* Of what is there for all there are fair shares: nobody has more than he leaves to the others. So there is something
 * left for one who has nothing, however many want everything, and who has more than that gets no more before it is
 * less. */
static int check(Quota *quota, QuotaUser *user, const Charge *charge, Failure *failure) {
        const Kind *kind = charge->kind;
        uint64_t of_user = number_of(quota, &kind->user), of_all = number_of(quota, &kind->all),
                 own = user->uid == QUOTA_EVERYBODY && !kind->shared ? 0 : *count_of(&user->counts, kind),
                 left = of_all - MIN(*count_of(&quota->counts, kind), of_all), n = charge->n;

        if (user->uid != QUOTA_EVERYBODY && n > of_user - MIN(own, of_user))
                return quota_exceeded(failure, kind->user.what, of_user, kind->user.key);
        if (n > left)
                return quota_exceeded(failure, kind->all.what, of_all, kind->all.key);
        if (n > 0 && own > left - n)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED,
                                   "Too many %s: the limit is %llu (limits.%s in mcp-exec.json), this user has %llu of "
                                   "these, and the %llu that are left are for others",
                                   kind->all.what, (unsigned long long)of_all, kind->all.key, (unsigned long long)own,
                                   (unsigned long long)left);
        return 0;
}

/* All of it, or nothing */
static int charge_all(Quota *quota, uid_t uid, const Charge *charges, size_t n, Failure *failure) {
        QuotaUser *user = get_user(quota, uid);
        int r = 0;

        if (!user)
                return failure_set(failure, FAILURE_LIMITS_EXCEEDED, "Out of memory");

        for (size_t i = 0; i < n && r >= 0; i++)
                r = charges[i].unchecked ? 0 : check(quota, user, &charges[i], failure);
        for (size_t i = 0; i < n && r >= 0; i++) {
                *count_of(&quota->counts, charges[i].kind) += charges[i].n;
                *count_of(&user->counts, charges[i].kind) += charges[i].n;
        }

        put_user(quota, user);
        return r;
}

static void release_all(Quota *quota, uid_t uid, const Charge *charges, size_t n) {
        QuotaUser *user = find_user(quota, uid);

        for (size_t i = 0; i < n; i++) {
                *count_of(&quota->counts, charges[i].kind) -= charges[i].n;
                if (user)
                        *count_of(&user->counts, charges[i].kind) -= charges[i].n;
        }
        put_user(quota, user);
}

#define OF(k, number)                                                                                                  \
        { .kind = &(k), .n = (number) }
#define CHARGES(...) ((const Charge[]){ __VA_ARGS__ }), ELEMENTSOF(((const Charge[]){ __VA_ARGS__ }))

int quota_charge_call(Quota *quota, uid_t uid, unsigned n_connection, size_t bytes, Failure *failure) {
        unsigned limit = quota->settings.limits.calls_per_connection;

        if (n_connection >= limit)
                return quota_exceeded(failure, "calls of this connection are under way", limit, "calls_per_connection");

        return charge_all(quota, uid, CHARGES(OF(calls, 1), OF(queued_bytes, bytes)), failure);
}

void quota_release_call(Quota *quota, uid_t uid, size_t bytes) {
        release_all(quota, uid, CHARGES(OF(calls, 1), OF(queued_bytes, bytes)));
}

int quota_charge_session(Quota *quota, uid_t uid, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(sessions, 1)), failure);
}

void quota_release_session(Quota *quota, uid_t uid) {
        release_all(quota, uid, CHARGES(OF(sessions, 1)));
}

int quota_charge_worker(Quota *quota, uid_t uid, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(workers, 1)), failure);
}

void quota_release_worker(Quota *quota, uid_t uid) {
        release_all(quota, uid, CHARGES(OF(workers, 1)));
}

bool quota_user_has_all_workers(const Quota *quota, uid_t uid) {
        const QuotaUser *user = find_user(quota, uid);

        return user && user->counts.workers >= quota->settings.limits.workers_per_user;
}

int quota_charge_job(Quota *quota, uid_t uid, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(jobs, 1)), failure);
}

void quota_release_job(Quota *quota, uid_t uid) {
        release_all(quota, uid, CHARGES(OF(jobs, 1)));
}

int quota_charge_payload(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(payload_bytes, bytes)), failure);
}

void quota_release_payload(Quota *quota, uid_t uid, uint64_t bytes) {
        release_all(quota, uid, CHARGES(OF(payload_bytes, bytes)));
}

int quota_charge_waiting(Quota *quota, uid_t uid, size_t bytes, Failure *failure) {
        const QuotaUser *user = find_user(quota, uid);
        bool first = !user || user->counts.waiting == 0;

        return charge_all(quota, uid,
                          CHARGES(OF(waiting, 1), { .kind = &waiting_bytes, .n = bytes, .unchecked = first }), failure);
}

void quota_release_waiting(Quota *quota, uid_t uid, size_t bytes) {
        release_all(quota, uid, CHARGES(OF(waiting, 1), OF(waiting_bytes, bytes)));
}

int quota_charge_check(Quota *quota, uid_t uid, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(checks, 1)), failure);
}

void quota_release_check(Quota *quota, uid_t uid) {
        release_all(quota, uid, CHARGES(OF(checks, 1)));
}

int quota_charge_answer(Quota *quota, uid_t uid, uint64_t bytes, Failure *failure) {
        return charge_all(quota, uid, CHARGES(OF(answer_bytes, bytes)), failure);
}

void quota_release_answer(Quota *quota, uid_t uid, uint64_t bytes) {
        release_all(quota, uid, CHARGES(OF(answer_bytes, bytes)));
}
