#include "bus/errors.h"
#include "bus/service.h"

static const BusObject *const objects[] = { &root_object, &server_object, &worker_object };

int objects_register(Service *service) {
        int r;

        r = sd_bus_add_object_manager(service->bus, NULL, BUS_PATH);
        if (r < 0)
                return r;

        for (size_t i = 0; i < ELEMENTSOF(objects); i++) {
                const BusObject *object = objects[i];

                r = object->find ? sd_bus_add_fallback_vtable(service->bus, NULL, object->path, object->interface,
                                                              object->vtable, object->find, service)
                                 : sd_bus_add_object_vtable(service->bus, NULL, object->path, object->interface,
                                                            object->vtable, service);
                if (r < 0)
                        return r;

                if (object->enumerate) {
                        r = sd_bus_add_node_enumerator(service->bus, NULL, object->path, object->enumerate, service);
                        if (r < 0)
                                return r;
                }
        }

        return 0;
}
