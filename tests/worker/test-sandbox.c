#include "worker/sandbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "unit.h"
#include "worker/server-config.h"
#include "worker/transient.h"

static sd_bus *bus;

static JsonSlice slice(const char *text) {
        return (JsonSlice){ text, strlen(text) };
}

/* Connected to nothing that answers: good for making messages. */
static void open_bus(void) {
        int fds[2];

        assert_number(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        assert_true(sd_bus_new(&bus) >= 0);
        assert_true(sd_bus_set_fd(bus, fds[0], fds[0]) >= 0);
        assert_true(sd_bus_start(bus) >= 0);
}

static void assert_problem(const char *name, const char *value, const char *wanted) {
        _cleanup_(freep) char *problem = NULL;
        int r = sandbox_check(name, slice(value), &problem);

        if (r != (wanted ? -EINVAL : 0))
                fprintf(stderr, "%s: %s: %s\n", name, value, problem ?: "fine");
        assert_number(r, wanted ? -EINVAL : 0);
        if (wanted)
                assert_string(problem, wanted);
        else
                assert_true(!problem);
}

/* What is said to systemd for a sandbox, as busctl would write it */
static char *message_text(const char *effective) {
        sd_bus_message *message = NULL;
        char *text = NULL;
        size_t size = 0;
        FILE *file;
        int r;

        assert_true(sd_bus_message_new_method_call(bus, &message, "a.b", "/a", "a.b", "C") >= 0);
        assert_true(sd_bus_message_open_container(message, 'a', "(sv)") >= 0);
        r = sandbox_append(message, effective);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", effective, strerror(-r));
        assert_true(r >= 0);
        assert_true(sd_bus_message_close_container(message) >= 0);
        assert_true(sd_bus_message_seal(message, 1, 0) >= 0);

        file = open_memstream(&text, &size);
        assert_true(file);
        assert_true(sd_bus_message_dump(message, file, 0) >= 0);
        assert_number(fclose(file), 0);
        sd_bus_message_unref(message);
        return text;
}

static void test_values(void) {
        static const struct {
                const char *name, *value;
        } good[] = {
                { "MemoryMax", "\"512M\"" },
                { "MemoryMax", "\"1.5G\"" },
                { "MemoryMax", "67108864" },
                { "MemoryHigh", "\"infinity\"" },
                { "LimitFSIZE", "0" },
                { "TasksMax", "1" },
                { "TasksMax", "\"infinity\"" },
                { "LimitNOFILE", "1e6" },
                { "CPUWeight", "10000" },
                { "CPUQuota", "\"50%\"" },
                { "CPUQuota", "\"12.5%\"" },
                { "RuntimeMaxSec", "1.5" },
                { "RuntimeMaxSec", "\"infinity\"" },
                { "Nice", "-20" },
                { "OOMScoreAdjust", "1000" },
                { "PrivateNetwork", "false" },
                { "RestrictNamespaces", "true" },
                { "ProtectHome", "true" },
                { "ProtectHome", "\"read-only\"" },
                { "ProcSubset", "\"pid\"" },
                { "ReadOnlyPaths", "[\"/\"]" },
                { "ReadWritePaths", "[\"/srv/a b\",\"-/srv/..a/.b/c..\"]" },
                { "BindPaths", "[\"/a\",\"-/a:/b\"]" },
                { "TemporaryFileSystem", "[\"/srv\",\"/var:ro,size=10%,mode=755\"]" },
                { "RestrictAddressFamilies", "[\"AF_UNIX\",\"AF_INET6\"]" },
                { "SystemCallFilter", "[\"@mount\",\"~@chown\",\"bpf\",\"~_sysctl\"]" },
                { "IPAddressAllow", "[\"any\",\"10.0.0.0/8\",\"::1\",\"fe80::/10\",\"192.0.2.1\",\"localhost\"]" },
                { "LoadCredential", "[\"token.1:/etc/token\"]" },
        };
        static const struct {
                const char *name, *value;
        } bad[] = {
                { "MemoryMax", "\"512MB\"" },
                { "MemoryMax", "\"512m\"" },
                { "MemoryMax", "\"-1\"" },
                { "MemoryMax", "\"0x10\"" },
                { "MemoryMax", "\"\"" },
                { "MemoryMax", "\"M\"" },
                { "MemoryMax", "\"1e3\"" },
                { "MemoryMax", "\"1M\\nx\"" },
                { "MemoryMax", "\"99999999999999E\"" },
                { "MemoryMax", "-1" },
                { "MemoryMax", "1.5" },
                { "MemoryMax", "1e300" },
                { "MemoryMax", "1e999" },
                { "MemoryMax", "true" },
                { "MemoryMax", "null" },
                { "MemoryMax", "[1]" },
                { "MemoryMax", "{}" },
                { "TasksMax", "0" },
                { "TasksMax", "\"10\"" },
                { "TasksMax", "1e16" },
                { "CPUWeight", "10001" },
                { "CPUWeight", "\"infinity\"" },
                { "CPUQuota", "50" },
                { "CPUQuota", "\"50\"" },
                { "CPUQuota", "\"0%\"" },
                { "CPUQuota", "\"5e1%\"" },
                { "CPUQuota", "\"50%%\"" },
                { "RuntimeMaxSec", "0" },
                { "RuntimeMaxSec", "\"5min\"" },
                { "Nice", "20" },
                { "Nice", "0.5" },
                { "PrivateNetwork", "\"no\"" },
                { "PrivateNetwork", "0" },
                { "RestrictNamespaces", "\"user\"" },
                { "ProtectHome", "\"nope\"" },
                { "ProtectHome", "[]" },
                { "ProcSubset", "true" },
                { "ReadOnlyPaths", "\"/\"" },
                { "ReadOnlyPaths", "[]" },
                { "ReadOnlyPaths", "[1]" },
                { "ReadOnlyPaths", "[\"\"]" },
                { "ReadOnlyPaths", "[\"srv\"]" },
                { "ReadOnlyPaths", "[\"+/srv\"]" },
                { "ReadOnlyPaths", "[\"/a/../b\"]" },
                { "ReadOnlyPaths", "[\"/a/..\"]" },
                { "ReadOnlyPaths", "[\"/a\\nb\"]" },
                { "ReadOnlyPaths", "[\"/a//b\"]" },
                { "BindPaths", "[\"/a:b\"]" },
                { "BindPaths", "[\"/a:/b:rbind\"]" },
                { "BindPaths", "[\":/b\"]" },
                { "TemporaryFileSystem", "[\"/a:\"]" },
                { "TemporaryFileSystem", "[\"/a:size=1M /b\"]" },
                { "RestrictAddressFamilies", "[]" },
                { "RestrictAddressFamilies", "[\"inet\"]" },
                { "RestrictAddressFamilies", "[\"~AF_INET\"]" },
                { "SystemCallFilter", "[\"@everything\"]" },
                { "SystemCallFilter", "[\"\"]" },
                { "SystemCallFilter", "[\"~\"]" },
                { "SystemCallFilter", "[\"read:EPERM\"]" },
                { "IPAddressAllow", "[\"10.0.0.0/33\"]" },
                { "IPAddressAllow", "[\"10.0.0.0/\"]" },
                { "IPAddressAllow", "[\"10.0.0.0/-1\"]" },
                { "IPAddressAllow", "[\"example.org\"]" },
                { "LoadCredential", "[\"token\"]" },
                { "LoadCredential", "[\"token:relative\"]" },
                { "LoadCredential", "[\"a/b:/x\"]" },
                { "LoadCredential", "[\"..:/x\"]" },
        };

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_(freep) char *object = NULL, *text = NULL;

                assert_problem(good[i].name, good[i].value, NULL);
                assert_true(asprintf(&object, "{\"%s\":%s}", good[i].name, good[i].value) > 0);
                text = message_text(object);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(freep) char *problem = NULL;
                int r = sandbox_check(bad[i].name, slice(bad[i].value), &problem);

                if (r != -EINVAL)
                        fprintf(stderr, "%s: %s is taken\n", bad[i].name, bad[i].value);
                assert_number(r, -EINVAL);
                assert_true(strstr(problem, "has to be"));
        }
}

