#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/protocol.h"

static JsonSlice trim(const char *text, size_t size) {
        while (size > 0 && strchr(" \t\r\n", *text)) {
                text++;
                size--;
        }
        while (size > 0 && strchr(" \t\r\n", text[size - 1]))
                size--;

        return (JsonSlice){ text, size };
}

static int plain_read_params(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error) {
        McpParams params = {};
        int r;

        if (size > 0) {
                r = json_scan(text, size, depth_max, NULL, 0, &params.traits, error);
                if (r < 0)
                        return r;
                params.text = trim(text, size);
        }

        *ret = params;
        return 0;
}

static int lines_read_params(const char *text, size_t size, unsigned depth_max, McpParams *ret, JsonError *error) {
        _cleanup_(freep) char *line = NULL;
        int r;

        r = plain_read_params(text, size, depth_max, ret, error);
        if (r < 0 || !json_is(ret->text, '"'))
                return r;

        line = json_decode(ret->text);
        if (line && !strpbrk(line, "\r\n"))
                return 0;

        *error = (JsonError){ .offset = ret->text.data - text, .reason = "has a line break, and is sent as one line" };
        return -EINVAL;
}

/* One line, or for once all that its stdin gets: that needs no end, but tools like grep and sed are used to one. */
static int append_text(Buffer *buffer, const McpParams *params, bool one_line) {
        size_t before = buffer_size(buffer);
        int r = 0;

        if (json_is(params->text, '"')) {
                _cleanup_(freep) char *text = json_decode(params->text);

                if (!text)
                        return -ENOMEM;
                if (one_line && strpbrk(text, "\r\n"))
                        return -EINVAL;
                r = buffer_append_string(buffer, text);
                if (!one_line)
                        return r;
        } else if (params->text.data)
                r = json_append(buffer, params->text, &params->traits);

        if (r >= 0 && (one_line || params->text.data))
                r = buffer_append(buffer, "\n", 1);
        if (r < 0)
                buffer_truncate(buffer, before);
        return r;
}

static int lines_append_request(Buffer *buffer, uint64_t id _unused_, McpEra era _unused_, const char *method _unused_,
                                const McpParams *params) {
        return append_text(buffer, params, /* one_line= */ true);
}

static int once_append_request(Buffer *buffer, uint64_t id _unused_, McpEra era _unused_, const char *method _unused_,
                               const McpParams *params) {
        return append_text(buffer, params, /* one_line= */ false);
}

static int append_around_file(Buffer *tail, const RequestFileLayout *layout, bool one_line,
                              RequestFilePart ret[static 2], size_t *ret_n) {
        uint64_t quotes = layout->string;

        ret[0] = (RequestFilePart){ layout->begin + quotes, layout->end - layout->begin - 2 * quotes };
        *ret_n = 1;
        return one_line || !layout->string ? buffer_append(tail, "\n", 1) : 0;
}

static int lines_append_around_file(Buffer *head _unused_, Buffer *tail, uint64_t id _unused_, McpEra era _unused_,
                                    const char *method _unused_, const McpParams *params _unused_,
                                    const RequestFileLayout *layout, RequestFilePart ret[static 2], size_t *ret_n) {
        return append_around_file(tail, layout, /* one_line= */ true, ret, ret_n);
}

static int once_append_around_file(Buffer *head _unused_, Buffer *tail, uint64_t id _unused_, McpEra era _unused_,
                                   const char *method _unused_, const McpParams *params _unused_,
                                   const RequestFileLayout *layout, RequestFilePart ret[static 2], size_t *ret_n) {
        return append_around_file(tail, layout, /* one_line= */ false, ret, ret_n);
}

int plain_result(const char *text, size_t size, unsigned depth_max, Buffer *scratch, JsonSlice *ret,
                 JsonTraits *ret_traits) {
        JsonTraits traits = {};
        JsonError error;
        int r;

        r = json_scan(text, size, depth_max, NULL, 0, &traits, &error);
        if (r >= 0) {
                *ret = trim(text, size);
                *ret_traits = traits;
                return 0;
        }

        r = json_append_quoted(scratch, text, size);
        if (r < 0)
                return r;

        *ret = (JsonSlice){ buffer_data(scratch), buffer_size(scratch) };
        *ret_traits = (JsonTraits){};
        return 0;
}

const WireProtocol lines_protocol = {
        .name = "lines",
        .read_params = lines_read_params,
        .append_request = lines_append_request,
        .file_form = REQUEST_FILE_LINE,
        .append_around_file = lines_append_around_file,
};

const WireProtocol once_protocol = {
        .name = "once",
        .read_params = plain_read_params,
        .append_request = once_append_request,
        .file_form = REQUEST_FILE_VALUE,
        .append_around_file = once_append_around_file,
};
