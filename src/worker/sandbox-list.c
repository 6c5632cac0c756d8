#include "worker/sandbox-value.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mount.h>

#include "worker/server-config.h"

/* The kinds of values that are arrays of strings */

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define ELEMENTS_MAX 256

static bool only(const char *text, const char *characters) {
        return *text && !text[strspn(text, characters)];
}

/* The strings of an array, each as valid() wants it; at least one, since no element means no restriction to systemd */
static int read_strings(JsonSlice value, bool (*valid)(const char *text, const SandboxKey *key), const SandboxKey *key,
                        char ***ret) {
        const char *position = NULL;
        char **strings;
        JsonSlice element;
        size_t n = 0;

        if (!json_is(value, '['))
                return -EINVAL;

        strings = new0(char *, ELEMENTS_MAX + 1);
        if (!strings)
                return -ENOMEM;

        while (json_next_element(value, &position, &element)) {
                char *text = n < ELEMENTS_MAX ? json_decode(element) : NULL;

                if (!text || !valid(text, key)) {
                        free(text);
                        strings_free(strings);
                        return -EINVAL;
                }
                strings[n++] = text;
        }
        if (n == 0) {
                strings_free(strings);
                return -EINVAL;
        }

        *ret = strings;
        return 0;
}

DEFINE_CLEANUP(char **, strings_free, strings_freep)

/* One element (sv) whose array "a" + type each() fills, string by string */
static int append_array(sd_bus_message *message, const SandboxKey *key, const char *type, char *const *strings,
                        int (*each)(sd_bus_message *message, const char *text)) {
        char array[16];
        int r;

        if (!message)
                return 0;

        (void)snprintf(array, sizeof(array), "a%s", type);
        r = sd_bus_message_open_container(message, 'r', "sv");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", sandbox_property(key));
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'v', array);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', type);
        for (; r >= 0 && *strings; strings++)
                r = each(message, *strings);
        for (int i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(message);

        return r;
}

/* A list of what is allowed, or of what is not: (bas) */
static int append_list(sd_bus_message *message, const SandboxKey *key, bool allow, char **strings) {
        int r;

        if (!message)
                return 0;

        r = sd_bus_message_open_container(message, 'r', "sv");
        if (r >= 0)
                r = sd_bus_message_append(message, "s", sandbox_property(key));
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'v', "(bas)");
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'r', "bas");
        if (r >= 0)
                r = sd_bus_message_append(message, "b", allow);
        if (r >= 0)
                r = sd_bus_message_append_strv(message, strings);
        for (int i = 0; i < 3 && r >= 0; i++)
                r = sd_bus_message_close_container(message);

        return r;
}

static bool is_path(const char *text) {
        size_t length = strlen(text);

        if (text[0] != '/' || length >= PATH_MAX || strstr(text, "/../") || strstr(text, "/./") || strstr(text, "//") ||
            (length >= 3 && streq(text + length - 3, "/..")) || (length >= 2 && streq(text + length - 2, "/.")))
                return false;

        for (const char *p = text; *p; p++)
                if ((unsigned char)*p < ' ' || *p == 0x7f)
                        return false;

        return true;
}

static bool is_optional_path(const char *text, const SandboxKey *key _unused_) {
        return is_path(text + (text[0] == '-'));
}

static int append_string(sd_bus_message *message, const char *text) {
        return sd_bus_message_append(message, "s", text);
}

static int append_paths(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_optional_path, key, &strings);

        return r < 0 ? r : append_array(message, key, "s", strings, append_string);
}

const SandboxKind sandbox_paths = {
        "an array of absolute paths without \"..\"; one that need not exist is written with - before it", append_paths
};

/* "A:B" into its two parts. false: there is no colon. */
static bool split(const char *text, char **first, const char **second) {
        const char *colon = strchr(text, ':');

        *first = strndup(text, colon ? (size_t)(colon - text) : strlen(text));
        *second = colon ? colon + 1 : NULL;
        return colon;
}

static bool is_bind(const char *text, const SandboxKey *key _unused_) {
        _cleanup_(freep) char *source = NULL;
        const char *target;

        (void)split(text + (text[0] == '-'), &source, &target);
        return source && is_path(source) && (!target || (is_path(target) && !strchr(target, ':')));
}

static int append_bind(sd_bus_message *message, const char *text) {
        bool optional = text[0] == '-';
        _cleanup_(freep) char *source = NULL;
        const char *target;

        (void)split(text + optional, &source, &target);
        if (!source)
                return -ENOMEM;

        return sd_bus_message_append(message, "(ssbt)", source, target ?: source, optional, (uint64_t)MS_REC);
}

static int append_binds(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_bind, key, &strings);

        return r < 0 ? r : append_array(message, key, "(ssbt)", strings, append_bind);
}

const SandboxKind sandbox_binds = { "an array of absolute paths without \"..\", or of pairs \"/source:/target\"",
                                    append_binds };

static bool is_mount(const char *text, const SandboxKey *key _unused_) {
        _cleanup_(freep) char *path = NULL;
        const char *options;

        (void)split(text, &path, &options);
        return path && is_path(path) && (!options || only(options, LOWER UPPER DIGITS "=,%_"));
}

