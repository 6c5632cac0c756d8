/* Runs a worker's command that doesn't speak on its stdin and stdout, in the worker's place, so that it needs nothing
 * of the broker but three pipes and stays in the same sandbox:
 *
 *     mcp-exec-transport file [--stay] COMMAND [ARG...]
 *         What comes on stdin is put into a file, and what the command leaves in another one goes to stdout. {input}
 * and {output} in the arguments are their paths, in a folder of this call's own, which is also the working directory
 *         unless --stay is given. The command's own stdout goes to stderr.
 *     mcp-exec-transport socket COMMAND [ARG...]
 *         stdin is a listening socket, and is handed on as systemd does it (sd_listen_fds(3)). */

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/macro.h"

#define LISTEN_FD 3 /* SD_LISTEN_FDS_START */

#define STATUS_NOT_FOUND 127 /* as a shell has it */
#define STATUS_NOT_EXECUTED 126

static char folder[4096];

static void _printf_(1, 2) complain(const char *format, ...) {
        va_list ap;

        fputs("mcp-exec-transport: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fputc('\n', stderr);
}

static int execute(char *const *argv) {
        (void)execvp(argv[0], argv);
        complain("%s: %s", argv[0], strerror(errno));
        return errno == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTED;
}

/* Copies to the end of the one. Names what failed. */
static int copy(int from, int to, const char *what) {
        char piece[64 * 1024];
        ssize_t n;

        while ((n = read(from, piece, sizeof(piece))) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                for (ssize_t done = 0, m; n > 0 && done < n; done += m) {
                        m = write(to, piece + done, n - done);
                        if (m < 0 && errno == EINTR)
                                m = 0;
                        else if (m < 0)
                                n = -1;
                }
                if (n < 0) {
                        complain("%s: %s", what, strerror(errno));
                        return -1;
                }
        }

        return 0;
}

/* The text with each {input} and {output} replaced */
static char *fill_in(const char *text, const char *input, const char *output) {
        char *filled = NULL;
        size_t size;
        FILE *stream = open_memstream(&filled, &size);

        if (!stream)
                return NULL;

        while (*text)
                if (strncmp(text, "{input}", strlen("{input}")) == 0) {
                        fputs(input, stream);
                        text += strlen("{input}");
                } else if (strncmp(text, "{output}", strlen("{output}")) == 0) {
                        fputs(output, stream);
                        text += strlen("{output}");
                } else
                        fputc(*text++, stream);

        return fclose(stream) == 0 ? filled : NULL;
}

static int remove_one(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *where _unused_) {
        return remove(path);
}

static void remove_folder(void) {
        if (chdir("/") == 0)
                (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int make_folder(void) {
        const char *parent = getenv("RUNTIME_DIRECTORY") ?: getenv("TMPDIR") ?: "/tmp";

        if (snprintf(folder, sizeof(folder) - 16, "%s/call-XXXXXX", parent) >= (int)sizeof(folder) - 16 ||
            !mkdtemp(folder)) {
                complain("a folder in %s: %s", parent, strerror(errno));
                return -1;
        }

        return 0;
}

static int run_command(char *const *argv) {
        pid_t child = fork();
        int status;

        if (child < 0) {
                complain("fork: %s", strerror(errno));
                return EXIT_FAILURE;
        }

        if (child == 0) {
                int null = open("/dev/null", O_RDONLY);

                if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
                        _exit(STATUS_NOT_EXECUTED);
                if (null > STDERR_FILENO)
                        (void)close(null);
                _exit(execute(argv));
        }

        while (waitpid(child, &status, 0) < 0)
                if (errno != EINTR)
                        return EXIT_FAILURE;
        if (!WIFSIGNALED(status))
                return WEXITSTATUS(status);

        /* As it ended, so do we: the broker tells its caller. */
        remove_folder();
        (void)signal(WTERMSIG(status), SIG_DFL);
        (void)raise(WTERMSIG(status));
        return EXIT_FAILURE;
}

static int run_with_files(char **argv, bool stay) {
        char input[sizeof(folder) + 8], output[sizeof(folder) + 8];
        struct stat st;
        int status, fd;

        if (make_folder() < 0)
                return EXIT_FAILURE;
        (void)snprintf(input, sizeof(input), "%s/input", folder);
        (void)snprintf(output, sizeof(output), "%s/output", folder);

        fd = open(input, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        status = fd < 0 || copy(STDIN_FILENO, fd, input) < 0 || close(fd) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        for (char **s = argv + 1; *s; s++)
                *s = fill_in(*s, input, output) ?: *s;
        if (!stay && chdir(folder) < 0)
                status = EXIT_FAILURE;

        if (status == EXIT_SUCCESS)
                status = run_command(argv);
        if (status == EXIT_SUCCESS) {
                fd = open(output, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
                if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                        complain("%s left no file at {output}", argv[0]);
                        status = EXIT_FAILURE;
                } else if (copy(fd, STDOUT_FILENO, "{output}") < 0)
                        status = EXIT_FAILURE;
        }

        remove_folder();
        return status;
}

static int run_with_socket(char **argv) {
        char pid[16];
        int null;

        if (dup2(STDIN_FILENO, LISTEN_FD) < 0 || (null = open("/dev/null", O_RDONLY)) < 0 ||
            dup2(null, STDIN_FILENO) < 0) {
                complain("the socket: %s", strerror(errno));
                return STATUS_NOT_EXECUTED;
        }
        if (null > LISTEN_FD)
                (void)close(null);

        (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
        if (setenv("LISTEN_PID", pid, 1) < 0 || setenv("LISTEN_FDS", "1", 1) < 0 ||
            setenv("LISTEN_FDNAMES", "mcp", 1) < 0)
                return STATUS_NOT_EXECUTED;

        return execute(argv);
}

int main(int argc, char *argv[]) {
        bool stay = argc > 2 && streq(argv[2], "--stay");

        if (argc > 2 + stay && streq(argv[1], "file"))
                return run_with_files(argv + 2 + stay, stay);
        if (argc > 2 && streq(argv[1], "socket"))
                return run_with_socket(argv + 2);

        fputs("usage: mcp-exec-transport file [--stay] COMMAND [ARG...]\n"
              "       mcp-exec-transport socket COMMAND [ARG...]\n"
              "mcp-execd starts this for servers whose transport isn't stdio.\n",
              stderr);
        return EXIT_FAILURE;
}
