#include <stdio.h>

#include "base/macro.h"
#include "base/text.h"
#include "broker/config-file.h"
#include "fuzz.h"
#include "unit.h"
#include "worker/sandbox.h"

/* A problem's text is clean and starts with a place in the file. */
static void check_problems(ProblemList *problems, const char *text, size_t size) {
        Problem *problem;
        size_t lines = 1;

        for (size_t i = 0; i < size; i++)
                lines += text[i] == '\n';

        TAILQ_FOREACH(problem, problems, link) {
                _cleanup_(freep) char *clean = text_escape(problem->text, strlen(problem->text), 4096);
                size_t line = 0, column = 0;
                int n = 0;

                assert_string(problem->file, "file");
                assert_string(clean, problem->text);
                assert_number(sscanf(problem->text, "%zu:%zu: %n", &line, &column, &n), 2);
                assert_true(problem->text[n]);
                assert_true(line >= 1 && line <= lines && column >= 1 && column <= size + 1);
                /* There was enough: something else is wrong. */
                assert_false(streq(problem->text + n, "out of memory"));
        }
        problems_clear(problems);
}

/* What was passed can be merged with the defaults, and these hold. */
static void check_sandbox(const ServerConfig *server) {
        for (int user = 0; user < 2; user++) {
                _cleanup_(freep) char *text = sandbox_effective(server->sandbox, user);
                JsonSlice tree = { text, text ? strlen(text) : 0 };

                assert_true(text);
                assert_number(json_scan(tree.data, tree.size, 16, NULL, 0, NULL, NULL), 0);
                assert_true(json_equal(json_get(tree, "OOMPolicy"), "kill"));
                assert_true(json_is(json_get(tree, "NoNewPrivileges"), 't'));
                assert_true(user || json_is(json_get(tree, "DynamicUser"), 't'));
                assert_true(user ||
                            json_is(json_get(tree, "PrivateNetwork"), sandbox_network(server->sandbox) ? 'f' : 't'));
        }
}

static void check_server(const ServerConfig *server) {
        static const char *const standard[] = { "PATH", "LANG", "HOME" };
        _cleanup_(freep) char *text = NULL;
        const char *position = NULL;
        JsonSlice tree, element;
        size_t n = 0, carried = server->transport == SERVER_TRANSPORT_STDIO                 ? 0
                                : server->transport == SERVER_TRANSPORT_FILE && server->cwd ? 3
                                                                                            : 2;

        assert_true(text_is_name(server->name));
        assert_true(server->command && *server->command && streq(server->argv[carried], server->command));
        for (; server->args && server->args[n]; n++)
                assert_true(streq(server->argv[carried + n + 1], server->args[n]));
        assert_true(!server->argv[carried + n + 1]);
        assert_true(!server->cwd || server->cwd[0] == '/');
        assert_true(server->pool.min <= server->pool.max && server->pool.max >= 1 && server->pool.concurrency >= 1);
        assert_true(server->limits.depth <= JSON_DEPTH_MAX && server->timeouts.call > 0);
        assert_true(server_protocol_to_string(server->protocol) && server_scope_to_string(server->scope));

        check_sandbox(server);
        text = config_describe(server, "launcher", "/bin");
        assert_true(text);
        tree = (JsonSlice){ text, strlen(text) };
        assert_number(json_scan(tree.data, tree.size, 64, NULL, 0, NULL, NULL), 0);
        assert_true(json_equal(json_get(tree, "name"), server->name));

        /* The environment is named, and no more. */
        while (json_next_element(json_get(tree, "environment"), &position, &element)) {
                _cleanup_(freep) char *name = json_decode(element);
                bool known = false;

                assert_true(name && !strchr(name, '='));
                for (size_t i = 0; i < ELEMENTSOF(standard); i++)
                        known = known || streq(name, standard[i]);
                for (char **s = server->environment; s && *s && !known; s++)
                        known = strncmp(*s, name, strlen(name)) == 0;
                assert_true(known);
        }
}

static void check_servers(const char *text, size_t size) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        ServerConfig **servers = NULL;
        size_t n = 0;
        int r;

        r = config_read_servers("file", "stem", text, size, &problems, &servers, &n);
        assert_true(r == 0 || r == -EBADMSG);
        assert_number(r == 0, TAILQ_EMPTY(&problems));
        check_problems(&problems, text, size);
        if (r < 0) {
                assert_true(!servers && n == 0);
                return;
        }

        for (size_t i = 0; i < n; i++) {
                check_server(servers[i]);
                for (size_t j = 0; j < i; j++)
                        assert_false(streq(servers[i]->name, servers[j]->name));
        }
        for (size_t i = 0; i < n; i++)
                server_config_unref(servers[i]);
        free(servers);
}

static void check_settings(const char *text, size_t size) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        Settings settings, before;
        int r;

        memset(&settings, 0, sizeof(settings));
        settings_init(&settings);
        before = settings;
        r = config_read_settings("file", text, size, &problems, &settings);
        assert_true(r == 0 || r == -EBADMSG);
        assert_number(r == 0, TAILQ_EMPTY(&problems));
        check_problems(&problems, text, size);
        if (r < 0)
                assert_true(memcmp(&settings, &before, sizeof(settings)) == 0);
        else
                assert_true(settings.limits.calls >= 1 && settings.limits.workers >= 1 &&
                            settings.limits.message >= 1024);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = size > 0 ? (const char *)data : "";

        check_servers(text, size);
        check_settings(text, size);
        return 0;
}
