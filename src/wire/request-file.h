#pragma once

#include "wire/json-stream.h"
#include "wire/mcp.h"

/* A request whose params are too large to be held: they stay in a file, and only what comes before and behind them is
 * written. */

/* What request_file_scan_*() has found in the file: offsets in bytes */
typedef struct RequestFileLayout {
        uint64_t begin, end; /* the value without the white space around it */
        uint64_t meta_begin,
                meta_end; /* its member _meta, from the comma before it, or from its key where it is the first */
        bool object, empty, has_meta, meta_is_first;
        bool newlines;        /* there are line breaks between its tokens: they may not go on a line */
        bool string, escapes; /* it is a string; it isn't written as it is meant */
} RequestFileLayout;

typedef struct RequestFilePart {
        uint64_t offset, size;
} RequestFilePart;

/* Appends the beginning of a request's line to head, its end to tail, and sets the parts of the file that go between
 * them: *ret_n, at most two. params: its text is none, its meta and token are what the file's are, and of its tool the
 * file holds the arguments. -ENOMEM: the buffers are as they were. */
int mcp_append_around_file(Buffer *head, Buffer *tail, uint64_t id, McpEra era, const char *method,
                           const McpParams *params, const RequestFileLayout *layout, RequestFilePart ret[static 2],
                           size_t *ret_n);

/* What a file may hold: an object with _meta and name; without subtype; a tool's arguments, whose members mean nothing;
 * any value; any but a string with line breaks */
typedef enum RequestFileForm {
        REQUEST_FILE_MCP,
        REQUEST_FILE_CONTROL,
        REQUEST_FILE_ARGUMENTS,
        REQUEST_FILE_VALUE,
        REQUEST_FILE_LINE,
} RequestFileForm;

/* The check of such a file, in pieces: as mcp_params_read(). Zero-initialise it, and set the first two. */
typedef struct RequestFileScan {
        unsigned depth_max;
        RequestFileForm form;

        JsonStream stream;
        bool began;
        char first; /* of the value */
        unsigned n_meta, n_names;
        uint64_t key_offset;     /* of _meta */
        uint64_t meta, meta_end; /* its value */
        RequestFileLayout layout;
        JsonError error;
} RequestFileScan;

/* 0; or -EBADMSG, -E2BIG or -EINVAL, as mcp_params_read(), with error set. */
int request_file_scan_feed(RequestFileScan *scan, const char *data, size_t size);
int request_file_scan_finish(RequestFileScan *scan); /* layout is set */
