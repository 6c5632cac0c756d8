/* What comes in on a connection of the private socket, seen ahead of sd-bus, which would take a message of 128 MiB, and
 * wait for the end of one for ever.
 *
 * sd-bus reads a message to its end, and not beyond. So behind one that it has brought, what is in the socket is the
 * start of the next, which tells its size. From there on the bytes that sd-bus takes are counted, until it brings that
 * message: for it drops those that are no good, and reads on. The kernel counts, by lowering SO_PEEK_OFF (socket(7)) by
 * what is read. There is only the count where sd-bus comes first: behind the authentication, of which it may have read
 * more than the end, and where it writes, for then it reads as well. */

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "bus/private.h"

#define MESSAGE_TIME (30 * USEC_PER_SEC) /* from a message's first byte to its last */
#define LOOK_TIME (1 * USEC_PER_MSEC)    /* until the count is looked at again, when sd-bus has read */
#define MESSAGE_MAX (16 << 20)           /* bytes, as on the bus */
#define SMALL_MAX (1 << 20)
#define HEAVY_SIZE (1 << 16)
#define LARGE_PER_USER_MAX (64 << 20) /* of all messages beyond SMALL_MAX that come in from one user's connections */

#define FIXED_HEADER 16 /* bytes that tell a message's size (D-Bus specification, Message Format) */
#define COUNT_FROM (1 << 30)

