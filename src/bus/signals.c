/* What has happened, told to those who may know of it. On the session bus all callers are the same user, and signals
 * are broadcast. On the system bus what concerns one user's workers goes to the clients that see those, each by
 * itself. The clients of the private socket are sent all that they may know. */

#include "broker/job.h"
#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

/* Appends a signal's arguments. */
typedef int (*append_handler)(sd_bus_message *signal, const void *what);

typedef struct News {
        const char *path, *interface, *member;
        append_handler append;
        const void *what;
} News;

/* destination: NULL: to all */
static void send_news(Service *service, sd_bus *bus, const News *news, const char *destination) {
        sd_bus_message *signal = NULL;
        int r;

        r = sd_bus_message_new_signal(bus, &signal, news->path, news->interface, news->member);
        if (r >= 0)
                r = news->append(signal, news->what);
        if (r >= 0 && destination)
                r = sd_bus_message_set_destination(signal, destination); /* sd_bus_emit_signal_to() came with 253 */
        if (r >= 0)
                r = sd_bus_send(bus, signal, NULL);
        if (r >= 0 && !destination && bus == service->bus)
                unread_add_broadcast(service, signal);
        sd_bus_message_unref(signal);
}

/* One client's share. Who doesn't read loses signals, not the service its memory. */
static void tell(Service *service, const Client *client, const News *news) {
        const Connection *connection = client->peer ? ((const Peer *)client->peer)->connection : NULL;
        uid_t audience = authorize_sees(service, client);
        sd_bus *bus = peers_bus(service, client);

        if (!bus || (connection ? !private_takes_signals(connection) : !unread_takes_signals(service, client)))
                return;

        service->audience = &audience;
        send_news(service, bus, news, connection ? NULL : client->name);
        service->audience = NULL;
        unread_add(service, client, UNREAD_MESSAGE);
}

/* owner: whom it concerns, or QUOTA_EVERYBODY */
static void publish(Service *service, uid_t owner, const News *news) {
        uid_t audience = service->options.user ? QUOTA_EVERYBODY : VIEWER_NOBODY;
        bool broadcast = service->options.user || owner == QUOTA_EVERYBODY;
        const Client *client;

        if (!service->bus || !service->manager)
                return;

        if (broadcast && unread_takes_broadcasts(service)) {
                service->audience = &audience;
                send_news(service, service->bus, news, NULL);
                service->audience = NULL;
        }

        TAILQ_FOREACH(client, &service->manager->clients, link) {
                uid_t sees = authorize_sees(service, client);

                if (!(broadcast && peers_bus(service, client) == service->bus) &&
                    (owner == QUOTA_EVERYBODY || sees == owner || sees == QUOTA_EVERYBODY))
                        tell(service, client, news);
        }
}

static int append_name(sd_bus_message *signal, const void *what) {
        return sd_bus_message_append(signal, "s", what);
}

static void publish_name(Service *service, uid_t owner, const char *member, const char *name) {
        publish(service, owner, &(News){ BUS_PATH, BUS_NAME, member, append_name, name });
}

/* An object that came, went, or changed: by the table of its properties. */
typedef struct Object {
        const char *path;
        const BusObject *kind;
        void *target;
        const char *const *names;       /* of the properties that changed */
        const char *const *invalidated; /* and of those whose values aren't told; or NULL */
} Object;

static int append_added(sd_bus_message *signal, const void *what) {
        const Object *object = what;
        int r;

        r = sd_bus_message_append(signal, "o", object->path);
        if (r >= 0)
                r = sd_bus_message_open_container(signal, 'a', "{sa{sv}}");
        if (r >= 0)
                r = sd_bus_message_open_container(signal, 'e', "sa{sv}");
        if (r >= 0)
                r = sd_bus_message_append(signal, "s", object->kind->interface);
        if (r >= 0)
                r = objects_append_properties(signal, object->kind, object->path, object->target, /* names= */ NULL);
        if (r >= 0)
                r = sd_bus_message_close_container(signal);
        return r < 0 ? r : sd_bus_message_close_container(signal);
}

static int append_removed(sd_bus_message *signal, const void *what) {
        const Object *object = what;

        return sd_bus_message_append(signal, "oas", object->path, 1, object->kind->interface);
}

