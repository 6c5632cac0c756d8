/* import: the servers of an MCP client's file, each into a file of its own. */

#include <fcntl.h>
#include <sys/stat.h>

#include "base/text.h"
#include "broker/catalogue.h"
#include "mcp-exec/output.h"
#include "mcp-exec/tools.h"

typedef struct Import {
        Cli *cli;
        const char *file;
        char *folder; /* servers.d */
        unsigned n_written;
        Buffer json;
} Import;

/* Where clients keep the map of their servers */
static const char *const map_keys[] = { "mcpServers", "servers", "context_servers" };

/* Editors allow comments in their files, and a comma behind the last member: both become blanks, so that places in the
 * text stay what they are. */
static void blank_comments(char *text, size_t size) {
        char *end = text + size, *comma = NULL;

        for (char *p = text; p < end; p++) {
                if (*p == '"') {
                        for (p++; p < end && *p != '"'; p++)
                                if (*p == '\\')
                                        p++;
                        comma = NULL;
                } else if (*p == '/' && (p[1] == '/' || p[1] == '*')) {
                        const char *close = strstr(p + 2, p[1] == '/' ? "\n" : "*/");
                        char *after = !close ? end : text + (close - text) + (p[1] == '/' ? 0 : 2);

                        for (; p < after; p++)
                                if (*p != '\n')
                                        *p = ' ';
                        p--;
                } else if (*p == ',')
                        comma = p;
                else if ((*p == '}' || *p == ']') && comma)
                        *comma = ' ';
                else if (!strchr(" \t\r\n", *p))
                        comma = NULL;
        }
}

/* Of a client that calls through here already: as a server it would call itself. */
static bool is_own_program(JsonSlice server) {
        _cleanup_(freep) char *command = json_decode(json_get(server, "command"));
        const char *slash = command ? strrchr(command, '/') : NULL;

        return command && streq(slash ? slash + 1 : command, "mcp-exec");
}

/* "My Server (beta)" becomes "my-server-beta". NULL where nothing is left. */
static char *make_name(const char *name) {
        char *made = new0(char, strlen(name) + 1), *out = made;

        if (!made)
                out_of_memory();
        for (const char *p = name; *p; p++) {
                char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;

                if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
                        *out++ = c;
                else if (out > made && out[-1] != '-')
                        *out++ = '-';
        }
        while (out > made && out[-1] == '-')
                out--;
        *out = 0;

        if (text_is_name(made))
                return made;
        free(made);
        return NULL;
}

/* Whether the service knows a key: it is asked about a server that has nothing else. */
static bool is_known_key(JsonSlice key) {
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        ServerConfig **servers = NULL;
        const Problem *problem;
        Buffer text = {};
        bool known = true;
        size_t n = 0;

        must(buffer_append_string(&text, "{"));
        must(buffer_append(&text, key.data, key.size));
        must(buffer_append_string(&text, ":null}"));
        if (config_read_servers("", "name", buffer_data(&text), buffer_size(&text), &problems, &servers, &n) >= 0) {
                for (size_t i = 0; i < n; i++)
                        server_config_unref(servers[i]);
                free(servers);
        }
        TAILQ_FOREACH(problem, &problems, link)
                known = known && !strstr(problem->text, "unknown key");

        problems_clear(&problems);
        buffer_done(&text);
        return known;
}

/* The server's keys that the service knows, as a file. Others are the client's own. */
static void make_text(const Import *import, const char *name, JsonSlice server, Buffer *ret) {
        const char *position = NULL;
        JsonSlice key, value;
        bool first = true;

        must(buffer_append_string(ret, "{"));
        while (json_next_member(server, &position, &key, &value)) {
                if (json_equal(key, "name"))
                        continue;
                if (!is_known_key(key)) {
                        if (!import->cli->quiet)
                                note("%s: the key %.*s of %s is left out: it is the client's own", import->file,
                                     (int)key.size, key.data, name);
                        continue;
                }
                must(buffer_append_string(ret, first ? "\n        " : ",\n        "));
                must(buffer_append(ret, key.data, key.size));
                must(buffer_append_string(ret, ": "));
                must(buffer_append(ret, value.data, value.size));
                first = false;
        }
        must(buffer_append_string(ret, "\n}\n"));
}

static int status_make_folder(const char *folder) {
        _cleanup_(freep) char *path = strdup(folder);

        if (!path)
                out_of_memory();
        for (char *p = path + 1; *p; p++)
                if (*p == '/') {
                        *p = 0;
                        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                                return fail(STATUS_USAGE, "%s can't be made: %s", path, strerror(errno));
                        *p = '/';
                }
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                return fail(STATUS_USAGE, "%s can't be made: %s", path, strerror(errno));
        return STATUS_OK;
}

/* Written aside and put in its place in one step; the service reads only whole files. Its environment may hold secrets;
 * for the system, the service's user has to read it. */
