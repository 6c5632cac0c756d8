#include "base/memory-file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "unit.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK)

static void assert_refused(int fd, const char *reason) {
        MemoryFile *file = NULL;
        const char *why = NULL;

        assert_number(memory_file_open(fd, &file, &why), -EBADF);
        assert_true(strstr(why, reason));
        assert_true(!file);
        safe_close(fd);
}

static void test_what_was_appended_is_read(void) {
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        char data[16];

        assert_number(memory_file_new(&file), 0);
        assert_number(memory_file_append(file, "abc", 3), 0);
        assert_number(memory_file_append(file, "", 0), 0);
        assert_number(memory_file_append(file, "defg", 4), 0);
        assert_number(memory_file_size(file), 7);
        assert_number(memory_file_seal(file), 0);
        assert_number(memory_file_read(file, 0, data, sizeof(data)), 7);
        assert_bytes(data, 7, "abcdefg", 7);
        assert_number(memory_file_read(file, 5, data, 1), 1);
        assert_bytes(data, 1, "f", 1);
        assert_number(memory_file_read(file, 7, data, 1), 0);
        assert_number(memory_file_read(file, 100, data, 1), 0);
}

static void test_nobody_can_change_what_is_given_away(void) {
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        int fd;

        assert_number(memory_file_new(&file), 0);
        assert_number(memory_file_append(file, "abc", 3), 0);
        assert_number(memory_file_seal(file), 0);

        fd = memory_file_share(file);
        assert_true(fd >= 0);
        assert_number(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        assert_number(fcntl(fd, F_GET_SEALS) & SEALS, SEALS);
        assert_number(lseek(fd, 0, SEEK_CUR), 0);
        assert_true(write(fd, "x", 1) < 0);
        safe_close(fd);
}

static void test_a_sealed_memfd_is_taken(void) {
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        const char *why;
        char data[8];

        assert_number(write(fd, "hello", 5), 5);
        assert_number(fcntl(fd, F_ADD_SEALS, SEALS), 0);
        assert_number(memory_file_open(fd, &file, &why), 0);
        safe_close(fd);
        assert_number(memory_file_size(file), 5);
        assert_number(memory_file_read(file, 0, data, sizeof(data)), 5);
        assert_bytes(data, 5, "hello", 5);
}

static void test_anything_else_is_refused(void) {
        int fds[2], fd;

        assert_refused(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING), "can still be changed");
        assert_refused(memfd_create("test", MFD_CLOEXEC), "can still be changed");
        fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_number(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        assert_refused(fd, "can still be changed");
        fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_number(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE), 0);
        assert_refused(fd, "can still be changed");

        assert_refused(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "no memfd");
        assert_refused(open("/dev/zero", O_RDONLY | O_CLOEXEC), "no memfd");
        assert_refused(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "no memfd");
        assert_refused(open("/proc/self/exe", O_PATH | O_CLOEXEC), "no memfd");
        assert_refused(-1, "no memfd");
        assert_number(pipe2(fds, O_CLOEXEC), 0);
        assert_refused(fds[0], "no memfd");
        assert_refused(fds[1], "no memfd");
        assert_number(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_refused(fds[0], "no memfd");
        safe_close(fds[1]);
}

int main(void) {
        test_what_was_appended_is_read();
        test_nobody_can_change_what_is_given_away();
        test_a_sealed_memfd_is_taken();
        test_anything_else_is_refused();
        return EXIT_SUCCESS;
}
