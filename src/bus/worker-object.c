#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

#define PREFIX BUS_PATH "/worker"

char *worker_object_path(const Worker *worker) {
        char *path = NULL;

        return sd_bus_path_encode(PREFIX, worker->id, &path) < 0 ? NULL : path;
}

static int property_string(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                           const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Worker *worker = userdata;
        const char *value = streq(property, "Id")                ? worker->id
                            : streq(property, "Server")          ? worker->config->name
                            : streq(property, "Owner")           ? worker->pool->owner
                            : streq(property, "Era")             ? mcp_era_to_string(worker->era)
                            : streq(property, "ProtocolVersion") ? worker->protocol_version
                            : streq(property, "ServerInfo")      ? worker->server_info ?: ""
                                                                 : worker_state_to_string(worker->state);

        return sd_bus_message_append(reply, "s", value);
}

static int property_pid(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                        const char *property _unused_, sd_bus_message *reply, void *userdata,
                        sd_bus_error *error _unused_) {
        const Worker *worker = userdata;

        return sd_bus_message_append(reply, "u", worker->process ? (uint32_t)worker->process->pid : 0);
}

static int property_number(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                           const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Worker *worker = userdata;
        uint64_t value = streq(property, "StartedTimestamp")      ? worker->started_realtime
                         : streq(property, "LastActiveTimestamp") ? worker->last_active_realtime
                         : streq(property, "Calls")               ? worker->calls
                         : streq(property, "CallTimeUSec")        ? worker->call_time
                         : streq(property, "LateAnswers")         ? worker->late_answers
                                                                  : worker->stray_lines;

        return sd_bus_message_append(reply, "t", value);
}

static int property_in_flight(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                              const char *property _unused_, sd_bus_message *reply, void *userdata,
                              sd_bus_error *error _unused_) {
        const Worker *worker = userdata;

        return sd_bus_message_append(reply, "u", (uint32_t)worker->n_requests);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Server", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Owner", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pid", "u", property_pid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("StartedTimestamp", "t", property_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Era", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ProtocolVersion", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ServerInfo", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LastActiveTimestamp", "t", property_number, 0, 0),
        SD_BUS_PROPERTY("Calls", "t", property_number, 0, 0),
        SD_BUS_PROPERTY("CallTimeUSec", "t", property_number, 0, 0),
        SD_BUS_PROPERTY("InFlight", "u", property_in_flight, 0, 0),
        SD_BUS_PROPERTY("LateAnswers", "t", property_number, 0, 0),
        SD_BUS_PROPERTY("StrayLines", "t", property_number, 0, 0),
        SD_BUS_VTABLE_END,
};

/* Another user's worker is as one that isn't there. */
static int find(sd_bus *bus, const char *path, const char *interface _unused_, void *userdata, void **ret,
                sd_bus_error *error _unused_) {
        Service *service = userdata;
        _cleanup_(freep) char *id = NULL;
        ServerPool *server_pool;
        Worker *worker;
        int r;

        r = sd_bus_path_decode(path, PREFIX, &id);
        if (r <= 0)
                return r;

        worker = manager_find_worker(service->manager, id, &server_pool);
        if (!worker || !server_pool_visible(server_pool, authorize_viewer(service, bus)))
                return 0;

        *ret = worker;
        return 1;
}

static int enumerate(sd_bus *bus, const char *prefix _unused_, void *userdata, char ***ret,
                     sd_bus_error *error _unused_) {
        Service *service = userdata;
        const Server *server;
        const ServerPool *server_pool;
        uid_t viewer = authorize_viewer(service, bus);
        const Worker *worker;
        size_t n = 0;
        char **paths;

        paths = new0(char *, service->manager->quota.counts.workers + 1);
        if (!paths)
                return -ENOMEM;

        TAILQ_FOREACH(server, &service->manager->servers, link)
                TAILQ_FOREACH(server_pool, &server->pools, link)
                        TAILQ_FOREACH(worker, &server_pool->pool->workers, link)
                                if (server_pool_visible(server_pool, viewer) &&
                                    n < service->manager->quota.counts.workers &&
                                    (paths[n] = worker_object_path(worker)))
                                        n++;

        *ret = paths;
        return 0;
}

const BusObject worker_object = {
        .path = PREFIX,
        .interface = BUS_NAME ".Worker",
        .vtable = vtable,
        .find = find,
        .enumerate = enumerate,
};
