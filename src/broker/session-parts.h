#pragma once

#include "broker/interests.h"
#include "broker/session.h"
#include "broker/stream.h"
#include "wire/rpc.h"
#include "wire/subscription.h"
#include "wire/task.h"
#include "wire/translate.h"

/* Between the files of a session only */

#define SESSION_HELD_MAX ((size_t)256 * 1024)  /* bytes of requests that wait for others to end, until which is read */
#define SESSION_UNSENT_SOFT ((size_t)1 << 20)  /* bytes that the client doesn't read, until which is read */
#define SESSION_UNSENT_HARD ((size_t)16 << 20) /* until which something is added */
#define SESSION_UNSENT_USER ((size_t)64 << 20) /* in all of a user's sessions */
#define SESSION_QUESTIONS_MAX 64               /* of servers that the client hasn't answered */
#define SESSION_TASKS_MAX 64
#define SESSION_LISTENS_MAX 32
#define SESSION_ELICITATIONS_MAX 32
#define SESSION_ROUNDS_MAX 64 /* so often a server may want more input for one call */

typedef struct SessionCall SessionCall;
typedef struct SessionQuestion SessionQuestion;
typedef struct SessionTask SessionTask;
typedef struct SessionListen SessionListen;
typedef struct Aggregate Aggregate;

/* One server of a session */
struct SessionServer {
        Session *session;
        Server *server;
        char *name;
        bool gone;        /* from the configuration, or not there yet: server isn't looked at */
        ServerPool *pool; /* NULL: not used yet */
        TAILQ_ENTRY(SessionServer) link;

        bool warming; /* what the server says of itself is waited for, and so are requests */
        Request warm_up;
        Failure cold; /* why it can't be had: for the requests that waited */
};

/* A request of the client, until its answer */
struct SessionCall {
        Request request;
        TAILQ_ENTRY(SessionCall) link;
        Session *session;
        SessionServer *server;
        McpClient client;
        uint64_t started; /* usec, CLOCK_MONOTONIC */
        size_t bytes;     /* charged */
        /* Sees the outcome ahead of the client, and answers it: NULL: it is passed on as it is */
        void (*done)(SessionCall *call, const Outcome *outcome);
        char *kept; /* the params, where they may be needed again */
        char *tool; /* of a tools/call */
        char *method;
        JsonSlice id, token;        /* the client's, with the traits of request.params */
        bool displaced;             /* others had to have its place in the queue: it is put there again */
        struct SessionInput *input; /* what a server wants of the client in the midst of it; or NULL */
        char data[];
};

/* A server's request that the client has */
struct SessionQuestion {
        TAILQ_ENTRY(SessionQuestion) link;
        Session *session;
        uint64_t number; /* its id on the session */
        char *text;      /* what the slices point into */
        JsonTraits traits;

        Worker *worker;      /* a legacy one, which waits for the answer; or NULL */
        JsonSlice worker_id; /* its own id for it */
        JsonSlice token;     /* of progress, as the worker wrote it */
        SessionCall *call;   /* of a modern worker, or of a modern client: which it is about; or NULL */
        McpAsk ask;
};

/* A task that the client made at a worker, or that a worker made at the client */
struct SessionTask {
        TAILQ_ENTRY(SessionTask) link;
        Worker *worker;
        bool clients;      /* it runs at the client */
        bool ended;        /* its worker isn't held for it */
        bool over;         /* it runs no more; its result may still be asked for */
        uint64_t progress; /* the worker's token, or 0 */
        JsonSlice token;   /* the client's */
        JsonSlice id;
        char data[];
};

/* A modern client's subscriptions/listen */
struct SessionListen {
        TAILQ_ENTRY(SessionListen) link;
        Session *session;
        SessionServer *server; /* NULL: any of the session's */
        McpFilter filter;
        JsonTraits traits;
        unsigned n_due; /* subscriptions that aren't answered */
        bool announced; /* what is listened to was acknowledged */
        char *text;     /* of filter and id */
        JsonSlice id;
};

/* A request that the interests of its pool will answer */
typedef struct SessionReply {
        TAILQ_ENTRY(SessionReply) link;
        Session *session;
        JsonTraits traits;
        JsonSlice id;
        char data[];
} SessionReply;

/* A request that waits until another has ended */
typedef struct HeldLine {
        TAILQ_ENTRY(HeldLine) link;
        size_t size;
        char data[];
} HeldLine;

typedef enum SessionState {
        SESSION_OPEN,
        SESSION_ENDED,  /* the client writes no more: what it asked for is answered, then it closes */
        SESSION_CLOSED, /* freed when the loop is back */
} SessionState;

struct Session {
        TAILQ_ENTRY(Session) link;
        Manager *manager;
        char id[33];
        Client *client; /* of its own: towards pools and limits it is one more connection of its user */
        Client *opener; /* of an attached one */
        Stream *stream;
        SessionState state;
        const char *ending; /* why it ends, where that isn't its client's wish */
        char *reason;       /* why it closed */
        unsigned depth;     /* of nesting that is read */

        McpClient mcp; /* era AUTO: it hasn't said who it is */
        char *info;    /* of mcp */

        SessionServer *servers;
        size_t n_servers;
        Aggregate *aggregate; /* NULL: it is on one server alone */

        TAILQ_HEAD(, SessionCall) calls;
        TAILQ_HEAD(, HeldLine) held;
        size_t held_bytes;
        unsigned n_displaced; /* calls */
        bool pumping;
        unsigned n_taking; /* lines that are being looked at */
        TAILQ_HEAD(, SessionQuestion) questions;
        unsigned n_questions;
        uint64_t last_question;
        TAILQ_HEAD(, SessionTask) tasks;
        unsigned n_tasks;
        TAILQ_HEAD(, SessionReply) replies;
        TAILQ_HEAD(, SessionListen) listens;
        unsigned n_listens;
        char *elicitations[SESSION_ELICITATIONS_MAX]; /* that it was asked out of band: the last ones' ids, as JSON */
        unsigned n_elicitations;

