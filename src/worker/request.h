#pragma once

#include "base/macro.h"
#include "base/memory-file.h"
#include "wire/mcp.h"
#include "wire/request-file.h"
#include "worker/failure.h"
#include "worker/server-config.h"

typedef struct Pool Pool;
typedef struct Worker Worker;
typedef struct Request Request;

typedef enum RequestKind {
        REQUEST_CALL,         /* done with the worker's answer */
        REQUEST_NOTIFICATION, /* done when the workers, or a new one, were sent it */
        REQUEST_WARM_UP,      /* done when a worker is ready for it; nothing is sent */
} RequestKind;

/* Params in a file, and what was found there */
typedef struct RequestFile {
        MemoryFile *file;
        RequestFileLayout layout;
} RequestFile;

/* How a request ended. What it points to is valid during the callback only. */
typedef struct Outcome {
        const Failure *failure; /* NULL: it has a result */
        JsonSlice result;
        /* Where it is set the result stands there instead, sealed: it may be taken. */
        MemoryFile **file;
        JsonSlice error;   /* the server's own JSON-RPC error object, where failure tells of one */
        JsonTraits traits; /* of the line that these stand in */
} Outcome;

/* One message for a pool's workers, and the one answer. The owner embeds it, sets the first block, and keeps it, with
 * what it points to, until done() was called or pool_cancel() returned. */
struct Request {
        RequestKind kind;
        uid_t uid;          /* whose it is: users take turns in the queue, whatever they have waiting */
        const void *caller; /* likewise, compared alone: callers of a user take turns in what he gets */
        const char *method;
        McpParams params;
        const RequestFile *file; /* its params stand there, and have no text; NULL: they don't */
        bool large;              /* its result may stand in a file */
        uint64_t timeout;        /* usec; 0: timeouts.call */
        Worker *pinned;          /* only this worker will do: the request fails when it goes */
        bool approves;           /* also where the worker isn't approved of: by this it will be */
        bool asks;               /* it may ask back: no worker gets such requests of two callers at a time */
        void (*done)(Request *request, const Outcome *outcome);
        void (*progress)(Request *request, JsonSlice params, const JsonTraits *traits); /* optional */

        /* The pool's */
        Pool *pool;
        Worker *worker;      /* NULL: queued */
        Worker *answered_by; /* that had it: good while done() runs on a result or an error of the server */
        uint64_t id;
        uint64_t position, end;          /* in the stream to the worker */
        uint64_t sent;                   /* CLOCK_MONOTONIC, usec */
        uint64_t deadline, deadline_max; /* likewise */
        bool retried;
        bool held;            /* its clock stands still */
        uint64_t round, turn; /* its place in the queue: the round of its user, and among his the turn of its caller */
        TAILQ_ENTRY(Request) link;
};

typedef TAILQ_HEAD(RequestList, Request) RequestList;

/* How long a worker may be silent about it */
static inline uint64_t request_timeout(const Request *request, const ServerConfig *config) {
        return request->timeout ?: config->timeouts.call;
}
