#include "base/memory-file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define TMPFS_MAGIC 0x01021994 /* linux/magic.h */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

struct MemoryFile {
        unsigned n_ref;
        int fd;
        uint64_t size;
};

int memory_file_new(MemoryFile **ret) {
        MemoryFile *file = new0(MemoryFile, 1);

        if (!file)
                return -ENOMEM;

        file->n_ref = 1;
        file->fd = memfd_create("mcp-exec", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (file->fd < 0 && errno == EINVAL)
                file->fd = memfd_create("mcp-exec", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (file->fd < 0) {
                int r = -errno;

                free(file);
                return r;
        }

        *ret = file;
        return 0;
}

int memory_file_open(int fd, MemoryFile **ret, const char **why) {
        int flags = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS), copy;
        struct statfs system;
        struct stat st;
        MemoryFile *file;

        /* A memfd of huge pages has its seals, but reading it ends in SIGBUS or not by what the machine has free. */
        *why = "is no memfd";
        if (flags < 0 || (flags & O_PATH) || seals < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
            fstatfs(fd, &system) < 0 || system.f_type != TMPFS_MAGIC)
                return -EBADF;
        *why = "can't be read";
        if ((flags & O_ACCMODE) != O_RDONLY && (flags & O_ACCMODE) != O_RDWR)
                return -EBADF;
        *why = "can still be changed: seal it with F_SEAL_WRITE and F_SEAL_SHRINK before";
        if (!(seals & F_SEAL_WRITE) || !(seals & F_SEAL_SHRINK))
                return -EBADF;

        copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return -errno;
        file = new0(MemoryFile, 1);
        if (!file) {
                safe_close(copy);
                return -ENOMEM;
        }

        *file = (MemoryFile){ .n_ref = 1, .fd = copy, .size = (uint64_t)st.st_size };
        *ret = file;
        return 0;
}

MemoryFile *memory_file_ref(MemoryFile *file) {
        file->n_ref++;
        return file;
}

MemoryFile *memory_file_free(MemoryFile *file) {
        if (!file || --file->n_ref > 0)
                return NULL;

        safe_close(file->fd);
        free(file);
        return NULL;
}

int memory_file_append(MemoryFile *file, const void *data, size_t size) {
        const char *p = data;

        while (size > 0) {
                ssize_t n = pwrite(file->fd, p, size, (off_t)file->size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ENOSPC;
                p += n;
                size -= (size_t)n;
                file->size += (uint64_t)n;
        }

        return 0;
}

int memory_file_seal(MemoryFile *file) {
        return fcntl(file->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

uint64_t memory_file_size(const MemoryFile *file) {
        return file->size;
}

ssize_t memory_file_read(const MemoryFile *file, uint64_t offset, void *data, size_t size) {
        size_t done = 0;

        size = offset >= file->size ? 0 : MIN(size, file->size - offset);
        while (done < size) {
                ssize_t n = pread(file->fd, (char *)data + done, size - done, (off_t)(offset + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }

        return (ssize_t)done;
}

int memory_file_fd(const MemoryFile *file) {
        return file->fd;
}

int memory_file_share(const MemoryFile *file) {
        char path[40];
        int fd;

        /* Opened anew it has a place of its own to read from. */
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}
