#pragma once

#include "worker/sandbox.h"

/* The kinds of values in a sandbox: how each is read from JSON and said to StartTransientUnit. */

typedef struct SandboxKey SandboxKey;

typedef struct SandboxKind {
        const char *wanted; /* what a value has to be, as a phrase; NULL: the key's words */
        /* Appends the property to message, or only checks where that is NULL. -EINVAL: the value is none of this kind
         */
        int (*append)(sd_bus_message *message, const SandboxKey *key, JsonSlice value);
} SandboxKind;

typedef enum SandboxFlags {
        SANDBOX_FIXED = 1 << 0,       /* the service's own: not in files */
        SANDBOX_ADDS = 1 << 1,        /* a server's elements come behind the defaults instead of replacing them */
        SANDBOX_NAMESPACE = 1 << 2,   /* where it restricts, a user's systemd can do it in a user namespace only */
        SANDBOX_SYSTEM_ONLY = 1 << 3, /* a user's systemd can't do it at all */
        SANDBOX_USER_ONLY = 1 << 4,   /* the system's defaults stay: DynamicUser brings it in any case */
} SandboxFlags;

struct SandboxKey {
        const char *name;
        const SandboxKind *kind;
        SandboxFlags flags;
        double min, max;
        const char *const *words; /* ended by NULL */
        const char *property;     /* the name on the bus, where that is another */
};

extern const SandboxKind sandbox_switch, sandbox_size, sandbox_count, sandbox_percent, sandbox_seconds, sandbox_number,
        sandbox_word, sandbox_paths, sandbox_binds, sandbox_mounts, sandbox_families, sandbox_system_calls,
        sandbox_addresses, sandbox_credentials;

/* Of the defaults only */
extern const SandboxKind sandbox_no_capabilities, sandbox_namespaces, sandbox_mode, sandbox_error, sandbox_words;

/* The key's name on the bus */
const char *sandbox_property(const SandboxKey *key);

bool sandbox_has_word(const SandboxKey *key, const char *word);
