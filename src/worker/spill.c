#include "worker/spill.h"

static const char *const names[] = { "result" };

struct Spill {
        JsonStream stream;
        SpillLine line;
        size_t rest_max;
        int (*charge)(void *userdata, uint64_t bytes);
        void *userdata;
        bool in_result, dropped; /* dropped: nothing of it is kept */
        int error;
};

int spill_new(unsigned depth_max, size_t rest_max, int (*charge)(void *userdata, uint64_t bytes), void *userdata,
              Spill **ret) {
        Spill *spill = new0(Spill, 1);

        if (!spill)
                return -ENOMEM;

        spill->stream = (JsonStream){ .depth_max = depth_max, .names = names, .n_names = ELEMENTSOF(names) };
        spill->rest_max = rest_max;
        spill->charge = charge;
        spill->userdata = userdata;
        *ret = spill;
        return 0;
}

void spill_line_done(SpillLine *line) {
        buffer_done(&line->rest);
        line->file = memory_file_free(line->file);
}

Spill *spill_free(Spill *spill) {
        if (spill)
                spill_line_done(&spill->line);
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

        r = keep(spill, "0", 1);
        if (r < 0)
                return r;

        spill->in_result = true;
        if (spill->line.file)
                spill->dropped = true; /* one that stands twice is no answer */
        else {
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

void spill_find_id(const Spill *spill, IdFinder *finder) {
        *finder = (IdFinder){};
        id_finder_feed(finder, buffer_data(&spill->line.rest), buffer_size(&spill->line.rest));
        if (spill->in_result) {
                finder->depth = spill->stream.depth;
                finder->in_string = json_stream_in_string(&spill->stream);
        }
}

int spill_feed(Spill *spill, const char *data, size_t size, size_t *ret_used) {
        *ret_used = 0;
        while (size > 0) {
                uint64_t before = spill->stream.offset;
                size_t used = 0;
                int event, r;

                event = json_stream_feed(&spill->stream, data, size, &used);
                if (event < 0) {
                        /* Of a character that is cut off the beginning was taken with what came before. */
                        used = (size_t)(spill->stream.offset - MIN(before, spill->stream.offset));
                        (void)keep(spill, data, used);
                        *ret_used += used;
                        return event;
                }

                r = keep(spill, data, used);
                if (r >= 0 && event == JSON_STREAM_BEGIN)
                        r = begin_result(spill);
                if (r < 0)
                        return r;
                if (event == JSON_STREAM_END)
                        spill->in_result = false;
                data += used;
                size -= used;
                *ret_used += used;
        }

        return 0;
}

int spill_finish(Spill *spill, SpillLine *ret) {
        int r;

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
