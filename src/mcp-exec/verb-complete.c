/* __complete WORD...: what the last word could become, for the shells; a line each, with its meaning behind a tab.
 * Nothing is said where nothing is known, and nobody waits long. */

#include <stdio.h>

#include "base/text.h"
#include "bus/errors.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

#define PATIENCE (3 * USEC_PER_SEC)

static void offer(const char *prefix, const char *before, const char *candidate, const char *after,
                  const char *meaning) {
        _cleanup_(freep) char *word = NULL, *clean = NULL;

        if (asprintf(&word, "%s%s%s", before, candidate, after) < 0)
                out_of_memory();
        if (strncmp(word, prefix, strlen(prefix)) != 0)
                return;
        /* A server chooses its tools' names: one that a shell or terminal would take for more isn't offered. */
        for (const char *p = word; *p; p++)
                if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("`$\"'\\;&|<>()*?[]!", *p))
                        return;

        clean = text_escape(meaning, strcspn(meaning, "\r\n"), 120);
        printf("%s\t%s\n", word, clean ?: "");
}

/* Nobody is asked to confirm anything: a dialog because of the Tab key would surprise. */
static sd_bus_message *ask(Cli *cli, const char *member, const char *server) {
        sd_bus_message *message, *reply = NULL;
        int r = 0;

        if (status_connect(cli) != STATUS_OK)
                return NULL;
        message = new_call(cli, BUS_PATH, BUS_NAME, member);
        if (server)
                r = sd_bus_message_append(message, "s", server);
        if (r >= 0)
                (void)sd_bus_call(cli->bus, message, PATIENCE, NULL, &reply);
        sd_bus_message_unref(message);
        return reply;
}

static void offer_servers(Cli *cli, const char *prefix) {
        const char *name, *description, *state;
        sd_bus_message *reply = ask(cli, "ListServers", NULL);

        if (reply && sd_bus_message_enter_container(reply, 'a', "(sss)") >= 0)
                while (sd_bus_message_read(reply, "(sss)", &name, &description, &state) > 0)
                        offer(prefix, "", name, "", description);
        sd_bus_message_unref(reply);
}

static void offer_tools(Cli *cli, const char *server, const char *prefix) {
        const char *name, *description, *schema;
        sd_bus_message *reply = ask(cli, "ListTools", server);

        if (reply && sd_bus_message_enter_container(reply, 'a', "(sss)") >= 0)
                while (sd_bus_message_read(reply, "(sss)", &name, &description, &schema) > 0)
                        offer(prefix, "", name, "", description);
        sd_bus_message_unref(reply);
}

/* The values that the schema names: of an enumeration, or of a boolean */
static void offer_values(JsonSlice root, JsonSlice property, const char *key, const char *prefix) {
        JsonSlice list = json_get(schema_resolve(root, property), "enum"), element;
        const char *position = NULL;
        _cleanup_(freep) char *before = NULL;

        if (asprintf(&before, "%s=", key) < 0)
                out_of_memory();
        while (json_next_element(list, &position, &element)) {
                _cleanup_(freep) char *word = json_decode(element);

                if (word)
                        offer(prefix, before, word, "", "");
        }
        if (!list.data && schema_types(root, property) == SCHEMA_BOOLEAN) {
                offer(prefix, before, "true", "", "");
                offer(prefix, before, "false", "", "");
        }
}

