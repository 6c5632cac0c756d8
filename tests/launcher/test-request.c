#include "launcher/request.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macro.h"
#include "unit.h"

#define ID "0123456789abcdef0123456789abcdef"

static void assert_names(const char *server, const char *owner, const char *id, const char *wanted) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = request_check_names(server, owner, id, &error);

        assert_number(r, wanted ? -EINVAL : 0);
        if (wanted)
                assert_string(error.message, wanted);
        sd_bus_error_free(&error);
}

static void test_names(void) {
        static const char server[] = "a server's name has 1 to 64 characters of a-z, 0-9 and -",
                          owner[] = "an owner is \"shared\", \"uid:N\" or \"client:NAME\"",
                          id[] = "a worker's id has 32 digits of 0-9 and a-f";

        assert_names("python", "shared", ID, NULL);
        assert_names("a-1", "uid:4294967295", ID, NULL);
        assert_names("a", "client::1.234", ID, NULL);
        assert_names("", "shared", ID, server);
        assert_names("Python", "shared", ID, server);
        assert_names("../x", "shared", ID, server);
        assert_names("a\n", "shared", ID, server);
        assert_names("a", "", ID, owner);
        assert_names("a", "shared\n", ID, owner);
        assert_names("a", "uid:", ID, owner);
        assert_names("a", "uid:1 ", ID, owner);
        assert_names("a", "uid:-1", ID, owner);
        assert_names("a", "uid:00000000000", ID, owner);
        assert_names("a", "client:", ID, owner);
        assert_names("a", "client:a\nb", ID, owner);
        assert_names("a", "client:\xc3\xa4", ID, owner);
        assert_names("a", "group:1", ID, owner);
        assert_names("a", "shared", "", id);
        assert_names("a", "shared", ID "0", id);
        assert_names("a", "shared", "0123456789ABCDEF0123456789abcdef", id);
}

static void assert_pipe(int fd, bool reading, const char *wanted) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = request_check_pipe(fd, "fd", reading, &error);

        assert_number(r, wanted ? -EINVAL : 0);
        if (wanted)
                assert_string(error.message, wanted);
        sd_bus_error_free(&error);
}

static void assert_path(const char *path, int flags, const char *wanted) {
        _cleanup_(closep) int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);

        assert_true(fd >= 0);
        assert_pipe(fd, true, wanted);
}

static void test_pipes(void) {
        char folder[] = "/tmp/test-request.XXXXXX", fifo[64], end[64];
        int pipe_fds[2], sockets[2], event = eventfd(0, EFD_CLOEXEC);

        assert_number(pipe2(pipe_fds, O_CLOEXEC), 0);
        assert_number(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
        assert_true(mkdtemp(folder));
        (void)snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
        (void)snprintf(end, sizeof(end), "/proc/self/fd/%d", pipe_fds[0]);
        assert_number(mkfifo(fifo, 0600), 0);

        assert_pipe(pipe_fds[0], true, NULL);
        assert_pipe(pipe_fds[1], false, NULL);
        assert_pipe(pipe_fds[0], false, "fd has to be the end of a pipe for writing");
        assert_pipe(pipe_fds[1], true, "fd has to be the end of a pipe for reading");
        assert_path(end, O_RDWR, "fd has to be the end of a pipe for reading");
        assert_path(end, O_PATH, "fd was opened with O_PATH");
        assert_path("/", O_RDONLY, "fd has to be a pipe: it is a directory");
        assert_path("/dev/zero", O_RDONLY, "fd has to be a pipe: it is a device");
        assert_path("/proc/self/status", O_RDONLY, "fd has to be a pipe: it is a file");
        assert_path(fifo, O_RDONLY, "fd has to be a pipe: it is a FIFO that has a name");
        assert_pipe(sockets[0], true, "fd has to be a pipe: it is a socket");
        assert_pipe(event, true, "fd has to be a pipe: it is another kind of file");
        assert_pipe(-1, true, "fd can't be looked at: Bad file descriptor");

        (void)unlink(fifo);
        (void)rmdir(folder);
        safe_close(event);
        for (int i = 0; i < 2; i++) {
                safe_close(pipe_fds[i]);
                safe_close(sockets[i]);
        }
}

int main(void) {
        test_names();
        test_pipes();
        return 0;
}