static void test_problems(void) {
        static const char *const forbidden[] = {
                "User",
                "Group",
                "SupplementaryGroups",
                "ExecStart",
                "ExecStartPre",
                "Environment",
                "Delegate",
                "PAMName",
                "RootDirectory",
                "Slice",
                "BindsTo",
                "StandardOutput",
                "AppArmorProfile",
                "SecureBits",
        };
        static const char *const fixed[] = { "DynamicUser", "NoNewPrivileges", "CapabilityBoundingSet",
                                             "AmbientCapabilities", "SystemCallErrorNumber" };

        for (size_t i = 0; i < ELEMENTSOF(forbidden); i++) {
                _cleanup_(freep) char *problem = NULL;

                assert_number(sandbox_check(forbidden[i], slice("true"), &problem), -EINVAL);
                assert_true(strstr(problem, "is none of the systemd properties that a server can set"));
        }
        for (size_t i = 0; i < ELEMENTSOF(fixed); i++) {
                _cleanup_(freep) char *problem = NULL;

                assert_number(sandbox_check(fixed[i], slice("false"), &problem), -EINVAL);
                assert_true(strstr(problem, "is set by the service, and can't be changed"));
        }

        assert_problem("MemoryMaxx", "1",
                       "sandbox: MemoryMaxx is none of the systemd properties that a server can set (did you mean "
                       "MemoryMax?)");
        assert_problem("private_network", "1",
                       "sandbox: private_network is none of the systemd properties that a server can set (did you mean "
                       "PrivateNetwork?)");
        assert_problem("PRIVATENETWORK", "true",
                       "sandbox: PRIVATENETWORK is none of the systemd properties that a server can set (did you mean "
                       "PrivateNetwork?)");
        assert_problem("", "true", "sandbox:  is none of the systemd properties that a server can set");
        assert_problem("Nice", "\"x\"", "sandbox: Nice has to be a whole number from -20 to 19");
        assert_problem("TasksMax", "0", "sandbox: TasksMax has to be a whole number from 1 on, or \"infinity\"");
        assert_problem("ProcSubset", "0", "sandbox: ProcSubset has to be one of all, pid");
        assert_problem("MemoryMax", "\"x\"",
                       "sandbox: MemoryMax has to be a size: \"512M\" (K, M, G, T, P or E), a number of bytes, or "
                       "\"infinity\"");
}