static void offer_arguments(Cli *cli, const char *server, const char *tool, char *const *given, int n_given,
                            const char *prefix) {
        const char *name, *schema = NULL, *equals = strchr(prefix, '='), *position = NULL;
        sd_bus_message *reply = ask(cli, "ListTools", server);
        JsonSlice root = {}, key, property;

        if (reply && sd_bus_message_enter_container(reply, 'a', "(sss)") >= 0)
                while (!root.data && sd_bus_message_read(reply, "(sss)", &name, NULL, &schema) > 0)
                        if (streq(name, tool))
                                root = schema_open(schema);

        while (json_next_member(json_get(root, "properties"), &position, &key, &property)) {
                _cleanup_(freep) char *word = json_decode(key);
                _cleanup_(freep) char *description = json_decode(json_get(property, "description"));
                bool used = false;

                if (!word)
                        continue;
                for (int i = 0; i < n_given; i++)
                        used = used || (strncmp(given[i], word, strlen(word)) == 0 && given[i][strlen(word)] == '=');
                if (equals && strlen(word) == (size_t)(equals - prefix) && strncmp(word, prefix, strlen(word)) == 0)
                        offer_values(root, property, word, prefix);
                else if (!equals && !used)
                        offer(prefix, "", word, "=", description ?: schema_type_words(schema_types(root, property)));
        }
        sd_bus_message_unref(reply);
}

static void offer_options(const Verb *verb, const char *prefix) {
        const OptionInfo *options;
        size_t n;

        options = option_table(&n);
        for (size_t i = 0; i < n; i++)
                if (!verb || !*options[i].verbs || strstr(options[i].verbs, verb->name))
                        offer(prefix, "--", options[i].name, options[i].argument ? "=" : "", options[i].help);
}

static void offer_verbs(const char *prefix) {
        const Verb *verbs;
        size_t n;

        verbs = verb_table(&n);
        for (size_t i = 0; i < n; i++)
                if (verbs[i].help)
                        offer(prefix, "", verbs[i].name, "", verbs[i].help);
}

/* Options among the words choose the bus, and are otherwise no words that count. A letter may have its value behind it.
 */
static int drop_options(Cli *cli, int argc, char *argv[], char **words) {
        int n = 0;

        for (int i = 0; i < argc; i++) {
                if (streq(argv[i], "--user"))
                        cli->choice = BUS_CHOICE_USER;
                else if (streq(argv[i], "--system"))
                        cli->choice = BUS_CHOICE_SYSTEM;
                else if (strncmp(argv[i], "--address=", strlen("--address=")) == 0) {
                        cli->choice = BUS_CHOICE_ADDRESS;
                        cli->address = argv[i] + strlen("--address=");
                } else if (argv[i][0] == '-' && argv[i][1] && !strchr(argv[i], '=') && strchr("oncj", argv[i][1]) &&
                           !argv[i][2])
                        i++;
                else if (argv[i][0] != '-' || !argv[i][1])
                        words[n++] = argv[i];
        }

        return n;
}

int verb_complete(Cli *cli, int argc, char *argv[]) {
        const char *last = argc > 1 ? argv[argc - 1] : "";
        char **words = new0(char *, argc + 1);
        const Verb *verb;
        int n;

        if (!words)
                out_of_memory();
        output_silence(true);

        n = drop_options(cli, MAX(argc - 2, 0), argv + 1, words);
        verb = n > 0 ? verb_find(words[0]) : NULL;

        if (strncmp(last, "--color=", strlen("--color=")) == 0) {
                offer(last, "--color=", "auto", "", "");
                offer(last, "--color=", "always", "", "");
                offer(last, "--color=", "never", "", "");
        } else if (last[0] == '-' && last[1])
                offer_options(verb, last);
        else if (n == 0)
                offer_verbs(last);
        else if (verb && n == 1 &&
                 (strncmp(verb->synopsis, "SERVER", strlen("SERVER")) == 0 ||
                  strncmp(verb->synopsis, "[SERVER", strlen("[SERVER")) == 0))
                offer_servers(cli, last);
        else if (verb && strstr(verb->synopsis, "SERVER..."))
                offer_servers(cli, last);
        else if (verb && verb->run == verb_run && n == 1)
                offer_servers(cli, last);
        else if (verb && verb->run == verb_batch && n == 2)
                offer_servers(cli, last);
        else if (verb && n == 2 && (verb->run == verb_tools || verb->run == verb_call))
                offer_tools(cli, words[1], last);
        else if (verb && n > 2 && verb->run == verb_call)
                offer_arguments(cli, words[1], words[2], words + 3, n - 3, last);

        free(words);
        return STATUS_OK;
}
