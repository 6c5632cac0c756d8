#include "bus/objects.h"

#include "bus/errors.h"

static const BusObject *const objects[] = { &root_object, &server_object, &worker_object, &job_object };

int objects_register(Service *service, sd_bus *bus) {
        int r;

        r = sd_bus_add_object_manager(bus, NULL, BUS_PATH);
        if (r < 0)
                return r;

        for (size_t i = 0; i < ELEMENTSOF(objects); i++) {
                const BusObject *object = objects[i];

                r = object->find ? sd_bus_add_fallback_vtable(bus, NULL, object->path, object->interface,
                                                              object->vtable, object->find, service)
                                 : sd_bus_add_object_vtable(bus, NULL, object->path, object->interface, object->vtable,
                                                            service);
                if (r < 0)
                        return r;

                if (object->enumerate) {
                        r = sd_bus_add_node_enumerator(bus, NULL, object->path, object->enumerate, service);
                        if (r < 0)
                                return r;
                }
        }

        return 0;
}

int objects_append_properties(sd_bus_message *message, const BusObject *object, const char *path, void *target,
                              const char *const *names) {
        sd_bus *bus = sd_bus_message_get_bus(message);
        int r;

        r = sd_bus_message_open_container(message, 'a', "{sv}");
        for (const sd_bus_vtable *v = object->vtable; v->type != _SD_BUS_VTABLE_END && r >= 0; v++) {
                const char *name = v->x.property.member;
                bool wanted = v->type == _SD_BUS_VTABLE_PROPERTY && !names;

                for (const char *const *n = names; n && *n && v->type == _SD_BUS_VTABLE_PROPERTY; n++)
                        wanted = wanted || streq(*n, name);
                if (!wanted)
                        continue;

                r = sd_bus_message_open_container(message, 'e', "sv");
                if (r >= 0)
                        r = sd_bus_message_append(message, "s", name);
                if (r >= 0)
                        r = sd_bus_message_open_container(message, 'v', v->x.property.signature);
                if (r >= 0)
                        r = v->x.property.get(bus, path, object->interface, name, message, target, NULL);
                if (r >= 0)
                        r = sd_bus_message_close_container(message);
                if (r >= 0)
                        r = sd_bus_message_close_container(message);
        }

        return r < 0 ? r : sd_bus_message_close_container(message);
}