static void set_peek_offset(Connection *connection, int offset) {
        if (setsockopt(connection->fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0)
                private_close_soon(connection, "what it sends can't be counted");
}

static uint64_t counted(const Connection *connection) {
        socklen_t size = sizeof(int);
        int offset = COUNT_FROM;

        (void)getsockopt(connection->fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &size);
        return (uint64_t)(COUNT_FROM - offset);
}

static uint32_t read_number(const uint8_t *data, bool big) {
        return big ? (uint32_t)data[0] << 24 | data[1] << 16 | data[2] << 8 | data[3]
                   : (uint32_t)data[3] << 24 | data[2] << 16 | data[1] << 8 | data[0];
}

static uint64_t message_size(const uint8_t header[FIXED_HEADER]) {
        bool big = header[0] == 'B';
        uint64_t fields = read_number(header + 12, big);

        return FIXED_HEADER + ((fields + 7) & ~UINT64_C(7)) + read_number(header + 4, big);
}

static uint64_t large_of_user(const Connection *connection) {
        const Connection *other;
        uint64_t sum = 0;

        TAILQ_FOREACH(other, &connection->service->connections, link)
                if (other->client && other->client->uid == connection->client->uid && other->incoming > SMALL_MAX)
                        sum += other->incoming;

        return sum;
}

static void check_size(Connection *connection, uint64_t size) {
        connection->incoming = MAX(connection->incoming, size);
        connection->heavy = connection->heavy || size > HEAVY_SIZE;
        if (size > MESSAGE_MAX)
                private_close_soon(connection, "its message is too large");
        else if (size > SMALL_MAX && large_of_user(connection) > LARGE_PER_USER_MAX)
                private_close_soon(connection, "its user sends too many large messages at once");
}

/* The more connections, the later: looking at them must not become all that is done. */
static void look_later(Connection *connection) {
        const Service *service = connection->service;

        private_check_at(connection, usec_add(service_now(connection->service), LOOK_TIME * service->n_connections));
}

static void note_begin(Connection *connection) {
        connection->message_since = service_now(connection->service);
        look_later(connection);
}

static void start_counting(Connection *connection) {
        connection->counting = true;
        set_peek_offset(connection, COUNT_FROM);
}

/* sd-bus has read what came before, and nothing of what comes. */
static void look_ahead(Connection *connection) {
        uint8_t header[FIXED_HEADER];
        ssize_t n;

        if (connection->counting)
                set_peek_offset(connection, -1);
        connection->counting = false;
        connection->at_boundary = true;
        connection->message_since = 0;
        connection->size = connection->incoming = 0;

        n = recv(connection->fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
        if (n <= 0)
                return;

        start_counting(connection);
        note_begin(connection);
        if (n == sizeof(header)) {
                connection->size = message_size(header);
                check_size(connection, connection->size);
        }
}

/* Edge-triggered */
static int on_bytes(sd_event_source *source _unused_, int fd _unused_, uint32_t events _unused_, void *userdata) {
        Connection *connection = userdata;
        bool first = connection->message_since == 0;

        if (!connection->connected_source || connection->closing)
                return 0; /* not yet authenticated, or of no interest any more */

        if (first && (!connection->counting || (connection->at_boundary && counted(connection) == 0))) {
                look_ahead(connection);
                return 0;
        }

        if (first)
                note_begin(connection);
        private_input_check(connection);
        return 0;
}

void private_input_unseen(Connection *connection) {
        if (connection->counting && connection->message_since == 0 && counted(connection) > 0)
                note_begin(connection);
}

void private_input_process(Connection *connection) {
        int r;

        if (connection->closing)
                return;

        r = sd_bus_process(connection->bus, NULL);
        if (connection->connected_source)
                private_input_unseen(connection);
        if (r < 0)
                private_close_soon(connection, strerror(-r));
}

static int on_queue(sd_event_source *source _unused_, void *userdata) {
        private_input_process(userdata);
        return 0;
}

/* Before each turn of the loop. Where sd-bus has something to write, or a message in its queue, it will be called
 * though nothing has come in, and may find what comes in meanwhile. */
static int on_prepare(sd_event_source *source _unused_, void *userdata) {
        Connection *connection = userdata;
        uint64_t n_write = 0, n_read = 0;
        bool before = connection->busy;

        if (connection->closing)
                return 0;

        (void)sd_bus_get_n_queued_read(connection->bus, &n_read);
        if (n_read > 0 && peers_process_queue(connection->service, &connection->queue_source, on_queue, connection) < 0)
                private_close_soon(connection, "out of memory");
        if (!connection->connected_source || connection->closing)
                return 0;

        (void)sd_bus_get_n_queued_write(connection->bus, &n_write);
        connection->busy = n_write > 0 || n_read > 0;
        if (connection->busy && !connection->counting)
                start_counting(connection);
        else if (connection->busy || before)
                private_input_unseen(connection);
        return 0;
}

void private_input_authenticated(Connection *connection) {
        start_counting(connection);
}

void private_input_message(Connection *connection) {
        if (connection->n_resumed > 0)
                connection->n_resumed--; /* was read long ago */
        else if (connection->at_boundary || counted(connection) > 0)
                look_ahead(connection);
        /* or else it came with the authentication, and perhaps there is more of that */
}

void private_input_check(Connection *connection) {
        uint64_t now = service_now(connection->service), until = usec_add(connection->message_since, MESSAGE_TIME), n;
        int waiting = 0;

        if (connection->message_since == 0 || private_reading_paused(connection))
                return;
        if (now >= until) {
                private_close_soon(connection, "its message doesn't end");
                return;
        }

        n = counted(connection);
        (void)ioctl(connection->fd, FIONREAD, &waiting);
        check_size(connection, n);
        if (connection->size > 0 && n >= connection->size)
                private_close_soon(connection, "what it sends is no message");
        if (waiting > 0)
                look_later(connection);
        else
                private_check_at(connection, until);
}

void private_input_resumed(Connection *connection) {
        if (connection->message_since > 0)
                note_begin(connection);
}

int private_input_watch(Connection *connection) {
        int r;

        r = sd_event_add_io(connection->service->event, &connection->bytes_source, connection->fd, EPOLLIN | EPOLLET,
                            on_bytes, connection);
        if (r >= 0)
                r = sd_event_source_set_prepare(connection->bytes_source, on_prepare);
        if (r < 0)
                return r;

        return sd_event_source_set_priority(connection->bytes_source, PRIVATE_PRIORITY);
}