static int append_mount(sd_bus_message *message, const char *text) {
        _cleanup_(freep) char *path = NULL;
        const char *options;

        (void)split(text, &path, &options);
        return path ? sd_bus_message_append(message, "(ss)", path, options ?: "") : -ENOMEM;
}

static int append_mounts(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_mount, key, &strings);

        return r < 0 ? r : append_array(message, key, "(ss)", strings, append_mount);
}

const SandboxKind sandbox_mounts = { "an array of absolute paths without \"..\", or of \"/path:size=64M\"",
                                     append_mounts };

static bool is_word_of(const char *text, const SandboxKey *key) {
        return sandbox_has_word(key, text);
}

static int append_families(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_word_of, key, &strings);

        return r < 0 ? r : append_list(message, key, /* allow= */ true, strings);
}

const SandboxKind sandbox_families = { NULL, append_families };

/* A call's name, or one of systemd's groups; ~ takes away. A group that systemd doesn't know would be passed over. */
static bool is_system_call(const char *text, const SandboxKey *key) {
        text += text[0] == '~';
        return text[0] == '@' ? sandbox_has_word(key, text) : only(text, LOWER DIGITS "_");
}

static int append_system_calls(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_system_call, key, &strings);

        for (char **s = strings; r >= 0 && *s; s++) {
                char *one[] = { *s + (**s == '~'), NULL };

                r = append_list(message, key, /* allow= */ **s != '~', one);
        }

        return r;
}

const SandboxKind sandbox_system_calls = {
        "an array of system calls and groups of them (systemd.exec(5)), with ~ before what is to be taken away",
        append_system_calls
};

typedef struct Address {
        int family;
        uint8_t bytes[16];
        unsigned prefix;
} Address;

static bool read_address(const char *text, Address *ret) {
        _cleanup_(freep) char *host = NULL;
        const char *slash = strchr(text, '/');
        Address address = {};
        unsigned max;

        host = strndup(text, slash ? (size_t)(slash - text) : strlen(text));
        address.family = strchr(text, ':') ? AF_INET6 : AF_INET;
        max = address.family == AF_INET6 ? 128 : 32;
        if (!host || inet_pton(address.family, host, address.bytes) != 1)
                return false;

        address.prefix = slash ? strtoul(slash + 1, NULL, 10) : max;
        if (slash && (!only(slash + 1, DIGITS) || strlen(slash + 1) > 3 || address.prefix > max))
                return false;

        *ret = address;
        return true;
}

/* systemd.resource-control(5): the names that stand for addresses */
static const char *const address_names[][3] = {
        { "any", "0.0.0.0/0", "::/0" },
        { "localhost", "127.0.0.0/8", "::1/128" },
        { "link-local", "169.254.0.0/16", "fe80::/64" },
        { "multicast", "224.0.0.0/4", "ff00::/8" },
};

static bool is_address(const char *text, const SandboxKey *key _unused_) {
        Address address;

        for (size_t i = 0; i < ELEMENTSOF(address_names); i++)
                if (streq(address_names[i][0], text))
                        return true;

        return read_address(text, &address);
}

static int append_address(sd_bus_message *message, const char *text) {
        Address address;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(address_names); i++)
                if (streq(address_names[i][0], text)) {
                        r = append_address(message, address_names[i][1]);
                        return r < 0 ? r : append_address(message, address_names[i][2]);
                }

        if (!read_address(text, &address))
                return -EINVAL;

        r = sd_bus_message_open_container(message, 'r', "iayu");
        if (r >= 0)
                r = sd_bus_message_append(message, "i", address.family);
        if (r >= 0)
                r = sd_bus_message_append_array(message, 'y', address.bytes, address.family == AF_INET6 ? 16 : 4);
        if (r >= 0)
                r = sd_bus_message_append(message, "u", address.prefix);
        return r < 0 ? r : sd_bus_message_close_container(message);
}

static int append_addresses(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_address, key, &strings);

        return r < 0 ? r : append_array(message, key, "(iayu)", strings, append_address);
}

const SandboxKind sandbox_addresses = {
        "an array of addresses such as \"10.0.0.0/8\", \"any\", \"localhost\", \"link-local\" or \"multicast\"",
        append_addresses
};

static bool is_credential(const char *text, const SandboxKey *key _unused_) {
        _cleanup_(freep) char *id = NULL;
        const char *path;

        return split(text, &id, &path) && id && strlen(id) < 256 && only(id, LOWER UPPER DIGITS "._-") &&
               !streq(id, ".") && !streq(id, "..") && is_path(path);
}

static int append_credentials(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_credential, key, &strings);

        return r < 0 ? r : append_array(message, key, "(ss)", strings, append_mount);
}

const SandboxKind sandbox_credentials = { "an array of \"ID:/absolute/path\"", append_credentials };

static int append_words(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(strings_freep) char **strings = NULL;
        int r = read_strings(value, is_word_of, key, &strings);

        return r < 0 ? r : append_array(message, key, "s", strings, append_string);
}

const SandboxKind sandbox_words = { NULL, append_words };
