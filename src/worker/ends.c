#include "worker/ends.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/macro.h"

/* A pipe whose ends are close-on-exec, ours non-blocking */
static int open_pipe(bool worker_reads, int *theirs, int *ours) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;

        *theirs = ends[worker_reads ? 0 : 1];
        *ours = ends[worker_reads ? 1 : 0];
        return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* A listening socket for the worker, to which we are connected already: its name is gone before anybody else could use
 * it. By way of /proc, for a folder's path can be longer than an address. */
static int open_socket(int *theirs, int *ours) {
        const char *parent = getenv("RUNTIME_DIRECTORY") ?: getenv("XDG_RUNTIME_DIR") ?: "/tmp";
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(freep) char *folder = NULL;
        _cleanup_(closep) int fd = -EBADF;
        int r = 0;

        if (asprintf(&folder, "%s/socket-XXXXXX", parent) < 0) {
                folder = NULL;
                return -ENOMEM;
        }
        if (!mkdtemp(folder))
                return -errno;
        fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/worker", fd);

        *theirs = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        *ours = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || *theirs < 0 || *ours < 0 || bind(*theirs, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(*theirs, 1) < 0 || connect(*ours, (struct sockaddr *)&address, sizeof(address)) < 0)
                r = -errno;

        if (fd >= 0)
                (void)unlinkat(fd, "worker", 0);
        (void)rmdir(folder);
        return r;
}

int ends_open(ServerTransport transport, int theirs[3], int ours[3]) {
        int r;

        if (transport != SERVER_TRANSPORT_SOCKET) {
                r = open_pipe(/* worker_reads= */ true, &theirs[0], &ours[0]);
                if (r >= 0)
                        r = open_pipe(/* worker_reads= */ false, &theirs[1], &ours[1]);
                return r < 0 ? r : open_pipe(/* worker_reads= */ false, &theirs[2], &ours[2]);
        }

        r = open_socket(&theirs[0], &ours[0]);
        if (r >= 0)
                r = open_pipe(/* worker_reads= */ false, &theirs[2], &ours[2]);
        if (r < 0)
                return r;

        /* What it prints is no message there, and goes where its errors go. */
        theirs[1] = fcntl(theirs[2], F_DUPFD_CLOEXEC, 3);
        ours[1] = fcntl(ours[0], F_DUPFD_CLOEXEC, 3);
        return theirs[1] < 0 || ours[1] < 0 ? -errno : 0;
}
