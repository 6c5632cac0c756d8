#include "worker/outgoing-file.h"

#include <fcntl.h>

#define CHUNK ((size_t)64 * 1024)
#define TURN_MAX ((uint64_t)1 << 20) /* bytes */
#define TURN_TIME ((uint64_t)100)    /* usec, where bytes are looked at */

struct OutgoingFile {
        MemoryFile *file;
        RequestFilePart parts[2];
        size_t n_parts, at;
        OutgoingForm form;

        /* Where bytes have to be looked at, or the kernel can't move them: what was read, and how much of it is
         * written. taken: bytes of the file that it stands for. */
        char *chunk;
        size_t chunk_size, chunk_at;
};

int outgoing_file_new(MemoryFile *file, const RequestFilePart *parts, size_t n_parts, OutgoingForm form,
                      OutgoingFile **ret) {
        OutgoingFile *outgoing = new0(OutgoingFile, 1);

        if (!outgoing)
                return -ENOMEM;

        outgoing->file = memory_file_ref(file);
        outgoing->n_parts = n_parts;
        outgoing->form = form;
        for (size_t i = 0; i < n_parts; i++)
                outgoing->parts[i] = parts[i];
        *ret = outgoing;
        return 0;
}

OutgoingFile *outgoing_file_free(OutgoingFile *outgoing) {
        if (!outgoing)
                return NULL;

        memory_file_free(outgoing->file);
        free(outgoing->chunk);
        free(outgoing);
        return NULL;
}

uint64_t outgoing_file_left(const OutgoingFile *outgoing) {
        uint64_t left = outgoing->chunk_size - outgoing->chunk_at;

        for (size_t i = outgoing->at; i < outgoing->n_parts; i++)
                left += outgoing->parts[i].size;

        return left;
}

static size_t strip_line_breaks(char *data, size_t size) {
        size_t kept = 0;

        for (size_t i = 0; i < size; i++)
                if (data[i] != '\n' && data[i] != '\r')
                        data[kept++] = data[i];

        return kept;
}

static int read_chunk(OutgoingFile *outgoing, RequestFilePart *part) {
        size_t used, size;
        ssize_t n;

        if (!outgoing->chunk)
                outgoing->chunk = malloc(CHUNK + 1);
        if (!outgoing->chunk)
                return -ENOMEM;

        n = memory_file_read(outgoing->file, part->offset, outgoing->chunk, MIN(CHUNK, part->size));
        if (n <= 0)
                return n < 0 ? (int)n : -EIO;

        size = used = (size_t)n;
        if (outgoing->form == OUTGOING_ONE_LINE)
                size = strip_line_breaks(outgoing->chunk, size);
        else if (outgoing->form == OUTGOING_DECODED)
                size = json_decode_piece(outgoing->chunk, size, /* last= */ size == part->size, &used);
        if (used == 0)
                return -EIO;

        part->offset += used;
        part->size -= used;
        outgoing->chunk_at = 0;
        outgoing->chunk_size = size;
        return 0;
}

static int write_chunk(OutgoingFile *outgoing, int fd) {
        ssize_t n = write(fd, outgoing->chunk + outgoing->chunk_at, outgoing->chunk_size - outgoing->chunk_at);

        if (n < 0)
                return -errno;

        outgoing->chunk_at += (size_t)n;
        return 0;
}

static int splice_part(const OutgoingFile *outgoing, RequestFilePart *part, int fd) {
        loff_t offset = (loff_t)part->offset;
        ssize_t n = splice(memory_file_fd(outgoing->file), &offset, fd, NULL, MIN(part->size, TURN_MAX),
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

        if (n <= 0)
                return n < 0 ? -errno : -EIO;

        part->offset += (uint64_t)n;
        part->size -= (uint64_t)n;
        return 0;
}

ssize_t outgoing_file_write(OutgoingFile *outgoing, int fd, bool pipe) {
        uint64_t before = outgoing_file_left(outgoing), left = before;
        bool moved = pipe && outgoing->form == OUTGOING_AS_IT_IS;
        uint64_t until = moved ? USEC_INFINITY : clock_usec() + TURN_TIME;
        int r = 0;

        while (left > 0 && before - left < TURN_MAX && r >= 0 && (moved || left == before || clock_usec() < until)) {
                RequestFilePart *part = &outgoing->parts[outgoing->at];

                if (outgoing->chunk_at < outgoing->chunk_size)
                        r = write_chunk(outgoing, fd);
                else if (part->size == 0)
                        outgoing->at++;
                else if (moved)
                        r = splice_part(outgoing, part, fd);
                else
                        r = read_chunk(outgoing, part);
                if (r == -EINTR)
                        r = 0;
                left = outgoing_file_left(outgoing);
        }

        return r == -EAGAIN && left < before ? (ssize_t)(before - left) : r < 0 ? r : (ssize_t)(before - left);
}
