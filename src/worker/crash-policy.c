#include "worker/crash-policy.h"

#include "base/macro.h"

#define CLOSED_STEP (30 * USEC_PER_SEC)
#define CLOSED_MAX (300 * USEC_PER_SEC)

static bool size_ring(CrashPolicy *policy, unsigned burst) {
        if (policy->burst == burst)
                return true;

        free(policy->times);
        policy->times = new0(uint64_t, burst);
        policy->burst = policy->times ? burst : 0;
        policy->n_crashes = 0;
        return policy->times;
}

void crash_policy_note(CrashPolicy *policy, unsigned burst, uint64_t interval, uint64_t now) {
        if (burst == 0 || !size_ring(policy, burst))
                return;

        policy->crashed = now;
        if (crash_policy_closed(policy, now))
                return; /* what was started before it closed tells nothing new */
        policy->remember_until = usec_add(now, interval);

        /* What is overwritten next is the oldest of the last burst. */
        policy->times[policy->n_crashes++ % burst] = now;
        if (!policy->probation &&
            (policy->n_crashes < burst || now - policy->times[policy->n_crashes % burst] > interval))
                return;

        policy->n_trips++;
        policy->n_crashes = 0;
        policy->probation = true;
        policy->retry_at = usec_add(now, MIN(CLOSED_STEP * policy->n_trips, CLOSED_MAX));
        policy->remember_until = usec_add(policy->retry_at, interval);
}

void crash_policy_ran(CrashPolicy *policy, uint64_t interval, uint64_t since, uint64_t now) {
        if (since >= policy->crashed && now >= usec_add(since, interval))
                crash_policy_forget(policy);
}

bool crash_policy_closed(const CrashPolicy *policy, uint64_t now) {
        return policy->retry_at > now;
}

void crash_policy_forget(CrashPolicy *policy) {
        policy->n_crashes = policy->n_trips = 0;
        policy->probation = false;
        policy->retry_at = policy->remember_until = 0;
}

void crash_policy_done(CrashPolicy *policy) {
        free(policy->times);
        *policy = (CrashPolicy){};
}
