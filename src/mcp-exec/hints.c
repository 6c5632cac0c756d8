/* Mistakes on the command line: what was meant, and what to type instead. */

#include "base/text.h"
#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/state.h"
#include "mcp-exec/tools.h"

#define PATIENCE (3 * USEC_PER_SEC)

/* What other programs call it */
static const struct {
        const char *word, *verb;
} synonyms[] = {
        { "ls", "list" },        { "servers", "list" },  { "show", "status" },      { "info", "status" },
        { "ps", "status" },      { "inspect", "tools" }, { "list-tools", "tools" }, { "exec", "call" },
        { "invoke", "call" },    { "send", "request" },  { "eval", "run" },         { "kill", "stop" },
        { "validate", "check" }, { "lint", "check" },    { "add", "import" },       { "log", "logs" },
        { "journal", "logs" },   { "watch", "monitor" }, { "config", "describe" },  { "daemon-reload", "reload" },
};

static const char *nearest_verb(const char *word) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;
        const Verb *verbs;
        size_t n;

        for (size_t i = 0; i < ELEMENTSOF(synonyms); i++)
                if (streq(word, synonyms[i].word))
                        return synonyms[i].verb;

        verbs = verb_table(&n);
        for (size_t i = 0; i < n; i++)
                if (verbs[i].help)
                        text_nearer(word, verbs[i].name, &best, &nearest);
        return nearest;
}

/* Whether a server is called so. Nobody waits long for a hint, and a service that isn't there is none of its business.
 */
static bool is_server(Cli *cli, const char *word) {
        const char *name, *description, *state;
        sd_bus_message *message, *reply = NULL;
        bool found = false;

        if (!text_is_name(word))
                return false;
        output_silence(true);
        if (status_connect(cli) == STATUS_OK) {
                message = new_call(cli, BUS_PATH, BUS_NAME, "ListServers");
                (void)sd_bus_call(cli->bus, message, PATIENCE, NULL, &reply);
                sd_bus_message_unref(message);
        }
        output_silence(false);

        if (reply && sd_bus_message_enter_container(reply, 'a', "(sss)") >= 0)
                while (!found && sd_bus_message_read(reply, "(sss)", &name, &description, &state) > 0)
                        found = streq(name, word);
        sd_bus_message_unref(reply);
        return found;
}

int status_unknown_verb(Cli *cli, int argc, char *argv[]) {
        const char *nearest = nearest_verb(argv[0]);

        if (is_server(cli, argv[0]))
                return argc > 1 ? fail(STATUS_USAGE, "%s is a server, not a verb: did you mean mcp-exec call %s %s?",
                                       argv[0], argv[0], argv[1])
                                : fail(STATUS_USAGE, "%s is a server, not a verb: did you mean mcp-exec tools %s?",
                                       argv[0], argv[0]);
        if (nearest)
                return fail(STATUS_USAGE, "unknown verb %s: did you mean %s?", argv[0], nearest);
        return fail(STATUS_USAGE, "unknown verb %s; mcp-exec --help shows them all", argv[0]);
}

int status_unknown_option(const char *typed, int argc, char *argv[]) {
        const char *nearest = NULL, *word = typed + strspn(typed, "-"), *verb = NULL;
        _cleanup_(freep) char *name = strndup(word, strcspn(word, "="));
        const OptionInfo *options;
        unsigned best = TEXT_NEAR;
        size_t n;

        if (!name)
                out_of_memory();
        if (strncmp(typed, "--", 2) != 0)
                return fail(STATUS_USAGE, "unknown option %.2s; mcp-exec --help shows them all", typed);

        options = option_table(&n);
        for (size_t i = 0; i < n; i++)
                text_nearer(name, options[i].name, &best, &nearest);
        for (int i = 1; i < argc && !verb; i++)
                if (argv[i][0] != '-')
                        verb = argv[i];

        if (verb && streq(verb, "call") && strchr(typed, '='))
                return fail(STATUS_USAGE, "unknown option --%s: an argument of the tool is written %s, without dashes",
                            name, word);
        if (nearest)
                return fail(STATUS_USAGE, "unknown option --%s: did you mean --%s?", name, nearest);
        if (verb_find(name) && verb_find(name)->help)
                return fail(STATUS_USAGE, "unknown option --%s: did you mean mcp-exec %s?", name, name);
        return fail(STATUS_USAGE, "unknown option --%s; mcp-exec --help shows them all", name);
}

