#include "base/buffer.h"

#include <stdio.h>

#include "base/macro.h"

#define BUFFER_KEEP ((size_t)4096)

int buffer_reserve(Buffer *buffer, size_t size) {
        size_t used = buffer_size(buffer), wanted;
        char *data;

        if (size <= buffer->allocated - buffer->end)
                return 0;
        if (size > SIZE_MAX / 2 - used)
                return -ENOMEM;

        /* Moving the content to the front is enough when at least half of the space is free: each byte is then
         * moved at most once per byte consumed. */
        if (used + size <= buffer->allocated && buffer->begin >= buffer->allocated / 2) {
                memmove(buffer->data, buffer->data + buffer->begin, used);
                buffer->begin = 0;
                buffer->end = used;
                return 0;
        }

        wanted = MAX(used + size, MIN(buffer->allocated * 2, used + size + ((size_t)8 << 20)));
        wanted = MAX(wanted, (size_t)512);
        data = malloc(wanted);
        if (!data)
                return -ENOMEM;

        if (used > 0)
                memcpy(data, buffer_data(buffer), used);
        free(buffer->data);
        *buffer = (Buffer){ .data = data, .end = used, .allocated = wanted };
        return 0;
}

int buffer_append(Buffer *buffer, const void *data, size_t size) {
        int r;

        if (size == 0)
                return 0;

        r = buffer_reserve(buffer, size);
        if (r < 0)
                return r;

        memcpy(buffer->data + buffer->end, data, size);
        buffer->end += size;
        return 0;
}

int buffer_append_string(Buffer *buffer, const char *string) {
        return buffer_append(buffer, string, strlen(string));
}

int buffer_append_number(Buffer *buffer, unsigned long long number) {
        char digits[24];
        size_t at = sizeof(digits);

        do {
                digits[--at] = '0' + number % 10;
                number /= 10;
        } while (number > 0);

        return buffer_append(buffer, digits + at, sizeof(digits) - at);
}

void buffer_consume(Buffer *buffer, size_t size) {
        buffer->begin += MIN(size, buffer_size(buffer));
        if (buffer->begin < buffer->end)
                return;

        if (buffer->allocated > BUFFER_KEEP)
                buffer_done(buffer);
        else
                buffer->begin = buffer->end = 0;
}

void buffer_truncate(Buffer *buffer, size_t size) {
        buffer->end = buffer->begin + MIN(size, buffer_size(buffer));
}

void buffer_done(Buffer *buffer) {
        free(buffer->data);
        *buffer = (Buffer){};
}
