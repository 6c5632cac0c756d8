/* A tool's result: texts to stdout, what can't be read to a file. */

#include <fcntl.h>

#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

static int base64_digit(char c) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *p = c ? strchr(digits, c) : NULL;

        if (c == '-')
                return 62;
        if (c == '_')
                return 63;
        return p ? (int)(p - digits) : -1;
}

/* False where text is no base64 */
static bool base64_decode(const char *text, Buffer *ret) {
        unsigned bits = 0, n_bits = 0;

        for (; *text && *text != '='; text++) {
                int digit = base64_digit(*text);

                if (*text == '\n' || *text == '\r')
                        continue;
                if (digit < 0)
                        return false;
                bits = (bits << 6 | digit) & 0xffffff;
                n_bits += 6;
                if (n_bits >= 8) {
                        char byte = (char)(bits >> (n_bits -= 8));

                        must(buffer_append(ret, &byte, 1));
                }
        }

        return strspn(text, "=\r\n") == strlen(text);
}

/* The first file has the name that was given; those behind it a number before its last dot. */
static char *file_name(const char *output, unsigned number) {
        const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
        char *name;
        int r;

        if (number <= 1)
                r = asprintf(&name, "%s", output);
        else if (dot && dot > (slash ? slash + 1 : output))
                r = asprintf(&name, "%.*s-%u%s", (int)(dot - output), output, number, dot);
        else
                r = asprintf(&name, "%s-%u", output, number);
        if (r < 0)
                out_of_memory();
        return name;
}

