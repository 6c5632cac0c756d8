#pragma once

#include "base/memory-file.h"
#include "wire/json-stream.h"
#include "wire/protocol.h"

/* A long line of a worker as it goes by: its result goes into a file, and what is left is held, with a 0 where the
 * result was. So a result of any size needs no memory here but its own file's. Where the line itself is the result, and
 * is no JSON, it becomes a string in the file, as plain_result() has it. */
typedef struct Spill Spill;

typedef struct SpillLine {
        Buffer rest;      /* the line, as a message of its own */
        size_t at;        /* of the 0 in it */
        MemoryFile *file; /* the result; NULL where it has none */
        JsonTraits traits;
} SpillLine;

/* rest_max: bytes that are held; charge() is asked before the file takes as many more: negative refuses. */
int spill_new(const WireProtocol *wire, unsigned depth_max, size_t rest_max,
              int (*charge)(void *userdata, uint64_t bytes), void *userdata, Spill **ret);
Spill *spill_free(Spill *spill);

/* -EBADMSG or -E2BIG, as json_stream_feed(); -EMSGSIZE: more than rest_max; or -ENOMEM. After a failure nothing may be
 * fed any more. *ret_used: bytes in front of what is wrong. A result that can't be kept is no failure before the line's
 * end. */
int spill_feed(Spill *spill, const char *data, size_t size, size_t *ret_used);

/* Nothing of the result is kept any more. error: what spill_finish() returns */
void spill_drop_result(Spill *spill, int error);

/* Whether something stands in its file: nothing before the result, or behind spill_drop_result() */
bool spill_holds(const Spill *spill);

/* After a failure: has finder go on behind what was taken. */
void spill_find_id(const Spill *spill, IdFinder *finder);

/* The first bytes of what is in the file: their number */
size_t spill_start(const Spill *spill, char *bytes, size_t size);

/* The line's end: what it held is the caller's, by spill_line_done(), also where a result wasn't kept. As spill_feed(),
 * or the reason for that: -EPROTO where the result stands twice, -EILSEQ where a long text is no JSON only far behind
 * its start. */
int spill_finish(Spill *spill, SpillLine *ret);
void spill_line_done(SpillLine *line);

JsonError spill_error(const Spill *spill); /* after -EBADMSG or -E2BIG */
