#include "broker/config-file.h"

#include <stdio.h>
#include <syslog.h>

#include "base/text.h"
#include "unit.h"

#define SLICE(text)                                                                                                    \
        (JsonSlice) {                                                                                                  \
                (text), strlen(text)                                                                                   \
        }
#define assert_slice(slice, wanted) assert_bytes((slice).data, (slice).size, (wanted), strlen(wanted))

/* What one reading gave, and all that it said was wrong, a line each */
typedef struct Reading {
        int r;
        ServerConfig **servers;
        size_t n;
        Buffer problems;
} Reading;

static void take_problems(Buffer *to, ProblemList *problems, const char *file) {
        Problem *problem;

        TAILQ_FOREACH(problem, problems, link) {
                assert_string(problem->file, file);
                assert_number(buffer_append_string(to, problem->text), 0);
                assert_number(buffer_append_string(to, "\n"), 0);
        }
        problems_clear(problems);
        assert_true(TAILQ_EMPTY(problems));
}

static Reading read_bytes(const char *stem, const char *text, size_t size) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        Reading reading = {};
        char *copy = malloc(size); /* of exactly that size: nothing behind it may be read */

        assert_true(copy || size == 0);
        if (size > 0)
                memcpy(copy, text, size);
        reading.r = config_read_servers("dir/file.json", stem, copy, size, &problems, &reading.servers, &reading.n);
        free(copy);
        take_problems(&reading.problems, &problems, "dir/file.json");
        assert_number(reading.r == 0, buffer_size(&reading.problems) == 0);
        return reading;
}

static void reading_done(Reading *reading) {
        for (size_t i = 0; i < reading->n; i++)
                server_config_unref(reading->servers[i]);
        free(reading->servers);
        buffer_done(&reading->problems);
        *reading = (Reading){};
}

static void assert_problems_of(const char *stem, const char *text, size_t size, const char *wanted) {
        Reading reading = read_bytes(stem, text, size);

        assert_bytes(buffer_data(&reading.problems), buffer_size(&reading.problems), wanted, strlen(wanted));
        assert_number(reading.r, *wanted ? -EBADMSG : 0);
        reading_done(&reading);
}

static void assert_problems(const char *text, const char *wanted) {
        assert_problems_of("stem", text, strlen(text), wanted);
}

/* The one server of a text that has to be good */
static Reading good(const char *text) {
        Reading reading = read_bytes("stem", text, strlen(text));

        if (reading.r < 0)
                fprintf(stderr, "%s\n%.*s", text, (int)buffer_size(&reading.problems), buffer_data(&reading.problems));
        assert_number(reading.r, 0);
        assert_number(reading.n, 1);
        return reading;
}

static void test_smallest(void) {
        Reading reading = good("{\"command\":\"cat\"}");
        const ServerConfig *server = reading.servers[0];

        assert_string(server->name, "stem");
        assert_string(server->file, "dir/file.json");
        assert_string(server->command, "cat");
        assert_string(server->argv[0], "cat");
        assert_true(!server->argv[1]);
        assert_true(!server->cwd && !server->description && !server->sandbox);
        assert_false(server->disabled);
        assert_number(server->protocol, SERVER_PROTOCOL_MCP);
        assert_number(server->transport, SERVER_TRANSPORT_STDIO);
        assert_number(server->isolation, SERVER_ISOLATION_SHARED);
        assert_number(server->scope, SERVER_SCOPE_USER);
        assert_number(server->era, MCP_ERA_AUTO);
        assert_false(server->idempotent);
        assert_true(server->keep_alive.enabled);
        assert_number(server->keep_alive.timeout, 3600 * USEC_PER_SEC);
        assert_number(server->keep_alive.check_interval, 60 * USEC_PER_SEC);
        assert_number(server->pool.min, 0);
        assert_number(server->pool.max, 4);
        assert_number(server->pool.concurrency, 16);
        assert_number(server->pool.queue, 16);
        assert_number(server->recycle.calls, 0);
        assert_number(server->recycle.lifetime, 0);
        assert_number(server->recycle.memory, 0);
        assert_number(server->timeouts.start, 60 * USEC_PER_SEC);
        assert_number(server->timeouts.call, 60 * USEC_PER_SEC);
        assert_number(server->timeouts.call_max, 3600 * USEC_PER_SEC);
        assert_number(server->timeouts.stop, 3 * USEC_PER_SEC);
        assert_number(server->restart.burst, 5);
        assert_number(server->restart.interval, 30 * USEC_PER_SEC);
        assert_number(server->limits.message, 16 << 20);
        assert_number(server->limits.depth, 64);
        assert_number(server->access.n_uids, 0);
        assert_number(server->access.n_gids, 0);
        reading_done(&reading);
}

