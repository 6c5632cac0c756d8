#pragma once

#include <systemd/sd-bus.h>

#include "broker/manager.h"
#include "bus/turns.h"

typedef struct Service Service;
typedef struct Connection Connection;

typedef struct ServiceOptions {
        bool user;                  /* the session bus; only the own uid may call */
        const char *const *folders; /* configuration; NULL: the standard ones */
        uint64_t idle_timeout;      /* usec; USEC_INFINITY: never */
        bool idle_timeout_set;      /* said on the command line, which outweighs mcp-exec.json */
        bool log_level_set;
} ServiceOptions;

typedef enum ServicePhase {
        SERVICE_RUNNING,
        SERVICE_RELEASING, /* the name was given back, and calls may still come by it */
        SERVICE_RELEASED,  /* they can't any more: leaves when no work is left */
} ServicePhase;

/* The broker on its bus: what the bus says becomes calls of the manager, what the manager says becomes signals. */
struct Service {
        sd_event *event;
        sd_bus *bus;
        Launcher *launcher;
        Manager *manager;
        ServiceOptions options;
        uid_t uid; /* its own */
        ServicePhase phase;
        bool stopping;                       /* was told to */
        uint64_t idle_since, leave_deadline; /* usec, CLOCK_MONOTONIC */
        sd_event_source *idle_source, *leave_source, *end_source, *trim_source, *left_source;
        char *jobs_folder;   /* where jobs are left for the next service; NULL: there is none */
        bool left_something; /* there, and the next one is to be started */

        Client *caller;        /* of the method call that is being dispatched */
        const uid_t *audience; /* who sees the signal that is being written; NULL: none is */
        Turns turns;
        unsigned n_resumed; /* messages that were put back into the queue of the bus */
        TAILQ_HEAD(, Stranger) strangers;
        unsigned n_strangers;       /* connections that have called, and aren't known yet */
        TAILQ_HEAD(, Check) checks; /* messages that wait for polkit, or to be dispatched again */
        unsigned n_checks;          /* passed included */
        unsigned n_unproven;        /* calls and answers that wait to know what their clients haven't read */
        enum { ASKS_BUS, ASKS_CLIENTS, ASKS_NOTHING } asks; /* how much that is */
        uint64_t unread;                                    /* bytes that clients on the bus may not have read */
        uint64_t unread_asked;                              /* when it was asked about all; usec, CLOCK_MONOTONIC */
        struct {
                uint64_t bytes, since_asked, asked; /* asked: usec, CLOCK_MONOTONIC */
                sd_bus_slot *question;
        } broadcasts;         /* that somebody on the bus may not have read */
        struct Check *passed; /* of the message that is being dispatched, which was held */
        sd_event_source *passed_source, *queue_source;
        uint64_t last_check; /* the number of the last question */

        sd_event_source *listen_source;
        TAILQ_HEAD(, Connection) connections; /* of the private socket */
        TAILQ_HEAD(, Arrival) arrivals;       /* that wait to become one */
        sd_event_source *arrivals_timer;
        unsigned n_connections;      /* arrivals included */
        uint64_t last_connection;    /* the number in its name */
        bool results_wait;           /* in a connection whose client doesn't read just now, perhaps */
        uint64_t refused_connection; /* when that was last said in the log; usec, CLOCK_MONOTONIC */
        int reserve_fd;              /* given up for a moment where there are no more, to turn a connection away */
};

/* -ESHUTDOWN: there is no bus or no name to be had, and the log says why. */
int service_new(sd_event *event, Launcher *launcher, const ServiceOptions *options, Service **ret);
Service *service_free(Service *service); /* sends what is queued, kills the workers */

uint64_t service_idle_timeout(const Service *service);
uint64_t service_now(Service *service); /* usec, CLOCK_MONOTONIC, of this turn of the loop */

/* Reads the configuration again. */
void service_reload(Service *service);

/* Gives the name back, finishes what is under way for a while, and ends the loop. The second time: at once */
void service_stop(Service *service);

/* The configuration was read again. */
void service_configured(Service *service);

/* Much was freed that lies between all else, so that the heap doesn't shrink by itself: gives it back to the system
 * when nothing else is to be done. */
void service_trim(Service *service);

/* Whether to leave may have to be decided anew. */
void service_maybe_idle(Service *service);

DEFINE_CLEANUP(Service *, service_free, service_freep)
