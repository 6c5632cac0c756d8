/* An MCP server (legacy era) for payloads that are larger than anything should hold: it looks at no more of a line than
 * its start and its end.
 *
 * A tools/call of "make" with arguments {"size":N} is answered with a text of N bytes, any other request with the
 * number of bytes of its line; "id_last":true near the start has the id behind the result. */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK ((size_t)1 << 20)
#define START 4096

static char block[BLOCK], start[START + 1];

static void write_all(const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(STDOUT_FILENO, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        exit(EXIT_FAILURE);
                data += n;
                size -= (size_t)n;
        }
}

static void say(const char *text) {
        write_all(text, strlen(text));
}

static unsigned long long number_behind(const char *key) {
        const char *found = strstr(start, key);

        return found ? strtoull(found + strlen(key), NULL, 10) : 0;
}

static void make(unsigned long long size) {
        memset(block, 'm', BLOCK);
        while (size > 0) {
                size_t n = size < BLOCK ? (size_t)size : BLOCK;

                write_all(block, n);
                size -= n;
        }
}

static void answer(unsigned long long size) {
        char head[256];
        bool id_last = strstr(start, "\"id_last\":true");

        if (!strstr(start, "\"id\":") || (!strstr(start, "\"method\":")))
                return;

        (void)snprintf(head, sizeof(head), "{\"jsonrpc\":\"2.0\",\"id\":%llu,", number_behind("\"id\":"));
        say(id_last ? "{" : head);
        if (strstr(start, "\"initialize\""))
                say("\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
                    "\"serverInfo\":{\"name\":\"bulk\",\"version\":\"1\"}}");
        else if (strstr(start, "\"server/discover\""))
                say("\"error\":{\"code\":-32601,\"message\":\"Method not found\"}");
        else if (strstr(start, "\"name\":\"make\"")) {
                say("\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"");
                make(number_behind("\"size\":"));
                say("\"}]}");
        } else {
                char text[64];

                (void)snprintf(text, sizeof(text), "\"result\":{\"size\":%llu}", size);
                say(text);
        }
        if (id_last) {
                (void)snprintf(head, sizeof(head), ",\"jsonrpc\":\"2.0\",\"id\":%llu", number_behind("\"id\":"));
                say(head);
        }
        say("}\n");
}

int main(void) {
        static char buffer[BLOCK];
        unsigned long long size = 0;
        size_t kept = 0;
        ssize_t n;

        while ((n = read(STDIN_FILENO, buffer, sizeof(buffer))) != 0) {
                const char *p = buffer;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return EXIT_FAILURE;

                while (n > 0) {
                        const char *end = memchr(p, '\n', (size_t)n);
                        size_t piece = end ? (size_t)(end - p) : (size_t)n,
                               keep = piece < START - kept ? piece : START - kept;

                        memcpy(start + kept, p, keep);
                        kept += keep;
                        size += piece;
                        if (end) {
                                start[kept] = 0;
                                answer(size);
                                kept = 0;
                                size = 0;
                                piece++;
                        }
                        p += piece;
                        n -= (ssize_t)piece;
                }
        }

        return EXIT_SUCCESS;
}
