#pragma once

#include "bus/peers.h"

/* What polkit is asked about a client's messages, and what becomes of those meanwhile. */

/* One thing that polkit is asked */
typedef struct Ask {
        Action action;
        char *server, *method, *tool; /* "" for none */
        bool granted;                 /* of a quiet check: what was said, once it is done */
} Ask;

/* verdicts.c */

int ask_init(Ask *ask, Action action, const Question *question); /* -ENOMEM */
bool ask_is(const Ask *ask, Action action, const Question *question);
bool ask_equal(const Ask *a, const Ask *b);
Question ask_question(const Ask *ask);
Ask *asks_free(Ask *asks, size_t n_asks);

/* What polkit said of it a moment ago: 1: granted; 0: denied, which is only kept of what was asked quietly; or -ENODATA
 */
int verdict_find(Service *service, const Client *client, Action action, const Question *question);
void verdict_keep(Service *service, Client *client, const Ask *ask, bool granted);
void verdicts_forget(Client *client);

/* polkit.c */

/* A message that is held until all that it asks is granted */
typedef struct Check {
        TAILQ_ENTRY(Check) link;
        Service *service;
        Client *client; /* NULL once the message is being dispatched again */
        sd_bus_message *message;
        uid_t uid;    /* the client's, to whom it is charged */
        size_t bytes; /* of message */
        bool interactive;
        bool quiet;   /* a denial shows less, and is no error */
        bool queued;  /* its question waits until fewer of its user are open */
        bool granted; /* the message was put back into the queue */
        Ask *asks;
        size_t n_asks, next;
        uint64_t started, deadline; /* usec, CLOCK_MONOTONIC */
        sd_bus_slot *slot;          /* of the question under way; NULL: it is queued, or another check asks the same */
        uint64_t cancellation;
} Check;

/* Holds the message of service->caller until its asks are granted, but for the first n_granted, which are. It is put
 * back into the queue then, or answered where one is denied. quiet: it is put back in any case. Takes asks. Returns 0,
 * or negative with error set. */
int check_start(Service *service, sd_bus_message *message, bool quiet, Ask *asks, size_t n_asks, size_t n_granted,
                sd_bus_error *error);

/* The message that is being dispatched was held: its check, which is done; NULL where it wasn't. Stays until
 * check_done(), or the end of this turn of the loop. */
const Check *check_passed(Service *service, sd_bus_message *message, bool quiet);
void check_done(Service *service);
