#include "broker/quota.h"

#include "unit.h"

#define assert_exceeded(r, failure, key)                                                                               \
        do {                                                                                                           \
                assert_number((r), -EREMOTEIO);                                                                        \
                assert_number((failure).code, FAILURE_LIMITS_EXCEEDED);                                                \
                assert_true(strstr(failure_message(&(failure)), "limits." key " "));                                   \
                failure_done(&(failure));                                                                              \
        } while (0)

static void assert_unused(const Quota *quota) {
        assert_number(quota->counts.calls, 0);
        assert_number(quota->counts.workers, 0);
        assert_number(quota->counts.queued_bytes, 0);
        assert_number(quota->counts.jobs, 0);
        assert_number(quota->counts.payload_bytes, 0);
        assert_true(TAILQ_EMPTY(&quota->users));
}

static void test_defaults(void) {
        Quota quota;
        Settings settings;

        settings_init(&settings);
        quota_init(&quota);
        assert_true(memcmp(&quota.settings.limits, &settings.limits, sizeof(settings.limits)) == 0);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_symmetry(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        for (int round = 0; round < 3; round++) {
                for (uid_t uid = 0; uid < 5; uid++)
                        for (size_t bytes = 0; bytes < 10; bytes++)
                                assert_number(quota_charge_call(&quota, uid, 0, bytes, &failure), 0);
                for (uid_t uid = 0; uid < 5; uid++)
                        assert_number(quota_charge_worker(&quota, uid, &failure), 0);
                assert_number(quota_charge_worker(&quota, QUOTA_EVERYBODY, &failure), 0);
                assert_number(quota.counts.calls, 50);
                assert_number(quota.counts.queued_bytes, 5 * 45);
                assert_number(quota.counts.workers, 6);

                for (size_t bytes = 10; bytes-- > 0;)
                        for (uid_t uid = 0; uid < 5; uid++)
                                quota_release_call(&quota, uid, bytes);
                quota_release_worker(&quota, QUOTA_EVERYBODY);
                for (uid_t uid = 0; uid < 5; uid++)
                        quota_release_worker(&quota, uid);
                assert_unused(&quota);
        }
        assert_number(failure.code, FAILURE_NONE);
        quota_done(&quota);
}

static void test_calls_per_connection(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.calls_per_connection = 3;
        assert_number(quota_charge_call(&quota, 1, 2, 10, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 1, 3, 10, &failure), failure, "calls_per_connection");
        assert_exceeded(quota_charge_call(&quota, 2, 100, 10, &failure), failure, "calls_per_connection");
        quota_release_call(&quota, 1, 10);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_calls_per_user(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.calls_per_user = 3;
        for (int i = 0; i < 3; i++)
                assert_number(quota_charge_call(&quota, 1000, 0, 1, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 1000, 0, 1, &failure), failure, "calls_per_user");
        assert_number(quota.counts.calls, 3);
        assert_number(quota.counts.queued_bytes, 3);

        assert_number(quota_charge_call(&quota, 1001, 0, 1, &failure), 0);
        quota_release_call(&quota, 1000, 1);
        assert_number(quota_charge_call(&quota, 1000, 0, 1, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 1000, 0, 1, &failure), failure, "calls_per_user");

        quota_release_call(&quota, 1001, 1);
        for (int i = 0; i < 3; i++)
                quota_release_call(&quota, 1000, 1);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_calls(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.calls = 4;
        for (uid_t uid = 0; uid < 4; uid++)
                assert_number(quota_charge_call(&quota, uid, 0, 1, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 0, 0, 1, &failure), failure, "calls");
        assert_exceeded(quota_charge_call(&quota, 99, 0, 1, &failure), failure, "calls");
        for (uid_t uid = 0; uid < 4; uid++)
                quota_release_call(&quota, uid, 1);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_queued_bytes(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.queued_bytes_per_user = 100;
        quota.settings.limits.queued_bytes = 250;

        assert_exceeded(quota_charge_call(&quota, 1, 0, 101, &failure), failure, "queued_bytes_per_user");
        assert_exceeded(quota_charge_call(&quota, 1, 0, SIZE_MAX, &failure), failure, "queued_bytes_per_user");
        assert_unused(&quota);
        assert_number(quota_charge_call(&quota, 1, 0, 60, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 1, 0, 41, &failure), failure, "queued_bytes_per_user");
        assert_exceeded(quota_charge_call(&quota, 1, 0, SIZE_MAX - 10, &failure), failure, "queued_bytes_per_user");
        assert_number(quota_charge_call(&quota, 1, 0, 40, &failure), 0);
        assert_number(quota_charge_call(&quota, 1, 0, 0, &failure), 0);

        assert_number(quota_charge_call(&quota, 3, 0, 100, &failure), 0);
        assert_exceeded(quota_charge_call(&quota, 2, 0, 51, &failure), failure, "queued_bytes");
        assert_number(quota_charge_call(&quota, 2, 0, 50, &failure), 0);
        assert_number(quota.counts.queued_bytes, 250);

        quota_release_call(&quota, 1, 40);
        quota_release_call(&quota, 1, 60);
        quota_release_call(&quota, 1, 0);
        quota_release_call(&quota, 2, 50);
        quota_release_call(&quota, 3, 100);
        assert_unused(&quota);
        quota_done(&quota);
}

/* A limit that was made smaller than what is under way refuses, and what is under way ends as usual. */
static void test_limits_shrink(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        for (int i = 0; i < 10; i++)
                assert_number(quota_charge_call(&quota, 1, 0, 100, &failure), 0);
        for (int i = 0; i < 3; i++)
                assert_number(quota_charge_worker(&quota, 1, &failure), 0);

        quota.settings.limits.queued_bytes_per_user = quota.settings.limits.queued_bytes = 500;
        assert_exceeded(quota_charge_call(&quota, 1, 0, 1, &failure), failure, "queued_bytes_per_user");
        assert_exceeded(quota_charge_call(&quota, 2, 0, 1, &failure), failure, "queued_bytes");
        quota.settings.limits.calls_per_user = 5;
        assert_exceeded(quota_charge_call(&quota, 1, 0, 0, &failure), failure, "calls_per_user");
        quota.settings.limits.workers_per_user = 1;
        assert_exceeded(quota_charge_worker(&quota, 1, &failure), failure, "workers_per_user");

        for (int i = 0; i < 10; i++)
                quota_release_call(&quota, 1, 100);
        for (int i = 0; i < 3; i++)
                quota_release_worker(&quota, 1);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_workers(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.workers_per_user = 2;
        quota.settings.limits.workers = 5;

        assert_number(quota_charge_worker(&quota, 1, &failure), 0);
        assert_number(quota_charge_worker(&quota, 1, &failure), 0);
        assert_exceeded(quota_charge_worker(&quota, 1, &failure), failure, "workers_per_user");
        assert_number(quota.counts.workers, 2);
        assert_number(quota_charge_worker(&quota, 2, &failure), 0);

        /* What belongs to nobody counts for all only. */
        assert_number(quota_charge_worker(&quota, QUOTA_EVERYBODY, &failure), 0);
        assert_number(quota_charge_worker(&quota, QUOTA_EVERYBODY, &failure), 0);
        assert_exceeded(quota_charge_worker(&quota, QUOTA_EVERYBODY, &failure), failure, "workers");
        assert_exceeded(quota_charge_worker(&quota, 3, &failure), failure, "workers");
        quota_release_worker(&quota, QUOTA_EVERYBODY);
        assert_number(quota_charge_worker(&quota, 3, &failure), 0);

        quota_release_worker(&quota, 1);
        quota_release_worker(&quota, 1);
        quota_release_worker(&quota, 2);
        quota_release_worker(&quota, 3);
        quota_release_worker(&quota, QUOTA_EVERYBODY);
        assert_unused(&quota);
        quota_done(&quota);
}

/* Calls and workers of one user are counted apart. */
static void test_calls_and_workers(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        assert_number(quota_charge_worker(&quota, 1, &failure), 0);
        assert_number(quota_charge_call(&quota, 1, 0, 5, &failure), 0);
        quota_release_worker(&quota, 1);
        assert_number(quota.counts.calls, 1);
        assert_number(quota_charge_worker(&quota, 1, &failure), 0);
        quota_release_call(&quota, 1, 5);
        assert_number(quota.counts.workers, 1);
        quota_release_worker(&quota, 1);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_done_while_charged(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        for (uid_t uid = 0; uid < 10; uid++)
                assert_number(quota_charge_call(&quota, uid, 0, 1, &failure), 0);
        quota_done(&quota);
}

static void test_sessions(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.sessions_per_user = 2;
        quota.settings.limits.sessions = 3;
        assert_number(quota_charge_session(&quota, 1, &failure), 0);
        assert_number(quota_charge_session(&quota, 1, &failure), 0);
        assert_exceeded(quota_charge_session(&quota, 1, &failure), failure, "sessions_per_user");
        assert_number(quota_charge_session(&quota, 2, &failure), 0);
        assert_exceeded(quota_charge_session(&quota, 2, &failure), failure, "sessions");
        quota_release_session(&quota, 1);
        assert_number(quota_charge_session(&quota, 3, &failure), 0);
        assert_number(quota.counts.sessions, 3);

        quota_release_session(&quota, 1);
        quota_release_session(&quota, 2);
        quota_release_session(&quota, 3);
        assert_number(quota.counts.sessions, 0);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_jobs(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.jobs_per_user = 2;
        quota.settings.limits.jobs = 3;
        assert_number(quota_charge_job(&quota, 1, &failure), 0);
        assert_number(quota_charge_job(&quota, 1, &failure), 0);
        assert_exceeded(quota_charge_job(&quota, 1, &failure), failure, "jobs_per_user");
        assert_number(quota_charge_job(&quota, 2, &failure), 0);
        assert_exceeded(quota_charge_job(&quota, 3, &failure), failure, "jobs");
        quota_release_job(&quota, 1);
        assert_number(quota_charge_job(&quota, 3, &failure), 0);
        quota_release_job(&quota, 1);
        quota_release_job(&quota, 2);
        quota_release_job(&quota, 3);
        assert_unused(&quota);
        quota_done(&quota);
}

/* Charges and releases one unit of each kind that users share. */
static int charge(Quota *quota, int kind, uid_t uid, Failure *failure) {
        switch (kind) {
        case 0:
                return quota_charge_call(quota, uid, 0, 0, failure);
        case 1:
                return quota_charge_call(quota, uid, 0, 1 << 20, failure);
        case 2:
                return quota_charge_worker(quota, uid, failure);
        case 3:
                return quota_charge_session(quota, uid, failure);
        case 4:
                return quota_charge_job(quota, uid, failure);
        default:
                return quota_charge_payload(quota, uid, 1 << 20, failure);
        }
}

static void release(Quota *quota, int kind, uid_t uid) {
        switch (kind) {
        case 0:
                quota_release_call(quota, uid, 0);
                break;
        case 1:
                quota_release_call(quota, uid, 1 << 20);
                break;
        case 2:
                quota_release_worker(quota, uid);
                break;
        case 3:
                quota_release_session(quota, uid);
                break;
        case 4:
                quota_release_job(quota, uid);
                break;
        default:
                quota_release_payload(quota, uid, 1 << 20);
                break;
        }
}

/* Where all want everything there is always something for one who has nothing, and as units are released and taken
 * again all come to have as much, in whatever order they ask. */
static void test_fair_shares(void) {
        enum { LIMIT = 60, USERS = 5, TURNS = 2000 };

        for (int kind = 0; kind < 6; kind++) {
                unsigned have[USERS + 1] = {};
                Failure failure = {};
                Quota quota;

                quota_init(&quota);
                quota.settings.limits = (__typeof__(quota.settings.limits)){
                        .calls_per_connection = 1000,
                        .calls_per_user = LIMIT,
                        .calls = kind == 1 ? 1000 : LIMIT,
                        .workers_per_user = LIMIT,
                        .workers = LIMIT,
                        .sessions_per_user = LIMIT,
                        .sessions = LIMIT,
                        .jobs_per_user = LIMIT,
                        .jobs = LIMIT,
                        .queued_bytes_per_user = LIMIT << 20,
                        .queued_bytes = LIMIT << 20,
                        .payload_bytes_per_user = LIMIT << 20,
                        .payload_bytes = LIMIT << 20,
                };
                if (kind == 1)
                        quota.settings.limits.calls_per_user = 1000;

                /* One after the other takes all that he gets. */
                for (uid_t uid = 0; uid < USERS; uid++) {
                        while (charge(&quota, kind, uid, &failure) >= 0)
                                have[uid]++;
                        failure_done(&failure);
                        assert_true(have[uid] > 0);
                }
                assert_number(have[0], LIMIT / 2);

                /* Then each time one unit ends, and the first users ask first. */
                for (unsigned turn = 0; turn < TURNS; turn++) {
                        uid_t whose = turn % USERS;

                        release(&quota, kind, whose);
                        have[whose]--;
                        for (uid_t uid = 0; uid < USERS; uid++)
                                if (charge(&quota, kind, uid, &failure) >= 0)
                                        have[uid]++;
                                else
                                        failure_done(&failure);
                }
                for (uid_t uid = 0; uid < USERS; uid++)
                        assert_true(have[uid] >= LIMIT / (USERS + 1) - 1 && have[uid] <= LIMIT / (USERS + 1) + 2);

                /* And one who comes late finds as much. */
                while (charge(&quota, kind, USERS, &failure) >= 0)
                        have[USERS]++;
                failure_done(&failure);
                assert_true(have[USERS] >= LIMIT / (USERS + 1) / 2);

                for (uid_t uid = 0; uid <= USERS; uid++)
                        for (; have[uid] > 0; have[uid]--)
                                release(&quota, kind, uid);
                assert_unused(&quota);
                quota_done(&quota);
        }
}

static void test_payloads(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.payload_bytes_per_user = 100;
        quota.settings.limits.payload_bytes = 250;
        assert_number(quota_charge_payload(&quota, 1, 100, &failure), 0);
        assert_number(quota_charge_payload(&quota, 1, 0, &failure), 0);
        assert_exceeded(quota_charge_payload(&quota, 1, 1, &failure), failure, "payload_bytes_per_user");
        assert_number(quota_charge_payload(&quota, 3, 100, &failure), 0);
        assert_exceeded(quota_charge_payload(&quota, 2, 51, &failure), failure, "payload_bytes");
        assert_exceeded(quota_charge_payload(&quota, 2, UINT64_MAX, &failure), failure, "payload_bytes_per_user");
        assert_exceeded(quota_charge_payload(&quota, QUOTA_EVERYBODY, 51, &failure), failure, "payload_bytes");
        assert_number(quota_charge_payload(&quota, QUOTA_EVERYBODY, 50, &failure), 0);
        quota_release_payload(&quota, 1, 100);
        quota_release_payload(&quota, 3, 100);
        quota_release_payload(&quota, QUOTA_EVERYBODY, 50);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_waiting(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.waiting_messages_per_user = 3;
        quota.settings.limits.queued_bytes_per_user = 100;
        /* The first one is as large as it is. */
        assert_number(quota_charge_waiting(&quota, 1, 1000, &failure), 0);
        assert_exceeded(quota_charge_waiting(&quota, 1, 1, &failure), failure, "queued_bytes_per_user");
        quota_release_waiting(&quota, 1, 1000);
        assert_unused(&quota);

        for (int i = 0; i < 3; i++)
                assert_number(quota_charge_waiting(&quota, 1, 10, &failure), 0);
        assert_exceeded(quota_charge_waiting(&quota, 1, 10, &failure), failure, "waiting_messages_per_user");
        assert_number(quota_charge_waiting(&quota, 2, 10, &failure), 0);

        /* Of what is for all nobody has more than he leaves. */
        quota.settings.limits.waiting_messages = 6;
        assert_number(quota_charge_waiting(&quota, 2, 10, &failure), 0);
        assert_exceeded(quota_charge_waiting(&quota, 2, 10, &failure), failure, "waiting_messages");
        assert_number(quota_charge_waiting(&quota, 3, 10, &failure), 0);
        assert_exceeded(quota_charge_waiting(&quota, 4, 10, &failure), failure, "waiting_messages");
        for (int i = 0; i < 3; i++)
                quota_release_waiting(&quota, 1, 10);
        for (int i = 0; i < 2; i++)
                quota_release_waiting(&quota, 2, 10);
        quota_release_waiting(&quota, 3, 10);
        assert_number(quota.counts.waiting, 0);
        assert_number(quota.counts.waiting_bytes, 0);
        assert_unused(&quota);
        quota_done(&quota);
}

static void test_checks_and_answers(void) {
        Quota quota;
        Failure failure = {};

        quota_init(&quota);
        quota.settings.limits.polkit_checks_per_user = 2;
        quota.settings.limits.polkit_checks = 4;
        assert_number(quota_charge_check(&quota, 1, &failure), 0);
        assert_number(quota_charge_check(&quota, 1, &failure), 0);
        assert_exceeded(quota_charge_check(&quota, 1, &failure), failure, "polkit_checks_per_user");
        assert_number(quota_charge_check(&quota, 2, &failure), 0);
        assert_exceeded(quota_charge_check(&quota, 2, &failure), failure, "polkit_checks");
        for (uid_t uid = 1; uid <= 2; uid++)
                quota_release_check(&quota, uid);
        quota_release_check(&quota, 1);
        assert_unused(&quota);

        quota.settings.limits.unread_bytes = 100;
        assert_number(quota_charge_answer(&quota, 1, 4 * 50, &failure), 0);
        assert_exceeded(quota_charge_answer(&quota, 1, 1, &failure), failure, "unread_bytes");
        assert_number(quota_charge_answer(&quota, 2, 10, &failure), 0);
        quota_release_answer(&quota, 1, 4 * 50);
        quota_release_answer(&quota, 2, 10);
        assert_unused(&quota);
        quota_done(&quota);
}

int main(void) {
        test_defaults();
        test_symmetry();
        test_calls_per_connection();
        test_calls_per_user();
        test_calls();
        test_queued_bytes();
        test_limits_shrink();
        test_workers();
        test_sessions();
        test_calls_and_workers();
        test_done_while_charged();
        test_jobs();
        test_fair_shares();
        test_payloads();
        test_waiting();
        test_checks_and_answers();
        return 0;
}
