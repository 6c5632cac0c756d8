#include "worker/crash-policy.h"

#include "base/macro.h"
#include "unit.h"

#define SEC USEC_PER_SEC

static void test_closes_after_burst(void) {
        CrashPolicy policy = {};

        for (unsigned i = 0; i < 4; i++) {
                crash_policy_note(&policy, 5, 30 * SEC, 100 * SEC + i);
                assert_true(!crash_policy_closed(&policy, 100 * SEC + i));
        }
        crash_policy_note(&policy, 5, 30 * SEC, 101 * SEC);
        assert_true(crash_policy_closed(&policy, 101 * SEC));
        assert_true(crash_policy_closed(&policy, 131 * SEC - 1));
        assert_true(!crash_policy_closed(&policy, 131 * SEC));
        crash_policy_done(&policy);
}

static void test_slow_crashes_never_close(void) {
        CrashPolicy policy = {};

        for (unsigned i = 0; i < 100; i++) {
                crash_policy_note(&policy, 5, 30 * SEC, 100 * SEC + i * 8 * SEC);
                assert_true(!crash_policy_closed(&policy, 100 * SEC + i * 8 * SEC));
        }
        crash_policy_done(&policy);
}

static void test_each_trip_is_longer_up_to_300_s(void) {
        CrashPolicy policy = {};
        uint64_t now = 1000 * SEC;

        for (unsigned i = 0; i < 4; i++)
                crash_policy_note(&policy, 5, 30 * SEC, now);
        for (unsigned trip = 1; trip <= 12; trip++) {
                crash_policy_note(&policy, 5, 30 * SEC, now);
                assert_true(policy.retry_at == now + MIN(trip * 30, 300u) * SEC);
                now = policy.retry_at;
        }
        crash_policy_done(&policy);
}

/* Many workers may run when it closes, and crash as well. */
static void test_crashes_while_closed_count_for_nothing(void) {
        CrashPolicy policy = {};
        uint64_t now = 100 * SEC, retry_at;

        for (unsigned i = 0; i < 5; i++)
                crash_policy_note(&policy, 5, 30 * SEC, now);
        retry_at = policy.retry_at;
        for (unsigned i = 0; i < 20; i++)
                crash_policy_note(&policy, 5, 30 * SEC, now + i * SEC);
        assert_true(policy.retry_at == retry_at && policy.n_trips == 1);

        crash_policy_note(&policy, 5, 30 * SEC, retry_at); /* the next try, as bad as before */
        assert_true(policy.retry_at == retry_at + 60 * SEC && policy.n_trips == 2);
        crash_policy_done(&policy);
}

static void test_forget_opens(void) {
        CrashPolicy policy = {};

        crash_policy_note(&policy, 1, 30 * SEC, 1 * SEC);
        assert_true(crash_policy_closed(&policy, 2 * SEC));
        crash_policy_forget(&policy);
        assert_true(!crash_policy_closed(&policy, 2 * SEC));
        crash_policy_done(&policy);
}

/* Also where it ended well, or goes on: the next crash is the first one again. */
static void test_a_stable_run_opens(void) {
        CrashPolicy policy = {};
        uint64_t now = 100 * SEC;

        crash_policy_note(&policy, 2, 30 * SEC, now);
        crash_policy_note(&policy, 2, 30 * SEC, now);
        now = policy.retry_at;

        crash_policy_ran(&policy, 30 * SEC, now, now + 30 * SEC - 1);        /* too short */
        crash_policy_ran(&policy, 30 * SEC, 100 * SEC - 1, now + 300 * SEC); /* it ran beside the others that crashed */
        assert_true(policy.probation);

        crash_policy_ran(&policy, 30 * SEC, now, now + 30 * SEC);
        crash_policy_note(&policy, 2, 30 * SEC, now + 31 * SEC);
        assert_true(!crash_policy_closed(&policy, now + 31 * SEC));
        crash_policy_note(&policy, 2, 30 * SEC, now + 32 * SEC);
        assert_true(policy.retry_at == now + 32 * SEC + 30 * SEC);
        crash_policy_done(&policy);
}

static void test_burst_of_none_never_closes(void) {
        CrashPolicy policy = {};

        for (unsigned i = 0; i < 1000; i++)
                crash_policy_note(&policy, 0, 30 * SEC, 1 * SEC);
        assert_true(!crash_policy_closed(&policy, 1 * SEC));
        crash_policy_done(&policy);
}

int main(void) {
        test_closes_after_burst();
        test_slow_crashes_never_close();
        test_each_trip_is_longer_up_to_300_s();
        test_crashes_while_closed_count_for_nothing();
        test_forget_opens();
        test_a_stable_run_opens();
        test_burst_of_none_never_closes();
        return 0;
}