/* "SERVER/TOOL" and the like, as other programs name tools */
static bool split_tool(const char *word, size_t *ret_server, const char **ret_tool) {
        static const char *const separators[] = { "__", "/", ".", ":" };

        for (size_t i = 0; i < ELEMENTSOF(separators); i++) {
                const char *found = strstr(word, separators[i]);

                if (found && found > word && found[strlen(separators[i])]) {
                        *ret_server = found - word;
                        *ret_tool = found + strlen(separators[i]);
                        return true;
                }
        }

        return false;
}

static const char *executor_for(const char *file) {
        static const struct {
                const char *ending, *executor;
        } table[] = { { ".py", "python" }, { ".js", "node" }, { ".mjs", "node" }, { ".cjs", "node" }, { ".sh", "sh" } };
        const char *dot = strrchr(file, '.');

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (dot && streq(dot, table[i].ending))
                        return table[i].executor;

        return NULL;
}

int status_too_few(const Verb *verb, int argc, char *argv[]) {
        const char *tool;
        size_t length;

        if (streq(verb->name, "call") && argc > 1) {
                if (split_tool(argv[1], &length, &tool))
                        return fail(STATUS_USAGE, "call wants the server and its tool: mcp-exec call %.*s %s",
                                    (int)length, argv[1], tool);
                return fail(STATUS_USAGE, "call wants more: mcp-exec %s %s; mcp-exec tools %s shows its tools",
                            verb->name, verb->synopsis, argv[1]);
        }
        return fail(STATUS_USAGE, "%s wants more: mcp-exec %s %s%s", verb->name, verb->name, verb->synopsis,
                    strncmp(verb->synopsis, "SERVER", strlen("SERVER")) == 0 ? "; mcp-exec list shows the servers"
                                                                             : "");
}

int status_too_many(const Verb *verb, char *argv[]) {
        static const struct {
                const char *verb, *instead;
        } table[] = { { "list", "tools" }, { "top", "status" }, { "reload", "restart" } };
        const char *word = argv[verb->max + 1];

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (streq(verb->name, table[i].verb))
                        return fail(STATUS_USAGE, "%s is too much for %s: mcp-exec %s, or mcp-exec %s %s", word,
                                    verb->name, verb->name, table[i].instead, word);
        return fail(STATUS_USAGE, "%s is too much for %s: mcp-exec %s %s", word, verb->name, verb->name,
                    verb->synopsis);
}

int status_no_code(const char *word) {
        const char *executor = executor_for(word);

        if (executor)
                return fail(STATUS_USAGE, "run wants an executor before the file: mcp-exec run %s %s", executor, word);
        return fail(STATUS_USAGE, "code is missing: mcp-exec run %s FILE, - for standard input, or -c CODE", word);
}

const char *nearest_method(const char *method) {
        static const char *const methods[] = {
                "ping",
                "tools/list",
                "tools/call",
                "resources/list",
                "resources/read",
                "resources/subscribe",
                "resources/unsubscribe",
                "resources/templates/list",
                "prompts/list",
                "prompts/get",
                "completion/complete",
                "logging/setLevel",
                "tasks/list",
                "tasks/get",
                "tasks/result",
                "tasks/cancel",
        };
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < ELEMENTSOF(methods); i++)
                if (streq(method, methods[i]))
                        return NULL;
        for (size_t i = 0; i < ELEMENTSOF(methods); i++)
                text_nearer(method, methods[i], &best, &nearest);
        return nearest;
}
