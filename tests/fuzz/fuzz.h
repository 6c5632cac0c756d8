#pragma once

#include <stddef.h>
#include <stdint.h>

/* What libFuzzer calls with each input, and replay.c with each file of a corpus. Aborts where an invariant doesn't
 * hold. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
