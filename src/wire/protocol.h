#pragma once

#include "wire/mcp.h"
#include "wire/request-file.h"

/* How a worker is spoken to: what differs from one language of workers to the next, as functions on bytes. A message of
 * a worker is read into a McpMessage, whatever it is called on the wire. */
typedef struct WireProtocol {
        const char *name;

        /* Checks a caller's params, as mcp_params_read(). */
        int (*read_params)(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error);

        /* Each appends one message with its line's end. -ENOMEM, or -EINVAL where the protocol has no form for it: the
         * buffer is as it was. The last two are NULL where the protocol has no such message. */
        int (*append_request)(Buffer *buffer, uint64_t id, McpEra era, const char *method, const McpParams *params);
        int (*append_cancelled)(Buffer *buffer, uint64_t id, const char *reason);
        int (*append_notification)(Buffer *buffer, const char *method, const McpParams *params);

        /* The same of params in a file, which has what file_form says: as mcp_append_around_file(). */
        RequestFileForm file_form;
        int (*append_around_file)(Buffer *head, Buffer *tail, uint64_t id, McpEra era, const char *method,
                                  const McpParams *params, const RequestFileLayout *layout,
                                  RequestFilePart ret[static 2], size_t *ret_n);

        /* Where the result stands in a line: the member of that name, of the outermost object or of its member parent.
         * NULL: all of the line is the result. */
        const char *result_name, *result_parent;

        /* Reads a line: 0, also for noise; -EBADMSG or -E2BIG as json_scan(). NULL: a line is the answer to the one
         * request under way, and says nothing of it. */
        int (*parse)(const char *line, size_t size, unsigned depth_max, McpMessage *ret, JsonError *error);

        /* Where there is parse: whose answer a line was meant to be that is too long, or no valid JSON. */
        bool (*found_id)(const IdFinder *finder, uint64_t *ret);
} WireProtocol;

/* mcp.c: JSON-RPC 2.0 as MCP servers speak it on stdio */
extern const WireProtocol mcp_protocol;

/* control.c: JSON Lines with request ids of their own, as programs speak it that are driven by another one:
 *
 *     > {"type":"control_request","request_id":"7","request":{"subtype":METHOD, members of params}}
 *     < {"type":"control_response","response":{"subtype":"success","request_id":"7","response":RESULT}}
 *     < {"type":"control_response","response":{"subtype":"error","request_id":"7","error":TEXT}}
 *     > {"type":"control_cancel_request","request_id":"7"}
 *
 * The members of response may also stand beside type. Any other object with a type is a notification of that name. */
extern const WireProtocol control_protocol;

/* plain.c: lines and once. A request is its params, and nothing else: a string as its text, any other value as JSON. */
extern const WireProtocol lines_protocol, once_protocol;

/* The result that a plain text stands for: the text itself where it is JSON, else as a quoted string, which is written
 * to scratch. -ENOMEM. */
int plain_result(const char *text, size_t size, unsigned depth_max, Buffer *scratch, JsonSlice *ret,
                 JsonTraits *ret_traits);
