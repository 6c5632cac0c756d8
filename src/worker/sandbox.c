#include "worker/sandbox.h"

#include <math.h>
#include <stdio.h>

#include "base/buffer.h"
#include "base/text.h"
#include "worker/sandbox-value.h"

#define KEY(key, type, ...)                                                                                            \
        { .name = #key, .kind = &sandbox_##type, __VA_ARGS__ }
#define SIZE(key) KEY(key, size, .max = 0x1p62)
#define COUNT(key, from, to) KEY(key, count, .min = (from), .max = (to))
#define SWITCH(key) KEY(key, switch, .flags = SANDBOX_NAMESPACE)
#define WORD(key, ...) KEY(key, word, .flags = SANDBOX_NAMESPACE, .words = WORDS(__VA_ARGS__))
#define LIST(key, type) KEY(key, type, .flags = SANDBOX_NAMESPACE | SANDBOX_ADDS)
#define FIXED(key, type, ...) KEY(key, type, .flags = SANDBOX_FIXED, __VA_ARGS__)
#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* What a server's file may change, and (FIXED) what only the service's own defaults say. Whatever could give privileges
 * back isn't among the former: users and groups, capabilities, NoNewPrivileges, other programs, the environment. */
static const SandboxKey keys[] = {
        SIZE(MemoryMax),
        SIZE(MemoryHigh),
        SIZE(MemorySwapMax),
        COUNT(TasksMax, 1, INFINITY),
        KEY(CPUQuota, percent, .min = 1, .max = 100000, .property = "CPUQuotaPerSecUSec"),
        COUNT(CPUWeight, 1, 10000),
        COUNT(IOWeight, 1, 10000),
        KEY(RuntimeMaxSec, seconds, .min = 1, .max = 1e9, .property = "RuntimeMaxUSec"),
        KEY(Nice, number, .min = -20, .max = 19),
        KEY(OOMScoreAdjust, number, .min = -1000, .max = 1000),
        SIZE(LimitAS),
        SIZE(LimitCORE),
        COUNT(LimitCPU, 0, INFINITY),
        SIZE(LimitDATA),
        SIZE(LimitFSIZE),
        SIZE(LimitMEMLOCK),
        SIZE(LimitMSGQUEUE),
        COUNT(LimitNOFILE, 0, INFINITY),
        COUNT(LimitNPROC, 0, INFINITY),
        SIZE(LimitSTACK),

        SWITCH(PrivateNetwork),
        SWITCH(PrivateUsers),
        SWITCH(PrivateDevices),
        SWITCH(PrivateIPC),
        KEY(PrivateTmp, switch, .flags = SANDBOX_NAMESPACE | SANDBOX_USER_ONLY),
        SWITCH(ProtectClock),
        SWITCH(ProtectControlGroups),
        SWITCH(ProtectHostname),
        SWITCH(ProtectKernelLogs),
        SWITCH(ProtectKernelModules),
        SWITCH(ProtectKernelTunables),
        WORD(ProtectHome, "yes", "no", "read-only", "tmpfs"),
        KEY(ProtectSystem, word, .flags = SANDBOX_NAMESPACE | SANDBOX_USER_ONLY,
            .words = WORDS("yes", "no", "full", "strict")),
        KEY(ProtectProc, word, .flags = SANDBOX_SYSTEM_ONLY,
            .words = WORDS("noaccess", "invisible", "ptraceable", "default")),
        KEY(ProcSubset, word, .flags = SANDBOX_SYSTEM_ONLY, .words = WORDS("all", "pid")),
        KEY(LockPersonality, switch),
        KEY(MemoryDenyWriteExecute, switch),
        KEY(RestrictNamespaces, namespaces),
        KEY(RestrictRealtime, switch),
        KEY(RestrictSUIDSGID, switch, .flags = SANDBOX_USER_ONLY),

        LIST(ReadOnlyPaths, paths),
        LIST(ReadWritePaths, paths),
        LIST(InaccessiblePaths, paths),
        LIST(ExecPaths, paths),
        LIST(NoExecPaths, paths),
        LIST(BindPaths, binds),
        LIST(BindReadOnlyPaths, binds),
        LIST(TemporaryFileSystem, mounts),
        KEY(LoadCredential, credentials),

        KEY(RestrictAddressFamilies, families,
            .words = WORDS("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_BLUETOOTH",
                           "AF_CAN", "AF_ALG")),
        KEY(IPAddressAllow, addresses, .flags = SANDBOX_SYSTEM_ONLY),
        KEY(IPAddressDeny, addresses, .flags = SANDBOX_SYSTEM_ONLY),
        KEY(SystemCallFilter, system_calls, .flags = SANDBOX_ADDS,
            .words = WORDS("@aio", "@basic-io", "@chown", "@clock", "@cpu-emulation", "@debug", "@default",
                           "@file-system", "@io-event", "@ipc", "@keyring", "@known", "@memlock", "@module", "@mount",
                           "@network-io", "@obsolete", "@pkey", "@privileged", "@process", "@raw-io", "@reboot",
                           "@resources", "@sandbox", "@setuid", "@signal", "@swap", "@sync", "@system-service",
                           "@timer")),

        FIXED(DynamicUser, switch),
        FIXED(NoNewPrivileges, switch),
        FIXED(CapabilityBoundingSet, no_capabilities),
        FIXED(AmbientCapabilities, no_capabilities),
        FIXED(SystemCallErrorNumber, error),
        FIXED(SystemCallArchitectures, words, .words = WORDS("native")),
        FIXED(KeyringMode, word, .words = WORDS("private")),
        FIXED(UMask, mode),
        FIXED(OOMPolicy, word, .words = WORDS("kill")),
};

/* An empty /run: sockets of other services can't be reached, the system bus among them, and no lines of the journal be
 * forged. What tells the name of a dynamic user comes back, for runtimes that want one (Node's os.userInfo() throws
 * otherwise). /tmp can't be bounded in the same way, for DynamicUser brings one that outweighs it. */
#define SYSTEM_BINDS "\"BindReadOnlyPaths\":[\"-/run/systemd/userdb/io.systemd.DynamicUser\""
#define SYSTEM_COMMON                                                                                                  \
        "\"MemoryMax\":\"1G\",\"MemorySwapMax\":0,\"TasksMax\":256,\"LimitCORE\":0,\"LimitFSIZE\":\"1G\","             \
        "\"OOMPolicy\":\"kill\","                                                                                      \
        "\"OOMScoreAdjust\":500,\"DynamicUser\":true,\"NoNewPrivileges\":true,\"CapabilityBoundingSet\":[],"           \
        "\"AmbientCapabilities\":[],\"UMask\":\"0077\",\"KeyringMode\":\"private\",\"PrivateUsers\":true,"             \
        "\"PrivateDevices\":true,\"PrivateIPC\":true,\"PrivateTmp\":true,\"ProtectSystem\":\"strict\","                \
        "\"ProtectHome\":\"yes\",\"ProtectProc\":\"invisible\",\"ProtectClock\":true,"                                 \
        "\"ProtectControlGroups\":true,\"ProtectHostname\":true,\"ProtectKernelLogs\":true,"                           \
        "\"ProtectKernelModules\":true,\"ProtectKernelTunables\":true,\"LockPersonality\":true,"                       \
        "\"RestrictNamespaces\":true,\"RestrictRealtime\":true,\"RestrictSUIDSGID\":true,"                             \
        "\"SystemCallFilter\":[\"@system-service\",\"~@privileged\",\"~@resources\"],"                                 \
        "\"SystemCallErrorNumber\":\"EPERM\",\"SystemCallArchitectures\":[\"native\"],"                                \
        "\"TemporaryFileSystem\":[\"/run:ro,size=1M,nr_inodes=1k\",\"/dev/shm:mode=1777,size=64M,nodev\"],"            \
        "\"InaccessiblePaths\":[\"-/etc/mcp-exec\"],"

static const char system_defaults[] =
        "{" SYSTEM_COMMON SYSTEM_BINDS "],\"PrivateNetwork\":true,\"IPAddressDeny\":[\"any\"],"
        "\"RestrictAddressFamilies\":[\"AF_UNIX\"]}";

/* Where a file opens the network. Names are resolved by what stands in /run. */
#define SYSTEM_NETWORK                                                                                                 \
        SYSTEM_COMMON SYSTEM_BINDS ",\"-/run/systemd/resolve\",\"-/run/NetworkManager/resolv.conf\","                  \
                                   "\"-/run/NetworkManager/no-stub-resolv.conf\",\"-/run/resolvconf/resolv.conf\"],"   \
                                   "\"PrivateNetwork\":false,\"RestrictAddressFamilies\":[\"AF_UNIX\",\"AF_INET\","    \
                                   "\"AF_INET6\",\"AF_NETLINK\"]"

static const char system_network_defaults[] = "{" SYSTEM_NETWORK "}";
static const char system_addresses_defaults[] = "{" SYSTEM_NETWORK ",\"IPAddressDeny\":[\"any\"]}";

/* A user's own servers have what the user has, but for limits and new privileges. */
static const char user_defaults[] = "{\"MemoryMax\":\"2G\",\"TasksMax\":512,\"LimitCORE\":0,\"OOMPolicy\":\"kill\","
                                    "\"NoNewPrivileges\":true,\"LockPersonality\":true,"
                                    "\"RestrictRealtime\":true,\"RestrictSUIDSGID\":true,"
                                    "\"SystemCallArchitectures\":[\"native\"]}";

static JsonSlice slice(const char *text) {
        return (JsonSlice){ text, text ? strlen(text) : 0 };
}

static const SandboxKey *find_key(JsonSlice name) {
        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                if (json_equal(name, keys[i].name))
                        return &keys[i];

        return NULL;
}

/* "unknown", with what was probably meant */
static int unknown_key(const char *name, char **ret_problem) {
        const char *nearest = NULL;
        unsigned best = TEXT_NEAR;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                if (!(keys[i].flags & SANDBOX_FIXED)) {
                        text_nearer(name, keys[i].name, &best, &nearest);
                        if (strcasecmp(name, keys[i].name) == 0) {
                                nearest = keys[i].name;
                                best = 0;
                        }
                }

        if (asprintf(ret_problem, "sandbox: %s is none of the systemd properties that a server can set%s%s%s", name,
                     nearest ? " (did you mean " : "", nearest ?: "", nearest ? "?)" : "") < 0)
                return -ENOMEM;

        return -EINVAL;
}

/* What a key wants, where its kind alone doesn't say. NULL when out of memory. */
static char *wanted(const SandboxKey *key) {
        Buffer text = {};
        char *range = NULL;
        int r;

        if (!key->words)
                return asprintf(&range,
                                isinf(key->max) ? "a whole number from %.15g on, or \"infinity\""
                                                : "a whole number from %.15g to %.15g",
                                key->min, key->max) < 0
                               ? NULL
                               : range;

        r = buffer_append_string(&text, key->kind == &sandbox_families ? "an array of " : "one of ");
        for (size_t i = 0; r >= 0 && key->words[i]; i++) {
                r = buffer_append_string(&text, i > 0 ? ", " : "");
                if (r >= 0)
                        r = buffer_append_string(&text, key->words[i]);
        }
        if (r >= 0)
                r = buffer_append(&text, "", 1);
        if (r < 0)
                buffer_done(&text);

        return text.data;
}

int sandbox_check(const char *name, JsonSlice value, char **ret_problem) {
        const SandboxKey *key = NULL;
        _cleanup_(freep) char *own = NULL;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(keys) && !key; i++)
                if (streq(keys[i].name, name))
                        key = &keys[i];

        if (!key)
                return unknown_key(name, ret_problem);
        if (key->flags & SANDBOX_FIXED)
                return asprintf(ret_problem, "sandbox: %s is set by the service, and can't be changed", name) < 0
                               ? -ENOMEM
                               : -EINVAL;

        r = key->kind->append(NULL, key, value);
        if (r != -EINVAL)
                return r;

        own = key->kind->wanted ? strdup(key->kind->wanted) : wanted(key);
        if (!own || asprintf(ret_problem, "sandbox: %s has to be %s", name, own) < 0)
                return -ENOMEM;

        return -EINVAL;
}

