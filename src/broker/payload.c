#include "broker/payload.h"

#define LOOK_MIN USEC_PER_SEC /* between two looks at what was given away; twice as long each time */
#define LOOK_MAX (60 * USEC_PER_SEC)

struct Payload {
        TAILQ_ENTRY(Payload) link; /* of those that are held elsewhere alone */
        Manager *manager;
        MemoryFile *file;
        uid_t uid;
};

static void release(Payload *payload) {
        quota_release_payload(&payload->manager->quota, payload->uid, memory_file_size(payload->file));
        memory_file_free(payload->file);
        free(payload);
}

static void look(Manager *manager) {
        Payload *payload, *next;

        TAILQ_FOREACH_SAFE(payload, &manager->payloads, link, next)
                if (!memory_file_shared(payload->file)) {
                        TAILQ_REMOVE(&manager->payloads, payload, link);
                        release(payload);
                }
}

static void look_again(Manager *manager, uint64_t pause) {
        manager->payload_pause = MIN(pause, LOOK_MAX);
        (void)sd_event_source_set_time_relative(manager->payload_timer, manager->payload_pause);
        (void)sd_event_source_set_enabled(manager->payload_timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Manager *manager = userdata;

        look(manager);
        if (!TAILQ_EMPTY(&manager->payloads))
                look_again(manager, 2 * manager->payload_pause);
        return 0;
}

int payload_charge(Manager *manager, uid_t uid, uint64_t bytes, Failure *failure) {
        int r;

        r = quota_charge_payload(&manager->quota, uid, bytes, failure);
        if (r >= 0 || TAILQ_EMPTY(&manager->payloads))
                return r;

        failure_done(failure);
        look(manager);
        return quota_charge_payload(&manager->quota, uid, bytes, failure);
}

static int write_result(const Outcome *outcome, MemoryFile **ret) {
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        int r;

        r = memory_file_new(&file);
        if (r >= 0)
                r = memory_file_append(file, outcome->result.data, outcome->result.size);
        if (r >= 0)
                r = memory_file_seal(file);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(file);
        return 0;
}

int payload_new(Manager *manager, uid_t uid, const Outcome *outcome, Payload **ret, Failure *failure) {
        uint64_t bytes = outcome->file ? memory_file_size(*outcome->file) : outcome->result.size;
        Payload *payload;
        int r;

        r = payload_charge(manager, uid, bytes, failure);
        if (r < 0)
                return r;

        payload = new0(Payload, 1);
        r = !payload ? -ENOMEM : outcome->file ? 0 : write_result(outcome, &payload->file);
        if (r < 0) {
                quota_release_payload(&manager->quota, uid, bytes);
                free(payload);
                return failure_set(failure, FAILURE_UNAVAILABLE, "The result can't be held: %s", strerror(-r));
        }

        if (outcome->file)
                payload->file = TAKE_PTR(*outcome->file);
        payload->manager = manager;
        payload->uid = uid;
        *ret = payload;
        return 0;
}

Payload *payload_free(Payload *payload) {
        Manager *manager;

        if (!payload)
                return NULL;

        manager = payload->manager;
        if (!memory_file_shared(payload->file)) {
                release(payload);
                return NULL;
        }

        if (!manager->payload_timer &&
            sd_event_add_time_relative(manager->event, &manager->payload_timer, CLOCK_MONOTONIC, LOOK_MIN, USEC_PER_SEC,
                                       on_timer, manager) < 0) {
                release(payload);
                return NULL;
        }

        TAILQ_INSERT_TAIL(&manager->payloads, payload, link);
        look_again(manager, LOOK_MIN);
        return NULL;
}

const MemoryFile *payload_file(const Payload *payload) {
        return payload->file;
}

void payloads_forget(Manager *manager) {
        Payload *payload;

        while ((payload = TAILQ_FIRST(&manager->payloads))) {
                TAILQ_REMOVE(&manager->payloads, payload, link);
                release(payload);
        }
        manager->payload_timer = sd_event_source_disable_unref(manager->payload_timer);
}