static void assert_effective(const char *sandbox, bool user, const char *name, const char *wanted) {
        _cleanup_(freep) char *text = sandbox_effective(sandbox, user);
        JsonSlice value;

        assert_true(text);
        assert_number(json_scan(text, strlen(text), 16, NULL, 0, NULL, NULL), 0);
        value = json_get(slice(text), name);
        if (wanted)
                assert_bytes(value.data, value.size, wanted, strlen(wanted));
        else
                assert_true(!value.data);
        free(message_text(text));
}

static void test_effective(void) {
        /* Defaults */
        assert_effective(NULL, false, "DynamicUser", "true");
        assert_effective(NULL, false, "PrivateNetwork", "true");
        assert_effective("{}", false, "MemoryMax", "\"1G\"");
        assert_effective(NULL, true, "DynamicUser", NULL);
        assert_effective(NULL, true, "PrivateNetwork", NULL);
        assert_effective(NULL, true, "NoNewPrivileges", "true");

        /* Replaced, added, new */
        assert_effective("{\"MemoryMax\":\"64M\"}", false, "MemoryMax", "\"64M\"");
        assert_effective("{\"MemoryMax\":\"64M\"}", true, "MemoryMax", "\"64M\"");
        assert_effective("{\"SystemCallFilter\":[\"@mount\"]}", false, "SystemCallFilter",
                         "[\"@system-service\",\"~@privileged\",\"~@resources\",\"@mount\"]");
        assert_effective("{\"Nice\":5}", false, "Nice", "5");
        assert_effective("{\"ReadWritePaths\":[\"/srv\"]}", false, "ReadWritePaths", "[\"/srv\"]");
        assert_effective("{\"TemporaryFileSystem\":[\"/srv\"]}", false, "TemporaryFileSystem",
                         "[\"/run:ro,size=1M,nr_inodes=1k\",\"/dev/shm:mode=1777,size=64M,nodev\",\"/srv\"]");

        assert_effective("{\"ProtectSystem\":\"full\"}", false, "ProtectSystem", "\"strict\"");
        assert_effective("{\"ProtectSystem\":\"full\"}", true, "ProtectSystem", "\"full\"");
        assert_effective("{\"RestrictSUIDSGID\":false}", true, "RestrictSUIDSGID", "false");

        /* The network */
        assert_effective("{\"PrivateNetwork\":false}", false, "PrivateNetwork", "false");
        assert_effective("{\"PrivateNetwork\":false}", false, "IPAddressDeny", NULL);
        assert_effective("{\"PrivateNetwork\":false}", false, "RestrictAddressFamilies",
                         "[\"AF_UNIX\",\"AF_INET\",\"AF_INET6\",\"AF_NETLINK\"]");
        assert_effective("{\"PrivateNetwork\":false,\"RestrictAddressFamilies\":[\"AF_INET\"]}", false,
                         "RestrictAddressFamilies", "[\"AF_INET\"]");
        assert_effective("{\"PrivateNetwork\":false,\"IPAddressAllow\":[\"10.0.0.0/8\"]}", false, "IPAddressDeny",
                         "[\"any\"]");
        assert_effective("{\"PrivateNetwork\":true}", false, "RestrictAddressFamilies", "[\"AF_UNIX\"]");
        assert_false(sandbox_network(NULL));
        assert_false(sandbox_network("{\"PrivateNetwork\":true}"));
        assert_true(sandbox_network("{\"Nice\":1,\"PrivateNetwork\":false}"));

        /* A user's systemd needs a user namespace for the others. */
        assert_effective("{\"Nice\":1}", true, "PrivateUsers", NULL);
        assert_effective("{\"PrivateNetwork\":false}", true, "PrivateUsers", NULL);
        assert_effective("{\"ProtectHome\":\"no\"}", true, "PrivateUsers", NULL);
        assert_effective("{\"PrivateNetwork\":true}", true, "PrivateUsers", "true");
        assert_effective("{\"ReadOnlyPaths\":[\"/\"]}", true, "PrivateUsers", "true");
        assert_effective("{\"ReadOnlyPaths\":[\"/\"],\"PrivateUsers\":false}", true, "PrivateUsers", "false");
}

