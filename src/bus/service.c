#include "bus/service.h"

#include <malloc.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/log.h"
#include "broker/job.h"
#include "broker/session.h"
#include "bus/errors.h"
#include "bus/handover.h"
#include "bus/objects.h"
#include "bus/peers.h"

#define LEAVE_TIME (5 * USEC_PER_SEC) /* for what is under way when the service is told to stop */

uint64_t service_now(Service *service) {
        uint64_t usec = 0;

        (void)sd_event_now(service->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static void apply_settings(Service *service) {
        const Settings *settings = catalogue_settings(service->manager->catalogue);

        if (settings->log_level > 0 && !service->options.log_level_set)
                log_open(settings->log_level);
}

void service_configured(Service *service) {
        apply_settings(service);

        /* The idle time may be another: the timer looks at once. */
        (void)sd_event_source_set_time(service->idle_source, 0);
        (void)sd_event_source_set_enabled(service->idle_source, SD_EVENT_ONESHOT);
}

/* Leaving. The name is given back without waiting for the answer, and calls that come by it until then are served: the
 * bus puts its answer behind them. Those that come later start another service. */

uint64_t service_idle_timeout(const Service *service) {
        return service->options.idle_timeout_set ? service->options.idle_timeout
                                                 : catalogue_settings(service->manager->catalogue)->idle_timeout;
}

static bool idle(const Service *service) {
        /* Who holds a connection of its own would lose a call that races with leaving. */
        return manager_idle(service->manager) && service->n_strangers == 0 && service->n_checks == 0 &&
               service->n_unproven == 0 && service->turns.n_waiting == 0 &&
               (service->stopping || service->n_connections == 0);
}

static int on_released(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        Service *service = userdata;

        if (sd_bus_message_is_method_error(reply, NULL))
                log_warning("the name can't be given back: %s", sd_bus_message_get_error(reply)->message ?: "?");

        service->phase = SERVICE_RELEASED;
        handover_start_next(service);
        service_maybe_idle(service);
        return 0;
}

static void release(Service *service) {
        int r;

        if (service->phase != SERVICE_RUNNING)
                return;

        /* Before the name goes: systemd would take us for running otherwise, and not start another. */
        (void)sd_notify(/* unset_environment= */ false, "STOPPING=1");
        service->phase = SERVICE_RELEASING;
        private_pause(service);
        r = sd_bus_release_name_async(service->bus, NULL, BUS_NAME, on_released, service);
        if (r < 0) {
                log_warning("the name can't be given back: %s", strerror(-r));
                service->phase = SERVICE_RELEASED;
        }
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata) {
        Service *service = userdata;
        uint64_t timeout = service_idle_timeout(service), due = usec_add(service->idle_since, timeout);

        if (service->phase != SERVICE_RUNNING || !idle(service) || timeout == USEC_INFINITY)
                return 0; /* asked again when the last worker or call goes */

        if (due > service_now(service)) {
                (void)sd_event_source_set_time(source, due);
                (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
                return 0;
        }

        (void)usec;
        log_info("idle: leaving");
        release(service);
        return 0;
}

static void leave_at(Service *service, uint64_t usec) {
        (void)sd_event_source_set_time(service->leave_source, usec);
        (void)sd_event_source_set_enabled(service->leave_source, SD_EVENT_ONESHOT);
}

/* Runs when the loop has nothing else to do: a call whose caller has just become known was put back into the queue of
 * messages, and counts nowhere until it is taken from there. */
static int on_leave(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Service *service = userdata;
        uint64_t n_queued = 0;

        (void)sd_bus_get_n_queued_read(service->bus, &n_queued);
        if (service_now(service) >= service->leave_deadline ||
            (service->phase == SERVICE_RELEASED && idle(service) && n_queued == 0))
                (void)sd_event_exit(service->event, 0);
        else if (service->phase == SERVICE_RELEASED && idle(service))
                leave_at(service, 0);
        else if (service->stopping)
                leave_at(service, service->leave_deadline);

        return 0;
}

static int on_trim(sd_event_source *source _unused_, void *userdata _unused_) {
        (void)malloc_trim(0);
        return 0;
}

void service_trim(Service *service) {
        if (service->trim_source) {
                (void)sd_event_source_set_enabled(service->trim_source, SD_EVENT_ONESHOT);
                return;
        }

        if (sd_event_add_defer(service->event, &service->trim_source, on_trim, NULL) >= 0)
                (void)sd_event_source_set_priority(service->trim_source, SD_EVENT_PRIORITY_IDLE);
}

void service_maybe_idle(Service *service) {
        int enabled = SD_EVENT_OFF;

        if (!service->manager)
                return;

        switch (service->phase) {
        case SERVICE_RUNNING:
                if (!idle(service))
                        return;

                /* Noted only: the timer isn't moved with each call. */
                service->idle_since = service_now(service);
                (void)sd_event_source_get_enabled(service->idle_source, &enabled);
                if (enabled == SD_EVENT_OFF && service_idle_timeout(service) != USEC_INFINITY) {
                        (void)sd_event_source_set_time(service->idle_source,
                                                       usec_add(service->idle_since, service_idle_timeout(service)));
                        (void)sd_event_source_set_enabled(service->idle_source, SD_EVENT_ONESHOT);
                }
                break;
        case SERVICE_RELEASING:
                break;
        case SERVICE_RELEASED:
                if (service->manager->quota.counts.calls == 0 && service->manager->quota.counts.sessions == 0 &&
                    service->n_strangers == 0 && service->n_checks == 0 && service->n_unproven == 0 &&
                    service->turns.n_waiting == 0)
                        manager_leave(service->manager);
                /* From the loop, for this can be called from within what would be freed. */
                if (idle(service))
                        leave_at(service, 0);
                break;
        }
}

void service_stop(Service *service) {
        if (service->stopping) {
                (void)sd_event_exit(service->event, 0);
                return;
        }

        service->stopping = true;
        service->leave_deadline = usec_add(service_now(service), LEAVE_TIME);
        leave_at(service, service->leave_deadline);
        sessions_drain(service->manager);
        release(service);
}

void service_reload(Service *service) {
        manager_reload(service->manager);
}

/* sd-bus closes its connection when the loop ends: what has to be answered is answered before that. */
static int on_loop_end(sd_event_source *source _unused_, void *userdata) {
        Service *service = userdata;

        jobs_fail(service->manager, "the service is leaving");
        peers_done(service);
        service->manager = manager_free(service->manager);
        private_done(service);
        return 0;
}

static int open_bus(Service *service) {
        int r;

        r = service->options.user ? sd_bus_open_user_with_description(&service->bus, "session")
                                  : sd_bus_open_system_with_description(&service->bus, "system");
        if (r < 0) {
                log_error("the %s bus can't be reached: %s", service->options.user ? "session" : "system",
                          r == -ENOMEDIUM ? "is $DBUS_SESSION_BUS_ADDRESS set?" : strerror(-r));
                return -ESHUTDOWN;
        }

        r = sd_bus_set_exit_on_disconnect(service->bus, true);
        if (r >= 0)
                r = sd_bus_attach_event(service->bus, service->event, SD_EVENT_PRIORITY_NORMAL);
        return r;
}

/* What the system clears at the user's logout, or when the machine restarts; NULL where there is none */
static char *runtime_folder(bool user) {
        const char *parent = getenv("XDG_RUNTIME_DIR"), *unit = getenv("RUNTIME_DIRECTORY");
        char *folder = NULL;

        if (!user)
                return unit ? strdup(unit) : NULL;
        if (!parent || parent[0] != '/' || asprintf(&folder, "%s/mcp-exec", parent) < 0)
                return NULL;

        return folder;
}

/* What only the user, or the machine's administrator, clears; NULL where there is none */
static char *cache_folder(bool user) {
        const char *unit = getenv("CACHE_DIRECTORY"), *parent = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
        char *folder = NULL;
        int n;

        if (!user)
                n = unit && unit[0] == '/' ? asprintf(&folder, "%s/lists", unit) : -1;
        else if (parent && parent[0] == '/')
                n = asprintf(&folder, "%s/mcp-exec/lists", parent);
        else
                n = home && home[0] == '/' ? asprintf(&folder, "%s/.cache/mcp-exec/lists", home) : -1;

        return n < 0 ? NULL : folder;
}

int service_new(sd_event *event, Launcher *launcher, const ServiceOptions *options, Service **ret) {
        _cleanup_(service_freep) Service *service = new0(Service, 1);
        const char *const *folders = options->folders;
        _cleanup_(freep) char *runtime = runtime_folder(options->user), *cache = cache_folder(options->user);
        char **standard = NULL;
        int r;

        if (!service)
                return -ENOMEM;

        *service = (Service){ .event = sd_event_ref(event),
                              .launcher = launcher,
                              .options = *options,
                              .uid = geteuid(),
                              .leave_deadline = USEC_INFINITY,
                              .reserve_fd = -EBADF };
        TAILQ_INIT(&service->strangers);
        TAILQ_INIT(&service->connections);
        TAILQ_INIT(&service->arrivals);
        turns_init(&service->turns);

        r = authorize_init(service);
        if (r < 0)
                return r;
        r = sd_event_add_time(event, &service->idle_source, CLOCK_MONOTONIC, USEC_INFINITY, 1, on_idle, service);
        if (r >= 0)
                r = sd_event_source_set_enabled(service->idle_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(event, &service->leave_source, CLOCK_MONOTONIC, USEC_INFINITY, 1, on_leave,
                                      service);
        if (r >= 0)
                r = sd_event_source_set_enabled(service->leave_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_source_set_priority(service->leave_source, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_add_exit(event, &service->end_source, on_loop_end, service);
        if (r >= 0)
                r = sd_event_source_set_priority(service->end_source, SD_EVENT_PRIORITY_IMPORTANT);
        if (r < 0)
                return r;

        if (!folders) {
                standard = catalogue_standard_folders(options->user);
                if (!standard)
                        return -ENOMEM;
                folders = (const char *const *)standard;
        }
        r = manager_new(event, launcher, runtime, cache, folders, options->folders != NULL, &signals_handlers, service,
                        &service->manager);
        strings_free(standard);
        if (r < 0)
                return r;

        if (runtime && asprintf(&service->jobs_folder, "%s/jobs", runtime) < 0) {
                service->jobs_folder = NULL;
                return -ENOMEM;
        }
        service->manager->log_calls = options->user ? LOG_DEBUG : LOG_INFO;
        apply_settings(service);

        r = open_bus(service);
        if (r < 0)
                return r;

        /* All is in place when the name is there for others to call. */
        r = objects_register(service, service->bus);
        if (r >= 0)
                r = peers_watch(service);
        if (r < 0) {
                /* libsystemd (252) aborts when a bus is freed that had no memory for an object. */
                TAKE_PTR(service->bus);
                return r;
        }

        handover_take(service);

        r = sd_bus_request_name(service->bus, BUS_NAME, 0);
        if (r < 0) {
                log_error("the name %s can't be had: %s", BUS_NAME,
                          r == -EEXIST ? "another mcp-execd has it" : strerror(-r));
                return -ESHUTDOWN;
        }

        r = private_listen(service);
        if (r < 0)
                return r;

        handover_watch(service);
        service_maybe_idle(service);
        *ret = TAKE_PTR(service);
        return 0;
}

Service *service_free(Service *service) {
        if (!service)
                return NULL;

        if (service->manager)
                peers_done(service);
        service->manager = manager_free(service->manager);
        private_done(service);
        sd_event_source_disable_unref(service->idle_source);
        sd_event_source_disable_unref(service->leave_source);
        sd_event_source_disable_unref(service->trim_source);
        sd_event_source_disable_unref(service->end_source);
        sd_event_source_disable_unref(service->left_source);
        turns_done(service);
        sd_event_source_disable_unref(service->passed_source);
        sd_event_source_disable_unref(service->queue_source);
        sd_bus_slot_unref(service->broadcasts.question);
        sd_bus_flush_close_unref(service->bus);
        free(service->jobs_folder);
        sd_event_unref(service->event);
        free(service);
        return NULL;
}
