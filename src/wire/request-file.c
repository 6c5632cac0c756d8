#include "wire/request-file.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

static const char *const names[] = { "_meta", "name", "subtype" };
enum { META, NAME, SUBTYPE };

static int refuse(RequestFileScan *scan, uint64_t offset, const char *reason) {
        scan->error = (JsonError){ .offset = offset, .reason = reason };
        return -EINVAL;
}

static int begin_member(RequestFileScan *scan, char first) {
        RequestFileLayout *layout = &scan->layout;

        if (scan->stream.member == SUBTYPE)
                return refuse(scan, scan->stream.key_offset, "has a member subtype: the method stands there");
        if (scan->stream.member == NAME)
                return ++scan->n_names > 1 ? refuse(scan, scan->stream.key_offset, "name stands twice") : 0;

        if (++scan->n_meta > 1)
                return refuse(scan, scan->stream.key_offset, "_meta stands twice");
        if (first != '{')
                return refuse(scan, scan->stream.key_offset, "_meta has to be an object");

        layout->has_meta = true;
        layout->meta_is_first = scan->stream.n_members == 1;
        layout->meta_begin = layout->meta_is_first ? scan->stream.key_offset : scan->stream.comma_offset;
        scan->meta = scan->stream.offset;
        return 0;
}

int request_file_scan_feed(RequestFileScan *scan, const char *data, size_t size) {
        if (!scan->began) {
                scan->began = true;
                scan->stream = (JsonStream){ .depth_max = scan->depth_max,
                                             .names = names,
                                             .n_names = scan->form == REQUEST_FILE_CONTROL ? ELEMENTSOF(names)
                                                        : scan->form == REQUEST_FILE_MCP   ? SUBTYPE
                                                                                           : 0 };
        }

        for (size_t i = 0; i < size && !scan->first; i++)
                if (data[i] && !strchr(" \t\r\n", data[i]))
                        scan->first = data[i];

        for (;;) {
                size_t used = 0;
                int r;

                r = json_stream_feed(&scan->stream, data, size, &used);
                if (r < 0) {
                        scan->error = (JsonError){ .offset = scan->stream.offset, .reason = scan->stream.reason };
                        return r;
                }

                data += used;
                size -= used;
                if (r == JSON_STREAM_MORE)
                        return 0;
                if (r == JSON_STREAM_BEGIN) {
                        r = begin_member(scan, *data);
                        if (r < 0)
                                return r;
                } else if (scan->stream.member == META)
                        scan->layout.meta_end = scan->meta_end = scan->stream.offset;
        }
}

int request_file_scan_finish(RequestFileScan *scan) {
        RequestFileLayout *layout = &scan->layout;
        int r;

        r = json_stream_finish(&scan->stream);
        if (r < 0) {
                scan->error = (JsonError){ .offset = scan->stream.offset, .reason = scan->stream.reason };
                return r;
        }

        layout->begin = scan->stream.open_offset;
        layout->end = scan->stream.close_offset;
        layout->object = scan->stream.is_object;
        layout->empty = scan->stream.n_members == 0;
        layout->newlines = scan->stream.traits.newlines;
        layout->string = scan->first == '"';
        layout->escapes = scan->stream.escapes || scan->stream.traits.noncharacters;
        if (scan->form == REQUEST_FILE_LINE && layout->string && scan->stream.escaped_breaks)
                return refuse(scan, layout->begin, "has a line break, and is sent as one line");
        return layout->object || scan->form >= REQUEST_FILE_VALUE ? 0
                                                                  : refuse(scan, layout->begin, "has to be an object");
}

/* What is left of an object when its _meta has gone: behind the brace that opens it, with the one that closes it. */
static size_t rest_of_object(const RequestFileLayout *layout, RequestFilePart parts[static 2], bool *ret_comma) {
        uint64_t begin = layout->begin + 1;
        size_t n = 0;

        *ret_comma = layout->has_meta ? !layout->meta_is_first : !layout->empty;
        if (layout->has_meta) {
                if (!layout->meta_is_first)
                        parts[n++] = (RequestFilePart){ begin, layout->meta_begin - begin };
                begin = layout->meta_end;
        }

        parts[n++] = (RequestFilePart){ begin, layout->end - begin };
        return n;
}

/* An object that stands for the file's: empty, or with its _meta. */
static int make_stand_in(Buffer *text, McpParams *params) {
        int r;

        r = buffer_append_string(text, params->meta.data ? "{\"_meta\":" : "{");
        if (r >= 0 && params->meta.data)
                r = json_append(text, params->meta, &params->traits);
        if (r >= 0)
                r = buffer_append(text, "}", 1);
        if (r < 0)
                return r;

        params->traits = (JsonTraits){};
        params->text = (JsonSlice){ buffer_data(text), buffer_size(text) };
        if (params->meta.data) {
                params->meta.data = params->text.data + strlen("{\"_meta\":");
                params->meta.size = params->text.size - strlen("{\"_meta\":}");
                params->token = json_get(params->meta, "progressToken");
        }
        return 0;
}

static bool ends_with(const Buffer *line, JsonSlice text, const char *end) {
        size_t length = strlen(end), size = buffer_size(line);
        const char *data = buffer_data(line);

        return size >= text.size + length && memcmp(data + size - length, end, length) == 0 &&
               memcmp(data + size - length - text.size, text.data, text.size) == 0;
}

/* What is written with the stand-in tells where the file's goes: in its place as it is, or, where _meta has become
 * another, behind that. */
static int split(Buffer *head, Buffer *tail, const McpParams *stand_in, const RequestFileLayout *layout,
                 RequestFilePart parts[static 2], size_t *ret_n) {
        const char *end = stand_in->tool ? "}}\n" : "}\n";
        bool comma = false;
        int r = 0;

        if (ends_with(head, stand_in->text, end)) {
                parts[0] = (RequestFilePart){ layout->begin, layout->end - layout->begin };
                *ret_n = 1;
                buffer_truncate(head, buffer_size(head) - stand_in->text.size - strlen(end));
                return buffer_append_string(tail, end);
        }

        *ret_n = rest_of_object(layout, parts, &comma);
        buffer_truncate(head, buffer_size(head) - strlen("}}\n"));
        if (comma)
                r = buffer_append(head, ",", 1);
        return r < 0 ? r : buffer_append(tail, "}\n", 2);
}

int mcp_append_around_file(Buffer *head, Buffer *tail, uint64_t id, McpEra era, const char *method,
                           const McpParams *params, const RequestFileLayout *layout, RequestFilePart ret[static 2],
                           size_t *ret_n) {
        size_t before = buffer_size(head), behind = buffer_size(tail);
        McpParams stand_in = *params;
        Buffer text = {};
        int r;

        r = make_stand_in(&text, &stand_in);
        if (r >= 0 && params->token.data && !stand_in.token.data)
                stand_in.token = params->token; /* asked for on the caller's behalf */
        if (r >= 0)
                r = mcp_append_request(head, id, era, method, &stand_in);
        if (r >= 0)
                r = split(head, tail, &stand_in, layout, ret, ret_n);
        buffer_done(&text);
        if (r < 0) {
                buffer_truncate(head, before);
                buffer_truncate(tail, behind);
        }
        return r;
}