/* The elements of two arrays as one */
static int append_both(Buffer *text, JsonSlice first, JsonSlice second) {
        int r = buffer_append(text, first.data, first.size - 1);

        if (r >= 0)
                r = buffer_append_string(text, ",");
        return r < 0 ? r : buffer_append(text, second.data + 1, second.size - 1);
}

static int append_member(Buffer *text, JsonSlice key, JsonSlice value, JsonSlice more) {
        int r = buffer_append_string(text, buffer_size(text) > 1 ? "," : "");

        if (r >= 0)
                r = buffer_append(text, key.data, key.size);
        if (r >= 0)
                r = buffer_append_string(text, ":");
        if (r >= 0)
                r = more.data ? append_both(text, value, more) : buffer_append(text, value.data, value.size);

        return r;
}

/* The first key of own that has the flag, and a value that restricts something */
static const SandboxKey *find_restriction(JsonSlice own, SandboxFlags flag) {
        const char *position = NULL;
        JsonSlice name, value;

        while (json_next_member(own, &position, &name, &value)) {
                const SandboxKey *key = find_key(name);

                if (key && (key->flags & flag) && !json_is(value, 'f') && !json_equal(value, "no") &&
                    !json_equal(value, "default") && !json_equal(value, "all"))
                        return key;
        }

        return NULL;
}

