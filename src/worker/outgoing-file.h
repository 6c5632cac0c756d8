#pragma once

#include "base/memory-file.h"
#include "wire/request-file.h"

/* Parts of a file on their way into a worker's stdin: the kernel moves them from one to the other, where it can. */
typedef struct OutgoingFile OutgoingFile;

/* What becomes of its bytes */
typedef enum OutgoingForm {
        OUTGOING_AS_IT_IS,
        OUTGOING_ONE_LINE, /* line breaks are left out */
        OUTGOING_DECODED,  /* it is a JSON string without its quotes: its text */
} OutgoingForm;

/* References file. -ENOMEM. */
int outgoing_file_new(MemoryFile *file, const RequestFilePart *parts, size_t n_parts, OutgoingForm form,
                      OutgoingFile **ret);
OutgoingFile *outgoing_file_free(OutgoingFile *outgoing);

/* Writes to fd, which doesn't block, as much as it takes, and no more than is good for one turn of the loop. The
 * number of bytes of the file that are done with; 0 where there are no more; -EAGAIN; or what failed. */
ssize_t outgoing_file_write(OutgoingFile *outgoing, int fd, bool pipe);

/* Bytes of the file that are still to be written */
uint64_t outgoing_file_left(const OutgoingFile *outgoing);

DEFINE_CLEANUP(OutgoingFile *, outgoing_file_free, outgoing_file_freep)
