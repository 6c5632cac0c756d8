/* Stands in for the bus that clients of the private socket think they talk to: a name of one's own, and nobody else
 * there. */

#include <systemd/sd-id128.h>

#include "bus/errors.h"
#include "bus/private.h"

int private_answer_as_bus(Connection *connection, sd_bus_message *message, sd_bus_error *error) {
        const char *member = sd_bus_message_get_member(message), *name = NULL;

        if (streq(member, "Hello"))
                return sd_bus_reply_method_return(message, "s", connection->client->name);
        if (streq(member, "AddMatch") || streq(member, "RemoveMatch"))
                return sd_bus_reply_method_return(message, NULL);
        if (streq(member, "GetId")) {
                sd_id128_t id;

                if (sd_bus_get_bus_id(connection->bus, &id) < 0)
                        return -ENODATA;
                return sd_bus_reply_method_return(message, "s", SD_ID128_TO_STRING(id));
        }
        if (streq(member, "ListNames") || streq(member, "ListActivatableNames"))
                return sd_bus_reply_method_return(message, "as", 4, DBUS_NAME, BUS_NAME, OWN_NAME,
                                                  connection->client->name);

        if (streq(member, "NameHasOwner") || streq(member, "GetNameOwner") || streq(member, "StartServiceByName")) {
                int r = sd_bus_message_read(message, streq(member, "StartServiceByName") ? "su" : "s", &name,
                                            &(uint32_t){ 0 });
                bool known = r >= 0 && (streq(name, DBUS_NAME) || streq(name, BUS_NAME) || streq(name, OWN_NAME) ||
                                        streq(name, connection->client->name));

                if (r < 0)
                        return r;
                if (streq(member, "NameHasOwner"))
                        return sd_bus_reply_method_return(message, "b", known);
                if (!known)
                        return sd_bus_error_setf(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                                                 "%s can't be reached by this socket", name);
                if (streq(member, "GetNameOwner"))
                        return sd_bus_reply_method_return(message, "s", streq(name, BUS_NAME) ? OWN_NAME : name);
                return sd_bus_reply_method_return(message, "u", UINT32_C(2)); /* it runs already */
        }

        return sd_bus_error_setf(error, SD_BUS_ERROR_UNKNOWN_METHOD, "This socket is no bus: there is no %s", member);
}
