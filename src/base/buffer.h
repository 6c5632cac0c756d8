#pragma once

#include <stddef.h>

/* A growing run of bytes that is filled at its end and consumed from its front. Zero-initialised is empty;
 * buffer_done() frees it and leaves it empty. */
typedef struct Buffer {
        char *data;
        size_t begin, end, allocated;
} Buffer;

static inline const char *buffer_data(const Buffer *buffer) {
        return buffer->data ? buffer->data + buffer->begin : NULL;
}

static inline size_t buffer_size(const Buffer *buffer) {
        return buffer->end - buffer->begin;
}

/* Makes room for size more bytes behind the end. -ENOMEM, and the content is untouched. */
int buffer_reserve(Buffer *buffer, size_t size);

/* Appends a copy. -ENOMEM, and the content is untouched. */
int buffer_append(Buffer *buffer, const void *data, size_t size);
int buffer_append_string(Buffer *buffer, const char *string);
int buffer_append_number(Buffer *buffer, unsigned long long number);

/* Drops size bytes (at most all) from the front. An emptied buffer keeps only a small allocation, so that many
 * idle ones cost little. */
void buffer_consume(Buffer *buffer, size_t size);

/* Drops everything behind the first size bytes: undoes appends. */
void buffer_truncate(Buffer *buffer, size_t size);

void buffer_done(Buffer *buffer);
