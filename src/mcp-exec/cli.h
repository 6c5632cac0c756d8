#pragma once

#include <stdnoreturn.h>
#include <systemd/sd-bus.h>

#include "base/buffer.h"
#include "base/macro.h"
#include "wire/json.h"

/* mcp-exec, the command line. It is one short run of one verb: what fails is told on stderr where it fails, and the
 * exit status travels up. All functions named int status_...() and all verbs return such a status. */

/* The exit statuses of mcp-exec(1): stable */
enum {
        STATUS_OK = 0,
        STATUS_TOOL = 1,        /* the tool, an item of a batch, a checked file says that something is wrong */
        STATUS_USAGE = 2,       /* the command line, or a file that it names */
        STATUS_UNKNOWN = 3,     /* no such server or tool, or it is disabled */
        STATUS_DENIED = 4,      /* not authorised */
        STATUS_TIMEOUT = 5,     /* no answer in time */
        STATUS_UNREACHABLE = 6, /* no bus, or no service on it */
        STATUS_SERVER = 7,      /* the server could not be started, ended, or talks nonsense */
        STATUS_REMOTE = 8,      /* the server's own JSON-RPC error */
        STATUS_LIMIT = 9,       /* too large, or too much at a time */
};

typedef enum BusChoice {
        BUS_CHOICE_AUTO,
        BUS_CHOICE_USER,
        BUS_CHOICE_SYSTEM,
        BUS_CHOICE_ADDRESS,
} BusChoice;

typedef struct Cli {
        /* Options */
        BusChoice choice;
        const char *address;
        bool json, quiet, force, follow, pass_stdin;
        bool job;         /* it shall go on when this program ends */
        uint64_t timeout; /* usec; USEC_INFINITY: the service's own limits alone */
        const char *output, *code;
        unsigned lines, jobs;

        sd_bus *bus;
        const char *bus_name; /* "the session bus", for messages */
        bool can_ask;         /* somebody is there who can confirm */
        bool ask;             /* and shall be asked */
} Cli;

typedef int (*verb_handler)(Cli *cli, int argc, char *argv[]);

typedef struct Verb {
        const char *name;
        int min, max; /* arguments behind it; max -1: any number */
        verb_handler run;
        const char *synopsis, *help; /* no help: hidden */
} Verb;

/* Also where an argument is missing or too much */
const Verb *verb_find(const char *name);
const Verb *verb_table(size_t *ret_n);

/* Option names for completion, NULL-terminated by one without name; for: "" or the verbs that take it. */
typedef struct OptionInfo {
        const char *name;
        char letter;
        const char *argument, *verbs, *help;
} OptionInfo;
const OptionInfo *option_table(size_t *ret_n);

/* Mistakes on the command line (hints.c): told with what was meant. argv[0] is the verb, but for options the program.
 */
int status_unknown_verb(Cli *cli, int argc, char *argv[]);
int status_unknown_option(const char *typed, int argc, char *argv[]);
int status_too_few(const Verb *verb, int argc, char *argv[]);
int status_too_many(const Verb *verb, char *argv[]);
/* run with one word alone */
int status_no_code(const char *word);
/* A method of MCP that was meant; NULL: none, or it is one itself */
const char *nearest_method(const char *method);

/* Connecting (connection.c): idempotent. */
int status_connect(Cli *cli);
/* The same for verbs that want signals, which the private socket is no place for */
int status_connect_bus(Cli *cli);

/* A method of the root object, waited for, with its failure told. ret may be NULL. */
int status_call(Cli *cli, sd_bus_message **ret, const char *member, const char *types, ...);
/* Calls and waits. Where that has to be confirmed, and somebody is there, it is done once more, and he is asked. */
int call_and_wait(Cli *cli, sd_bus_message *message, uint64_t timeout, sd_bus_error *error, sd_bus_message **ret);
/* For calls that aren't waited for: have him asked by all. */
void ask_for_all(Cli *cli);
/* How far a call is, on the terminal (progress.c). message is a server's. */
void progress_draw(double progress, double total, const char *message);
void progress_clear(void);
sd_bus_message *new_call(Cli *cli, const char *path, const char *interface, const char *member);

/* Tells a failed call and returns its status. */
int status_bus_error(const Cli *cli, const sd_bus_error *error, int r);
int status_of_error_name(const char *name);
/* The name without the prefix of this service's errors */
const char *short_error_name(const char *name);

/* polkit's agent on the terminal (agent.c), for who isn't root: idempotent, and nothing where it isn't installed. */
void agent_start(void);
void agent_stop(void);

noreturn void out_of_memory(void);
/* Ends the program where there is no memory: it is in the middle of nothing that others see. */
void must(int r);

int verb_list(Cli *cli, int argc, char *argv[]);
int verb_tools(Cli *cli, int argc, char *argv[]);
int verb_call(Cli *cli, int argc, char *argv[]);
int verb_jobs(Cli *cli, int argc, char *argv[]);
int verb_result(Cli *cli, int argc, char *argv[]);
int verb_cancel(Cli *cli, int argc, char *argv[]);
int verb_request(Cli *cli, int argc, char *argv[]);
int verb_run(Cli *cli, int argc, char *argv[]);
int verb_batch(Cli *cli, int argc, char *argv[]);
int verb_stdio(Cli *cli, int argc, char *argv[]);
int verb_manage(Cli *cli, int argc, char *argv[]);
int verb_reload(Cli *cli, int argc, char *argv[]);
int verb_status(Cli *cli, int argc, char *argv[]);
int verb_describe(Cli *cli, int argc, char *argv[]);
int verb_logs(Cli *cli, int argc, char *argv[]);
int verb_top(Cli *cli, int argc, char *argv[]);
int verb_check(Cli *cli, int argc, char *argv[]);
int verb_import(Cli *cli, int argc, char *argv[]);
int verb_monitor(Cli *cli, int argc, char *argv[]);
int verb_complete(Cli *cli, int argc, char *argv[]);