static const char everything[] =
        "{ \"name\": \"my-server\", \"description\": \"Says \\\"hi\\\" \xe2\x82\xac\", \"command\": \"/usr/bin/x\",\n"
        "  \"args\": [\"-a\", \"\", \"b c\"], \"env\": {\"KEY\": \"s3cret=value\", \"_2\": \"\"}, \"cwd\": \"/srv\",\n"
        "  \"disabled\": true, \"executor\": true, \"preload\": [\"json\", \"os.path\"], \"type\": \"stdio\", "
        "\"protocol\": \"control\", \"transport\": \"socket\",\n"
        "  \"isolation\": \"fork\", \"scope\": \"client\", \"era\": \"modern\", \"idempotent\": true,\n"
        "  \"keep_alive\": {\"enabled\": false, \"timeout\": 0, \"check_interval\": 1.5},\n"
        "  \"pool\": {\"min\": 2, \"max\": 64, \"concurrency\": 256, \"queue\": 0},\n"
        "  \"recycle\": {\"calls\": 1000, \"lifetime\": 86400, \"memory\": 1e9},\n"
        "  \"timeouts\": {\"start\": 0.001, \"call\": 2, \"call_max\": 31622400, \"stop\": 600},\n"
        "  \"restart\": {\"burst\": 0, \"interval\": 0}, \"limits\": {\"message\": 268435456, \"depth\": 1024},\n"
        "  \"sandbox\": {\"ProtectHome\": true, \"ReadOnlyPaths\": [\"/a\", \"-/b\"]},\n"
        "  \"access\": {\"users\": [\"root\", 1000], \"groups\": [\"root\", 27]} }\n";

static void test_everything(void) {
        Reading reading = good(everything);
        const ServerConfig *server = reading.servers[0];

        assert_string(server->name, "my-server");
        assert_string(server->description, "Says \"hi\" \xe2\x82\xac");
        assert_string(strrchr(server->argv[0], '/'), "/mcp-exec-transport");
        assert_string(server->argv[1], "socket");
        assert_string(server->argv[2], "/usr/bin/x");
        assert_string(server->argv[3], "-a");
        assert_string(server->argv[4], "");
        assert_string(server->argv[5], "b c");
        assert_true(!server->argv[6]);
        assert_true(server->executor);
        assert_string(server->preload[1], "os.path");
        assert_string(server->environment[0], "KEY=s3cret=value");
        assert_string(server->environment[1], "_2=");
        assert_true(!server->environment[2]);
        assert_string(server->cwd, "/srv");
        assert_true(server->disabled);
        assert_number(server->protocol, SERVER_PROTOCOL_CONTROL);
        assert_number(server->transport, SERVER_TRANSPORT_SOCKET);
        assert_number(server->isolation, SERVER_ISOLATION_FORK);
        assert_number(server->scope, SERVER_SCOPE_CLIENT);
        assert_number(server->era, MCP_ERA_MODERN);
        assert_true(server->idempotent);
        assert_false(server->keep_alive.enabled);
        assert_number(server->keep_alive.timeout, 0);
        assert_number(server->keep_alive.check_interval, 1500000);
        assert_number(server->pool.min, 2);
        assert_number(server->pool.max, 64);
        assert_number(server->pool.concurrency, 256);
        assert_number(server->pool.queue, 0);
        assert_number(server->recycle.calls, 1000);
        assert_number(server->recycle.lifetime, 86400 * USEC_PER_SEC);
        assert_number(server->recycle.memory, 1000000000);
        assert_number(server->timeouts.start, 1000);
        assert_number(server->timeouts.call, 2000000);
        assert_number(server->timeouts.call_max, 31622400 * USEC_PER_SEC);
        assert_number(server->timeouts.stop, 600 * USEC_PER_SEC);
        assert_number(server->restart.burst, 0);
        assert_number(server->restart.interval, 0);
        assert_number(server->limits.message, 1 << 28);
        assert_number(server->limits.depth, 1024);
        assert_number(json_scan(server->sandbox, strlen(server->sandbox), 16, NULL, 0, NULL, NULL), 0);
        assert_slice(json_get(SLICE(server->sandbox), "ProtectHome"), "true");
        assert_number(server->access.n_uids, 2);
        assert_number(server->access.uids[0], 0);
        assert_number(server->access.uids[1], 1000);
        assert_number(server->access.n_gids, 2);
        assert_number(server->access.gids[1], 27);
        reading_done(&reading);
}

