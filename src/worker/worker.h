#pragma once

#include <systemd/sd-event.h>

#include "worker/channel.h"
#include "worker/launcher.h"
#include "worker/request.h"
#include "worker/spill.h"

typedef enum WorkerState {
        WORKER_STARTING, /* its handshake is under way */
        WORKER_READY,
        WORKER_DRAINING, /* gets no more requests, and is stopped after its last answer */
        WORKER_STOPPING, /* was asked to leave */
        WORKER_EXITED,
} WorkerState;

typedef enum HandshakeStep {
        HANDSHAKE_PROBE,      /* server/discover was sent */
        HANDSHAKE_BOTH,       /* no answer in time: initialize was sent as well */
        HANDSHAKE_INITIALIZE, /* only initialize is waited for */
        HANDSHAKE_DONE,
} HandshakeStep;

#define WORKER_LAST_LINES 5
#define WORKER_LINE_MAX ((uint64_t)16 << 20) /* bytes of a line that are held, whatever limits.message is */
#define WORKER_GIVEN_UP 32         /* calls that were given up: of so many the last it is known what comes of them */
#define WORKER_OVERSIZED_FACTOR 16 /* a line over so many times what is allowed has no end */

typedef struct WorkerBudget {
        uint64_t since; /* usec, CLOCK_MONOTONIC */
        unsigned n_used, n_dropped;
} WorkerBudget;

/* A call that it was told to give up */
typedef struct GivenUp {
        uint64_t id;    /* 0: none */
        uint64_t until; /* it may go on with it, or answer it; usec, CLOCK_MONOTONIC */
} GivenUp;

/* One running process of a server. Belongs to its pool, which alone creates and frees it. */
struct Worker {
        Pool *pool;
        TAILQ_ENTRY(Worker) link;
        sd_event *event;
        ServerConfig *config;
        char id[33];

        Process *process;
        Channel *channel;
        const WireProtocol *wire; /* how it is spoken to */
        Buffer output;            /* protocol once: all that it wrote */
        sd_event_source *timer;
        WorkerState state;
        int exit_code, exit_status; /* once exited: ProcessExit's */
        char *exit_result;
        bool start_logged;   /* with its pid, which a unit has only after a while */
        bool asked_to_stop;  /* by us: its end is no crash */
        const char *hung_up; /* the pipe that it closed itself: "stdin" or "stdout" */
        unsigned stop_step;
        Failure reason; /* why it came to its end, where that is known better than by its exit status */

        McpEra era;
        HandshakeStep step;
        bool era_assumed; /* from an earlier verdict, not from the configuration: can be wrong */
        bool relaunch;    /* it died or fell silent of a question that the next one won't be asked */
        uint64_t probe_id, initialize_id, ping_id, listen_id;
        bool lists_change;      /* a modern one says when they do, to those who listen */
        unsigned n_told;        /* worker_tell()s that aren't answered */
        uint64_t question_read; /* when it was seen that it had read the last question; usec, CLOCK_MONOTONIC */
        char protocol_version[16];
        char *server_info; /* what it says of itself: name and version */

        RequestList requests;
        unsigned n_requests;
        unsigned
                n_holds; /* of what it keeps for others: it isn't let go for being idle, or drained, before these end */
        uint64_t last_id;

        uint64_t started_realtime, last_active_realtime;                                     /* usec, CLOCK_REALTIME */
        uint64_t started, ready_since, last_active, last_check, last_weighed, ping_deadline; /* CLOCK_MONOTONIC */
        uint64_t last_heard; /* when it wrote a line; usec, CLOCK_MONOTONIC */
        uint64_t calls, late_answers, stray_lines;
        uint64_t call_time;            /* usec, of all calls together */
        uint64_t calls_max, retire_at; /* recycling, with its jitter */
        bool worn_out;                 /* due for recycling */
        uint64_t worn_at;              /* since; usec, CLOCK_MONOTONIC */
        bool succeeds;                 /* it was started for one that was, and that has been told to leave */
        bool accounted;                /* its failure has been told to those who waited for it */
        unsigned n_unapproved;         /* it gets no call before its owner has looked at it so often */
        bool suspect;                  /* a call was given up: it has to answer a ping first */
        bool ping_again;               /* and that has to be a later one than it has now */
        GivenUp given_up[WORKER_GIVEN_UP];
        GivenUp owed;       /* the oldest call of these that it has to answer to stay: see pool.answers_cancel */
        const char *let_go; /* why it is replaced, where it has heeded no cancel */

        Spill *spill;          /* the long line that it writes just now, where one can be an answer in a file */
        bool spills;           /* such an answer is waited for, or was a moment ago */
        uint64_t spilled;      /* bytes that are charged for it */
        uid_t spill_payer;     /* by whom; -1: nobody alone */
        uint64_t spill_room;   /* of these, not used yet */
        int spill_error;       /* the line is no good: -errno */
        Failure spill_failure; /* why no more are charged */

        IdFinder oversized; /* a line over limits.message, as it goes by */
        uint64_t oversized_size;
        WorkerBudget log_lines, notifications; /* what was used of it, kept by whoever passes them on */
        char *last_stray;
        char *last_lines[WORKER_LAST_LINES]; /* of stderr, the newest last */
};

const char *worker_state_to_string(WorkerState state);

