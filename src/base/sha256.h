#pragma once

#include <stddef.h>
#include <stdint.h>

/* SHA-256 (FIPS 180-4), for what nobody shall be able to forge: which list of tools it was that somebody looked at. */

#define SHA256_SIZE 32
#define SHA256_HEX_SIZE (2 * SHA256_SIZE + 1)

typedef struct Sha256 {
        uint32_t state[8];
        uint64_t size; /* bytes fed */
        unsigned char block[64];
} Sha256;

void sha256_init(Sha256 *hash);
void sha256_feed(Sha256 *hash, const void *data, size_t size);

/* hex: SHA256_HEX_SIZE bytes, lower case, with their end. The hash has to be initialised anew afterwards. */
void sha256_finish(Sha256 *hash, char *hex);
