#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macro.h"

/* Bytes in a file that has no name, memfd_create(2): large payloads, which are held once and are handed on as they
 * are. What is read by others is sealed before: nobody can change it any more. */
typedef struct MemoryFile MemoryFile;

/* An empty one, to append to. -errno. */
int memory_file_new(MemoryFile **ret);

/* One that somebody else has filled. fd stays the caller's. -EBADF with *why set, a phrase that starts with a verb,
 * where it is anything but a memfd that can be read, and that nobody can change or shrink any more: reading another
 * kind of file can block for ever. */
int memory_file_open(int fd, MemoryFile **ret, const char **why);

MemoryFile *memory_file_ref(MemoryFile *file);
MemoryFile *memory_file_free(MemoryFile *file); /* the last reference closes it */

/* -errno, as ENOSPC and ENOMEM: what is in it is no use any more then. */
int memory_file_append(MemoryFile *file, const void *data, size_t size);

/* Nothing is appended any more; from now on memory_file_share() works. -errno. */
int memory_file_seal(MemoryFile *file);

uint64_t memory_file_size(const MemoryFile *file);

/* Reads so many bytes at offset. The number that was read, less only at the end; or -errno. */
ssize_t memory_file_read(const MemoryFile *file, uint64_t offset, void *data, size_t size);

/* Its descriptor, for splice(2) and the like: it stays the file's. */
int memory_file_fd(const MemoryFile *file);

/* A descriptor to give away, for reading alone; owned by the caller. -errno. */
int memory_file_share(const MemoryFile *file);

DEFINE_CLEANUP(MemoryFile *, memory_file_free, memory_file_freep)
