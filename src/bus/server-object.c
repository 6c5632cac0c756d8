#include "bus/errors.h"
#include "bus/objects.h"
#include "bus/peers.h"

#define PREFIX BUS_PATH "/server"

char *server_object_path(const Server *server) {
        char *path = NULL;

        return sd_bus_path_encode(PREFIX, server->config->name, &path) < 0 ? NULL : path;
}

static uid_t viewer_of(const Server *server, sd_bus *bus) {
        return authorize_viewer(server->manager->userdata, bus);
}

static int property_string(sd_bus *bus, const char *path _unused_, const char *interface _unused_, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Server *server = userdata;
        const ServerConfig *config = server->config;
        const char *value = streq(property, "Name")          ? config->name
                            : streq(property, "Description") ? config->description ?: ""
                            : streq(property, "Scope")       ? server_scope_to_string(config->scope)
                            : streq(property, "Era") ? mcp_era_to_string(era_cache_get(server->manager->eras, config))
                            : streq(property, "ConfigurationFile") ? config->file
                                                                   : server_state(server, viewer_of(server, bus));

        return sd_bus_message_append(reply, "s", value);
}

static int property_workers(sd_bus *bus, const char *path _unused_, const char *interface _unused_,
                            const char *property _unused_, sd_bus_message *reply, void *userdata,
                            sd_bus_error *error _unused_) {
        const Server *server = userdata;
        const ServerPool *server_pool;
        uid_t viewer = viewer_of(server, bus);
        const Worker *worker;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "o");
        if (r < 0)
                return r;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                TAILQ_FOREACH(worker, &server_pool->pool->workers, link) {
                        _cleanup_(freep) char *worker_path = worker_object_path(worker);

                        if (!server_pool_visible(server_pool, viewer))
                                continue;
                        r = worker_path ? sd_bus_message_append(reply, "o", worker_path) : -ENOMEM;
                        if (r < 0)
                                return r;
                }

        return sd_bus_message_close_container(reply);
}

static int property_count(sd_bus *bus, const char *path _unused_, const char *interface _unused_, const char *property,
                          sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const Server *server = userdata;
        const ServerPool *server_pool;
        uid_t viewer = viewer_of(server, bus);
        uint32_t n = 0;

        TAILQ_FOREACH(server_pool, &server->pools, link)
                if (server_pool_visible(server_pool, viewer))
                        n += streq(property, "QueuedCalls") ? server_pool->pool->n_queued
                                                            : server_pool->pool->n_in_flight;

        return sd_bus_message_append(reply, "u", n);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Name", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Description", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("State", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Scope", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Era", "s", property_string, 0, 0),
        SD_BUS_PROPERTY("ConfigurationFile", "s", property_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Workers", "ao", property_workers, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("CallsInFlight", "u", property_count, 0, 0),
        SD_BUS_PROPERTY("QueuedCalls", "u", property_count, 0, 0),
        SD_BUS_VTABLE_END,
};

static int find(sd_bus *bus _unused_, const char *path, const char *interface _unused_, void *userdata, void **ret,
                sd_bus_error *error _unused_) {
        Service *service = userdata;
        _cleanup_(freep) char *name = NULL;
        Server *server;
        int r;

        r = sd_bus_path_decode(path, PREFIX, &name);
        if (r <= 0)
                return r;

        server = manager_find_server(service->manager, name);
        if (!server)
                return 0;

        *ret = server;
        return 1;
}

static int enumerate(sd_bus *bus _unused_, const char *prefix _unused_, void *userdata, char ***ret,
                     sd_bus_error *error _unused_) {
        Service *service = userdata;
        const Server *server;
        size_t n = 0;
        char **paths;

        TAILQ_FOREACH(server, &service->manager->servers, link)
                n++;

        paths = new0(char *, n + 1);
        if (!paths)
                return -ENOMEM;

        n = 0;
        TAILQ_FOREACH(server, &service->manager->servers, link)
                if (!server->gone && (paths[n] = server_object_path(server)))
                        n++;

        *ret = paths;
        return 0;
}

const BusObject server_object = {
        .path = PREFIX,
        .interface = BUS_NAME ".Server",
        .vtable = vtable,
        .find = find,
        .enumerate = enumerate,
};