static int status_write(const char *name, const Buffer *data) {
        bool standard = streq(name, "-");
        _cleanup_(closep) int opened = -EBADF;
        int fd = STDOUT_FILENO;

        if (standard) {
                if (isatty(STDOUT_FILENO))
                        return fail(STATUS_USAGE, "binary data isn't written to a terminal: --output=FILE");
                (void)fflush(stdout);
        } else {
                opened = fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
                if (fd < 0)
                        return fail(STATUS_USAGE, "%s can't be written: %s", name, strerror(errno));
        }

        for (size_t done = 0; done < buffer_size(data);) {
                ssize_t n = write(fd, buffer_data(data) + done, buffer_size(data) - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return fail(STATUS_USAGE, "%s can't be written: %s", name, strerror(errno));
                done += n;
        }

        return STATUS_OK;
}

static int status_blob(Cli *cli, const char *kind, JsonSlice data, JsonSlice mime_type, unsigned *n_files) {
        _cleanup_(freep) char *text = json_decode(data), *mime = json_decode(mime_type), *name = NULL;
        Buffer bytes = {};
        int status = STATUS_OK;

        if (!text || !base64_decode(text, &bytes))
                status = fail(STATUS_SERVER, "the server's %s is no base64", kind);
        else if (!cli->output) {
                if (!cli->quiet)
                        note("mcp-exec: %s (%s, %zu bytes) not shown: --output=FILE writes it to a file", kind,
                             mime ?: "of unknown type", buffer_size(&bytes));
        } else {
                name = file_name(cli->output, ++*n_files);
                status = status_write(name, &bytes);
                if (status == STATUS_OK && !cli->quiet && !streq(name, "-"))
                        note("mcp-exec: %s (%s, %zu bytes) written to %s", kind, mime ?: "of unknown type",
                             buffer_size(&bytes), name);
        }

        buffer_done(&bytes);
        return status;
}

static int status_item(Cli *cli, FILE *file, JsonSlice item, unsigned *n_files) {
        _cleanup_(freep) char *type = json_decode(json_get(item, "type")), *text = NULL;
        JsonSlice resource = json_get(item, "resource");

        if (!type)
                type = strdup("");
        if (type && streq(type, "text"))
                text = json_decode(json_get(item, "text"));
        else if (type && (streq(type, "image") || streq(type, "audio")))
                return status_blob(cli, type, json_get(item, "data"), json_get(item, "mimeType"), n_files);
        else if (type && streq(type, "resource") && json_get(resource, "blob").data)
                return status_blob(cli, "resource", json_get(resource, "blob"), json_get(resource, "mimeType"),
                                   n_files);
        else if (type && streq(type, "resource"))
                text = json_decode(json_get(resource, "text"));
        else if (type && streq(type, "resource_link"))
                text = json_decode(json_get(item, "uri"));

        if (text)
                put_lines(file, text, strlen(text));
        else
                put_json(file, item);
        return STATUS_OK;
}

/* What of the result can be opened; the service has checked it, other services might not. */
static int status_open_result(const char *text, JsonSlice *ret) {
        *ret = json_open(text);
        return ret->data ? STATUS_OK : fail(STATUS_UNREACHABLE, "the service's answer is no JSON");
}

int status_show_result(Cli *cli, const char *text) {
        const char *position = NULL;
        JsonSlice result, content, item;
        unsigned n_files = 0;
        bool is_error;
        int status;

        status = status_open_result(text, &result);
        if (status != STATUS_OK)
                return status;

        is_error = json_is(json_get(result, "isError"), 't');
        content = json_get(result, "content");
        if (cli->json) {
                put_json(stdout, result);
                /* Files are written all the same. */
                while (cli->output && status == STATUS_OK && json_next_element(content, &position, &item)) {
                        JsonSlice type = json_get(item, "type");

                        if (json_equal(type, "image") || json_equal(type, "audio") ||
                            json_get(json_get(item, "resource"), "blob").data)
                                status = status_item(cli, stdout, item, &n_files);
                }
        } else if (json_is(content, '[')) {
                bool any = false;

                while (status == STATUS_OK && json_next_element(content, &position, &item)) {
                        status = status_item(cli, is_error ? stderr : stdout, item, &n_files);
                        any = true;
                }
                if (!any && json_get(result, "structuredContent").data)
                        put_json_indented(is_error ? stderr : stdout, json_get(result, "structuredContent"));
        } else
                put_json_indented(stdout, result);

        if (status == STATUS_OK && cli->output && n_files == 0 && !cli->quiet)
                note("mcp-exec: nothing was written to %s: the result has no image, audio or blob", cli->output);
        return status == STATUS_OK && is_error ? STATUS_TOOL : status;
}

static void show_member(FILE *file, JsonSlice object, const char *name) {
        _cleanup_(freep) char *text = json_decode(json_get(object, name));

        if (text && *text)
                put_text(file, text, strlen(text));
}

/* How the code ended, as a shell would say it */
static int code_status(JsonSlice structured) {
        JsonSlice exception = json_get(structured, "exception");
        _cleanup_(freep) char *type = json_decode(json_get(exception, "type"));
        _cleanup_(freep) char *message = json_decode(json_get(exception, "message"));
        uint64_t number;

        if (json_is(json_get(structured, "timed_out"), 't'))
                return STATUS_TIMEOUT;
        if (json_unsigned(json_get(structured, "exit_code"), &number))
                return number & 0xff;
        if (type && streq(type, "SystemExit")) {
                char *end = NULL;
                long code = message ? strtol(message, &end, 10) : 0;

                if (!message || streq(message, "") || streq(message, "None"))
                        return 0;
                return *end ? 1 : (int)(code & 0xff);
        }
        return json_is(exception, '{') ? STATUS_TOOL : STATUS_OK;
}

int status_show_run(Cli *cli, const char *text) {
        JsonSlice result, structured, exception;
        _cleanup_(freep) char *type = NULL;
        int status;

        status = status_open_result(text, &result);
        if (status != STATUS_OK)
                return status;
        structured = json_get(result, "structuredContent");
        if (!json_is(structured, '{') || !json_get(structured, "stdout").data)
                return status_show_result(cli, text);

        status = code_status(structured);
        if (status == STATUS_OK && json_is(json_get(result, "isError"), 't') &&
            !json_is(json_get(structured, "exception"), '{'))
                status = STATUS_TOOL;
        if (cli->json) {
                int shown = status_show_result(cli, text);

                return shown == STATUS_OK || shown == STATUS_TOOL ? status : shown;
        }

        show_member(stdout, structured, "stdout");
        (void)fflush(stdout);
        show_member(stderr, structured, "stderr");
        show_member(stdout, structured, "value");
        if (json_is(json_get(structured, "value"), '"'))
                (void)fputc('\n', stdout);

        exception = json_get(structured, "exception");
        type = json_decode(json_get(exception, "type"));
        if (!type || !streq(type, "SystemExit"))
                show_member(stderr, exception, "traceback");
        else if (status == 1 && !json_equal(json_get(exception, "message"), "1")) {
                /* As the interpreter does with exit("text") */
                show_member(stderr, exception, "message");
                (void)fputc('\n', stderr);
        }
        if (json_is(json_get(structured, "truncated"), 't') && !cli->quiet)
                note("mcp-exec: parts of the output were left out");
        return status;
}