        IdFinder oversized; /* a line over the limit, as it goes by */
        uint64_t dropped;   /* notifications */
};

/* session.c */
void session_close(Session *session, const char *reason); /* when the loop is back */
void session_update(Session *session);                    /* what follows from its state: reading, closing */

/* The pool that serves it, chosen by what its client can do when it is first used. -ENOMEM. */
int session_get_pool(SessionServer *server, ServerPool **ret);

/* It is chosen anew when it is next used. Nothing of the session may be under way there. */
void session_leave_pool(SessionServer *server);

/* What the server says of itself. False: not known, and ret->era may be AUTO. */
bool session_hello(const SessionServer *server, McpHello *ret);

/* Where to append messages: NULL where there is no more use. notification: it may be left out. Then session_sent(). */
Buffer *session_output(Session *session, bool notification);
void session_sent(Session *session, int appended);

/* session-input.c: what the client says */
extern const LineHandlers session_input;
void session_pump(Session *session); /* requests that were held go on */
/* One message of the client that has waited: it is ahead of those that are held. */
void session_take_again(Session *session, const char *text, size_t size);

/* session-error.c */
void session_reply_result(Session *session, JsonPiece id, JsonPiece result);
void session_reply_text(Session *session, JsonPiece id, const char *result);
void session_reply_error(Session *session, JsonPiece id, int code, const char *format, ...) _printf_(4, 5);
void session_reply_failure(Session *session, JsonPiece id, const Failure *failure);

/* session-call.c: requests that pools have */
typedef struct SessionCallSpec {
        SessionServer *server;
        RequestKind kind;
        JsonSlice id; /* of the client's request */
        const char *method;
        McpParams params;
        McpClient client;
        Worker *pinned;
        void (*done)(SessionCall *call, const Outcome *outcome);
} SessionCallSpec;

/* 0; 1: not now, a limit is in the way of it, and a call that is under way will end; -EREMOTEIO with *failure. */
int session_call_start(Session *session, const SessionCallSpec *spec, Failure *failure);
int session_call_repeat(SessionCall *call, Failure *failure); /* once more, with other params, kept by the call */
void session_call_finish(SessionCall *call, const Outcome *outcome); /* it ended: the pool has it no more */
void session_call_pass_on(SessionCall *call, const Outcome *outcome);
void session_resubmit(Session *session);                         /* what was displaced */
void session_call_cancel(SessionCall *call, const char *reason); /* nobody is answered */
void session_call_fail(SessionCall *call, int code, const char *message);
SessionCall *session_find_call(Session *session, JsonSlice id);
SessionCall *session_call_of(Request *request); /* NULL: it is no session's */
JsonPiece session_call_id(const SessionCall *call);

/* session-method.c: methods that the broker has a part in. Each answers, or returns as session_call_start(). */
int session_method(Session *session, const RpcInput *input, const McpClient *client, const char *method,
                   Failure *failure);

/* session-task.c */
SessionTask *session_find_task(const Session *session, JsonSlice id, const Worker *worker); /* worker NULL: any */
void session_note_task(Session *session, JsonSlice id, Worker *worker, bool clients, const SessionCall *call);
void session_task_created(SessionCall *call, JsonSlice id);
/* What a worker says of one; asked: the client has, and is told it */
void session_task_watch(Session *session, JsonSlice task, bool asked);
void session_task_ended(SessionTask *task);
void session_task_free(Session *session, SessionTask *task);
void session_leave_tasks(Session *session);
int session_method_of_tasks(Session *session, const SessionCallSpec *spec, Failure *failure);

/* session-listen.c */
/* server NULL: each uri at the server that has it */
int session_listen(Session *session, SessionServer *server, const McpHello *hello, JsonSlice id,
                   const McpParams *params, Failure *failure);
SessionListen *session_find_listen(const Session *session, JsonSlice id);
void session_listen_free(SessionListen *listen);
void session_end_listens(Session *session); /* they are told so */

/* session-ask.c: input_required, between the eras */
void session_ask_legacy(SessionCall *call, const Outcome *outcome); /* a modern worker's, to a legacy client */
void session_ask_answered(SessionQuestion *question, const McpMessage *message);
bool session_ask_modern(SessionCall *call, Worker *worker, const McpMessage *message); /* the other way round */
/* 1: the request is the second half of a call, and dealt with; 0: it is none; -EREMOTEIO with *failure */
int session_ask_retried(Session *session, const RpcInput *input, Failure *failure);
bool session_ask_done(SessionCall *call, const Outcome *outcome); /* whether it waits for the client to come again */
void session_ask_free(SessionCall *call);
void session_ask_end(Session *session); /* the client comes no more: what waits for that is cancelled */
/* Of a modern client's calls on a worker the one that it most likely asks for; call where there is none. */
SessionCall *session_ask_choose(const Session *session, const Worker *worker, SessionCall *call);

/* session-question.c: requests of servers to the client */
SessionQuestion *session_question_new(Session *session, const McpAsk *ask, const JsonTraits *traits);
void session_question_free(SessionQuestion *question);
void session_question_withdraw(SessionQuestion *question, JsonSlice reason); /* and frees it */
void session_answered(Session *session, const McpMessage *message);
void session_roots_changed(SessionServer *server); /* the client says so */
void session_asked_progress(Session *session, JsonSlice params, const JsonTraits *traits);
void session_refuse_questions(Session *session, const char *why);
void session_forget_pool(Session *session, const ServerPool *server_pool, const char *why);