static int append_changed(sd_bus_message *signal, const void *what) {
        const Object *object = what;
        int r;

        r = sd_bus_message_append(signal, "s", object->kind->interface);
        if (r >= 0)
                r = objects_append_properties(signal, object->kind, object->path, object->target, object->names);
        if (r < 0)
                return r;
        return sd_bus_message_append_strv(signal, (char **)object->invalidated);
}

static void publish_object(Service *service, uid_t owner, const char *member, append_handler append,
                           const Object *object) {
        bool change = append == append_changed;

        if (object->path)
                publish(service, owner,
                        &(News){ change ? object->path : BUS_PATH,
                                 change ? "org.freedesktop.DBus.Properties" : "org.freedesktop.DBus.ObjectManager",
                                 member, append, object });
}

static void on_servers_changed(void *userdata) {
        Service *service = userdata;

        if (service->bus)
                publish_object(
                        service, QUOTA_EVERYBODY, "PropertiesChanged", append_changed,
                        &(Object){ BUS_PATH, &root_object, service, (const char *const[]){ "Servers", NULL }, NULL });
}

static void on_server_added(void *userdata, Server *server) {
        _cleanup_(freep) char *path = server_object_path(server);

        publish_object(userdata, QUOTA_EVERYBODY, "InterfacesAdded", append_added,
                       &(Object){ path, &server_object, server, NULL, NULL });
}

static void on_server_removed(void *userdata, Server *server) {
        _cleanup_(freep) char *path = server_object_path(server);

        publish_object(userdata, QUOTA_EVERYBODY, "InterfacesRemoved", append_removed,
                       &(Object){ path, &server_object, server, NULL, NULL });
}

/* What each sees in his own way isn't told to everybody: they have to ask for it. */
static void on_server_changed(void *userdata, Server *server, uid_t owner) {
        static const char *const all[] = { "Description", "Scope", "ConfigurationFile", "State", "Workers", NULL },
                                 *const configured[] = { "Description", "Scope", "ConfigurationFile", NULL },
                                 *const running[] = { "State", "Workers", NULL };
        _cleanup_(freep) char *path = server->gone ? NULL : server_object_path(server);
        const Service *service = userdata;
        bool personal = owner == QUOTA_EVERYBODY && !service->options.user;

        publish_name(userdata, owner, "ServerChanged", server->config->name);
        publish_object(userdata, owner, "PropertiesChanged", append_changed,
                       &(Object){ path, &server_object, server,
                                  personal                   ? configured
                                  : owner == QUOTA_EVERYBODY ? all
                                                             : running,
                                  personal ? running : NULL });
}

static void on_tools_changed(void *userdata, const Server *server, uid_t owner) {
        publish_name(userdata, owner, "ToolsChanged", server->config->name);
}

static void on_workers_changed(void *userdata, uid_t owner) {
        static const char *const number[] = { "WorkersRunning", NULL }, *const none[] = { NULL };
        const Service *service = userdata;
        bool personal = owner == QUOTA_EVERYBODY && !service->options.user;

        publish_object(
                userdata, owner, "PropertiesChanged", append_changed,
                &(Object){ BUS_PATH, &root_object, userdata, personal ? none : number, personal ? number : NULL });
}

static void on_worker_added(void *userdata, uid_t owner, Worker *worker) {
        _cleanup_(freep) char *path = worker_object_path(worker);

        publish_object(userdata, owner, "InterfacesAdded", append_added,
                       &(Object){ path, &worker_object, worker, NULL, NULL });
}

static void on_worker_changed(void *userdata, uid_t owner, Worker *worker) {
        _cleanup_(freep) char *path = worker_object_path(worker);

        publish_object(userdata, owner, "PropertiesChanged", append_changed,
                       &(Object){ path, &worker_object, worker,
                                  (const char *const[]){ "State", "Pid", "Era", "ProtocolVersion", "ServerInfo", NULL },
                                  NULL });
}

static void on_worker_removed(void *userdata, uid_t owner, Worker *worker) {
        _cleanup_(freep) char *path = worker_object_path(worker);

        publish_object(userdata, owner, "InterfacesRemoved", append_removed,
                       &(Object){ path, &worker_object, worker, NULL, NULL });
}

typedef struct Notification {
        const char *server, *method;
        const Buffer *params;
} Notification;

static int append_notification(sd_bus_message *signal, const void *what) {
        const Notification *notification = what;

        return sd_bus_message_append(signal, "sss", notification->server, notification->method,
                                     buffer_data(notification->params));
}