static int status_write(const Import *import, const char *path, const Buffer *text) {
        _cleanup_(freep) char *part = NULL;
        _cleanup_(closep) int fd = -EBADF;
        int r = 0;

        if (asprintf(&part, "%s/.import-%d.part", import->folder, (int)getpid()) < 0)
                out_of_memory();
        fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                  import->cli->choice == BUS_CHOICE_SYSTEM ? 0644 : 0600);
        if (fd < 0)
                return fail(STATUS_USAGE, "%s can't be written: %s", path, strerror(errno));

        if (write(fd, buffer_data(text), buffer_size(text)) != (ssize_t)buffer_size(text) || fsync(fd) < 0)
                r = -errno;
        if (r == 0 && (import->cli->force ? rename(part, path) : link(part, path)) < 0)
                r = -errno;
        if (r < 0 || !import->cli->force)
                (void)unlink(part);
        if (r == -EEXIST)
                return fail(STATUS_TOOL, "%s is there already: --force replaces it", path);
        return r < 0 ? fail(STATUS_USAGE, "%s can't be written: %s", path, strerror(-r)) : STATUS_OK;
}

static int status_import_server(Import *import, const char *client_name, JsonSlice server) {
        _cleanup_(freep) char *name = make_name(client_name), *path = NULL;
        ProblemList problems = TAILQ_HEAD_INITIALIZER(problems);
        ServerConfig **servers = NULL;
        const Problem *problem;
        Buffer text = {};
        size_t n = 0;
        int status = STATUS_OK;

        if (is_own_program(server)) {
                if (!import->cli->quiet)
                        note("%s: server %s is left out: the client calls it by mcp-exec already", import->file,
                             client_name);
                return STATUS_OK;
        }
        if (!name)
                return fail(STATUS_TOOL, "%s: %s can't name a server: that is 1 to 64 characters of a-z, 0-9 and -",
                            import->file, client_name);
        if (!json_is(server, '{'))
                return fail(STATUS_TOOL, "%s: server %s is no object", import->file, client_name);
        if (asprintf(&path, "%s/%s.json", import->folder, name) < 0)
                out_of_memory();

        make_text(import, client_name, server, &text);
        if (config_read_servers(path, name, buffer_data(&text), buffer_size(&text), &problems, &servers, &n) < 0) {
                status = STATUS_TOOL;
                TAILQ_FOREACH(problem, &problems, link) {
                        const char *colon = strstr(problem->text, ": ");

                        (void)fail(status, "%s: server %s can't be taken: %s", import->file, client_name,
                                   colon && problem->text[0] <= '9' ? colon + 2 : problem->text);
                }
        } else {
                for (size_t i = 0; i < n; i++)
                        server_config_unref(servers[i]);
                free(servers);
                status = status_write(import, path, &text);
        }

        if (status == STATUS_OK) {
                add_json_string(&import->json, import->n_written++ > 0 ? ",{\"name\":" : "{\"name\":", name);
                add_json_string(&import->json, ",\"file\":", path);
                must(buffer_append_string(&import->json, "}"));
                if (!import->cli->json && !import->cli->quiet)
                        printf("%s: %s\n", name, path);
                if (import->cli->choice == BUS_CHOICE_SYSTEM && json_get(server, "env").data && !import->cli->quiet)
                        note("mcp-exec: everybody can read %s, and its env may hold secrets", path);
        }

        problems_clear(&problems);
        buffer_done(&text);
        return status;
}

static int status_import_all(Import *import, Buffer *text) {
        JsonSlice tree = {}, map = {}, key, value;
        const char *position = NULL;
        JsonError error;
        int status = STATUS_OK;

        blank_comments(text->data + text->begin, buffer_size(text));
        if (json_scan(buffer_data(text), buffer_size(text), JSON_DEPTH_MAX, NULL, 0, NULL, &error) < 0) {
                unsigned line, column;

                line_and_column(buffer_data(text), error.offset, &line, &column);
                return fail(STATUS_USAGE, "%s is no JSON: line %u, column %u: %s", import->file, line, column,
                            error.reason);
        }

        tree = schema_open(buffer_data(text));
        for (size_t i = 0; i < ELEMENTSOF(map_keys) && !map.data; i++)
                map = json_get(tree, map_keys[i]);
        if (!json_is(map, '{'))
                return fail(STATUS_USAGE,
                            "%s has no servers: an object with the key mcpServers is wanted, as MCP "
                            "clients write it",
                            import->file);

        status = status_make_folder(import->folder);
        if (status != STATUS_OK)
                return status;

        while (json_next_member(map, &position, &key, &value)) {
                _cleanup_(freep) char *name = json_decode(key);
                int r;

                if (!name)
                        out_of_memory();
                r = status_import_server(import, name, value);
                status = status == STATUS_OK ? r : status;
        }
        return status;
}

int verb_import(Cli *cli, int argc _unused_, char *argv[]) {
        Import import = { .cli = cli, .file = streq(argv[1], "-") ? "standard input" : argv[1] };
        char **folders = catalogue_standard_folders(cli->choice != BUS_CHOICE_SYSTEM);
        Buffer text = {};
        int status;

        if (!folders || asprintf(&import.folder, "%s/servers.d", folders[0]) < 0)
                out_of_memory();
        strings_free(folders);

        must(buffer_append_string(&import.json, "["));
        status = status_read_file(argv[1], &text);
        if (status == STATUS_OK)
                status = status_import_all(&import, &text);
        must(buffer_append_string(&import.json, "]"));
        if (cli->json)
                put_json(stdout, (JsonSlice){ buffer_data(&import.json), buffer_size(&import.json) });

        free(import.folder);
        buffer_done(&import.json);
        buffer_done(&text);
        return status;
}
