#include <stdio.h>

#include "broker/call.h"
#include "broker/lists.h"
#include "broker/session.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

/* Every handler has one order: read, authorise, act; the caller is known before it runs. While polkit is asked the
 * message is held, and the handler runs again. */

#define SERVER_SIZE 64 /* bytes of one in a list, about, without its description */

static int find_server(Service *service, const char *name, Server **ret, sd_bus_error *error) {
        Failure failure = {};

        *ret = manager_find_server(service->manager, name);
        if (*ret)
                return 0;

        (void)manager_no_such_server(service->manager, name, &failure);
        return bus_error_set_failure(error, &failure);
}

int root_find_used(Service *service, const Question *question, Server **ret, sd_bus_error *error) {
        int r;

        r = find_server(service, question->server, ret, error);
        if (r < 0)
                authorize_record(service, question, FAILURE_NO_SUCH_SERVER);
        return r;
}

static int enter(Service *service, sd_bus_message *message, const Question *question, sd_bus_error *error) {
        Server *server;
        int r;

        r = root_find_used(service, question, &server, error);
        return r < 0 ? r : authorize_use(service, message, server, question, 1, error);
}

static int reply_result(Service *service, sd_bus_message *message, const Outcome *outcome, size_t limit) {
        sd_bus_message *reply = NULL;
        char *space;
        int r;

        if (outcome->result.size > limit) {
                Failure failure = {};

                failure_set(&failure, FAILURE_TOO_LARGE,
                            "The result has %zu bytes, and the limit for an inline reply is %zu (limits.message in "
                            "mcp-exec.json): CallFd and StartJob return larger ones",
                            outcome->result.size, limit);
                bus_reply_failure(message, &failure);
                failure_done(&failure);
                return 0;
        }

        r = sd_bus_message_new_method_return(message, &reply);
        if (r < 0)
                return r;

        if (outcome->traits.newlines || outcome->traits.noncharacters) {
                Buffer text = {};

                r = json_append(&text, outcome->result, &outcome->traits);
                if (r >= 0)
                        r = sd_bus_message_append_string_space(reply, buffer_size(&text), &space);
                if (r >= 0)
                        memcpy(space, buffer_data(&text), buffer_size(&text));
                buffer_done(&text);
        } else {
                r = sd_bus_message_append_string_space(reply, outcome->result.size, &space);
                if (r >= 0)
                        memcpy(space, outcome->result.data, outcome->result.size);
        }

        if (r >= 0)
                r = peers_reply(service, message, reply, outcome->result.size, /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

/* The message that a call came by is kept until it is answered: the call's texts are the message's own. */
static void answer(Call *call, const Outcome *outcome) {
        sd_bus_message *message = call->userdata;
        int r = 0;

        if (outcome && sd_bus_message_get_expect_reply(message)) {
                if (outcome->failure)
                        bus_reply_failure(message, outcome->failure);
                else if (call->request.kind == REQUEST_CALL)
                        r = reply_result(call->manager->userdata, message, outcome,
                                         call->manager->quota.settings.limits.message);
                else
                        r = sd_bus_reply_method_return(message, NULL);
                bus_answered(message, r);
        }

        sd_bus_message_unref(message);
}

static int start(Service *service, sd_bus_message *message, CallSpec *spec, sd_bus_error *error) {
        Failure failure = {};
        int r;

        spec->done = answer;
        spec->userdata = message;
        sd_bus_message_ref(message);
        r = call_start(service->manager, service->caller, spec, &failure);
        if (r >= 0)
                return 1;

        authorize_record(service, &(Question){ spec->server, spec->method, spec->tool }, failure.code);
        sd_bus_message_unref(message);
        return bus_error_set_failure(error, &failure);
}

static int method_call(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        CallSpec spec = { .kind = REQUEST_CALL };
        int r;

        r = sd_bus_message_read(message, "sss", &spec.server, &spec.method, &spec.params);
        if (r < 0)
                return r;
        r = authorize_call(service, message, &(Question){ spec.server, spec.method, NULL }, spec.params, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return start(service, message, &spec, error);
}

static int method_call_tool(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        CallSpec spec = { .kind = REQUEST_CALL, .method = "tools/call" };
        int r;

        r = sd_bus_message_read(message, "sss", &spec.server, &spec.tool, &spec.params);
        if (r < 0)
                return r;
        r = enter(service, message, &(Question){ spec.server, spec.method, spec.tool }, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return start(service, message, &spec, error);
}

static int method_notify(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        CallSpec spec = { .kind = REQUEST_NOTIFICATION };
        int r;

        r = sd_bus_message_read(message, "sss", &spec.server, &spec.method, &spec.params);
        if (r < 0)
                return r;
        r = enter(service, message, &(Question){ spec.server, spec.method, NULL }, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return start(service, message, &spec, error);
}

static int method_start_server(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        CallSpec spec = { .kind = REQUEST_WARM_UP, .method = "StartServer", .params = "" };
        int r;

        r = sd_bus_message_read(message, "s", &spec.server);
        if (r < 0)
                return r;
        r = enter(service, message, &(Question){ spec.server, "StartServer", NULL }, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        return start(service, message, &spec, error);
}

/* Who may manage does so for all. Returns 0 where it is still to be found out whether he may. */
static int enter_to_manage(Service *service, sd_bus_message *message, const char *method, Server **ret,
                           sd_bus_error *error) {
        const char *name;
        int r;

        r = sd_bus_message_read(message, "s", &name);
        if (r < 0)
                return r;
        r = find_server(service, name, ret, error);
        if (r < 0)
                return r;

        return authorize_manage(service, message, &(Question){ name, method, NULL }, error);
}

static int method_stop_server(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        Server *server;
        int r;

        r = enter_to_manage(service, message, "StopServer", &server, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        server_stop(server);
        return sd_bus_reply_method_return(message, NULL);
}

static int method_restart_server(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        Failure failure = {};
        Server *server;
        int r;

        r = enter_to_manage(service, message, "RestartServer", &server, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = manager_get_callable(service->manager, server->config->name, &server, &failure);
        if (r < 0)
                return bus_error_set_failure(error, &failure);

        r = server_restart(server, service->caller);
        if (r < 0)
                return r;
        return sd_bus_reply_method_return(message, NULL);
}

Pending *pending_new(Service *service, sd_bus_message *message) {
        Pending *pending = new0(Pending, 1);

        if (pending)
                *pending = (Pending){ service, sd_bus_message_ref(message) };
        return pending;
}

Pending *pending_free(Pending *pending) {
        sd_bus_message_unref(pending->message);
        free(pending);
        return NULL;
}

static int method_list_servers(sd_bus_message *message, void *userdata, sd_bus_error *error _unused_) {
        Service *service = userdata;
        sd_bus_message *reply = NULL;
        const Server *server;
        size_t size = 0;
        int r;

        if (authorize_view(service, message) == 0)
                return 1;

        r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(sss)");
        TAILQ_FOREACH(server, &service->manager->servers, link)
                if (r >= 0 && !server->gone) {
                        size += SERVER_SIZE + strlen(server->config->description ?: "");
                        r = sd_bus_message_append(reply, "(sss)", server->config->name,
                                                  server->config->description ?: "",
                                                  server_state(server, authorize_sees(service, service->caller)));
                }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = peers_reply(service, message, reply, size, /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

static int append_tool(sd_bus_message *reply, const ListItem *tool, size_t *size) {
        JsonSlice whole = { tool->text, strlen(tool->text) }, schema = json_get(whole, "inputSchema");
        _cleanup_(freep) char *description = json_decode(json_get(whole, "description")),
                              *text = json_is(schema, '{') ? strndup(schema.data, schema.size) : strdup("{}");

        if (!text)
                return -ENOMEM;

        *size += strlen(description ?: "") + strlen(text);
        return sd_bus_message_append(reply, "(sss)", tool->name, description ?: "", text);
}

static int reply_tools(const Pending *pending, const ListItem *tools, size_t n_tools) {
        sd_bus_message *message = pending->message, *reply = NULL;
        size_t size = 0;
        int r;

        r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(sss)");
        for (size_t i = 0; i < n_tools && r >= 0; i++)
                r = append_tool(reply, &tools[i], &size);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = peers_reply(pending->service, message, reply, size, /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

static void tools_done(void *userdata, const ListItem *tools, size_t n_tools, const Failure *failure) {
        Pending *pending = userdata;
        int r = 0;

        if (failure)
                bus_reply_failure(pending->message, failure);
        else
                r = reply_tools(pending, tools, n_tools);
        bus_answered(pending->message, r);

        pending_free(pending);
}

static int method_list_tools(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        Failure failure = {};
        const char *name;
        Pending *pending;
        Server *server;
        int r;

        r = sd_bus_message_read(message, "s", &name);
        if (r < 0)
                return r;
        r = enter(service, message, &(Question){ name, "tools/list", NULL }, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = manager_get_callable(service->manager, name, &server, &failure);
        if (r < 0)
                return bus_error_set_failure(error, &failure);

        if (client_note_server(service->caller, server) < 0)
                return -ENOMEM;
        pending = pending_new(service, message);
        if (!pending)
                return -ENOMEM;
        r = list_get(server, service->caller, LIST_TOOLS, tools_done, pending, &failure);
        if (r >= 0)
                return 1;

        pending_free(pending);
        return bus_error_set_failure(error, &failure);
}

static int method_reload(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        sd_bus_message *reply = NULL;
        const Problem *problem;
        int r;

        r = authorize_manage(service, message, &(Question){ NULL, "Reload", NULL }, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        service_reload(service);

        r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(ss)");
        TAILQ_FOREACH(problem, catalogue_problems(service->manager->catalogue), link)
                if (r >= 0 && problem->file && problem->text)
                        r = sd_bus_message_append(reply, "(ss)", problem->file, problem->text);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);
        sd_bus_message_unref(reply);
        return r;
}

static int method_describe(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        Service *service = userdata;
        _cleanup_(freep) char *text = NULL;
        const char *name;
        Server *server;
        int r;

        r = sd_bus_message_read(message, "s", &name);
        if (r < 0)
                return r;
        r = enter(service, message, &(Question){ name, "Describe", NULL }, error);
        if (r <= 0)
                return r < 0 ? r : 1;
        r = find_server(service, name, &server, error);
        if (r < 0)
                return r;

        text = config_describe_worker(server->config, service->launcher);
        return text ? peers_reply_text(service, message, text) : -ENOMEM;
}

static int property_version(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                            const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                            sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", PROJECT_VERSION);
}

static int property_servers(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                            const char *property _unused_, sd_bus_message *reply, void *userdata,
                            sd_bus_error *error _unused_) {
        Service *service = userdata;
        const Server *server;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "s");
        TAILQ_FOREACH(server, &service->manager->servers, link)
                if (r >= 0 && !server->gone)
                        r = sd_bus_message_append(reply, "s", server->config->name);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int property_workers_running(sd_bus *bus, const char *path _unused_, const char *interface _unused_,
                                    const char *property _unused_, sd_bus_message *reply, void *userdata,
                                    sd_bus_error *error _unused_) {
        Service *service = userdata;

        return sd_bus_message_append(reply, "u", manager_workers(service->manager, authorize_viewer(service, bus)));
}

static int property_calls_in_flight(sd_bus *bus, const char *path _unused_, const char *interface _unused_,
                                    const char *property _unused_, sd_bus_message *reply, void *userdata,
                                    sd_bus_error *error _unused_) {
        Service *service = userdata;

        return sd_bus_message_append(reply, "u", manager_calls(service->manager, authorize_viewer(service, bus)));
}

static int property_sessions_open(sd_bus *bus, const char *path _unused_, const char *interface _unused_,
                                  const char *property _unused_, sd_bus_message *reply, void *userdata,
                                  sd_bus_error *error _unused_) {
        Service *service = userdata;

        return sd_bus_message_append(reply, "u", sessions_open(service->manager, authorize_viewer(service, bus)));
}

static int property_idle_timeout(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                                 const char *property _unused_, sd_bus_message *reply, void *userdata,
                                 sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "t", service_idle_timeout(userdata));
}

DEFINE_ANSWERED(method_call);
DEFINE_ANSWERED(method_call_tool);
DEFINE_ANSWERED(method_call_batch);
DEFINE_ANSWERED(method_call_fd);
DEFINE_ANSWERED(method_start_job);
DEFINE_ANSWERED(method_notify);
DEFINE_ANSWERED(method_open_session);
DEFINE_ANSWERED(method_attach_session);
DEFINE_ANSWERED(method_list_servers);
DEFINE_ANSWERED(method_list_tools);
DEFINE_ANSWERED(method_start_server);
DEFINE_ANSWERED(method_stop_server);
DEFINE_ANSWERED(method_restart_server);
DEFINE_ANSWERED(method_reload);
DEFINE_ANSWERED(method_describe);

#define METHOD(name, in, in_names, out, out_names, handler)                                                            \
        SD_BUS_METHOD_WITH_NAMES(name, in, in_names, out, out_names, answered_##handler, SD_BUS_VTABLE_UNPRIVILEGED)

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        METHOD("Call", "sss", SD_BUS_PARAM(server) SD_BUS_PARAM(method) SD_BUS_PARAM(params), "s", SD_BUS_PARAM(result),
               method_call),
        METHOD("CallTool", "sss", SD_BUS_PARAM(server) SD_BUS_PARAM(tool) SD_BUS_PARAM(arguments), "s",
               SD_BUS_PARAM(result), method_call_tool),
        METHOD("CallBatch", "sa(ss)", SD_BUS_PARAM(server) SD_BUS_PARAM(calls), "a(bs)", SD_BUS_PARAM(results),
               method_call_batch),
        METHOD("CallFd", "ssha{sv}",
               SD_BUS_PARAM(server) SD_BUS_PARAM(method) SD_BUS_PARAM(params) SD_BUS_PARAM(options), "h",
               SD_BUS_PARAM(result), method_call_fd),
        METHOD("StartJob", "sssa{sv}",
               SD_BUS_PARAM(server) SD_BUS_PARAM(method) SD_BUS_PARAM(params) SD_BUS_PARAM(options), "o",
               SD_BUS_PARAM(job), method_start_job),
        METHOD("Notify", "sss", SD_BUS_PARAM(server) SD_BUS_PARAM(method) SD_BUS_PARAM(params), "", , method_notify),
        METHOD("OpenSession", "sa{sv}", SD_BUS_PARAM(server) SD_BUS_PARAM(options), "h", SD_BUS_PARAM(socket),
               method_open_session),
        METHOD("AttachSession", "shha{sv}",
               SD_BUS_PARAM(server) SD_BUS_PARAM(in) SD_BUS_PARAM(out) SD_BUS_PARAM(options), "s", SD_BUS_PARAM(id),
               method_attach_session),
        METHOD("ListServers", "", , "a(sss)", SD_BUS_PARAM(servers), method_list_servers),
        METHOD("ListTools", "s", SD_BUS_PARAM(server), "a(sss)", SD_BUS_PARAM(tools), method_list_tools),
        METHOD("StartServer", "s", SD_BUS_PARAM(server), "", , method_start_server),
        METHOD("StopServer", "s", SD_BUS_PARAM(server), "", , method_stop_server),
        METHOD("RestartServer", "s", SD_BUS_PARAM(server), "", , method_restart_server),
        METHOD("Reload", "", , "a(ss)", SD_BUS_PARAM(problems), method_reload),
        METHOD("Describe", "s", SD_BUS_PARAM(server), "s", SD_BUS_PARAM(configuration), method_describe),

        SD_BUS_PROPERTY("Version", "s", property_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Servers", "as", property_servers, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("WorkersRunning", "u", property_workers_running, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("CallsInFlight", "u", property_calls_in_flight, 0, 0),
        SD_BUS_PROPERTY("SessionsOpen", "u", property_sessions_open, 0, 0),
        SD_BUS_PROPERTY("IdleTimeoutUSec", "t", property_idle_timeout, 0, 0),

        SD_BUS_SIGNAL_WITH_NAMES("ServerChanged", "s", SD_BUS_PARAM(server), 0),
        SD_BUS_SIGNAL_WITH_NAMES("ToolsChanged", "s", SD_BUS_PARAM(server), 0),
        SD_BUS_SIGNAL_WITH_NAMES("Notification", "sss", SD_BUS_PARAM(server) SD_BUS_PARAM(method) SD_BUS_PARAM(params),
                                 0),
        SD_BUS_SIGNAL_WITH_NAMES("SessionClosed", "ss", SD_BUS_PARAM(id) SD_BUS_PARAM(reason), 0),
        SD_BUS_VTABLE_END,
};

const BusObject root_object = {
        .path = BUS_PATH,
        .interface = BUS_NAME,
        .vtable = vtable,
};
