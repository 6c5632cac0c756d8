#include "bus/message-size.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "base/macro.h"
#include "bus/errors.h"

#define ITEMS_MAX 10000 /* that are looked at: the largest batch that limits.batch_items allows has fewer */
#define ITEM 8          /* what stands for itself, a string's length, an array's; with the space that aligns it */

static int add_array(sd_bus_message *message, const char *contents, size_t *size) {
        const void *data;
        size_t n;
        int r;

        if (!strchr("ynqiuxtd", contents[0]) || contents[1] != 0)
                return 0;

        r = sd_bus_message_read_array(message, contents[0], &data, &n);
        *size += n;
        return r < 0 ? r : 1;
}

/* What is left in the innermost container. D-Bus allows no more than 64 in each other. */
static int add_rest(sd_bus_message *message, size_t *size, unsigned *n_items) {
        const char *contents, *text;
        uint64_t value;
        char type;
        int r;

        while ((r = sd_bus_message_peek_type(message, &type, &contents)) > 0) {
                if (++*n_items > ITEMS_MAX)
                        return -E2BIG;

                *size += ITEM;
                switch (type) {
                case SD_BUS_TYPE_STRING:
                case SD_BUS_TYPE_OBJECT_PATH:
                case SD_BUS_TYPE_SIGNATURE:
                        r = sd_bus_message_read_basic(message, type, &text);
                        *size += r > 0 ? strlen(text) : 0;
                        break;
                case SD_BUS_TYPE_ARRAY:
                        r = add_array(message, contents, size);
                        if (r != 0)
                                break;
                        __attribute__((fallthrough));
                case SD_BUS_TYPE_VARIANT:
                case SD_BUS_TYPE_STRUCT:
                case SD_BUS_TYPE_DICT_ENTRY:
                        r = sd_bus_message_enter_container(message, type, contents);
                        if (r >= 0)
                                r = add_rest(message, size, n_items);
                        if (r >= 0)
                                r = sd_bus_message_exit_container(message);
                        break;
                default:
                        r = sd_bus_message_read_basic(message, type, &value);
                }
                if (r < 0)
                        return r;
        }

        return r;
}

int message_check_descriptors(sd_bus_error *error) {
        struct rlimit limit = { .rlim_cur = RLIM_INFINITY };
        int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), reason = errno;

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        if (fd >= 0)
                safe_close(fd);
        if (fd < 0 ? reason != EMFILE : (rlim_t)fd < limit.rlim_cur / 4 * 3)
                return 0;

        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                 "Too many file descriptors are open, also those that come along with calls: the limit "
                                 "is %llu (RLIMIT_NOFILE, LimitNOFILE= of the unit)",
                                 (unsigned long long)limit.rlim_cur);
}

int message_size(sd_bus_message *message, size_t *ret, sd_bus_error *error) {
        unsigned n_items = 0;
        int r;

        r = message_check_descriptors(error);
        if (r < 0)
                return r;

        *ret = MESSAGE_FRAME + strlen(sd_bus_message_get_path(message) ?: "");
        r = sd_bus_message_rewind(message, true);
        if (r >= 0)
                r = add_rest(message, ret, &n_items);
        if (r >= 0)
                r = sd_bus_message_rewind(message, true);
        if (r == -E2BIG)
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "The call has too many arguments: the limit is %d, for all that stands in "
                                         "arrays and structures as well",
                                         ITEMS_MAX);
        return r;
}