static void on_notification(void *userdata, Client *client, const Server *server, const char *method, JsonSlice params,
                            const JsonTraits *traits) {
        Service *service = userdata;
        sd_bus *bus = peers_bus(service, client);
        Buffer text = {};

        if (params.size > service->manager->quota.settings.limits.message)
                return;

        if ((!params.data || json_append(&text, params, traits) >= 0) && buffer_append(&text, "", 1) >= 0)
                tell(service, client,
                     &(News){ BUS_PATH, BUS_NAME, "Notification", append_notification,
                              &(Notification){ server->config->name, method, &text } });
        if (bus)
                private_sent(service, bus, params.size);
        unread_add(service, client, params.size);
        buffer_done(&text);
}

static void on_job_added(void *userdata, Job *job) {
        _cleanup_(freep) char *path = job_object_path(job);

        publish_object(userdata, job->client->uid, "InterfacesAdded", append_added,
                       &(Object){ path, &job_object, job, NULL, NULL });
}

static void on_job_removed(void *userdata, Job *job) {
        _cleanup_(freep) char *path = job_object_path(job);

        publish_object(userdata, job->client->uid, "InterfacesRemoved", append_removed,
                       &(Object){ path, &job_object, job, NULL, NULL });
}

static int append_progress(sd_bus_message *signal, const void *what) {
        const Job *job = what;

        return sd_bus_message_append(signal, "dds", job->progress, job->total, job->progress_message ?: "");
}

static int append_finished(sd_bus_message *signal, const void *what) {
        const Job *job = what;

        return sd_bus_message_append(signal, "sss", job_state_to_string(job->state),
                                     job->failure.code ? bus_error_name(job->failure.code) : "",
                                     job->failure.code ? failure_message(&job->failure) : "");
}

/* To the connection that started it, if it is still there. */
static void tell_owner(Service *service, const Job *job, const char *member, append_handler append) {
        const Client *client = service->manager ? manager_find_client(service->manager, job->client->name) : NULL;
        _cleanup_(freep) char *path = job_object_path(job);
        News news = { path, job_object.interface, member, append, job };

        if (client && path)
                tell(service, client, &news);
        else if (job->inherited && service->bus && path)
                send_news(service, service->bus, &news, job->client->name);
}

static void on_job_progress(void *userdata, Job *job) {
        tell_owner(userdata, job, "Progress", append_progress);
}

static void on_job_finished(void *userdata, Job *job) {
        _cleanup_(freep) char *path = job_object_path(job);

        publish_object(userdata, job->client->uid, "PropertiesChanged", append_changed,
                       &(Object){ path, &job_object, job,
                                  (const char *const[]){ "State", "Error", "FinishedTimestamp", "ResultSize", NULL },
                                  NULL });
        tell_owner(userdata, job, "Finished", append_finished);
}

static int append_session(sd_bus_message *signal, const void *what) {
        const char *const *texts = what;

        return sd_bus_message_append(signal, "ss", texts[0], texts[1]);
}

static void on_session_closed(void *userdata, Client *opener, const char *id, const char *reason) {
        tell(userdata, opener,
             &(News){ BUS_PATH, BUS_NAME, "SessionClosed", append_session, (const char *const[]){ id, reason } });
}

static void on_configured(void *userdata) {
        service_configured(userdata);
}

static uint64_t on_worked(void *userdata, uid_t uid, uint64_t usec) {
        return turns_charge_time(userdata, uid, usec);
}

static void on_maybe_idle(void *userdata) {
        service_maybe_idle(userdata);
}

const ManagerHandlers signals_handlers = {
        .configured = on_configured,
        .servers_changed = on_servers_changed,
        .server_added = on_server_added,
        .server_removed = on_server_removed,
        .server_changed = on_server_changed,
        .may_use = authorize_known,
        .tools_changed = on_tools_changed,
        .workers_changed = on_workers_changed,
        .worker_added = on_worker_added,
        .worker_changed = on_worker_changed,
        .worker_removed = on_worker_removed,
        .notification = on_notification,
        .job_added = on_job_added,
        .job_progress = on_job_progress,
        .job_finished = on_job_finished,
        .job_removed = on_job_removed,
        .session_closed = on_session_closed,
        .worked = on_worked,
        .maybe_idle = on_maybe_idle,
};
