#pragma once

#include <systemd/sd-bus.h>

#include "base/macro.h"

/* Whose message is next. A bus hands over all messages in one line, in the order in which they came; so what is there
 * is taken from it before much is done, and those who have sent many, or large ones, wait here, user by user and
 * connection by connection. */

typedef struct Service Service;
typedef struct Client Client;
typedef struct Share Share;

typedef struct Waiting {
        TAILQ_ENTRY(Waiting) link;
        sd_bus_message *message;
        size_t bytes;
} Waiting;

/* Of one connection */
typedef struct Turn {
        TAILQ_ENTRY(Turn) link; /* of those of the user that have something waiting */
        Share *share;
        TAILQ_HEAD(, Waiting) waiting;
        uint64_t round; /* in which it has had n_direct messages served as they came */
        unsigned n_direct;
} Turn;

/* Of all */
typedef struct Turns {
        TAILQ_HEAD(, Share) shares;
        Share *last, *other; /* the two users that were served last */
        uint64_t round;      /* from one moment at which the bus had no message to the next */
        unsigned n_waiting;
        sd_event_source *source, *timer;
} Turns;

void turns_init(Turns *turns);
void turns_done(Service *service); /* all have left */

int turns_add(Service *service, Client *client); /* it has come; -ENOMEM */

/* Drops what waits of it. answer: the service leaves, and not the client */
void turns_remove(Service *service, Client *client, bool answer);

/* A method call has come: 0: it is served now; 1: it waits; or negative with error set */
int turns_take(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error);

/* One that came when its sender wasn't known waits now: as above. */
int turns_wait(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error);

/* An answer with so many bytes was sent to client. */
void turns_charge(Service *service, const Client *client, size_t bytes);
