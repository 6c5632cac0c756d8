#include "launcher/request.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <systemd/sd-daemon.h>

#include "base/text.h"
#include "worker/transient.h"

static int wrong(sd_bus_error *error, const char *what) {
        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS, what);
}

int request_check_id(const char *id, sd_bus_error *error) {
        return transient_id_valid(id) ? 0 : wrong(error, "a worker's id has 32 digits of 0-9 and a-f");
}

static bool owner_valid(const char *owner) {
        static const char name[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.:-";
        const char *rest = strchr(owner, ':');
        size_t length;

        if (streq(owner, "shared"))
                return true;
        if (!rest || strlen(++rest) > 255)
                return false;

        length = strspn(rest, "0123456789");
        if (strncmp(owner, "uid:", strlen("uid:")) == 0)
                return length > 0 && length <= 10 && !rest[length];
        if (strncmp(owner, "client:", strlen("client:")) == 0)
                return *rest && !rest[strspn(rest, name)];

        return false;
}

int request_check_names(const char *server, const char *owner, const char *id, sd_bus_error *error) {
        if (!text_is_name(server))
                return wrong(error, "a server's name has 1 to 64 characters of a-z, 0-9 and -");
        if (!owner_valid(owner))
                return wrong(error, "an owner is \"shared\", \"uid:N\" or \"client:NAME\"");

        return request_check_id(id, error);
}

int request_check_pipe(int fd, const char *name, bool reading, sd_bus_error *error) {
        int flags = fcntl(fd, F_GETFL);
        struct statfs fs;
        struct stat st;

        if (flags < 0 || fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%s can't be looked at: %s", name,
                                         strerror(errno));
        if (flags & O_PATH)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%s was opened with O_PATH", name);
        if (!S_ISFIFO(st.st_mode) || fs.f_type != PIPEFS_MAGIC)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%s has to be a pipe: it is %s", name,
                                         S_ISFIFO(st.st_mode)   ? "a FIFO that has a name"
                                         : S_ISDIR(st.st_mode)  ? "a directory"
                                         : S_ISREG(st.st_mode)  ? "a file"
                                         : S_ISCHR(st.st_mode)  ? "a device"
                                         : S_ISSOCK(st.st_mode) ? "a socket"
                                                                : "another kind of file");
        if ((flags & O_ACCMODE) != (reading ? O_RDONLY : O_WRONLY))
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "%s has to be the end of a pipe for %s",
                                         name, reading ? "reading" : "writing");

        return 0;
}

int request_check_socket(int fd, const char *name, sd_bus_error *error) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || flags & O_PATH || sd_is_socket_unix(fd, SOCK_STREAM, /* listening= */ 1, NULL, 0) <= 0)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS,
                                         "%s has to be a listening socket: the server's transport is socket", name);

        return 0;
}
