/* What clients of the private socket haven't read. sd-bus keeps any number of messages for a client that doesn't read,
 * and tells their number only: they are the last ones that were sent, whose sizes are noted here. */

#include "bus/errors.h"
#include "bus/private.h"

/* So many times limits.unread_answers_per_connection a connection is closed: refusals are messages too. */
#define CLOSE_TIMES 8

#define CLOSE_TIMES_BYTES 2 /* likewise, of bytes: a user's, or those of all */

#define SIGNALS_UNREAD_MAX 16 /* messages, until which signals are sent */
#define SIGNALS_UNREAD_BYTES_MAX (1 << 20)

static unsigned unread(const Connection *connection) {
        uint64_t n = 0;

        (void)sd_bus_get_n_queued_write(connection->bus, &n);
        return (unsigned)MIN(n, UINT32_MAX);
}

static size_t unread_bytes(const Connection *connection) {
        unsigned n = MIN(unread(connection), connection->n_sent);
        size_t sum = 0;

        for (unsigned i = 1; i <= n; i++)
                sum += connection->sent[connection->n_sent - i];

        return sum;
}

static int note_sent(Connection *connection, uint64_t n_unread, size_t bytes) {
        if (connection->n_sent > n_unread) {
                size_t n_read = connection->n_sent - n_unread;

                memmove(connection->sent, connection->sent + n_read, n_unread * sizeof(*connection->sent));
                connection->n_sent = n_unread;
        }

        if (connection->n_sent == connection->sent_size) {
                unsigned size = MAX(2 * connection->sent_size, 16u);
                size_t *sent = reallocarray(connection->sent, size, sizeof(*sent));

                if (!sent)
                        return -ENOMEM;
                connection->sent = sent;
                connection->sent_size = size;
        }

        connection->sent[connection->n_sent++] = bytes;
        return 0;
}

void private_sent(Service *service, sd_bus *bus, size_t bytes) {
        Connection *connection;
        uint64_t n = 0;

        if (bus == service->bus || sd_bus_get_n_queued_write(bus, &n) < 0 || n == 0)
                return;

        service->results_wait = true;
        TAILQ_FOREACH(connection, &service->connections, link)
                if (connection->bus == bus && note_sent(connection, n - 1, bytes) < 0)
                        private_close_soon(connection, "out of memory");
}

bool private_reads(const Connection *connection) {
        return unread(connection) <=
               CLOSE_TIMES * connection->service->manager->quota.settings.limits.unread_answers_per_connection;
}

bool private_takes_signals(const Connection *connection) {
        return connection->greeted && unread(connection) <= SIGNALS_UNREAD_MAX &&
               unread_bytes(connection) <= SIGNALS_UNREAD_BYTES_MAX;
}

/* Results of what was under way come all the same: with twice as much as may be there, of a user or of all, the
 * connection that has most goes, and the others are served. */
static void limit_results(Service *service, uid_t uid) {
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        Connection *connection, *users_worst = NULL, *worst = NULL;
        size_t sum = 0, all = 0, users_most = 0, most = 0;

        TAILQ_FOREACH(connection, &service->connections, link) {
                size_t bytes = connection->closing ? 0 : unread_bytes(connection);
                bool users = connection->client && connection->client->uid == uid;

                all += bytes;
                sum += users ? bytes : 0;
                if (bytes > most) {
                        worst = connection;
                        most = bytes;
                }
                if (users && bytes > users_most) {
                        users_worst = connection;
                        users_most = bytes;
                }
        }

        service->results_wait = all > 0;
        if (sum > CLOSE_TIMES_BYTES * limits->unread_bytes_per_user)
                private_close_soon(users_worst,
                                   "its user's clients don't read their results (limits.unread_bytes_per_user)");
        else if (all > CLOSE_TIMES_BYTES * limits->unread_bytes)
                private_close_soon(worst, "clients don't read their results (limits.unread_bytes)");
}

int private_takes_calls(Connection *connection, sd_bus_error *error) {
        Service *service = connection->service;
        const __typeof__(service->manager->quota.settings.limits) *limits = &service->manager->quota.settings.limits;
        Failure failure = {};
        int r = 0;

        if (unread(connection) > limits->unread_answers_per_connection)
                r = quota_exceeded(&failure, "answers weren't read by this connection",
                                   limits->unread_answers_per_connection, "unread_answers_per_connection");
        else if (unread_bytes(connection) > limits->unread_bytes_per_connection)
                r = quota_exceeded(&failure, "bytes of results weren't read by this connection",
                                   limits->unread_bytes_per_connection, "unread_bytes_per_connection");
        else if (service->results_wait)
                limit_results(service, connection->client->uid);

        return r < 0 ? bus_error_set_failure(error, &failure) : 0;
}