/* Starts a process and its handshake. Fails with -EREMOTEIO and *failure. */
int worker_new(Pool *pool, sd_event *event, Launcher *launcher, ServerConfig *config, const char *owner, McpEra era,
               Worker **ret, Failure *failure);
Worker *worker_free(Worker *worker); /* kills what is left */

/* Whether it can take one more request now */
bool worker_available(const Worker *worker);

/* Likewise for a request that wants this one: also one that is leaving takes it, for what was begun there */
bool worker_available_pinned(const Worker *worker);

/* What it keeps for somebody: hold and release, in pairs */
void worker_hold(Worker *worker);
void worker_release(Worker *worker);

/* Where to append what isn't a call, for worker_write(): NULL where it can't be told anything, or doesn't read */
Buffer *worker_side_input(Worker *worker);

/* The answer to a request of its own, by its id: one of result and error is there. Nothing is said where it doesn't
 * read what was answered before. */
void worker_answer(Worker *worker, JsonSlice id, JsonSlice result, JsonSlice error, const JsonTraits *traits);

/* A notification for it alone. One that doesn't read gets none. */
void worker_notify(Worker *worker, const char *method, const McpParams *params);

/* Writes a call and moves it to the worker's list; is done at once with a warm-up. -EPIPE
 * where the worker reads no more, -ENOMEM: the request is untouched. */
int worker_send(Worker *worker, Request *request);

/* Takes back a request that it has, and tells it in its protocol. It is replaced where it can't be told, or where it is
 * seen later that it didn't heed it: once its other calls are done. */
void worker_cancel(Worker *worker, Request *request, const char *reason);

void worker_drain(Worker *worker);

/* The stop sequence: stdin closed, SIGTERM, SIGKILL, timeouts.stop apart. impatient: SIGKILL at once. */
void worker_stop(Worker *worker, bool impatient);

/* Sends a request whose answer is of no interest; params is JSON text. Nothing happens where it can't be written. */
void worker_tell(Worker *worker, const char *method, const char *params);

/* Has a modern worker say when its lists change and, of these resources, when they do: JSON strings with commas between
 * them. It replaces what was listened to before. */
void worker_listen(Worker *worker, JsonSlice uris);

/* Asks whether it is alive, unless that was asked already; one that doesn't answer is replaced. */
void worker_check(Worker *worker);

/* How it ended, with its last words, as a sentence. Owned by the caller; NULL when out of memory. */
char *worker_describe_exit(const Worker *worker);

/* For the other files of a worker only: handshake.c, worker-input.c, worker-output.c, which reads what it writes, and
 * worker-file.c */
int handshake_start(Worker *worker);
void handshake_answer(Worker *worker, const McpMessage *message);
void handshake_timeout(Worker *worker);
void handshake_hung_up(Worker *worker); /* it has closed a pipe, and not exited */
bool handshake_died(Worker *worker);    /* whether the question killed it, so that another process is worth a try */
void worker_on_line(void *userdata, const char *line, size_t size);
void worker_on_oversized(void *userdata, const char *piece, size_t size, bool last);
void worker_on_unfinished(void *userdata, const char *piece, size_t size, bool last); /* protocol lines */
void worker_on_diagnostic(void *userdata, const char *line, size_t size);
uint64_t worker_now(const Worker *worker); /* usec, CLOCK_MONOTONIC, of this turn of the loop */
void worker_rearm(Worker *worker);
void worker_request_left(Worker *worker); /* after each request that did, by an answer or without one */
void worker_touch(Worker *worker);        /* it was active just now */
int worker_write(Worker *worker, int appended);
void worker_on_message(Worker *worker, const McpMessage *message, const char *line, size_t size);
bool worker_fail_asker(Worker *worker, const IdFinder *finder, FailureCode code, const char *why);
void worker_on_stray(Worker *worker, const char *line, size_t size);

/* worker-cancel.c: something about a call that was given up, or else false. ended: its answer; went_on: what nobody
 * writes who has given it up. And by when it has to have answered */
bool worker_heard_of(Worker *worker, uint64_t id, bool ended, bool went_on);
uint64_t worker_owes_until(const Worker *worker);
void worker_moved_while_owing(Worker *worker);         /* it still reads what stands before the cancel */
bool worker_busy_with_cancelled(const Worker *worker); /* as far as it has to answer that, and has one call at a time */

/* worker-file.c: params that come from files, and results that go into them */
int worker_append_file_request(Worker *worker, Request *request); /* as append_request() */
void worker_on_moved(void *userdata);
uint64_t worker_on_worked(void *userdata, uint64_t usec);
bool worker_spills(const Worker *worker, bool last); /* whether this part of a long line is for worker_spill() */
void worker_spill(Worker *worker, const char *piece, size_t size, bool last);
void worker_set_spills(Worker *worker, bool spills);
void worker_spill_end(Worker *worker); /* protocol once: what it wrote is the answer */
void worker_spill_done(Worker *worker);
void worker_set_timer(Worker *worker, uint64_t usec);
void worker_became_ready(Worker *worker);
void worker_answered_ping(Worker *worker);
void worker_finish(Worker *worker, Request *request, const Outcome *outcome);
void worker_conclude(Worker *worker); /* its exit is the answer to its call: protocol once */
void worker_fail(Worker *worker, FailureCode code, const char *format, ...) _printf_(3, 4);
