#pragma once

#include "bus/service.h"
#include "bus/turns.h"

/* Who calls, and what that one may do. */

/* What the bus layer keeps of a client */
typedef struct Peer {
        Connection *connection; /* NULL: it is on the bus */
        TAILQ_HEAD(, Verdict) verdicts;
        unsigned n_verdicts;
        Turn turn;

        /* On the bus: bytes that it may not have read, and of these the ones that it was sent since that was asked, and
         * those of answers that wait for the bus to have room */
        Service *service;
        uint64_t unread, since_asked, answer_bytes, on_bus; /* on_bus: as it was told */
        uint64_t descriptors_before, descriptors_since;     /* of unread: those sent before and since it was asked */
        sd_bus_slot *question;                              /* how much that is */
        TAILQ_HEAD(, Answer) answers;
        TAILQ_HEAD(, Waiting) held;   /* calls that wait for it to read */
        uint64_t held_since, read_at; /* usec, CLOCK_MONOTONIC; read_at: less was told than before */
        sd_event_source *again;
} Peer;

/* Connections come and go. The bus knows whose they are; it is asked once for each, without waiting for the answer.
 * Messages are held until it is there: every other handler finds the sender in service->caller. */
int peers_watch(Service *service);
void peers_done(Service *service); /* answers what is held */

/* Asks who has that unique name, ahead of its first call: from then on it is known, and hears what it may. */
void peers_meet(Service *service, const char *name);

/* Takes client, and makes it known. -ENOMEM: it is freed. */
int peers_add(Service *service, Client *client, Connection *connection);
void peers_remove(Service *service, Client *client); /* it has left */

/* The bus that a client is on; NULL where the service is leaving */
sd_bus *peers_bus(const Service *service, const Client *client);

/* What a method call's handlers have in common, on whichever connection it came: run ahead of them as a filter's last
 * step. Returns 0 to go on, 1 where the message is held, or negative with error set. */
int peers_enter(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error);

/* Puts a message that was held back into the queue of messages. */
int peers_resume(Service *service, sd_bus_message *message);

/* Has a message that was held dispatched at once. Not from within a handler of its bus. */
int peers_dispatch(Service *service, sd_bus_message *message);

/* Runs handler from the loop, which is to dispatch one message of those that sd-bus has in a queue; *source is the
 * caller's. sd-bus reminds itself of them by a timer, which it sets anew before each turn of the loop, so that it loses
 * its place to all that comes in on other connections, for as long as that goes on; and a timer that is due at once
 * takes longer than a call. */
int peers_process_queue(Service *service, sd_event_source **source, sd_event_handler_t handler, void *userdata);

/* authorize.c */

typedef enum Action {
        ACTION_CALL = 1 << 0,         /* use a server */
        ACTION_EXECUTE_CODE = 1 << 1, /* use one that runs the caller's own code */
        ACTION_USE_NETWORK = 1 << 2,  /* use one that reaches the network */
        ACTION_MANAGE = 1 << 3,       /* stop and start workers, read the configuration again, see all */
} Action;

/* What is to be authorised: texts go to polkit as details. tool and method may be NULL. */
typedef struct Question {
        const char *server, *method, *tool;
} Question;

bool authorize_asks(Service *service, const Server *server); /* whether polkit decides on the caller's use of it */

bool authorize_known(void *service, const Client *client, const Server *server); /* it may, and polkit needn't say so */

/* The tool that the params of a tools/call name, where polkit decides on it; owned by the caller. *ret is NULL where it
 * doesn't, and where the params are no good, which is said when they are checked. Negative with error set, and recorded
 * in the log, where the tool can't be told. */
int authorize_tool(Service *service, const Server *server, const char *method, const char *params, char **ret,
                   sd_bus_error *error);

/* Whether the caller of message may use the server in all these ways. 1: it may; 0: polkit was asked, and message is
 * held until it has answered; or negative with error set, and recorded in the log. */
int authorize_use(Service *service, sd_bus_message *message, const Server *server, const Question *questions,
                  size_t n_questions, sd_bus_error *error);

/* The same for several servers at once, for the method: 1: the caller may use all of them. choose: 1: those that it may
 * use without somebody being asked stand first, *n_servers of them. */
int authorize_servers(Service *service, sd_bus_message *message, Server **servers, size_t *n_servers, bool choose,
                      const char *method, sd_bus_error *error);
int authorize_manage(Service *service, sd_bus_message *message, const Question *question, sd_bus_error *error);

