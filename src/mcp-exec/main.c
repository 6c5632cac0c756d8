/* mcp-exec: the options, the verbs, and what is said when they are wrong. */

#include <getopt.h>
#include <locale.h>
#include <math.h>

#include "base/text.h"
#include "mcp-exec/cli.h"
#include "mcp-exec/output.h"

#define JOBS_MAX 32 /* limits.calls_per_connection */

static const Verb verbs[] = {
        { "list", 0, 0, verb_list, "", "Show the servers" },
        { "tools", 1, 2, verb_tools, "SERVER [TOOL]", "Show a server's tools, or one with its arguments" },
        { "call", 2, -1, verb_call, "SERVER TOOL [JSON|KEY=VALUE...|-|@FILE]", "Call a tool" },
        { "request", 2, 3, verb_request, "SERVER METHOD [JSON|-|@FILE]", "Send any MCP request" },
        { "run", 1, 2, verb_run, "EXECUTOR FILE|-|-c CODE", "Run code" },
        { "batch", 1, 2, verb_batch, "FILE.jsonl|- [SERVER]", "Send many requests, a line each" },
        { "jobs", 0, 0, verb_jobs, "", "Show calls that don't end with their caller" },
        { "result", 1, 1, verb_result, "JOB", "Show what a job has brought" },
        { "cancel", 1, -1, verb_cancel, "JOB...", "Cancel jobs, or forget them when they are done" },
        { "stdio", 0, -1, verb_stdio, "[SERVER...]", "Speak MCP on standard input and output" },
        { "start", 1, -1, verb_manage, "SERVER...", "Start a worker" },
        { "stop", 1, -1, verb_manage, "SERVER...", "Stop all workers" },
        { "restart", 1, -1, verb_manage, "SERVER...", "Replace all workers" },
        { "reload", 0, 0, verb_reload, "", "Read the configuration again" },
        { "status", 0, 1, verb_status, "[SERVER]", "Show state, workers and last log lines" },
        { "describe", 1, 1, verb_describe, "SERVER", "Show the configuration as it would run" },
        { "logs", 1, 1, verb_logs, "SERVER [-f] [-n LINES]", "Show what a server wrote to stderr" },
        { "top", 0, 0, verb_top, "", "Watch servers at work; q quits" },
        { "monitor", 0, 0, verb_monitor, "", "Show what happens, as it happens" },
        { "check", 0, -1, verb_check, "[FILE|FOLDER...]", "Check configuration, without the service" },
        { "import", 1, 1, verb_import, "FILE|-", "Take the servers of an MCP client's file" },
        { "__complete", 0, -1, verb_complete, "", NULL },
};

static const OptionInfo option_infos[] = {
        { "user", 0, NULL, "", "Use the session bus" },
        { "system", 0, NULL, "", "Use the system's service" },
        { "address", 0, "ADDRESS", "", "Use that bus or private socket" },
        { "json", 0, NULL, "", "Print JSON, errors included" },
        { "timeout", 0, "SECONDS", "", "Give up after so long, or by the server's limits" },
        { "output", 'o', "FILE", "call run request", "Write images and other data" },
        { "quiet", 'q', NULL, "", "Say nothing that isn't asked for" },
        { "color", 0, "WHEN", "", "auto, always or never" },
        { "code", 'c', "CODE", "run", "The code itself" },
        { "job", 0, NULL, "call run", "Let the call go on when this program ends" },
        { "stdin", 0, NULL, "run", "Pass the own standard input to the code" },
        { "jobs", 'j', "N", "batch", "So many requests at a time (16)" },
        { "follow", 'f', NULL, "logs", "Wait for more" },
        { "lines", 'n', "N", "logs status", "So many lines (10)" },
        { "force", 0, NULL, "import", "Replace files that are there" },
        { "help", 'h', NULL, "", "Show this help" },
        { "version", 0, NULL, "", "Show the version" },
};

const Verb *verb_table(size_t *ret_n) {
        *ret_n = ELEMENTSOF(verbs);
        return verbs;
}

const OptionInfo *option_table(size_t *ret_n) {
        *ret_n = ELEMENTSOF(option_infos);
        return option_infos;
}

const Verb *verb_find(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                if (streq(name, verbs[i].name))
                        return &verbs[i];

        return NULL;
}

