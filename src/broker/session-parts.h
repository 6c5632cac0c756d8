#pragma once

#include "broker/session.h"
#include "broker/stream.h"

/* Between the files of a session only */

#define SESSION_ID_MAX ((size_t)1024)          /* bytes of a request's id, or of a progress token */
#define SESSION_METHOD_MAX ((size_t)256)       /* bytes of a method's name */
#define SESSION_HELD_MAX ((size_t)256 * 1024)  /* bytes of requests that wait for others to end, until which is read */
#define SESSION_UNSENT_SOFT ((size_t)1 << 20)  /* bytes that the client doesn't read, until which is read */
#define SESSION_UNSENT_HARD ((size_t)16 << 20) /* until which something is added */
#define SESSION_UNSENT_USER ((size_t)64 << 20) /* in all of a user's sessions */
#define SESSION_QUESTIONS_MAX 32               /* of servers that the client hasn't answered */

typedef struct SessionCall SessionCall;
typedef struct SessionQuestion SessionQuestion;

/* One server of a session */
struct SessionServer {
        Session *session;
        Server *server;
        ServerPool *pool; /* NULL: not used yet */
        TAILQ_ENTRY(SessionServer) link;
};

/* A request of the client that a pool has */
struct SessionCall {
        Request request;
        TAILQ_ENTRY(SessionCall) link;
        Session *session;
        SessionServer *server;
        uint64_t started; /* usec, CLOCK_MONOTONIC */
        size_t bytes;     /* charged */
        /* Sees the outcome ahead of the client, and answers it: NULL: it is passed on as it is */
        void (*done)(SessionCall *call, const Outcome *outcome);
        char *kept;   /* the params, where they may be needed again */
        char *tool;   /* of a tools/call that is recorded or may ask; or NULL */
        JsonSlice id; /* the client's, in data */
        JsonSlice token;
        char *method; /* likewise */
        char data[];
};

/* A server's request that the client has */
struct SessionQuestion {
        TAILQ_ENTRY(SessionQuestion) link;
        Session *session;
        ServerPool *pool;
        Worker *worker;
        uint64_t number; /* its id on the session */
        JsonSlice id;    /* the worker's own */
        JsonSlice token; /* of progress, as the worker wrote it */
        bool roots;
        char data[];
};

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
        char *reason; /* why it closed */
        uint64_t opened;
        unsigned depth; /* of nesting that is read */

        McpEra era; /* the client's, from its first request on */
        bool initializing;

        SessionServer *servers;
        size_t n_servers;

        TAILQ_HEAD(, SessionCall) calls;
        TAILQ_HEAD(, HeldLine) held;
        size_t held_bytes;
        TAILQ_HEAD(, SessionQuestion) questions;
        unsigned n_questions;
        uint64_t last_question;

        IdFinder oversized; /* a line over the limit, as it goes by */
        uint64_t dropped;   /* notifications */
};

/* session.c */
void session_close(Session *session, const char *reason);      /* when the loop is back */
void session_update(Session *session);                         /* what follows from its state: reading, closing */
int session_get_pool(SessionServer *server, ServerPool **ret); /* -ENOMEM */

/* Where to append messages: NULL where there is no more use. notification: it may be left out. Then session_sent(). */
Buffer *session_output(Session *session, bool notification);
void session_sent(Session *session, int appended);

/* session-input.c: what the client says */
extern const LineHandlers session_input;
void session_pump(Session *session); /* requests that were held go on */

/* session-error.c: answers of the broker itself */
void session_reply_result(Session *session, JsonSlice id, JsonSlice result, const JsonTraits *traits);
void session_reply_text(Session *session, JsonSlice id, const char *result);
void session_reply_error(Session *session, JsonSlice id, int code, const char *format, ...) _printf_(4, 5);
void session_reply_failure(Session *session, JsonSlice id, const Failure *failure);
void session_reply_outcome(Session *session, JsonSlice id, const Outcome *outcome);
int session_append_error(Buffer *buffer, JsonSlice id, int code, const char *message, const char *word);

#define RPC_PARSE_ERROR (-32700)
#define RPC_INVALID_REQUEST (-32600)
#define RPC_METHOD_NOT_FOUND (-32601)
#define RPC_INVALID_PARAMS (-32602)
#define RPC_BROKER_ERROR (-32000)
#define MCP_UNSUPPORTED_VERSION (-32022)

/* session-call.c: requests that pools have */
typedef struct SessionCallSpec {
        SessionServer *server;
        RequestKind kind;
        JsonSlice id; /* of the client's request */
        const char *method;
        McpParams params;
        Worker *pinned;
        void (*done)(SessionCall *call, const Outcome *outcome);
} SessionCallSpec;

/* 0; 1: not now, a limit is in the way of it, and a call that is under way will end; -EREMOTEIO with *failure. */
int session_call_start(Session *session, const SessionCallSpec *spec, Failure *failure);
void session_call_cancel(SessionCall *call, const char *reason); /* nobody is answered */
SessionCall *session_find_call(Session *session, JsonSlice id);

/* session-question.c: requests of servers to the client */
void session_answered(Session *session, const McpMessage *message);
void session_asked_progress(Session *session, JsonSlice params, const JsonTraits *traits);
void session_refuse_questions(Session *session, const char *why);

/* session-server.c: methods that the broker has a part in */
typedef int (*session_method_handler)(Session *session, const McpMessage *message, const McpParams *params,
                                      Failure *failure);
