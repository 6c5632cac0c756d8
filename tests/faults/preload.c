/* LD_PRELOADed into mcp-execd by the fault suite: makes allocations fail, the clock jump, and files run out of space.
 * What it does stands in a file that the test writes while the service runs ($MCP_EXEC_FAULTS, preload.py). Only a
 * process named mcp-execd takes part.
 *
 * Under AddressSanitizer it stands before the sanitizer's allocator and hands on to that, which knows what it gave out.
 * Not as a library linked here: other programs, a shell for one, are started with this one as well. */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Mirrored in preload.py. */
typedef struct Faults {
        _Atomic uint32_t armed;       /* allocations are counted */
        _Atomic uint32_t count;       /* since it was armed */
        _Atomic uint32_t first, last; /* those that fail, the first one being 1 */
        _Atomic uint32_t failed;      /* how many did */
        _Atomic uint32_t memfd_error; /* of memfd_create(2); 0: none */
        _Atomic uint32_t write_error; /* of pwrite(2) from write_room on; 0: none */
        _Atomic uint32_t write_room;  /* bytes that a file takes before */
        _Atomic int64_t wall_seconds; /* what CLOCK_REALTIME is ahead */
} Faults;

/* Exported by the C library for those that interpose the functions without a leading __libc. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

/* By AddressSanitizer's runtime for the same; NULL where there is none. */
__attribute__((weak)) void *__interceptor_malloc(size_t size);
__attribute__((weak)) void *__interceptor_calloc(size_t n, size_t size);
__attribute__((weak)) void *__interceptor_realloc(void *old, size_t size);

static Faults *faults;

__attribute__((constructor)) static void open_faults(void) {
        const char *path = getenv("MCP_EXEC_FAULTS");
        void *memory;
        int fd;

        if (!path || strcmp(program_invocation_short_name, "mcp-execd") != 0)
                return;

        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                abort();
        memory = mmap(NULL, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (memory == MAP_FAILED)
                abort();
        faults = memory;
}

static int fails(void) {
        uint32_t n;

        if (!faults || !faults->armed)
                return 0;

        n = ++faults->count;
        if (n < faults->first || n > faults->last)
                return 0;

        faults->failed++;
        errno = ENOMEM;
        return 1;
}

void *malloc(size_t size) {
        if (fails())
                return NULL;

        return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
        if (fails())
                return NULL;

        return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size) {
        if (fails())
                return NULL;

        return __interceptor_realloc ? __interceptor_realloc(old, size) : __libc_realloc(old, size);
}

void *reallocarray(void *old, size_t n, size_t size) {
        if (size > 0 && n > SIZE_MAX / size) {
                errno = ENOMEM;
                return NULL;
        }

        return realloc(old, n * size);
}

/* The C library's own call malloc above. AddressSanitizer's don't. */
char *strdup(const char *text) {
        size_t size = strlen(text) + 1;
        char *copy = malloc(size);

        return copy ? memcpy(copy, text, size) : NULL;
}

char *strndup(const char *text, size_t n) {
        size_t length = strnlen(text, n);
        char *copy = malloc(length + 1);

        if (!copy)
                return NULL;

        copy[length] = '\0';
        return memcpy(copy, text, length);
}

int clock_gettime(clockid_t clock, struct timespec *ret) {
        if (syscall(SYS_clock_gettime, clock, ret) < 0)
                return -1;
        if (clock == CLOCK_REALTIME && faults)
                ret->tv_sec += faults->wall_seconds;
        return 0;
}

int memfd_create(const char *name, unsigned flags) {
        if (faults && faults->memfd_error) {
                errno = (int)faults->memfd_error;
                return -1;
        }

        return (int)syscall(SYS_memfd_create, name, flags);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
        uint64_t room = faults && faults->write_error ? faults->write_room : UINT64_MAX;

        if ((uint64_t)offset >= room) {
                errno = (int)faults->write_error;
                return -1;
        }

        if (size > room - (uint64_t)offset)
                size = room - (uint64_t)offset;
        return syscall(SYS_pwrite64, fd, data, size, offset);
}