static void test_reset_is_recycled(void) {
        static const struct {
                const char *text;
                uint64_t calls;
        } cases[] = {
                { "{\"command\":\"x\",\"executor\":true,\"isolation\":\"reset\"}", 1000 },
                { "{\"command\":\"x\",\"executor\":true,\"isolation\":\"reset\",\"recycle\":{\"calls\":0}}", 0 },
                { "{\"command\":\"x\",\"executor\":true,\"isolation\":\"fork\"}", 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Reading reading = read_bytes("x", cases[i].text, strlen(cases[i].text));

                assert_number(reading.n, 1);
                assert_number(reading.servers[0]->recycle.calls, cases[i].calls);
                reading_done(&reading);
        }
}

static void test_map(void) {
        const char *text =
                "{\"mcpServers\":{\n\"b\":{\"command\":\"/bin/b\"},\n\"a\":{\"command\":\"a\",\"name\":\"c\"}}}";
        Reading reading = read_bytes("NOT A NAME", text, strlen(text));

        assert_number(reading.r, 0);
        assert_number(reading.n, 2);
        assert_string(reading.servers[0]->name, "b");
        assert_string(reading.servers[1]->name, "c");
        assert_string(reading.servers[1]->command, "a");
        reading_done(&reading);

        reading = read_bytes("x", "{\"mcpServers\":{}}", 17);
        assert_number(reading.r, 0);
        assert_number(reading.n, 0);
        reading_done(&reading);
}

static void test_map_problems(void) {
        assert_problems("{\"mcpServers\":[]}", "1:2: a file with mcpServers holds that object alone\n");
        assert_problems("{\"mcpServers\":null}", "1:2: a file with mcpServers holds that object alone\n");
        assert_problems("{\"mcpServers\":{},\n \"command\":\"x\"}",
                        "2:2: a file with mcpServers holds that object alone\n");
        assert_problems("{\"x\":1,\n\"mcpServers\":{}}", "2:1: a file with mcpServers holds that object alone\n");
        assert_problems("{\"mcpServers\":{\n  \"A b\":{\"command\":\"x\"}}}",
                        "2:3: the server's name A b has to be 1 to 64 characters of a-z, 0-9 and -\n");
        assert_problems("{\"mcpServers\":{\"a\":\n5}}", "1:16: a server has to be an object\n");
        assert_problems("{\"mcpServers\":{\"a\":{\"command\":\"x\"},\n\"a\":{\"command\":\"y\"}}}",
                        "2:1: two servers are named a\n");
        assert_problems("{\"mcpServers\":{\"a\":{\"command\":\"x\"},\n\"b\":{\"command\":\"y\",\"name\":\"a\"}}}",
                        "2:1: two servers are named a\n");
        assert_problems("{\"mcpServers\":{\"a\":{},\n\"b\":{\"command\":\"y\",\"pool\":{\n\"max\":0}}}}",
                        "1:16: the key command is missing\n3:1: max has to be a whole number from 1 to 64\n");
}

static void test_not_json(void) {
        assert_problems("", "1:1: expected a value, the text ends\n");
        assert_problems("\n \n", "3:1: expected a value, the text ends\n");
        assert_problems("{\"command\":\"x\",}", "1:16: expected a string as the key\n");
        assert_problems("{\n  \"command\": \"x\"\n  \"args\": []\n}", "3:3: expected ',' or '}'\n");
        assert_problems("{\n\"command\":'x'}", "2:11: expected a value\n");
        assert_problems("{\"command\":\"x\"}\n}", "2:1: there is more behind the value\n");
        assert_problems("// comment\n{}", "1:1: expected a value\n");
        assert_problems("{\"command\":\"\xff\"}", "1:13: invalid UTF-8\n");
        assert_problems("{\"\xe2\x82\xac\xf0\x9f\x98\x80\":tru}",
                        "1:7: expected a value\n"); /* columns are characters */
        assert_problems("\r\n\t{\r\n\t\tx", "3:3: expected a string as the key\n");
        assert_problems("[]", "1:1: the file has to hold an object\n");
        assert_problems("\n  7", "2:3: the file has to hold an object\n");
        assert_problems("{\"sandbox\":[[[[[[[[[[[[[[[[[[[[[", "1:27: nested too deep\n");
        assert_problems_of("stem", "{\"a\":\"\0\"}", 9, "1:7: a control character in a string has to be escaped\n");
        assert_problems_of("stem", "{}\0", 3, "1:3: there is more behind the value\n");
}

/* A string that cJSON would cut is refused, wherever it stands. */
static void test_nul(void) {
        assert_problems("{\"command\":\"a\\u0000b\"}", "1:14: a string can't hold the character U+0000\n");
        assert_problems("{\"command\":\"x\",\n\"env\":{\"A\\u0000\":\"\"}}",
                        "2:10: a string can't hold the character U+0000\n");
        assert_problems("{\"command\":\"\\\\\\u0000\"}", "1:15: a string can't hold the character U+0000\n");
}

/* A backslash and u0000 are no U+0000. */
static void test_no_nul(void) {
        Reading reading = good("{\"command\":\"x\",\"args\":[\"\\\\u0000\"]}");

        assert_string(reading.servers[0]->argv[1], "\\u0000");
        reading_done(&reading);
}

/* What the scanner lets through and cJSON doesn't is a mistake in the file, at its place, and no want of memory. */
static void assert_no_memory_problem(const char *text) {
        Reading reading = read_bytes("stem", text, strlen(text));

        assert_number(buffer_append(&reading.problems, "", 1), 0);
        if (strstr(buffer_data(&reading.problems), "out of memory"))
                fprintf(stderr, "%s: %s", text, buffer_data(&reading.problems));
        assert_false(strstr(buffer_data(&reading.problems), "out of memory"));
        reading_done(&reading);
}

static void test_lone_surrogates(void) {
        assert_no_memory_problem("{\"command\":\"\\ud800\"}");
        assert_no_memory_problem("{\"command\":\"x\",\"args\":[\"\\udc00\"]}");
        assert_no_memory_problem("{\"\\ud800\\ud800\":1}");
}

static void test_long_numbers(void) {
        assert_no_memory_problem("{\"command\":\"x\",\"recycle\":{\"calls\":1."
                                 "000000000000000000000000000000000000000000000000000000000000000000}}");
        assert_no_memory_problem("{\"command\":\"x\",\"sandbox\":{\"a\":"
                                 "1234567890123456789012345678901234567890123456789012345678901234567890}}");
}

static void test_stem(void) {
        assert_problems_of("Bad.Name", "{\"command\":\"x\"}", 15,
                           "1:1: the file's name can't name a server: that is 1 to 64 characters of a-z, 0-9 and -\n");
        assert_problems_of("Bad.Name", "{\"command\":\"x\",\"name\":\"good\"}", 29, "");
        assert_problems_of("good-1", "{\"command\":\"x\"}", 15, "");
}

static void test_keys(void) {
        static const struct {
                const char *text, *problems;
        } rows[] = {
                { "{}", "1:1: the key command is missing\n" },
                { " \n {}", "2:2: the key command is missing\n" },

                /* unknown keys */
                { "{\"command\":\"x\",\n  \"comand\":1}", "2:3: unknown key comand (did you mean command?)\n" },
                { "{\"command\":\"x\",\"keepalive\":true}",
                  "1:16: unknown key keepalive (did you mean keep_alive?)\n" },
                { "{\"command\":\"x\",\"arg\":[]}", "1:16: unknown key arg (did you mean args?)\n" },
                { "{\"command\":\"x\",\"Disabled\":true}", "1:16: unknown key Disabled (did you mean disabled?)\n" },
                { "{\"command\":\"x\",\"something else\":1}", "1:16: unknown key something else\n" },
                { "{\"command\":\"x\",\"pool\":{\"maxx\":1}}", "1:24: unknown key maxx (did you mean max?)\n" },
                { "{\"command\":\"x\",\"pool\":{\n\"timeout\":1}}", "2:1: unknown key timeout\n" },
                { "{\"command\":\"x\",\"timeouts\":{\"callmax\":1}}",
                  "1:28: unknown key callmax (did you mean call_max?)\n" },
                { "{\"command\":\"x\",\"a\\nb\":1}", "1:16: unknown key a\\x0ab\n" },
                { "{\"command\":\"x\",\"%s%n\":1}", "1:16: unknown key %s%n\n" },

                /* keys that stand twice */
                { "{\"command\":\"x\",\n\"command\":\"x\"}", "2:1: key command stands twice\n" },
                { "{\"command\":\"x\",\n\"comm\\u0061nd\":\"x\"}", "2:1: key command stands twice\n" },
                { "{\"command\":\"x\",\"pool\":{\"max\":1,\n \"max\":1}}", "2:2: key max stands twice\n" },

                /* types */
                { "{\"command\":5}", "1:2: command has to be a string\n1:1: the key command is missing\n" },
                { "{\"command\":\"x\",\"args\":\"y\"}", "1:16: args has to be an array of strings\n" },
                { "{\"command\":\"x\",\"args\":{}}", "1:16: args has to be an array of strings\n" },
                { "{\"command\":\"x\",\"args\":[\"a\",1]}", "1:16: args has to be an array of strings\n" },
                { "{\"command\":\"x\",\"args\":[null]}", "1:16: args has to be an array of strings\n" },
                { "{\"command\":\"x\",\"description\":null}", "1:16: description has to be a string\n" },
                { "{\"command\":\"x\",\"disabled\":\"true\"}", "1:16: disabled has to be true or false\n" },
                { "{\"command\":\"x\",\"idempotent\":1}", "1:16: idempotent has to be true or false\n" },
                { "{\"command\":\"x\",\"pool\":3}", "1:16: pool has to be an object\n" },
                { "{\"command\":\"x\",\"limits\":[]}", "1:16: limits has to be an object\n" },
                { "{\"command\":\"x\",\"sandbox\":true}", "1:16: sandbox has to be an object\n" },
                { "{\"command\":\"x\",\n\"sandbox\":{\n  \"MemoryMax\": \"1G\",\n  \"User\": \"root\"}}",
                  "4:3: sandbox: User is none of the systemd properties that a server can set\n" },
                { "{\"command\":\"x\",\"sandbox\":{\"NoNewPrivileges\":false}}",
                  "1:27: sandbox: NoNewPrivileges is set by the service, and can't be changed\n" },
                { "{\"command\":\"x\",\"sandbox\":{\"Memorymax\":1,\"Nice\":-21}}",
                  "1:27: sandbox: Memorymax is none of the systemd properties that a server can set (did you mean "
                  "MemoryMax?)\n1:41: sandbox: Nice has to be a whole number from -20 to 19\n" },
                { "{\"command\":\"x\",\"sandbox\":{\"Nice\":1,\"Nice\":2}}", "1:36: key Nice stands twice\n" },
                { "{\"command\":\"x\",\"sandbox\":{\"Us\\u001b[31m\":1}}",
                  "1:27: sandbox: Us\\x1b[31m is none of the systemd properties that a server can set\n" },
                { "{\"command\":\"x\",\"keep_alive\":3600}", "1:16: keep_alive has to be an object, true or false\n" },

                /* command, cwd, name, kind */
                { "{\"command\":\"\"}", "1:2: command has to be a bare name or an absolute path\n" },
                { "{\"command\":\"./x\"}", "1:2: command has to be a bare name or an absolute path\n" },
                { "{\n\"command\":\"a/b\"}", "2:1: command has to be a bare name or an absolute path\n" },
                { "{\"command\":\"x\",\"cwd\":\"srv\"}", "1:16: cwd has to be an absolute path\n" },
                { "{\"command\":\"x\",\"cwd\":\"\"}", "1:16: cwd has to be an absolute path\n" },
                { "{\"command\":\"x\",\"cwd\":5}", "1:16: cwd has to be an absolute path\n" },
                { "{\"command\":\"x\",\"name\":\"A\"}", "1:16: name has to be 1 to 64 characters of a-z, 0-9 and -\n" },
                { "{\"command\":\"x\",\"name\":\"\"}", "1:16: name has to be 1 to 64 characters of a-z, 0-9 and -\n" },
                { "{\"command\":\"x\",\"name\":\"a/b\"}",
                  "1:16: name has to be 1 to 64 characters of a-z, 0-9 and -\n" },
                { "{\"command\":\"x\",\"type\":\"http\"}",
                  "1:16: type: only stdio servers can be run; this one is reached over the network\n" },
                { "{\"url\":\"https://a\",\"command\":\"x\"}",
                  "1:2: url: only programs of this machine can be run, by their command\n" },

                /* words */
                { "{\"command\":\"x\",\"protocol\":\"http\"}",
                  "1:16: protocol: http is none of the values that it can have\n" },
                { "{\"command\":\"x\",\"transport\":null}",
                  "1:16: transport: this is none of the values that it can have\n" },
                { "{\"command\":\"x\",\"isolation\":\"\"}",
                  "1:16: isolation:  is none of the values that it can have\n" },
                { "{\"command\":\"x\",\"scope\":\"USER\"}",
                  "1:16: scope: USER is none of the values that it can have\n" },
                { "{\"command\":\"x\",\"era\":\"2025-11-25\"}",
                  "1:16: era: 2025-11-25 is none of the values that it can have\n" },

                /* env */
                { "{\"command\":\"x\",\"env\":[\"A=b\"]}", "1:16: env has to be an object of strings\n" },
                { "{\"command\":\"x\",\"env\":{\n\"A\":1}}", "2:1: env A has to be a string\n" },
                { "{\"command\":\"x\",\"env\":{\"1A\":\"\"}}", "1:23: env 1A is no name of a variable\n" },
                { "{\"command\":\"x\",\"env\":{\"A=B\":\"\"}}", "1:23: env A=B is no name of a variable\n" },
                { "{\"command\":\"x\",\"env\":{\"\":\"\"}}", "1:23: env  is no name of a variable\n" },

                /* access */
                { "{\"command\":\"x\",\"access\":\"all\"}",
                  "1:16: access has to be \"polkit\" or an object of users and groups\n" },
                { "{\"command\":\"x\",\"access\":null}",
                  "1:16: access has to be \"polkit\" or an object of users and groups\n" },
                { "{\"command\":\"x\",\"access\":{\"users\":\"root\"}}",
                  "1:26: users has to be an array of names or numbers\n" },
                { "{\"command\":\"x\",\"access\":{\"user\":[]}}", "1:26: unknown key user (did you mean users?)\n" },
                { "{\"command\":\"x\",\"access\":{\n\"users\":[\"no-such-user-here\",null]}}",
                  "2:1: users: no-such-user-here is not known on this machine\n2:1: users: this is not known on this "
                  "machine\n" },
                { "{\"command\":\"x\",\"access\":{\"groups\":[-1]}}",
                  "1:26: groups: this is not known on this machine\n" },
                { "{\"command\":\"x\",\"access\":{\"users\":[4294967295]}}",
                  "1:26: users: this is not known on this machine\n" },
                { "{\"command\":\"x\",\"access\":{\"users\":[1e99]}}",
                  "1:26: users: this is not known on this machine\n" },

                /* two keys together */
                { "{\"command\":\"x\",\n\"pool\":{\"min\":5}}", "2:1: pool.min is more than pool.max\n" },
                { "{\"command\":\"x\",\"pool\":{\"min\":3,\"max\":2}}", "1:16: pool.min is more than pool.max\n" },
                { "{\"command\":\"x\",\"protocol\":\"lines\",\n\"pool\":{\"concurrency\":2}}",
                  "2:1: pool.concurrency can only be 1 with protocol lines\n" },
                { "{\"command\":\"x\",\"protocol\":\"once\",\"pool\":{\"concurrency\":16}}",
                  "1:34: pool.concurrency can only be 1 with protocol once\n" },

                /* all that is wrong is said at once */
                { "{\n\"comand\":\"x\",\n\"args\":1,\n\"pool\":{\"min\":-1,\n\"max\":99}}",
                  "2:1: unknown key comand (did you mean command?)\n3:1: args has to be an array of strings\n"
                  "4:9: min has to be a whole number from 0 to 64\n5:1: max has to be a whole number from 1 to 64\n"
                  "1:1: the key command is missing\n" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_problems(rows[i].text, rows[i].problems);
}

/* Every number with its first and last good value, and what is just outside */
static void test_ranges(void) {
        static const struct {
                const char *section, *key, *first, *last, *below, *above, *wanted;
        } rows[] = {
                { "keep_alive", "timeout", "0", "31622400", "-1", "31622401", "number from 0 to 31622400" },
                { "keep_alive", "check_interval", "0", "31622400", "-0.1", "31622400.5", "number from 0 to 31622400" },
                { "pool", "min", "0", "4", "-1", "65", "whole number from 0 to 64" },
                { "pool", "max", "1", "64", "0", "65", "whole number from 1 to 64" },
                { "pool", "concurrency", "1", "256", "0", "257", "whole number from 1 to 256" },
                { "pool", "queue", "0", "4096", "-1", "4097", "whole number from 0 to 4096" },
                { "recycle", "calls", "0", "1000000000000", "-1", "1e12001", "whole number from 0 to 1000000000000" },
                { "recycle", "lifetime", "0", "31622400", "-1", "1e999", "number from 0 to 31622400" },
                { "recycle", "memory", "0", "1e15", "-1", "1e16", "whole number from 0 to 1e+15" },
                { "timeouts", "start", "0.001", "31622400", "0", "31622401", "number from 0.001 to 31622400" },
                { "timeouts", "call", "0.001", "31622400", "0.0009", "31622401", "number from 0.001 to 31622400" },
                { "timeouts", "call_max", "0.001", "31622400", "-1", "31622401", "number from 0.001 to 31622400" },
                { "timeouts", "stop", "0", "600", "-1", "600.1", "number from 0 to 600" },
                { "restart", "burst", "0", "100000", "-1", "100001", "whole number from 0 to 100000" },
                { "restart", "interval", "0", "31622400", "-1", "31622401", "number from 0 to 31622400" },
                { "limits", "message", "1024", "4294967296", "1023", "4294967297",
                  "whole number from 1024 to 4294967296" },
                { "limits", "depth", "4", "1024", "3", "1025", "whole number from 4 to 1024" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const char *const values[] = { rows[i].first, rows[i].last, rows[i].below, rows[i].above,
                                               "\"1\"",       "null",       "true",        "5.5" };
                bool whole = strstr(rows[i].wanted, "whole");

                for (size_t j = 0; j < ELEMENTSOF(values); j++) {
                        char text[300], problem[300] = "";

                        (void)snprintf(text, sizeof(text), "{\"command\":\"x\",\n\"%s\":{\n    \"%s\":%s}}",
                                       rows[i].section, rows[i].key, values[j]);
                        if ((j >= 2 && j < 7) || (j == 7 && whole))
                                (void)snprintf(problem, sizeof(problem), "3:5: %s has to be a %s\n", rows[i].key,
                                               rows[i].wanted);
                        assert_problems(text, problem);
                }
        }
}

/* What D-Bus libraries refuse must not come out of a file: one description would make every list of servers fail. */
static void test_noncharacters(void) {
        static const char *const texts[] = {
                "{\"command\":\"x\",\"description\":\"\xef\xbf\xbf\"}",
                "{\"command\":\"x\",\"description\":\"\\uffff\"}",
                "{\"command\":\"x\",\"args\":[\"\\ud83f\\udffe\"]}",
                "{\"command\":\"x\",\"sandbox\":{\"\xf0\x9f\xbf\xbf\":1}}",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                Reading reading = read_bytes("stem", texts[i], strlen(texts[i]));

                if (reading.r == 0) {
                        _cleanup_(freep) char *text = config_describe(reading.servers[0], "spawn", "/bin");
                        const char *description = reading.servers[0]->description;
                        _cleanup_(freep) char *clean = text_escape(description ?: "", strlen(description ?: ""), 100);
                        JsonTraits traits;

                        assert_true(text && clean);
                        assert_string(clean, description ?: "");
                        assert_number(json_scan(text, strlen(text), 64, NULL, 0, &traits, NULL), 0);
                        assert_false(traits.noncharacters);
                }
                reading_done(&reading);
        }
}

/* A fraction of a user is no user. */
static void test_access_fractions(void) {
        assert_problems("{\"command\":\"x\",\"access\":{\"users\":[1000.5]}}",
                        "1:26: users: this is not known on this machine\n");
        assert_problems("{\"command\":\"x\",\"access\":{\"groups\":[0.5]}}",
                        "1:26: groups: this is not known on this machine\n");
}

/* As with every other key, so that no two readers of the file see different values */
static void test_env_twice(void) {
        Reading reading;
        const char *text = "{\"command\":\"x\",\"env\":{\"A\":\"1\",\n\"A\":\"2\"}}";

        reading = read_bytes("stem", text, strlen(text));
        assert_number(reading.r, -EBADMSG);
        assert_true(buffer_size(&reading.problems) > 4 && memcmp(buffer_data(&reading.problems), "2:1:", 4) == 0);
        reading_done(&reading);
}

static void test_short_forms(void) {
        Reading reading = good("{\"command\":\"x\",\"keep_alive\":false,\"access\":\"polkit\"}");

        assert_false(reading.servers[0]->keep_alive.enabled);
        assert_number(reading.servers[0]->keep_alive.timeout, 3600 * USEC_PER_SEC);
        assert_number(reading.servers[0]->access.n_uids, 0);
        assert_true(server_config_per_call(reading.servers[0]));
        reading_done(&reading);

        reading = good("{\"command\":\"x\",\"keep_alive\":true,\"isolation\":\"fresh\"}");
        assert_true(reading.servers[0]->keep_alive.enabled);
        assert_true(server_config_per_call(reading.servers[0]));
        reading_done(&reading);
}

/* A worker that reads lines has one call at a time. */
static void test_concurrency(void) {
        static const char *const texts[] = {
                "{\"command\":\"x\",\"protocol\":\"lines\"}",
                "{\"command\":\"x\",\"protocol\":\"once\",\"pool\":{\"max\":2}}",
                "{\"command\":\"x\",\"protocol\":\"lines\",\"pool\":{\"concurrency\":1}}",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                Reading reading = good(texts[i]);

                assert_number(reading.servers[0]->pool.concurrency, 1);
                reading_done(&reading);
        }
}

/* The text of two readings is the same if and only if nothing that matters changed. */
static void test_text_compares(void) {
        Reading a = good("{\"command\":\"x\",\"args\":[]}"), b = good("{ \"command\" : \"\\u0078\",\n\"args\":[ ] }"),
                c = good("{\"command\":\"x\",\"args\":[\"\"]}");

        assert_string(a.servers[0]->text, b.servers[0]->text);
        assert_false(streq(a.servers[0]->text, c.servers[0]->text));
        reading_done(&a);
        reading_done(&b);
        reading_done(&c);
}

static void test_references(void) {
        Reading reading = good("{\"command\":\"x\"}");
        ServerConfig *config = server_config_ref(reading.servers[0]);

        reading_done(&reading);
        assert_string(config->command, "x");
        assert_true(!server_config_unref(config));
        assert_true(!server_config_unref(NULL));
}

static bool holds(JsonSlice array, const char *string) {
        const char *position = NULL;
        JsonSlice element;

        while (json_next_element(array, &position, &element))
                if (json_equal(element, string))
                        return true;

        return false;
}

static void test_describe(void) {
        Reading reading = good(everything);
        _cleanup_(freep) char *text = config_describe(reading.servers[0], "unit", "/usr/bin:/bin");
        const char *position = NULL;
        JsonSlice tree, element;

        assert_true(text);
        assert_number(json_scan(text, strlen(text), 64, NULL, 0, NULL, NULL), 0);
        assert_false(strstr(text, "s3cret"));
        assert_false(strstr(text, "KEY="));

        tree = SLICE(text);
        assert_true(json_equal(json_get(tree, "name"), "my-server"));
        assert_true(json_equal(json_get(tree, "description"), "Says \"hi\" \xe2\x82\xac"));
        assert_true(json_equal(json_get(tree, "file"), "dir/file.json"));
        assert_true(json_equal(json_get(tree, "launcher"), "unit"));
        assert_true(json_equal(json_get(tree, "path"), "/usr/bin:/bin"));
        assert_true(json_equal(json_get(tree, "cwd"), "/srv"));
        assert_true(json_equal(json_get(tree, "protocol"), "control"));
        assert_true(json_equal(json_get(tree, "era"), "modern"));
        assert_slice(json_get(tree, "disabled"), "true");
        assert_slice(json_get(json_get(tree, "keep_alive"), "check_interval"), "1.5");
        assert_slice(json_get(json_get(tree, "timeouts"), "start"), "0.001");
        assert_slice(json_get(json_get(tree, "limits"), "message"), "268435456");
        assert_slice(json_get(json_get(tree, "sandbox"), "ProtectHome"), "true");
        assert_true(json_next_element(json_get(tree, "argv"), &position, &element));
        assert_true(holds(json_get(tree, "argv"), "/usr/bin/x"));
        assert_true(holds(json_get(tree, "argv"), "b c"));
        assert_true(holds(json_get(tree, "environment"), "KEY"));
        assert_true(holds(json_get(tree, "environment"), "_2"));
        assert_true(holds(json_get(tree, "environment"), "PATH"));
        position = NULL;
        assert_true(json_next_element(json_get(json_get(tree, "access"), "users"), &position, &element));
        assert_slice(element, "0");
        assert_true(json_next_element(json_get(json_get(tree, "access"), "users"), &position, &element));
        assert_slice(element, "1000");
        reading_done(&reading);
}

static void test_describe_smallest(void) {
        Reading reading = good("{\"command\":\"x\",\"env\":{\"PATH\":\"/hidden\",\"HOME\":\"/hidden\"}}");
        _cleanup_(freep) char *text = config_describe(reading.servers[0], "spawn", "");
        const char *position = NULL;
        unsigned n = 0;
        JsonSlice element;

        assert_true(text);
        assert_number(json_scan(text, strlen(text), 64, NULL, 0, NULL, NULL), 0);
        assert_false(strstr(text, "hidden"));
        assert_true(json_equal(json_get(SLICE(text), "name"), "stem"));
        while (json_next_element(json_get(SLICE(text), "environment"), &position, &element))
                n += json_equal(element, "PATH") || json_equal(element, "HOME");
        assert_number(n, 2);
        reading_done(&reading);
}

static void read_settings(const char *text, Settings *settings, const char *wanted) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        Settings before = *settings;
        Buffer said = {};
        int r;

        r = config_read_settings("s.json", text, strlen(text), &problems, settings);
        take_problems(&said, &problems, "s.json");
        assert_bytes(buffer_data(&said), buffer_size(&said), wanted, strlen(wanted));
        assert_number(r, *wanted ? -EBADMSG : 0);
        if (r < 0)
                assert_true(memcmp(settings, &before, sizeof(before)) == 0);
        buffer_done(&said);
}

static void test_settings(void) {
        Settings settings, defaults;

        memset(&settings, 0, sizeof(settings));
        memset(&defaults, 0, sizeof(defaults));
        settings_init(&defaults);
        assert_number(defaults.idle_timeout, 300 * USEC_PER_SEC);
        assert_false(defaults.idle_timeout_set);
        assert_number(defaults.log_level, 0);
        assert_number(defaults.limits.calls_per_connection, 32);
        assert_number(defaults.limits.calls_per_user, 64);
        assert_number(defaults.limits.calls, 512);
        assert_number(defaults.limits.workers_per_user, 8);
        assert_number(defaults.limits.workers, 64);
        assert_number(defaults.limits.unread_bytes_per_connection, 16 << 20);
        assert_number(defaults.limits.unread_bytes_per_user, 32 << 20);
        assert_number(defaults.limits.unread_bytes, 64 << 20);
        assert_number(defaults.limits.queued_bytes_per_user, 8 << 20);
        assert_number(defaults.limits.queued_bytes, 64 << 20);
        assert_number(defaults.limits.message, 1 << 20);
        assert_number(defaults.limits.unread_answers_per_connection, 32);
        assert_number(defaults.limits.waiting_messages_per_user, 2048);
        assert_number(defaults.limits.waiting_messages, 4096);
        assert_number(defaults.limits.polkit_checks_per_user, 64);
        assert_number(defaults.limits.polkit_checks, 512);
        assert_number(defaults.limits.new_connections, 256);
        assert_number(defaults.limits.calls_per_new_connection, 64);
        assert_number(defaults.limits.private_connections_per_user, 64);
        assert_number(defaults.limits.private_connections, 512);
        assert_number(defaults.limits.batch_items, 256);
        assert_number(defaults.limits.servers_per_session, 256);
        assert_number(defaults.limits.subscriptions_per_session, 256);
        assert_number(defaults.limits.subscriptions_per_server, 4096);

        settings_init(&settings);
        read_settings("{}", &settings, "");
        assert_number(settings.limits.calls, 512);
        assert_false(settings.idle_timeout_set);

        /* What it doesn't say stays. */
        read_settings("{\"log_level\":\"debug\",\"limits\":{\"calls\":7}}", &settings, "");
        assert_number(settings.log_level, LOG_DEBUG);
        assert_number(settings.limits.calls, 7);
        assert_number(settings.limits.workers, 64);
        read_settings("{\"idle_timeout\":0.5,\"limits\":{\"queued_bytes\":1e12,\"message\":8388608}}", &settings, "");
        assert_true(settings.idle_timeout_set);
        assert_number(settings.idle_timeout, 500000);
        assert_number(settings.limits.queued_bytes, 1000000000000);
        assert_number(settings.limits.message, 8 << 20);
        assert_number(settings.limits.calls, 7);
        assert_number(settings.log_level, LOG_DEBUG);
}

static void test_settings_problems(void) {
        static const char *const rows[][2] = {
                { "", "1:1: expected a value, the text ends\n" },
                { "[]", "1:1: the file has to hold an object\n" },
                { "{\"idle_timeout\":-1}", "1:2: idle_timeout has to be a number from 0 to 31622400\n" },
                { "{\"idle_timeout\":\"never\"}", "1:2: idle_timeout has to be a number from 0 to 31622400\n" },
                { "{\"log_level\":\"loud\"}", "1:2: log_level: loud is none of the values that it can have\n" },
                { "{\"log_level\":7}", "1:2: log_level: this is none of the values that it can have\n" },
                { "{\"limit\":{}}", "1:2: unknown key limit (did you mean limits?)\n" },
                { "{\"limits\":7}", "1:2: limits has to be an object\n" },
                { "{\"limits\":{\"calls\":0}}", "1:12: calls has to be a whole number from 1 to 1000000\n" },
                { "{\"limits\":{\"calls\":1.5}}", "1:12: calls has to be a whole number from 1 to 1000000\n" },
                { "{\"limits\":{\"calls\":1000001}}", "1:12: calls has to be a whole number from 1 to 1000000\n" },
                { "{\"limits\":{\"workers\":10001}}", "1:12: workers has to be a whole number from 1 to 10000\n" },
                { "{\"limits\":{\"message\":1023}}", "1:12: message has to be a whole number from 1024 to 8388608\n" },
                { "{\"limits\":{\"message\":8388609}}",
                  "1:12: message has to be a whole number from 1024 to 8388608\n" },
                { "{\"limits\":{\"batch_items\":3001}}",
                  "1:12: batch_items has to be a whole number from 1 to 3000\n" },
                { "{\"limits\":{\"polkit_checks\":0}}",
                  "1:12: polkit_checks has to be a whole number from 1 to 10000\n" },
                { "{\"limits\":{\"calls\":1,\n  \"calls\":2}}", "2:3: key calls stands twice\n" },
                { "{\"log_level\":\"info\",\n\"limits\":{\"worker\":1}}",
                  "2:11: unknown key worker (did you mean workers?)\n" },
                { "{\"log_level\":\"\\u0000\"}", "1:15: a string can't hold the character U+0000\n" },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Settings settings;

                memset(&settings, 0, sizeof(settings));
                settings_init(&settings);
                read_settings(rows[i][0], &settings, rows[i][1]);
        }
}

static void test_problem_list(void) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        char text[3000];
        Problem *problem;

        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = 0;
        assert_number(problem_add(&problems, "a\nb\xff", "%d: \xff\n%s", 5, "end"), 0);
        assert_number(problem_add(&problems, "f", "%s", text), 0);
        problem = TAILQ_FIRST(&problems);
        assert_string(problem->file, "a\\x0ab\\xff");
        assert_string(problem->text, "5: \\xff\\x0aend");
        problem = TAILQ_NEXT(problem, link);
        assert_true(strlen(problem->text) <= 1024);
        problems_clear(&problems);
        assert_true(TAILQ_EMPTY(&problems));
        problems_clear(&problems);
}

static char *fake_describe(const Launcher *launcher _unused_, const ServerConfig *config _unused_) {
        return strdup("{\"MemoryMax\":\"1G\"}");
}

static void test_describe_worker(void) {
        static const LauncherOps ops = { .name = "fake", .describe = fake_describe };
        Launcher launcher = { .ops = &ops, .path = "/bin" };
        Reading reading = good("{\"command\":\"x\",\"sandbox\":{\"Nice\":1}}");
        _cleanup_(freep) char *text = config_describe_worker(reading.servers[0], &launcher);
        JsonSlice tree = SLICE(text);

        assert_slice(json_get(tree, "launcher"), "\"fake\"");
        assert_slice(json_get(tree, "path"), "\"/bin\"");
        assert_slice(json_get(json_get(tree, "sandbox"), "MemoryMax"), "\"1G\"");
        assert_true(!json_get(json_get(tree, "sandbox"), "Nice").data);
        reading_done(&reading);
}

int main(void) {
        test_smallest();
        test_everything();
        test_reset_is_recycled();
        test_map();
        test_map_problems();
        test_not_json();
        test_nul();
        test_stem();
        test_keys();
        test_ranges();
        test_short_forms();
        test_concurrency();
        test_text_compares();
        test_references();
        test_describe();
        test_describe_smallest();
        test_settings();
        test_settings_problems();
        test_problem_list();
        test_no_nul();
        test_lone_surrogates();
        test_long_numbers();
        test_noncharacters();
        test_access_fractions();
        test_env_twice();
        test_describe_worker();
        return 0;
}
