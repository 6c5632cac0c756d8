/* CallBatch: many requests, one answer. */

#include <stdio.h>

#include "broker/call.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

static int reply_batch(const Pending *pending, const BatchItem *items, size_t n_items) {
        sd_bus_message *message = pending->message, *reply = NULL;
        size_t size = 0;
        int r;

        r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(bs)");
        for (size_t i = 0; i < n_items && r >= 0; i++) {
                _cleanup_(freep) char *text = NULL;

                size += items[i].result ? strlen(items[i].result) : 0;
                if (items[i].result)
                        r = sd_bus_message_append(reply, "(bs)", true, items[i].result);
                else if (asprintf(&text, "%s: %s", bus_error_name(items[i].failure.code),
                                  failure_message(&items[i].failure)) < 0) {
                        text = NULL;
                        r = -ENOMEM;
                } else {
                        size += strlen(text);
                        r = sd_bus_message_append(reply, "(bs)", false, text);
                }
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = peers_reply(pending->service, message, reply, size, /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

static void batch_done(void *userdata, const BatchItem *items, size_t n_items) {
        Pending *pending = userdata;
        int r;

        if (items) {
                r = reply_batch(pending, items, n_items);
                bus_answered(pending->message, r);
        }

        pending_free(pending);
}

static int read_batch(sd_bus_message *message, unsigned n_max, BatchItem **ret, size_t *ret_n, sd_bus_error *error) {
        _cleanup_(freep) BatchItem *items = NULL;
        const char *method, *params;
        size_t n = 0;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "(ss)");
        if (r < 0)
                return r;

        items = new0(BatchItem, n_max);
        if (!items)
                return -ENOMEM;

        while ((r = sd_bus_message_read(message, "(ss)", &method, &params)) > 0) {
                if (n >= n_max)
                        return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                                 "A batch has at most %u items (limits.batch_items in mcp-exec.json): "
                                                 "send several",
                                                 n_max);
                items[n++] = (BatchItem){ .method = method, .params = params };
        }
        if (r < 0)
                return r;

        *ret = TAKE_PTR(items);
        *ret_n = n;
        return 0;
}

/* Each of its methods and tools is asked for, once. */
static int authorize_batch(Service *service, sd_bus_message *message, const Server *server, const BatchItem *items,
                           size_t n_items, sd_bus_error *error) {
        _cleanup_(freep) Question *questions = NULL;
        _cleanup_(freep) char **tools = NULL;
        size_t n = 0;
        int r = 0;

        if (!authorize_asks(service, server))
                return 1;

        questions = new0(Question, n_items + 1);
        tools = new0(char *, n_items + 1);
        if (!questions || !tools)
                return -ENOMEM;

        for (size_t i = 0; i < n_items && r >= 0; i++) {
                bool known = false;
                char *tool;

                r = authorize_tool(service, server, items[i].method, items[i].params, &tool, error);
                if (r < 0)
                        break;

                for (size_t j = 0; j < n && !known; j++)
                        known = streq(questions[j].method, items[i].method) && streq(tools[j] ?: "", tool ?: "");
                if (known)
                        free(tool);
                else {
                        tools[n] = tool;
                        questions[n++] = (Question){ server->config->name, items[i].method, tool };
                }
        }

        if (r >= 0)
                r = authorize_use(service, message, server, questions, n, error);
        for (size_t i = 0; i < n; i++)
                free(tools[i]);
        return r;
}

int method_call_batch(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        _cleanup_(freep) BatchItem *items = NULL;
        Failure failure = {};
        const char *name;
        Pending *pending;
        Server *server;
        size_t n = 0;
        int r;

        r = sd_bus_message_read(message, "s", &name);
        if (r < 0)
                return r;
        r = read_batch(message, service->manager->quota.settings.limits.batch_items, &items, &n, error);
        if (r < 0)
                return r;
        r = root_find_used(service, &(Question){ name, "CallBatch", NULL }, &server, error);
        if (r < 0)
                return r;
        r = authorize_batch(service, message, server, items, n, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        pending = pending_new(service, message);
        if (!pending)
                return -ENOMEM;
        r = batch_start(service->manager, service->caller, name, TAKE_PTR(items), n, batch_done, pending, &failure);
        if (r >= 0)
                return 1;

        authorize_record(service, &(Question){ name, "CallBatch", NULL }, failure.code);
        pending_free(pending);
        return bus_error_set_failure(error, &failure);
}
