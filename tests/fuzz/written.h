#pragma once

#include "base/macro.h"
#include "unit.h"
#include "wire/json-edit.h"
#include "wire/mcp.h"

/* For fuzz targets of what writes JSON */

static inline JsonSlice trimmed(const char *text, size_t size) {
        while (size > 0 && strchr(" \t\r\n", *text) && *text) {
                text++;
                size--;
        }
        while (size > 0 && strchr(" \t\r\n", text[size - 1]) && text[size - 1])
                size--;

        return (JsonSlice){ text, size };
}

/* What buffer holds is one valid value without line breaks and noncharacters; its size is within what was promised: of
 * a text of size bytes with those traits, and extra for what was added. */
static inline JsonSlice assert_written(const Buffer *buffer, size_t size, const JsonTraits *traits, size_t extra) {
        JsonSlice written = { buffer_data(buffer), buffer_size(buffer) };
        JsonTraits found = {};

        assert_number(json_scan(written.data, written.size, JSON_DEPTH_MAX, NULL, 0, &found, NULL), 0);
        assert_false(found.newlines || found.noncharacters);
        assert_true(written.size <= size * (traits->noncharacters ? 3 : 1) + extra);
        return written;
}

/* Likewise one message with its line's end; empties the buffer but for it. */
static inline McpMessage assert_line(Buffer *buffer, McpKind kind, size_t size, const JsonTraits *traits,
                                     size_t extra) {
        McpMessage message;

        assert_true(buffer_size(buffer) > 0 && memchr(buffer_data(buffer), '\n', buffer_size(buffer)) ==
                                                       buffer_data(buffer) + buffer_size(buffer) - 1);
        buffer_truncate(buffer, buffer_size(buffer) - 1);
        assert_written(buffer, size, traits, extra);
        assert_number(mcp_parse(buffer_data(buffer), buffer_size(buffer), JSON_DEPTH_MAX, &message, NULL), 0);
        assert_number(message.kind, kind);
        return message;
}