static void help(void) {
        printf("mcp-exec [OPTIONS...] VERB ...\n\nCalls MCP servers and code executors that stay warm, through "
               "mcp-execd.\n\n");
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++) {
                int n;

                if (!verbs[i].help)
                        continue;
                n = printf("  %s%s%s %s", color_on(COLOR_BOLD), verbs[i].name, color_off(COLOR_BOLD),
                           verbs[i].synopsis);
                n -= strlen(color_on(COLOR_BOLD)) + strlen(color_off(COLOR_BOLD));
                if (n > 30)
                        printf("\n%32s%s\n", "", verbs[i].help);
                else
                        printf("%*s%s\n", 32 - n, "", verbs[i].help);
        }

        printf("\nOptions:\n");
        for (size_t i = 0; i < ELEMENTSOF(option_infos); i++) {
                const OptionInfo *option = &option_infos[i];
                char letter[4] = "   ";

                if (option->letter)
                        (void)snprintf(letter, sizeof(letter), "-%c ", option->letter);
                printf("  %s--%s%s%s%*s%s%s%s%s\n", letter, option->name, option->argument ? "=" : "",
                       option->argument ?: "",
                       (int)(24 - strlen(option->name) - (option->argument ? strlen(option->argument) + 1 : 0)), "",
                       option->help, *option->verbs ? " (" : "", option->verbs, *option->verbs ? ")" : "");
        }
        printf("\nmcp-exec(1) has the exit statuses and examples.\n");
}

static bool is_word_of(const char *words, const char *word) {
        size_t length = strlen(word);

        for (const char *p = words; (p = strstr(p, word)); p++)
                if ((p == words || p[-1] == ' ') && (p[length] == ' ' || p[length] == 0))
                        return true;

        return false;
}

static int status_number(const char *option, const char *text, unsigned max, unsigned *ret) {
        char *end;
        unsigned long value;

        errno = 0;
        value = strtoul(text, &end, 10);
        if (errno != 0 || end == text || *end != 0 || text[0] == '-' || value > max || value == 0)
                return fail(STATUS_USAGE, "--%s=%s: a number from 1 to %u is wanted, as in --%s=10", option, text, max,
                            option);

        *ret = value;
        return STATUS_OK;
}

static int status_seconds(const char *text, uint64_t *ret) {
        char *end;
        double seconds;

        if (streq(text, "infinity")) {
                *ret = USEC_INFINITY;
                return STATUS_OK;
        }

        errno = 0;
        seconds = strtod(text, &end);
        if (errno != 0 || end == text || *end != 0 || !isfinite(seconds) || seconds <= 0 || seconds > 1e9)
                return fail(STATUS_USAGE, "--timeout=%s: a number of seconds is wanted, as in --timeout=30", text);

        /* sd-bus takes 0 for its own default. */
        *ret = MAX((uint64_t)(seconds * USEC_PER_SEC), UINT64_C(1));
        return STATUS_OK;
}

/* Takes one option. */
static int status_option(Cli *cli, const OptionInfo *option, const char *argument, ColorChoice *colors) {
        int choice;

        if (streq(option->name, "user"))
                cli->choice = BUS_CHOICE_USER;
        else if (streq(option->name, "system"))
                cli->choice = BUS_CHOICE_SYSTEM;
        else if (streq(option->name, "address")) {
                cli->choice = BUS_CHOICE_ADDRESS;
                cli->address = argument;
        } else if (streq(option->name, "json"))
                cli->json = true;
        else if (streq(option->name, "timeout"))
                return status_seconds(argument, &cli->timeout);
        else if (streq(option->name, "output"))
                cli->output = argument;
        else if (streq(option->name, "quiet"))
                cli->quiet = true;
        else if (streq(option->name, "color")) {
                choice = color_choice_from_string(argument);
                if (choice < 0)
                        return fail(STATUS_USAGE, "--color=%s: auto, always or never is wanted", argument);
                *colors = choice;
        } else if (streq(option->name, "code"))
                cli->code = argument;
        else if (streq(option->name, "stdin"))
                cli->pass_stdin = true;
        else if (streq(option->name, "job"))
                cli->job = true;
        else if (streq(option->name, "jobs"))
                return status_number("jobs", argument, JOBS_MAX, &cli->jobs);
        else if (streq(option->name, "follow"))
                cli->follow = true;
        else if (streq(option->name, "lines"))
                return status_number("lines", argument, 1000000, &cli->lines);
        else if (streq(option->name, "force"))
                cli->force = true;

        return STATUS_OK;
}

/* Every option that was given, to be held against the verb once that is known */
typedef struct Given {
        bool options[ELEMENTSOF(option_infos)];
} Given;

