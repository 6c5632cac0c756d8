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
        unsigned n_direct, n_waiting;
} Turn;

/* Of all */
typedef struct Turns {
        TAILQ_HEAD(, Share) shares;
        Share *last, *other; /* the two users that were served last */
        uint64_t round;      /* from one moment at which the bus had no message to the next */
        unsigned n_waiting;
        bool heavy; /* these were many since none waited */
        int count;  /* of what was read from the bus until its last message; 0: isn't known */
        sd_event_source *source, *timer;
} Turns;

void turns_init(Turns *turns);
void turns_done(Service *service); /* all have left */

int turns_add(Service *service, Client *client); /* it has come; -ENOMEM */

/* Drops what waits of it. answer: the service leaves, and not the client */
void turns_remove(Service *service, Client *client, bool answer);

/* The bus has brought a message. Returns the bytes that were read from it since the last one: more than its size where
 * sd-bus has kept some to itself; 0: isn't known. */
size_t turns_count(Service *service);

/* A method call has come: 0: it is served now; 1: it waits; or negative with error set. size: its bytes; 0: isn't known
 */
int turns_take(Service *service, sd_bus_message *message, Client *client, size_t size, sd_bus_error *error);

/* One that came when its sender wasn't known waits now: as above. */
int turns_wait(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error);

/* An answer with so many bytes was sent to client. */
void turns_charge(Service *service, const Client *client, size_t bytes);

/* The service has worked so long on what a user sent in files, or has his workers write. Returns until when it does no
 * more of that, as below; his calls don't wait for it. */
uint64_t turns_charge_time(Service *service, uid_t uid, uint64_t usec);

/* Until when the user's next connection waits; in the past: it needn't. usec, CLOCK_MONOTONIC */
uint64_t turns_connection_waits(const Service *service, uid_t uid);
void turns_charge_connection(Service *service, const Client *client); /* it was made */