static const char *defaults_of(JsonSlice own, bool user) {
        return user                                             ? user_defaults
               : !json_is(json_get(own, "PrivateNetwork"), 'f') ? system_defaults
               : json_get(own, "IPAddressAllow").data           ? system_addresses_defaults
                                                                : system_network_defaults;
}

char *sandbox_effective(const char *sandbox, bool user) {
        JsonSlice own = slice(sandbox), defaults = slice(defaults_of(own, user)), name, value;
        const char *position = NULL;
        Buffer text = {};
        int r;

        r = buffer_append_string(&text, "{");
        while (r >= 0 && json_next_member(defaults, &position, &name, &value)) {
                const SandboxKey *key = find_key(name);
                JsonSlice changed =
                        !user && (key->flags & SANDBOX_USER_ONLY) ? (JsonSlice){} : json_get(own, key->name);
                bool both = changed.data && (key->flags & SANDBOX_ADDS);

                r = append_member(&text, name, changed.data && !both ? changed : value, both ? changed : (JsonSlice){});
        }

        position = NULL;
        while (r >= 0 && json_next_member(own, &position, &name, &value)) {
                const SandboxKey *key = find_key(name);

                if (key && !json_get(defaults, key->name).data)
                        r = append_member(&text, name, value, (JsonSlice){});
        }

        if (r >= 0 && user && !json_get(own, "PrivateUsers").data && find_restriction(own, SANDBOX_NAMESPACE))
                r = append_member(&text, slice("\"PrivateUsers\""), slice("true"), (JsonSlice){});
        if (r >= 0)
                r = buffer_append(&text, "}", 2);
        if (r < 0)
                buffer_done(&text);

        return text.data;
}

bool sandbox_network(const char *sandbox) {
        return json_is(json_get(slice(sandbox), "PrivateNetwork"), 'f');
}

const char *sandbox_needs_system(const char *sandbox) {
        const SandboxKey *key = find_restriction(slice(sandbox), SANDBOX_SYSTEM_ONLY);

        return key ? key->name : NULL;
}

int sandbox_append(sd_bus_message *message, const char *effective) {
        const char *position = NULL;
        JsonSlice name, value;
        int r = 0;

        while (r >= 0 && json_next_member(slice(effective), &position, &name, &value)) {
                const SandboxKey *key = find_key(name);

                r = key ? key->kind->append(message, key, value) : -EINVAL;
        }

        return r;
}