/* All of that for one call of a server, which has to be there. question->tool: where it is said beside params. params:
 * NULL where they are no text; then a tool that polkit decides on has to be said. Returns as authorize_use(). */
int authorize_call(Service *service, sd_bus_message *message, const Question *question, const char *params,
                   sd_bus_error *error);

/* Leaves the record of a call that was refused before it came so far. */
void authorize_record(Service *service, const Question *question, FailureCode code);

/* Finds out whether the caller may see what belongs to others. 1: that is known; 0: as above. */
int authorize_view(Service *service, sd_bus_message *message);

/* Sees what belongs to everybody, and nothing else */
#define VIEWER_NOBODY ((uid_t)-2)

/* Who sees what is being written, a reply on bus or a signal: a uid whose own objects these are, or QUOTA_EVERYBODY
 * for all of them */
uid_t authorize_viewer(Service *service, sd_bus *bus);

/* What of the objects a client sees, likewise */
uid_t authorize_sees(Service *service, const Client *client);

/* polkit.c */

int authorize_init(Service *service);
void authorize_enter(Service *service, sd_bus_message *message); /* it is being dispatched, and perhaps was held */
void authorize_forget(Service *service, Client *client);         /* it has left: withdraws what is asked for it */
void authorize_refuse(Service *service);                         /* the service leaves: answers what is held */

/* private.c: the private socket */

/* Serves the listening sockets that systemd hands over (sd_listen_fds(3)). */
int private_listen(Service *service);
void private_pause(Service *service); /* new connections wait for the next service */
void private_done(Service *service);
void private_resumed(Service *service, sd_bus *bus); /* a message was put back into the queue of bus */
void private_process(Service *service, sd_bus *bus); /* has it dispatched */
const Client *private_client(const Service *service, const sd_bus *bus); /* NULL: there is none */
void private_pause_reading(Connection *connection, bool pause);

/* unread.c: what the clients on the bus haven't read */

/* Sends the answer to request, which has so much in it, on any connection: at once, or when the bus has room for it;
 * where that isn't soon, an error in its stead. Returns 1, as a handler does, or negative: then there was no answer. */
int peers_reply(Service *service, sd_bus_message *request, sd_bus_message *reply, size_t bytes, unsigned n_fds);
int peers_reply_text(Service *service, sd_bus_message *request, const char *text);
int peers_reply_fd(Service *service, sd_bus_message *request, int fd); /* doesn't take it */

#define UNREAD_MESSAGE ((size_t)1024) /* bytes that a message without a payload is taken for */

void unread_add(Service *service, const Client *client, size_t bytes);
bool unread_takes_signals(const Service *service, const Client *client);
/* 0; 1: the message is held; or negative with error set */
int unread_takes_calls(Service *service, sd_bus_message *message, const Client *client, sd_bus_error *error);
void unread_forget(Service *service, const Client *client);

/* Signals to all: whether there is room for one more, and that it was sent */
bool unread_takes_broadcasts(Service *service);
void unread_add_broadcast(Service *service, sd_bus_message *signal);

/* private-output.c: what its clients haven't read */

void private_sent(Service *service, sd_bus *bus, size_t bytes); /* a message with so much in it, on any bus */
bool private_takes_signals(const Connection *connection);
int private_takes_calls(Connection *connection, sd_bus_error *error); /* or fails, with error set */

struct Connection {
        TAILQ_ENTRY(Connection) link;
        Service *service;
        Client *client;
        sd_bus *bus;
        pid_t pid;
        int fd, pidfd; /* fd: a duplicate, to look at what comes in */
        sd_event_source *bytes_source, *timer, *connected_source, *queue_source;
        uint64_t accepted, message_since; /* usec, CLOCK_MONOTONIC; 0: no message has begun */
        uint64_t size, incoming;          /* bytes of that message: as it says, or 0; at least */
        bool counting;                    /* of what sd-bus reads the bytes are counted */
        bool at_boundary;                 /* have been since the start of a message */
        bool busy;                        /* sd-bus has something in its queues */
        unsigned n_resumed;               /* messages that wait to be dispatched once more */
        size_t *sent;                     /* what waited to be read when it was sent, the last ones: bytes */
        unsigned n_sent, sent_size;       /* size: of the array */
        bool greeted; /* has sent a message: what comes before the answer to Hello would be taken for that */
        bool heavy;   /* has sent a large message */
        bool closing;
};
