/* check: configuration, with the service's own reader and without the service. */

#include <libgen.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>

#include "broker/catalogue.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"
#include "worker/environment.h"

typedef struct Check {
        Cli *cli;
        Buffer json;
        unsigned n_problems, n_warnings, n_servers, n_files;
} Check;

static void tell(Check *check, const char *file, const char *text) {
        bool placed = *text >= '0' && *text <= '9';

        add_json_string(&check->json, check->n_problems > 0 ? ",{\"file\":" : "{\"file\":", file);
        add_json_string(&check->json, ",\"problem\":", text);
        must(buffer_append_string(&check->json, "}"));
        check->n_problems++;
        if (!check->cli->json)
                note("%s:%s%s", file, placed ? "" : " ", text);
}

static void tell_all(Check *check, const ProblemList *problems) {
        const Problem *problem;

        TAILQ_FOREACH(problem, problems, link)
                tell(check, problem->file, problem->text);
}

/* A command that isn't there is no mistake of the file, but the next thing to go wrong. */
static void warn_command(Check *check, const ServerConfig *config) {
        _cleanup_(freep) char *paths = strdup(WORKER_PATH);
        char *rest = paths, *folder;
        const char *home = getenv("HOME");

        if (!paths || check->cli->quiet || check->cli->json)
                return;
        for (char **s = config->environment; s && *s; s++)
                if (strncmp(*s, "PATH=", 5) == 0)
                        return;

        if (config->command[0] == '/') {
                if (access(config->command, X_OK) < 0) {
                        check->n_warnings++;
                        note("%s: warning: %s can't be executed: %s", config->file, config->command, strerror(errno));
                }
                return;
        }

        while ((folder = strsep(&rest, ":"))) {
                _cleanup_(freep) char *path = NULL;

                if (asprintf(&path, "%s/%s", folder, config->command) < 0)
                        out_of_memory();
                if (access(path, X_OK) >= 0)
                        return;
        }
        if (check->cli->choice != BUS_CHOICE_SYSTEM && home) {
                _cleanup_(freep) char *path = NULL;

                if (asprintf(&path, "%s/.local/bin/%s", home, config->command) < 0)
                        out_of_memory();
                if (access(path, X_OK) >= 0)
                        return;
        }

        check->n_warnings++;
        note("%s: warning: the command %s of server %s is not in the PATH of workers, %s%s", config->file,
             config->command, config->name,
             check->cli->choice == BUS_CHOICE_SYSTEM ? "" : "~/.local/bin:", WORKER_PATH);
}

static void on_changed(void *userdata _unused_) {
}

static int status_check_folders(Check *check, const char *const *folders, bool required) {
        _cleanup_(catalogue_freep) Catalogue *catalogue = NULL;
        ServerConfig *const *servers;
        sd_event *event = NULL;
        size_t n;
        int r;

        r = sd_event_new(&event);
        if (r >= 0)
                r = catalogue_new(event, folders, required, on_changed, NULL, &catalogue);
        if (r < 0) {
                sd_event_unref(event);
                return fail(STATUS_USAGE, "can't read the configuration: %s", strerror(-r));
        }

        catalogue_load(catalogue);
        tell_all(check, catalogue_problems(catalogue));
        servers = catalogue_servers(catalogue, &n);
        for (size_t i = 0; i < n; i++) {
                warn_command(check, servers[i]);
                if (!check->cli->quiet && !check->cli->json)
                        printf("%s: server %s%s\n", servers[i]->file, servers[i]->name,
                               servers[i]->disabled ? " (disabled)" : "");
        }
        check->n_servers += n;

        catalogue = catalogue_free(catalogue);
        sd_event_unref(event);
        return STATUS_OK;
}

static int status_check_file(Check *check, const char *name) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        _cleanup_(freep) char *copy = strdup(name);
        ServerConfig **servers = NULL;
        Buffer text = {};
        size_t n = 0, length;
        char *base;
        int status;

        if (!copy)
                out_of_memory();
        status = status_read_file(name, &text);
        if (status != STATUS_OK) {
                buffer_done(&text);
                return status;
        }

        check->n_files++;
        base = basename(copy);
        if (streq(base, "mcp-exec.json")) {
                Settings settings;

                settings_init(&settings);
                (void)config_read_settings(name, buffer_data(&text), buffer_size(&text), &problems, &settings);
        } else {
                length = strlen(base);
                if (length > strlen(".json") && streq(base + length - strlen(".json"), ".json"))
                        base[length - strlen(".json")] = 0;
                else if (!streq(name, "-"))
                        (void)problem_add(&problems, name, "the file would not be read: its name has to end in .json");
                (void)config_read_servers(name, streq(name, "-") ? "stdin" : base, buffer_data(&text),
                                          buffer_size(&text), &problems, &servers, &n);
        }

        tell_all(check, &problems);
        for (size_t i = 0; i < n; i++) {
                warn_command(check, servers[i]);
                server_config_unref(servers[i]);
        }
        check->n_servers += n;
        free(servers);
        problems_clear(&problems);
        buffer_done(&text);
        return STATUS_OK;
}

int verb_check(Cli *cli, int argc, char *argv[]) {
        Check check = { .cli = cli };
        int status = STATUS_OK;

        must(buffer_append_string(&check.json, "["));
        if (argc == 1) {
                char **folders = catalogue_standard_folders(cli->choice != BUS_CHOICE_SYSTEM);

                if (!folders)
                        out_of_memory();
                status = status_check_folders(&check, (const char *const *)folders, /* required= */ false);
                strings_free(folders);
        }
        for (int i = 1; i < argc; i++) {
                struct stat st;
                int r;

                if (stat(argv[i], &st) >= 0 && S_ISDIR(st.st_mode))
                        r = status_check_folders(&check, (const char *[]){ argv[i], NULL }, /* required= */ true);
                else
                        r = status_check_file(&check, argv[i]);
                status = status == STATUS_OK ? r : status;
        }
        must(buffer_append_string(&check.json, "]"));

        if (cli->json)
                put_json(stdout, (JsonSlice){ buffer_data(&check.json), buffer_size(&check.json) });
        else if (check.n_problems == 0 && status == STATUS_OK && !cli->quiet)
                printf(check.n_warnings == 0  ? "%u server%s, no problems\n"
                       : check.n_warnings > 1 ? "%u server%s, %u warnings\n"
                                              : "%u server%s, 1 warning\n",
                       check.n_servers, check.n_servers == 1 ? "" : "s", check.n_warnings);

        buffer_done(&check.json);
        return status == STATUS_OK && check.n_problems > 0 ? STATUS_TOOL : status;
}
