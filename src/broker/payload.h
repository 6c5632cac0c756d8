#pragma once

#include "base/memory-file.h"
#include "broker/manager.h"

/* A result in a file of its own, charged to a user for as long as anybody has it open: also behind its end here, which
 * leaves no descriptor behind. A small one counts as 64 KiB. */
typedef struct Payload Payload;

/* Charges bytes before they are a payload, as quota_charge_payload(), which releases them. What nobody has open any
 * more makes room. */
int payload_charge(Manager *manager, uid_t uid, uint64_t bytes, Failure *failure);

/* Of a call that has a result: takes the file that it stands in, or writes it into one. Fails with -EREMOTEIO and
 * *failure. */
int payload_new(Manager *manager, uid_t uid, const Outcome *outcome, Payload **ret, Failure *failure);

/* What is still open elsewhere stays charged until it is closed there. */
Payload *payload_free(Payload *payload);

const MemoryFile *payload_file(const Payload *payload);

void payloads_init(Manager *manager);

/* For the manager's end: what was given away is its receivers' alone. */
void payloads_forget(Manager *manager);

DEFINE_CLEANUP(Payload *, payload_free, payload_freep)