static int status_parse(Cli *cli, int argc, char *argv[], Given *given) {
        struct option options[ELEMENTSOF(option_infos) + 1] = {};
        char letters[ELEMENTSOF(option_infos) * 2 + 2] = ":", *p = letters + 1;
        ColorChoice colors = COLORS_AUTO;
        int c, status;

        for (size_t i = 0; i < ELEMENTSOF(option_infos); i++) {
                options[i] = (struct option){ option_infos[i].name,
                                              option_infos[i].argument ? required_argument : no_argument, NULL,
                                              0x100 + (int)i };
                if (option_infos[i].letter) {
                        *p++ = option_infos[i].letter;
                        if (option_infos[i].argument)
                                *p++ = ':';
                }
        }

        opterr = 0;
        while ((c = getopt_long(argc, argv, letters, options, NULL)) >= 0) {
                size_t index = c >= 0x100 ? (size_t)c - 0x100 : SIZE_MAX;

                if (c == ':' || c == '?') {
                        const char *typed = argv[optind - 1];

                        /* An option with a letter alone may stand among others in one word. */
                        if (c == ':')
                                return fail(STATUS_USAGE, "option %s wants a value; see mcp-exec --help", typed);
                        for (size_t i = 0; i < ELEMENTSOF(option_infos); i++)
                                if (optopt == 0x100 + (int)i)
                                        return fail(STATUS_USAGE, "option --%s takes no value", option_infos[i].name);
                        if (optopt) {
                                char letter[] = { '-', (char)optopt, 0 };

                                return status_unknown_option(letter, argc, argv);
                        }
                        return status_unknown_option(typed, argc, argv);
                }

                for (size_t i = 0; i < ELEMENTSOF(option_infos) && index == SIZE_MAX; i++)
                        if (option_infos[i].letter == c)
                                index = i;
                given->options[index] = true;
                status = status_option(cli, &option_infos[index], optarg, &colors);
                if (status != STATUS_OK)
                        return status;
        }

        output_open(colors, cli->json);
        return STATUS_OK;
}

static int status_check_options(const Verb *verb, const Given *given) {
        for (size_t i = 0; i < ELEMENTSOF(option_infos); i++) {
                const OptionInfo *option = &option_infos[i];

                if (given->options[i] && *option->verbs && !is_word_of(option->verbs, verb->name))
                        return fail(STATUS_USAGE, "option --%s is for %s, not for %s", option->name, option->verbs,
                                    verb->name);
        }

        return STATUS_OK;
}

static bool is_given(const Given *given, const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(option_infos); i++)
                if (streq(option_infos[i].name, name))
                        return given->options[i];

        return false;
}

static int status_run(Cli *cli, int argc, char *argv[]) {
        Given given = {};
        const Verb *verb;
        int status;

        /* What is completed is no command line yet. */
        if (argc > 1 && streq(argv[1], "__complete"))
                return verb_complete(cli, argc - 1, argv + 1);

        for (int i = 1; i < argc && !streq(argv[i], "--"); i++)
                if (streq(argv[i], "--json"))
                        output_open(COLORS_AUTO, true); /* also for what is wrong with the options */

        status = status_parse(cli, argc, argv, &given);
        if (status != STATUS_OK)
                return status;

        if (is_given(&given, "help")) {
                help();
                return STATUS_OK;
        }
        if (is_given(&given, "version")) {
                puts("mcp-exec " PROJECT_VERSION);
                return STATUS_OK;
        }

        argc -= optind;
        argv += optind;
        if (argc == 0)
                return fail(STATUS_USAGE, "a verb is missing, as in: mcp-exec list; mcp-exec --help shows them all");
        if (streq(argv[0], "help")) {
                help();
                return STATUS_OK;
        }
        verb = verb_find(argv[0]);
        if (!verb)
                return status_unknown_verb(cli, argc, argv);
        status = status_check_options(verb, &given);
        if (status != STATUS_OK)
                return status;
        if (argc - 1 < verb->min)
                return status_too_few(verb, argc, argv);
        if (verb->max >= 0 && argc - 1 > verb->max)
                return status_too_many(verb, argv);

        return verb->run(cli, argc, argv);
}

int main(int argc, char *argv[]) {
        Cli cli = { .timeout = USEC_INFINITY, .lines = 10, .jobs = 16 };
        int status;

        /* Widths of characters, and nothing else: numbers have a point. */
        (void)setlocale(LC_CTYPE, "");

        status = status_run(&cli, argc, argv);
        sd_bus_flush_close_unref(cli.bus);
        agent_stop();

        if ((fflush(stdout) != 0 || ferror(stdout)) && status == STATUS_OK)
                status = fail(STATUS_USAGE, "can't write to standard output: %s", strerror(errno));
        return status;
}
