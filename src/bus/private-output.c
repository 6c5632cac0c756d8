/* What clients of the private socket haven't read. sd-bus keeps any number of messages for a client that doesn't read,
 * and tells their number only: they are the last ones that were sent, whose sizes are noted here. */

#include "bus/errors.h"
#include "bus/private.h"

#define UNREAD_MAX 32                    /* messages, until which calls are taken */
#define UNREAD_CLOSE 256                 /* for who goes on calling: refusals are messages too */
#define UNREAD_BYTES_MAX (16 << 20)      /* of results, in one connection */
#define UNREAD_BYTES_USER_MAX (64 << 20) /* in all of a user's */

#define SIGNALS_UNREAD_MAX 16 /* messages, until which signals are sent */
#define SIGNALS_UNREAD_BYTES_MAX (1 << 20)

static unsigned unread(const Connection *connection) {
        uint64_t n = 0;

        (void)sd_bus_get_n_queued_write(connection->bus, &n);
        return (unsigned)MIN(n, UINT32_MAX);
}

static size_t unread_bytes(const Connection *connection) {
        unsigned n = MIN(MIN(unread(connection), connection->n_sent), ELEMENTSOF(connection->sent));
        size_t sum = 0;

        for (unsigned i = 1; i <= n; i++)
                sum += connection->sent[(connection->n_sent - i) % ELEMENTSOF(connection->sent)];

        return sum;
}

/* Where a user's clients leave too much unread, the worst of them goes, and the others are served. */
static void limit_unread_of_user(Service *service, uid_t uid) {
        Connection *connection, *worst = NULL;
        size_t sum = 0, all = 0, most = 0;

        TAILQ_FOREACH(connection, &service->connections, link) {
                size_t bytes = connection->closing ? 0 : unread_bytes(connection);

                all += bytes;
                if (!connection->client || connection->client->uid != uid)
                        continue;
                sum += bytes;
                if (bytes > most) {
                        worst = connection;
                        most = bytes;
                }
        }

        service->results_wait = all > 0;
        if (sum > UNREAD_BYTES_USER_MAX)
                private_close_soon(worst, "its user's clients don't read their results");
}

void private_sent(Service *service, sd_bus *bus, size_t bytes) {
        Connection *connection;
        uint64_t n = 0;

        if (bus == service->bus || sd_bus_get_n_queued_write(bus, &n) < 0 || n == 0)
                return;

        service->results_wait = true;
        TAILQ_FOREACH(connection, &service->connections, link)
                if (connection->bus == bus)
                        connection->sent[connection->n_sent++ % ELEMENTSOF(connection->sent)] = bytes;
}

bool private_reads(const Connection *connection) {
        return unread(connection) <= UNREAD_CLOSE;
}

bool private_takes_signals(const Connection *connection) {
        return connection->greeted && unread(connection) <= SIGNALS_UNREAD_MAX &&
               unread_bytes(connection) <= SIGNALS_UNREAD_BYTES_MAX;
}

int private_takes_calls(Connection *connection, sd_bus_error *error) {
        unsigned n = unread(connection);
        size_t bytes = unread_bytes(connection);

        if (n > UNREAD_MAX)
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "This connection hasn't read %u answers: the limit is %u", n, UNREAD_MAX);
        if (bytes > UNREAD_BYTES_MAX)
                return sd_bus_error_setf(error, BUS_ERROR("LimitsExceeded"),
                                         "This connection hasn't read %zu bytes of results: the limit is %u", bytes,
                                         UNREAD_BYTES_MAX);
        if (connection->service->results_wait)
                limit_unread_of_user(connection->service, connection->client->uid);
        return 0;
}
