#include "worker/spill.h"

struct Spill {
        const WireProtocol *wire;
        JsonStream stream;
        SpillLine line;
        size_t rest_max;
        int (*charge)(void *userdata, uint64_t bytes);
        void *userdata;
        bool in_result, dropped; /* dropped: nothing of it is kept */
        bool text;               /* the line is no JSON */
        Buffer raw, quoted;      /* of a text: what isn't in the file yet, before and behind */
        int error;
};

int spill_new(const WireProtocol *wire, unsigned depth_max, size_t rest_max,
              int (*charge)(void *userdata, uint64_t bytes), void *userdata, Spill **ret) {
        Spill *spill = new0(Spill, 1);

        if (!spill)
                return -ENOMEM;

        spill->wire = wire;
        spill->stream = (JsonStream){ .depth_max = depth_max,
                                      .names = &wire->result_name,
                                      .n_names = wire->result_name ? 1 : 0,
                                      .parent = wire->result_parent };
        spill->rest_max = rest_max;
        spill->charge = charge;
        spill->userdata = userdata;
        if (!wire->result_name) {
                int r = memory_file_new(&spill->line.file);

                spill->in_result = true;
                if (r < 0)
                        spill_drop_result(spill, r);
        }

        *ret = spill;
        return 0;
}

void spill_line_done(SpillLine *line) {
        buffer_done(&line->rest);
        line->file = memory_file_free(line->file);
}

Spill *spill_free(Spill *spill) {
        if (spill) {
                spill_line_done(&spill->line);
                buffer_done(&spill->raw);
                buffer_done(&spill->quoted);
        }
        free(spill);
        return NULL;
}

static int keep(Spill *spill, const char *data, size_t size) {
        int r;

        if (!spill->in_result) {
                if (buffer_size(&spill->line.rest) + size > spill->rest_max)
                        return -EMSGSIZE;
                return buffer_append(&spill->line.rest, data, size);
        }
        if (spill->dropped)
                return 0;

        r = spill->charge(spill->userdata, size);
        if (r >= 0)
                r = memory_file_append(spill->line.file, data, size);
        if (r < 0)
                spill_drop_result(spill, r);
        return 0;
}

static int begin_result(Spill *spill) {
        int r;

        if (!spill->line.file)
                spill->line.at = buffer_size(&spill->line.rest);
        r = keep(spill, "0", 1);
        if (r < 0)
                return r;

        spill->in_result = true;
        if (spill->line.file && spill->wire->result_parent)
                spill_drop_result(spill, -EPROTO);
        else if (spill->line.file)
                spill->dropped = true; /* one that stands twice is no answer */
        else if (!spill->dropped) {
                r = memory_file_new(&spill->line.file);
                if (r < 0)
                        spill_drop_result(spill, r);
        }
        return 0;
}

void spill_drop_result(Spill *spill, int error) {
        spill->dropped = true;
        spill->error = spill->error ?: error;
        spill->line.file = memory_file_free(spill->line.file);
}

bool spill_holds(const Spill *spill) {
        return spill->line.file;
}

void spill_find_id(const Spill *spill, IdFinder *finder) {
        *finder = (IdFinder){};
        id_finder_feed(finder, buffer_data(&spill->line.rest), buffer_size(&spill->line.rest));
        if (spill->in_result) {
                finder->depth = spill->stream.depth;
                finder->in_string = json_stream_in_string(&spill->stream);
        }
}

static int append_text(Spill *spill, const char *data, size_t size, bool last) {
        size_t used;
        int r;

        if (spill->dropped)
                return 0;

        buffer_truncate(&spill->quoted, 0);
        r = buffer_append(&spill->raw, data, size);
        if (r >= 0)
                r = json_append_escaped(&spill->quoted, buffer_data(&spill->raw), buffer_size(&spill->raw), last,
                                        &used);
        if (r >= 0 && last)
                r = buffer_append(&spill->quoted, "\"", 1);
        if (r < 0) {
                spill_drop_result(spill, r);
                return 0;
        }

        buffer_consume(&spill->raw, used);
        return keep(spill, buffer_data(&spill->quoted), buffer_size(&spill->quoted));
}

/* What looked like JSON is none: it is written anew, as a string. That is done at once, so it may not be much. */
static int become_text(Spill *spill) {
        _cleanup_(memory_file_freep) MemoryFile *before = TAKE_PTR(spill->line.file);
        char piece[4096];
        ssize_t n;
        int r;

        spill->text = true;
        if (spill->dropped)
                return 0;

        r = memory_file_size(before) > spill->rest_max ? -EILSEQ : memory_file_new(&spill->line.file);
        if (r < 0) {
                spill_drop_result(spill, r);
                return 0;
        }

        r = keep(spill, "\"", 1);
        for (uint64_t at = 0; r >= 0 && at < memory_file_size(before); at += (uint64_t)n) {
                n = memory_file_read(before, at, piece, sizeof(piece));
                if (n < 0) {
                        spill_drop_result(spill, (int)n);
                        return 0;
                }
                r = append_text(spill, piece, (size_t)n, /* last= */ false);
        }
        return r;
}

static int feed_whole(Spill *spill, const char *data, size_t size) {
        size_t used;
        int r;

        if (!spill->text) {
                if (json_stream_feed(&spill->stream, data, size, &used) >= 0)
                        return keep(spill, data, size);
                r = become_text(spill);
                if (r < 0)
                        return r;
        }
        return append_text(spill, data, size, /* last= */ false);
}

size_t spill_start(const Spill *spill, char *bytes, size_t size) {
        ssize_t n = spill->line.file ? memory_file_read(spill->line.file, 0, bytes, size) : 0;

        return n < 0 ? 0 : (size_t)n;
}

int spill_feed(Spill *spill, const char *data, size_t size, size_t *ret_used) {
        *ret_used = 0;
        if (!spill->wire->result_name) {
                *ret_used = size;
                return feed_whole(spill, data, size);
        }

        while (size > 0) {
                uint64_t before = spill->stream.offset;
                size_t used = 0;
                int event, r;

                event = json_stream_feed(&spill->stream, data, size, &used);
                if (event < 0) {
                        /* Of a character that is cut off the beginning was taken with what came before. */
                        used = (size_t)(spill->stream.offset - MIN(before, spill->stream.offset));
                        if (keep(spill, data, used) >= 0)
                                *ret_used += used;
                        return event;
                }

                r = keep(spill, data, used);
                if (r < 0)
                        return r;
                data += used;
                size -= used;
                *ret_used += used;
                if (event == JSON_STREAM_BEGIN)
                        r = begin_result(spill);
                if (r < 0)
                        return r;
                if (event == JSON_STREAM_END)
                        spill->in_result = false;
        }

        return 0;
}

int spill_finish(Spill *spill, SpillLine *ret) {
        int r;

        if (!spill->wire->result_name) {
                r = !spill->text && json_stream_finish(&spill->stream) < 0 ? become_text(spill) : 0;
                if (r >= 0 && spill->text)
                        r = append_text(spill, "", 0, /* last= */ true);
                if (spill->text)
                        spill->stream.traits = (JsonTraits){};
        } else
                r = json_stream_finish(&spill->stream);
        if (r < 0)
                return r;
        if (spill->line.file && !spill->error)
                spill->error = memory_file_seal(spill->line.file);

        *ret = spill->line;
        ret->traits = spill->stream.traits;
        spill->line = (SpillLine){};
        return spill->error;
}

JsonError spill_error(const Spill *spill) {
        return (JsonError){ .offset = spill->stream.offset, .reason = spill->stream.reason };
}
