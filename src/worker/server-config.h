#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macro.h"
#include "wire/protocol.h"

typedef enum ServerProtocol {
        SERVER_PROTOCOL_MCP,
        SERVER_PROTOCOL_LINES,
        SERVER_PROTOCOL_CONTROL,
        SERVER_PROTOCOL_ONCE,
} ServerProtocol;

typedef enum ServerTransport {
        SERVER_TRANSPORT_STDIO,
        SERVER_TRANSPORT_SOCKET,
        SERVER_TRANSPORT_FILE,
} ServerTransport;

typedef enum ServerIsolation {
        SERVER_ISOLATION_SHARED,
        SERVER_ISOLATION_RESET,
        SERVER_ISOLATION_FORK,
        SERVER_ISOLATION_FRESH,
} ServerIsolation;

typedef enum ServerScope {
        SERVER_SCOPE_SHARED,
        SERVER_SCOPE_USER,
        SERVER_SCOPE_CLIENT,
} ServerScope;

typedef enum ServerLists {
        SERVER_LISTS_AUTO,   /* good for as long as the server says */
        SERVER_LISTS_STATIC, /* the same at each start */
} ServerLists;

/* What a server's file says, with every default filled in. Immutable once read and shared by reference: a worker
 * keeps the one that it was started with. Times are in microseconds. */
typedef struct ServerConfig {
        unsigned n_ref;

        char *name, *description;
        char *file; /* where it was read */
        char *text; /* all of its keys as read, for comparing two */

        char *command; /* a bare name or an absolute path */
        char **args;
        char **argv;        /* what is run: the two, behind the program that carries another transport than stdio */
        char **environment; /* NAME=value, what the file adds */
        char *cwd;          /* NULL: the home directory */
        char **preload;     /* modules that an executor has ready */
        bool disabled;
        bool executor; /* runs code that its callers bring: wants another authorisation */

        ServerProtocol protocol;
        ServerTransport transport;
        ServerIsolation isolation;
        ServerScope scope;
        McpEra era;
        ServerLists lists;
        char **tools_digest; /* of its tools, one of these; NULL: it may have any */
        bool idempotent;

        struct {
                bool enabled;
                uint64_t timeout, check_interval; /* 0: never */
        } keep_alive;
        struct {
                unsigned min, max, concurrency, queue;
                bool answers_cancel; /* it answers calls that were cancelled: one that doesn't hasn't ended them */
        } pool;
        struct {
                uint64_t calls, lifetime, memory; /* 0: never */
        } recycle;
        struct {
                uint64_t start, call, call_max, stop;
        } timeouts;
        struct {
                unsigned burst;
                uint64_t interval;
        } restart;
        struct {
                uint64_t message;
                unsigned depth;
        } limits;

        char *sandbox; /* the object's JSON text, for the unit launcher */
        struct {
                uid_t *uids;
                size_t n_uids;
                gid_t *gids;
                size_t n_gids;
        } access; /* who may call without being asked */
} ServerConfig;

/* With the defaults of the documentation; name is copied. NULL when out of memory. */
ServerConfig *server_config_new(const char *name);

ServerConfig *server_config_ref(ServerConfig *config);
ServerConfig *server_config_unref(ServerConfig *config);

/* Fills in argv, from all else. -ENOMEM. */
int server_config_make_argv(ServerConfig *config);

/* Whether each call gets a process of its own */
bool server_config_per_call(const ServerConfig *config);

/* How its workers are spoken to */
const WireProtocol *server_config_wire(const ServerConfig *config);

/* The tables behind the enumerations: -1, or NULL, for what is none. */
int server_protocol_from_string(const char *word);
const char *server_protocol_to_string(ServerProtocol protocol);
int server_transport_from_string(const char *word);
const char *server_transport_to_string(ServerTransport transport);
int server_isolation_from_string(const char *word);
const char *server_isolation_to_string(ServerIsolation isolation);
int server_scope_from_string(const char *word);
const char *server_scope_to_string(ServerScope scope);
int server_lists_from_string(const char *word);
const char *server_lists_to_string(ServerLists lists);

void strings_free(char **strings);
DEFINE_CLEANUP(ServerConfig *, server_config_unref, server_config_unrefp)
