/* CallFd, of the root object: params and result in files */

#include "broker/call.h"
#include "broker/payload.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/options.h"
#include "bus/peers.h"

static int reply_file(Call *call, sd_bus_message *message, const Outcome *outcome) {
        _cleanup_(payload_freep) Payload *payload = NULL;
        _cleanup_(closep) int fd = -EBADF;
        Failure failure = {};
        int r;

        r = payload_new(call->manager, call->client->uid, outcome, &payload, &failure);
        if (r < 0) {
                bus_reply_failure(message, &failure);
                failure_done(&failure);
                return 0;
        }

        fd = memory_file_share(payload_file(payload));
        if (fd < 0)
                return sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The result can't be opened: %s",
                                                  strerror(-fd));
        return peers_reply_fd(call->manager->userdata, message, fd);
}

static void answer(Call *call, const Outcome *outcome) {
        sd_bus_message *message = call->userdata;
        int r = 0;

        if (outcome && sd_bus_message_get_expect_reply(message)) {
                if (outcome->failure)
                        bus_reply_failure(message, outcome->failure);
                else
                        r = reply_file(call, message, outcome);
                bus_answered(message, r);
        }

        sd_bus_message_unref(message);
}

static int read_call(sd_bus_message *message, CallSpec *spec, sd_bus_error *error) {
        const BusOption options[] = { { "timeout", "t", &spec->timeout }, { "tool", "s", &spec->tool } };
        const char *why = NULL;
        int fd, r;

        r = sd_bus_message_read(message, "ssh", &spec->server, &spec->method, &fd);
        if (r >= 0)
                r = bus_read_options(message, options, ELEMENTSOF(options), error);
        if (r < 0)
                return r;

        r = memory_file_open(fd, &spec->file, &why);
        if (r == -EBADF)
                return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"), "The file of params %s", why);
        if (r < 0 && r != -ENOMEM)
                return sd_bus_error_setf(error, BUS_ERROR("Unavailable"), "The file of params can't be held: %s",
                                         strerror(-r));
        return r;
}

int method_call_fd(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        _cleanup_(memory_file_freep) MemoryFile *file = NULL;
        CallSpec spec = { .kind = REQUEST_CALL, .large = true, .done = answer, .userdata = message };
        Failure failure = {};
        Question question;
        int r;

        r = read_call(message, &spec, error);
        file = spec.file;
        if (r < 0)
                return r;

        question = (Question){ spec.server, spec.method, spec.tool };
        r = authorize_call(service, message, &question, /* params= */ NULL, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        sd_bus_message_ref(message);
        r = call_start(service->manager, service->caller, &spec, &failure);
        if (r >= 0)
                return 1;

        authorize_record(service, &question, failure.code);
        sd_bus_message_unref(message);
        return bus_error_set_failure(error, &failure);
}
