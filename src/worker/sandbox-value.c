#include "worker/sandbox-value.h"

#include <math.h>
#include <stdio.h>

#define DIGITS "0123456789"

/* Reading */

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

/* A number, also with fraction or exponent */
static bool read_number(JsonSlice value, double *ret) {
        char text[64];

        if (value.size == 0 || value.size >= sizeof(text) || !(json_is(value, '-') || is_digit(value.data[0])))
                return false;

        memcpy(text, value.data, value.size);
        text[value.size] = 0;
        *ret = strtod(text, NULL);
        return true;
}

static bool in_range(const SandboxKey *key, double number, bool whole) {
        return isfinite(number) && number >= key->min && number <= key->max && (!whole || number == floor(number));
}

/* Writing */

const char *sandbox_property(const SandboxKey *key) {
        return key->property ?: key->name;
}

bool sandbox_has_word(const SandboxKey *key, const char *word) {
        for (const char *const *w = key->words; w && *w; w++)
                if (streq(*w, word))
                        return true;

        return false;
}

static int append_number(sd_bus_message *message, const SandboxKey *key, uint64_t number) {
        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "t", number) : 0;
}

static int append_text(sd_bus_message *message, const SandboxKey *key, const char *text) {
        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "s", text) : 0;
}

/* Kinds */

static int append_bool(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        bool yes = json_is(value, 't');

        if (!yes && !json_is(value, 'f'))
                return -EINVAL;

        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "b", yes) : 0;
}

const SandboxKind sandbox_switch = { "true or false", append_bool };

/* A limit: "infinity" has a value of its own on the bus. */
static int append_limit(sd_bus_message *message, const SandboxKey *key, uint64_t number) {
        char soft[64];
        int r = append_number(message, key, number);

        /* Both limits of a resource, for systemd keeps an earlier soft one. */
        if (message && r >= 0 && strncmp(key->name, "Limit", strlen("Limit")) == 0) {
                (void)snprintf(soft, sizeof(soft), "%sSoft", key->name);
                r = sd_bus_message_append(message, "(sv)", soft, "t", number);
        }

        return r;
}

static int append_size(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        static const char suffixes[] = "KMGTPE";
        _cleanup_(freep) char *text = NULL;
        const char *suffix;
        double number;
        char *end;

        if (read_number(value, &number))
                return in_range(key, number, /* whole= */ true) ? append_limit(message, key, number) : -EINVAL;

        text = json_decode(value);
        if (!text)
                return -EINVAL;
        if (streq(text, "infinity"))
                return append_limit(message, key, UINT64_MAX);

        if (!is_digit(text[0]) || strspn(text, DIGITS) > 15)
                return -EINVAL;
        number = strtod(text, &end);
        suffix = *end ? strchr(suffixes, *end) : NULL;
        if (end != text + strspn(text, DIGITS ".") || (*end && (!suffix || end[1])))
                return -EINVAL;
        if (suffix)
                number *= (double)(UINT64_C(1) << 10 * (suffix - suffixes + 1));

        return in_range(key, floor(number), /* whole= */ true) ? append_limit(message, key, number) : -EINVAL;
}

const SandboxKind sandbox_size = { "a size: \"512M\" (K, M, G, T, P or E), a number of bytes, or \"infinity\"",
                                   append_size };

static int append_count(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        double number;

        if (json_equal(value, "infinity"))
                return isinf(key->max) ? append_limit(message, key, UINT64_MAX) : -EINVAL;
        if (!read_number(value, &number) || !in_range(key, MIN(number, 1e15), /* whole= */ true) || number > 1e15)
                return -EINVAL;

        return append_limit(message, key, number);
}

const SandboxKind sandbox_count = { NULL, append_count };

static int append_percent(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(freep) char *text = json_decode(value);
        char *end;
        double number;

        if (!text || !is_digit(text[0]) || strspn(text, DIGITS ".") > 12)
                return -EINVAL;
        number = strtod(text, &end);
        if (!streq(end, "%") || end != text + strspn(text, DIGITS ".") || !in_range(key, number, /* whole= */ false))
                return -EINVAL;

        return append_number(message, key, number * USEC_PER_SEC / 100);
}

const SandboxKind sandbox_percent = { "a percentage of one CPU, from \"1%\" to \"100000%\"", append_percent };

static int append_seconds(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        double number;

        if (json_equal(value, "infinity"))
                return append_number(message, key, USEC_INFINITY);
        if (!read_number(value, &number) || !in_range(key, number, /* whole= */ false))
                return -EINVAL;

        return append_number(message, key, number * USEC_PER_SEC);
}

const SandboxKind sandbox_seconds = { "a number of seconds from 1 on, or \"infinity\"", append_seconds };

static int append_integer(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        double number;

        if (!read_number(value, &number) || !in_range(key, number, /* whole= */ true))
                return -EINVAL;

        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "i", (int32_t)number) : 0;
}

const SandboxKind sandbox_number = { NULL, append_integer };

/* Where a word is "yes" or "no", true and false are as well. */
static int append_word(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(freep) char *text = json_is(value, 't')   ? strdup("yes")
                                      : json_is(value, 'f') ? strdup("no")
                                                            : json_decode(value);

        return text && sandbox_has_word(key, text) ? append_text(message, key, text) : -EINVAL;
}

const SandboxKind sandbox_word = { NULL, append_word };

static int append_no_capabilities(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        return value.size == 2 && json_is(value, '[') ? append_number(message, key, 0) : -EINVAL;
}

const SandboxKind sandbox_no_capabilities = { "an empty array", append_no_capabilities };

/* The bus wants the kinds of namespaces that stay allowed: none, or all, which is not to say anything. */
static int append_namespaces(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        if (json_is(value, 'f'))
                return 0;

        return json_is(value, 't') ? append_number(message, key, 0) : -EINVAL;
}

const SandboxKind sandbox_namespaces = { "true or false", append_namespaces };

static int append_mode(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        _cleanup_(freep) char *text = json_decode(value);

        if (!text || strlen(text) > 4 || !*text || text[strspn(text, "01234567")])
                return -EINVAL;

        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "u",
                                               (uint32_t)strtoul(text, NULL, 8))
                       : 0;
}

const SandboxKind sandbox_mode = { "an octal number as a string", append_mode };

static int append_errno(sd_bus_message *message, const SandboxKey *key, JsonSlice value) {
        if (!json_equal(value, "EPERM"))
                return -EINVAL;

        return message ? sd_bus_message_append(message, "(sv)", sandbox_property(key), "i", EPERM) : 0;
}

const SandboxKind sandbox_error = { "\"EPERM\"", append_errno };
