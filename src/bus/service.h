#pragma once

#include <systemd/sd-bus.h>

#include "broker/manager.h"

typedef struct Service Service;

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
        sd_event_source *idle_source, *leave_source, *end_source;
        TAILQ_HEAD(, Peer) unknown_peers;
        unsigned n_unknown;
};

/* -ESHUTDOWN: there is no bus or no name to be had, and the log says why. */
int service_new(sd_event *event, Launcher *launcher, const ServiceOptions *options, Service **ret);
Service *service_free(Service *service); /* sends what is queued, kills the workers */

uint64_t service_idle_timeout(const Service *service);

/* Reads the configuration again. */
void service_reload(Service *service);

/* Gives the name back, finishes what is under way for a while, and ends the loop. The second time: at once */
void service_stop(Service *service);

/* Whether to leave may have to be decided anew. */
void service_maybe_idle(Service *service);

DEFINE_CLEANUP(Service *, service_free, service_freep)

/* peers.c */

typedef enum Action {
        ACTION_CALL,   /* use a server's workers */
        ACTION_MANAGE, /* stop and start them, read the configuration again */
} Action;

int peers_watch(Service *service);
void peers_done(Service *service);

/* Who sent this. 1 with the client; 0 where the bus was asked, and message will be dispatched again with its answer; or
 * negative with error set. */
int peers_identify(Service *service, sd_bus_message *message, Client **ret, sd_bus_error *error);

/* 0, or negative with error set. server may be NULL with ACTION_MANAGE. */
int peers_authorize(Service *service, const Client *client, Action action, const char *server, sd_bus_error *error);

/* objects.c: the bus tree as a table, the objects' files fill it. */

typedef struct BusObject {
        const char *path; /* of the object, or the prefix of the objects */
        const char *interface;
        const sd_bus_vtable *vtable;
        sd_bus_object_find_t find; /* NULL: there is one, at path */
        sd_bus_node_enumerator_t enumerate;
} BusObject;

extern const BusObject root_object, server_object, worker_object;

int objects_register(Service *service);

/* The paths of objects. NULL when out of memory. */
char *server_object_path(const Server *server);
char *worker_object_path(const Worker *worker);
