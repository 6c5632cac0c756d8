#pragma once

#include "broker/manager.h"

typedef struct CallFile CallFile;

/* One request of one client, from its acceptance to its one answer. */
struct Call {
        Request request;
        TAILQ_ENTRY(Call) link; /* of its client's */
        Manager *manager;
        Client *client;
        Server *server; /* once it is submitted */
        const char *server_name;
        uint64_t started;        /* usec, CLOCK_MONOTONIC */
        uint64_t progress_since; /* likewise; n_progress have been told since */
        unsigned n_progress;
        size_t bytes;
        CallFile *file; /* its params stand in a file */
        void (*done)(Call *call, const Outcome *outcome);
        void (*progress)(Call *call, JsonSlice params);
        void *userdata;
};

typedef struct CallSpec {
        RequestKind kind;
        const char *server, *method;
        const char *tool;   /* set: method is tools/call, params its arguments */
        const char *params; /* JSON text, "" for none */
        MemoryFile *file;   /* instead of params: they stand there; referenced */
        uint64_t timeout;   /* usec, up to timeouts.call_max; 0: timeouts.call */
        bool large;         /* the result may stand in a file */
        /* Asks for progress in any case, and is told what the server says; NULL: the client is, where it asked. */
        void (*progress)(Call *call, JsonSlice params);
        /* Called once, unless call_start() failed: the call is freed behind it. outcome is NULL where the client has
         * left, and there is nobody to answer. */
        void (*done)(Call *call, const Outcome *outcome);
        void *userdata;
} CallSpec;

/* Checks, charges and submits a call. What spec points to has to stay until done(). Fails with -EREMOTEIO and *failure;
 * done() isn't called then, and the record is the caller's to leave. */
int call_start(Manager *manager, Client *client, const CallSpec *spec, Failure *failure);

/* What call_start() says of it without charging or sending anything: 0, or -EREMOTEIO with *failure. */
int call_check(Manager *manager, const CallSpec *spec, Failure *failure);

/* Whether what its server says of its progress may be passed on: so many messages a second may. */
bool call_tells_progress(Call *call);

/* For a call that was refused before it came so far: the record that each call leaves in the log, its level a setting.
 * tool may be NULL. started: usec, CLOCK_MONOTONIC; 0: just now. */
void call_record(Manager *manager, const Client *client, const char *server, const char *method, const char *tool,
                 uint64_t started, const char *outcome);

/* Its client doesn't wait any more. */
void call_cancel(Call *call, const char *reason);

/* Its worker is told to give it up, its client why. */
void call_fail(Call *call, const Failure *failure);

/* Between call.c and call-file.c only */
void call_end(Call *call, const Outcome *outcome);
int call_submit(Call *call, Failure *failure);
int call_refuse_params(const char *what, int r, unsigned depth, const JsonError *error, Failure *failure);
int call_file_new(Call *call, const CallSpec *spec, Failure *failure); /* sets call->file */
const char *call_file_text(const CallFile *file, size_t *ret_size);    /* NULL: it is too large for that */
int call_file_scan(Call *call,
                   Failure *failure); /* has it looked through, a piece in each turn of the loop, and sent */
CallFile *call_file_free(CallFile *file);

/* One item of a batch: its failure, or its result's JSON text, which it owns */
typedef struct BatchItem {
        const char *method, *params;
        Failure failure;
        char *result;
        bool done;
} BatchItem;

typedef struct Batch Batch;

/* Runs the items side by side, as many at a time as the limits allow; done() is called once, when all are, with the
 * items in order, or with NULL where the client has left; the batch is freed behind it. Takes items (an array
 * made with malloc()), also on failure; what they point to has to stay. */
int batch_start(Manager *manager, Client *client, const char *server, BatchItem *items, size_t n_items,
                void (*done)(void *userdata, const BatchItem *items, size_t n_items), void *userdata, Failure *failure);
