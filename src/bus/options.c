#include "bus/options.h"

#include "base/macro.h"
#include "bus/errors.h"

static int read_option(sd_bus_message *message, const char *name, const BusOption *options, size_t n_options,
                       sd_bus_error *error) {
        const char *contents;
        char type;
        int r;

        r = sd_bus_message_peek_type(message, &type, &contents);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n_options; i++) {
                if (!streq(name, options[i].name))
                        continue;
                if (!streq(contents, options[i].signature))
                        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"),
                                                 "Option %s has type %s, and %s is wanted", name, contents,
                                                 options[i].signature);
                return sd_bus_message_read(message, "v", contents, options[i].target);
        }

        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"), "There is no option %s", name);
}

int bus_read_options(sd_bus_message *message, const BusOption *options, size_t n_options, sd_bus_error *error) {
        const char *name;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "{sv}");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
                r = sd_bus_message_read(message, "s", &name);
                if (r >= 0)
                        r = read_option(message, name, options, n_options, error);
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
                if (r < 0)
                        return r;
        }

        return r < 0 ? r : sd_bus_message_exit_container(message);
}