static void test_system_only(void) {
        assert_string(sandbox_needs_system("{\"Nice\":1,\"IPAddressDeny\":[\"any\"]}"), "IPAddressDeny");
        assert_string(sandbox_needs_system("{\"ProcSubset\":\"pid\"}"), "ProcSubset");
        assert_true(!sandbox_needs_system(NULL));
        assert_true(!sandbox_needs_system("{\"PrivateNetwork\":true,\"ProcSubset\":\"all\"}"));
}

static void assert_holds(const char *text, const char *part) {
        if (!strstr(text, part))
                fprintf(stderr, "no \"%s\" in:\n%s\n", part, text);
        assert_true(strstr(text, part));
}

static void test_message(void) {
        _cleanup_(freep) char *text = message_text("{\"LimitNOFILE\":100,\"CPUQuota\":\"150%\",\"UMask\":\"0077\"}");

        assert_holds(text, "STRING \"LimitNOFILE\"");
        assert_holds(text, "STRING \"LimitNOFILESoft\"");
        assert_holds(text, "STRING \"CPUQuotaPerSecUSec\"");
        assert_holds(text, "UINT64 1500000");
        assert_holds(text, "UINT32 63");
}

static void test_start_message(void) {
        char *argv[] = { (char *)"cat", (char *)"$HOME", (char *)"%n", NULL };
        char *environment[] = { (char *)"TOKEN=secret", (char *)"SSH_AUTH_SOCK=mine", NULL };
        char *inherited[] = { (char *)"DISPLAY=:0", (char *)"SSH_AUTH_SOCK=/x", (char *)"PATH=/x", (char *)"USER=me",
                              NULL };
        ServerConfig config = {
                .n_ref = 1, .name = (char *)"name", .command = argv[0], .argv = argv, .environment = environment
        };
        const char *id = "0123456789abcdef0123456789abcdef";
        Failure failure = {};
        sd_bus_message *message = NULL;
        char *text = NULL;
        size_t size = 0;
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        TransientSpec spec = { .config = &config,
                               .owner = "uid:1",
                               .id = id,
                               .fds = (int[]){ null, null, null },
                               .path = "/nowhere:/usr/bin:/bin",
                               .bind_to = "broker.service",
                               .inherited = inherited };
        FILE *file;

        assert_number(transient_start_message(bus, &spec, &message, &failure), 0);
        assert_true(sd_bus_message_seal(message, 1, 0) >= 0);
        file = open_memstream(&text, &size);
        assert_true(sd_bus_message_dump(message, file, 0) >= 0);
        assert_number(fclose(file), 0);

        assert_holds(text, "STRING \"mcp-exec-worker-0123456789abcdef0123456789abcdef.service\"");
        assert_holds(text, "STRING \"/usr/bin/cat\"");
        assert_holds(text, "STRING \"$$HOME\"");
        assert_holds(text, "STRING \"TOKEN=secret\"");
        assert_holds(text, "STRING \"HOME=/tmp\"");
        assert_holds(text, "STRING \"-/tmp\"");
        assert_holds(text, "STRING \"broker.service\"");
        assert_holds(text, "STRING \"DISPLAY\"");
        assert_holds(text, "STRING \"USER\"");
        assert_true(!strstr(strstr(text, "STRING \"USER\"") + 1, "STRING \"USER\""));
        assert_true(!strstr(text, "\"SSH_AUTH_SOCK\"") && !strstr(text, "\"PATH\"") && !strstr(text, "INVOCATION_ID"));
        sd_bus_message_unref(message);
        free(text);

        config.command = argv[0] = (char *)"no-such-command";
        assert_number(transient_start_message(bus, &spec, &message, &failure), -EREMOTEIO);
        assert_string(failure_message(&failure),
                      "Can't start no-such-command: not found in PATH (/nowhere:/usr/bin:/bin)");

        config.command = argv[0] = (char *)"cat";
        spec.user = true;
        config.sandbox = (char *)"{\"IPAddressDeny\":[\"any\"]}";
        assert_number(transient_start_message(bus, &spec, &message, &failure), -EREMOTEIO);
        assert_true(strstr(failure_message(&failure), "IPAddressDeny works on the system bus only"));

        failure_done(&failure);
        safe_close(null);
}

static void test_names(void) {
        _cleanup_(freep) char *path = transient_unit_path("0123456789abcdef0123456789abcdef");

        assert_true(transient_id_valid("0123456789abcdef0123456789abcdef"));
        assert_false(transient_id_valid("0123456789ABCDEF0123456789abcdef"));
        assert_false(transient_id_valid("0123456789abcdef0123456789abcde"));
        assert_false(transient_id_valid("0123456789abcdef0123456789abcdef0"));
        assert_false(transient_id_valid(""));
        assert_false(transient_id_valid("../../../../../../../../../../x"));
        assert_string(path, "/org/freedesktop/systemd1/unit/"
                            "mcp_2dexec_2dworker_2d0123456789abcdef0123456789abcdef_2eservice");
}

int main(void) {
        open_bus();
        test_values();
        test_problems();
        test_effective();
        test_system_only();
        test_message();
        test_start_message();
        test_names();
        sd_bus_close_unref(bus);
        return 0;
}
