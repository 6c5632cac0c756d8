/* Lines whose result goes into a file: the first two bytes say whose line it is and in which pieces it comes, the rest
 * is the line. Put together again it is what it was, and it means what it would have meant without a file. */

#include "base/macro.h"
#include "fuzz.h"
#include "unit.h"
#include "wire/protocol.h"
#include "worker/spill.h"

#define DEPTH 32
#define REST_MAX ((size_t)1 << 20)
#define REST_SMALL ((size_t)64)

typedef struct Charge {
        uint64_t sum, max;
} Charge;

static int charge(void *userdata, uint64_t bytes) {
        Charge *charge = userdata;

        if (charge->sum + bytes > charge->max)
                return -EMSGSIZE;
        charge->sum += bytes;
        return 0;
}

static char *read_file(const MemoryFile *file, size_t *ret_size) {
        size_t size = memory_file_size(file);
        char *text = malloc(size + 1);

        assert_true(text);
        assert_number(memory_file_read(file, 0, text, size), (long long)size);
        *ret_size = size;
        return text;
}

static bool find_id(const WireProtocol *wire, IdFinder *finder, const char *text, size_t size, uint64_t *ret) {
        id_finder_feed(finder, text, size);
        return wire->found_id(finder, ret);
}

/* Whoever has to be told that the line is wrong is found, wherever the file began. */
static void check_failed(const WireProtocol *wire, const Spill *spill, const char *text, size_t size, size_t used) {
        uint64_t number = 0, wanted = 0;
        IdFinder whole = {}, after = {};

        if (!wire->found_id)
                return;
        spill_find_id(spill, &after);
        if (find_id(wire, &whole, text, size, &wanted)) {
                assert_true(find_id(wire, &after, text + used, size - used, &number));
                assert_true(number == wanted);
        }
}

static bool same(JsonSlice a, JsonSlice b) {
        return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static void check_message(const WireProtocol *wire, const SpillLine *line, const char *text, size_t size,
                          const Charge *charge) {
        size_t n = buffer_size(&line->rest), file_size = 0;
        _cleanup_(freep) char *result = line->file ? read_file(line->file, &file_size) : NULL;
        const char *rest = buffer_data(&line->rest);
        McpMessage whole, message;
        Buffer again = {};

        assert_number(wire->parse(text, size, DEPTH, &whole, NULL), 0);
        assert_number(wire->parse(rest, n, DEPTH, &message, NULL), 0);
        assert_number(line->traits.newlines, whole.traits.newlines);
        assert_number(line->traits.noncharacters, whole.traits.noncharacters);
        if (!line->file) {
                assert_bytes(rest, n, text, size);
                return;
        }

        /* Where it isn't the line's result, it stands beside what counts, or twice: then it isn't put together again.
         */
        assert_true(file_size > 0 && file_size <= charge->sum);
        assert_true(line->at < n && rest[line->at] == '0');
        assert_number(buffer_append(&again, rest, line->at), 0);
        assert_number(buffer_append(&again, result, file_size), 0);
        assert_number(buffer_append(&again, rest + line->at + 1, n - line->at - 1), 0);
        if (message.kind == MCP_RESULT && message.result.data == rest + line->at) {
                assert_bytes(buffer_data(&again), buffer_size(&again), text, size);
                assert_number(whole.kind, MCP_RESULT);
                assert_bytes(whole.result.data, whole.result.size, result, file_size);
                assert_true(same(whole.id, message.id) && whole.number == message.number && whole.ours == message.ours);
        } else if (wire->result_parent)
                assert_bytes(buffer_data(&again), buffer_size(&again), text, size);
        else
                assert_true(message.kind == whole.kind);
        buffer_done(&again);
}

static void check_text(const SpillLine *line, const char *text, size_t size) {
        size_t file_size;
        _cleanup_(freep) char *result = read_file(line->file, &file_size);
        bool json = json_scan(text, size, DEPTH, NULL, 0, NULL, NULL) >= 0;
        Buffer quoted = {};

        if (json)
                assert_bytes(result, file_size, text, size);
        else {
                assert_number(json_append_quoted(&quoted, text, size), 0);
                assert_bytes(result, file_size, buffer_data(&quoted), buffer_size(&quoted));
                assert_false(line->traits.newlines || line->traits.noncharacters);
        }
        buffer_done(&quoted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const WireProtocol *const wires[] = { &mcp_protocol, &control_protocol, &lines_protocol,
                                                     &once_protocol };
        const WireProtocol *wire;
        const char *text;
        size_t piece, used = 0, at;
        SpillLine line = {};
        JsonError error = {};
        Charge charged = {};
        Spill *spill;
        int r = 0, scanned;

        if (size < 3 || size > 65536)
                return 0;

        wire = wires[data[0] & 3];
        charged.max = data[0] & 4 ? data[1] : UINT64_MAX;
        piece = data[0] & 8 ? size : (size_t)1 + data[1] % 100;
        text = (const char *)data + 2;
        size -= 2;
        scanned = json_scan(text, size, DEPTH, NULL, 0, NULL, &error);

        assert_number(spill_new(wire, DEPTH, data[0] & 16 ? REST_SMALL : REST_MAX, charge, &charged, &spill), 0);
        for (at = 0; at < size && r >= 0; at += used) {
                size_t n = MIN(piece, size - at);
                char *copy = malloc(n);

                assert_true(copy);
                memcpy(copy, text + at, n);
                r = spill_feed(spill, copy, n, &used);
                free(copy);
                assert_true(used <= n && (r < 0 || used == n));
        }
        if (r < 0) {
                assert_true((r == scanned && spill_error(spill).offset == error.offset) ||
                            (r == -EMSGSIZE && data[0] & 16));
                assert_true(wire->parse);
                check_failed(wire, spill, text, size, at);
        } else {
                r = spill_finish(spill, &line);
                if (r == -EBADMSG && wire->parse)
                        check_failed(wire, spill, text, size, size);
                if (r == 0)
                        wire->parse ? check_message(wire, &line, text, size, &charged) : check_text(&line, text, size);
                else
                        assert_true(!line.file);
                assert_true(r == 0 || (r == scanned && wire->parse) || (r == -EPROTO && wire->result_parent) ||
                            (r == -EMSGSIZE && data[0] & 4) || (r == -EILSEQ && !wire->parse && data[0] & 16));
        }

        spill_line_done(&line);
        spill_free(spill);
        return 0;
}
