#pragma once

#include "bus/peers.h"

/* What unread.c, answers.c and unread-questions.c share */

#define FEW ((uint64_t)1 << 16)        /* bytes that may wait for one, before which nobody asks, whatever all have */
#define LITTLE ((uint64_t)1 << 20)     /* of a user, which isn't counted as his fault that all have too much */
#define DESCRIPTOR ((uint64_t)2 << 20) /* bytes that one is taken for: the bus has room for 64 */
#define PATIENCE (5 * USEC_PER_SEC)    /* who sends many at a time reads a moment later */

typedef struct Excess {
        uint64_t bytes, limit;
        const char *whose, *key;
} Excess;

/* unread.c */

void unread_set(Peer *peer, uint64_t bytes);
uint64_t unread_of_user(const Service *service, const Client *client, bool answers); /* with those that wait here */
bool unread_is_much(const Service *service); /* of all: it may be what one user alone may not have */
bool unread_is_too_much(const Service *service, const Client *client, Excess *ret);
Excess unread_excess_of_all(const Service *service);

/* LimitsExceeded; before: what its text begins with, up to the m of messages. Returns what a handler returns. */
int unread_refuse(sd_bus_error *error, const char *before, const Excess *excess);

/* It is known what the client hasn't read: what waited for that goes on, waits for its client to read, or is refused.
 */
void unread_decide(Service *service, const Client *client);

/* answers.c */

/* Sends what there is room for, and drops what has waited for too long without its client reading anything, or
 * everything. */
void answers_send(Service *service, const Client *client, bool all);
void answers_forget(Service *service, const Client *client); /* sends them */

/* unread-questions.c */

/* Asks what the client hasn't read, and where all have much, about the others that have as well; its own answer comes
 * last. Peer.question says that it is asked. */
void unread_ask_user(Service *service, const Client *client);
