#pragma once

#include "bus/peers.h"
#include "bus/service.h"

/* The bus tree as a table, which the objects' files fill. */
typedef struct BusObject {
        const char *path; /* of the object, or the prefix of the objects */
        const char *interface;
        const sd_bus_vtable *vtable;
        sd_bus_object_find_t find; /* NULL: there is one, at path */
        sd_bus_node_enumerator_t enumerate;
} BusObject;

extern const BusObject root_object, server_object, worker_object, job_object;

/* On the bus, or on the connection of a client of the private socket. */
int objects_register(Service *service, sd_bus *bus);

/* Appends a{sv}: the properties of target, an object of that kind; names: of them those, NULL-terminated, or NULL for
 * all. */
int objects_append_properties(sd_bus_message *message, const BusObject *object, const char *path, void *target,
                              const char *const *names);

/* The paths of objects. NULL when out of memory. */
char *server_object_path(const Server *server);
char *worker_object_path(const Worker *worker);
char *job_object_path(const Job *job);
int job_path(const char *id, char **ret); /* of one that isn't there yet; -ENOMEM */

/* A method call that is answered later */
typedef struct Pending {
        Service *service;
        sd_bus_message *message; /* referenced */
} Pending;

Pending *pending_new(Service *service, sd_bus_message *message); /* NULL when out of memory */
Pending *pending_free(Pending *pending);

/* The server that a method shall use: 0, or an error, and the call's record is written. */
int root_find_used(Service *service, const Question *question, Server **ret, sd_bus_error *error);

/* Methods of the root object that have files of their own */
int method_call_batch(sd_bus_message *message, void *userdata, sd_bus_error *error);
int method_call_fd(sd_bus_message *message, void *userdata, sd_bus_error *error);
int method_start_job(sd_bus_message *message, void *userdata, sd_bus_error *error);

/* sessions.c: methods of the root object */
int method_open_session(sd_bus_message *message, void *userdata, sd_bus_error *error);
int method_attach_session(sd_bus_message *message, void *userdata, sd_bus_error *error);

/* signals.c: the manager's news as signals. Signals are nobody's due: one that can't be sent is dropped. */
extern const ManagerHandlers signals_handlers;
