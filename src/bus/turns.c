/* Whose message is next.
 *
 * Who sends now and then is served as it comes. Behind what lies in the socket the next small call of somebody else may
 * wait: where there is more than that, it is read before anything else is done, a few messages of each are served at
 * once, and the rest waits here. Each turn of the loop reads on, and serves one of them: users in turn, and each one's
 * connections. What large messages of one user take, or more on one connection than it may have under way, is kept from
 * others by a rest behind each, while others call. */

#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "bus/errors.h"
#include "bus/message-size.h"
#include "bus/peers.h"

#define READ_TIME (USEC_PER_MSEC / 5) /* for which a turn of the loop reads what is there */
#define READ_MIN 16                   /* messages that it reads in any case */
#define DIRECT_MAX 4                  /* messages of a connection that are served at once, a round */
#define DIRECT_USER_MAX 8
#define BACKLOG (4 << 10)               /* bytes in the socket: some ten calls */
#define ACTIVE_TIME (USEC_PER_SEC / 10) /* somebody calls who has called within it */
#define LARGE ((size_t)16 << 10)        /* bytes */
#define REST_NSEC 18                    /* for each byte of what is large: some four times what it takes to serve */
#define REST_TIMES 5                    /* what was worked, from its beginning on: likewise */
#define REST_MAX (100 * USEC_PER_MSEC)
#define FLOOD_REST USEC_PER_MSEC /* for each: meanwhile a bus refuses what is too much, instead of handing it on */
#define CONNECTION_REST (3 * USEC_PER_MSEC) /* for each: it is made, its calls are withdrawn, and it is closed */
#define HEAVY ((uint64_t)1 << 20)
#define COUNT_FROM (1 << 30)

struct Share {
        TAILQ_ENTRY(Share) link; /* the one whose turn is next stands first */
        uid_t uid;
        unsigned n_turns;                    /* connections */
        TAILQ_HEAD(, Turn) waiting;          /* those of which something waits, likewise */
        uint64_t active, rests_until, round; /* usec, CLOCK_MONOTONIC */
        uint64_t works_at; /* likewise, for files: their pieces come whenever they may, and would keep calls waiting */
        unsigned n_direct;
};

static int on_turn(sd_event_source *source, void *userdata);

void turns_init(Turns *turns) {
        TAILQ_INIT(&turns->shares);
}

static void share_free(Turns *turns, Share *share) {
        TAILQ_REMOVE(&turns->shares, share, link);
        if (turns->last == share)
                turns->last = NULL;
        if (turns->other == share)
                turns->other = NULL;
        free(share);
}

/* Who comes again finds the rest that is owed. */
static Share *get_share(Turns *turns, uid_t uid, uint64_t now) {
        Share *share, *next, *found = NULL;

        TAILQ_FOREACH_SAFE(share, &turns->shares, link, next)
                if (share->uid == uid)
                        found = share;
                else if (share->n_turns == 0 && MAX(share->rests_until, share->works_at) <= now)
                        share_free(turns, share);
        if (found)
                return found;

        share = new0(Share, 1);
        if (!share)
                return NULL;

        share->uid = uid;
        TAILQ_INIT(&share->waiting);
        TAILQ_INSERT_TAIL(&turns->shares, share, link);
        return share;
}

int turns_add(Service *service, Client *client) {
        Turn *turn = &((Peer *)client->peer)->turn;

        TAILQ_INIT(&turn->waiting);
        turn->share = get_share(&service->turns, client->uid, service_now(service));
        if (!turn->share)
                return -ENOMEM;

        turn->share->n_turns++;
        return 0;
}

/* Takes the oldest one; NULL: there is none. The message is the caller's. */
static sd_bus_message *take_waiting(Service *service, Turn *turn) {
        Peer *peer = (Peer *)((char *)turn - offsetof(Peer, turn));
        Waiting *waiting = TAILQ_FIRST(&turn->waiting);
        sd_bus_message *message;

        if (!waiting)
                return NULL;

        message = waiting->message;
        TAILQ_REMOVE(&turn->waiting, waiting, link);
        if (TAILQ_EMPTY(&turn->waiting)) {
                TAILQ_REMOVE(&turn->share->waiting, turn, link);
                if (peer->connection)
                        private_pause_reading(peer->connection, false);
        }
        quota_release_waiting(&service->manager->quota, turn->share->uid, waiting->bytes);
        turn->n_waiting--;
        service->turns.n_waiting--;
        if (service->turns.n_waiting == 0 && service->turns.heavy) {
                service->turns.heavy = false;
                service_trim(service);
        }
        free(waiting);
        return message;
}

void turns_remove(Service *service, Client *client, bool answer) {
        Turn *turn = &((Peer *)client->peer)->turn;
        sd_bus_message *message;

        if (!turn->share)
                return;

        while ((message = take_waiting(service, turn))) {
                if (answer)
                        (void)sd_bus_reply_method_errorf(message, BUS_ERROR("Unavailable"), "The service is leaving");
                sd_bus_message_unref(message);
        }
        turn->share->n_turns--;
        turn->share = NULL;
}

void turns_done(Service *service) {
        Turns *turns = &service->turns;
        Share *share, *next;

        turns->source = sd_event_source_disable_unref(turns->source);
        turns->timer = sd_event_source_disable_unref(turns->timer);
        TAILQ_FOREACH_SAFE(share, &turns->shares, link, next)
                share_free(turns, share);
}

static bool others_call(const Turns *turns, const Share *share, uint64_t now) {
        const Share *other = turns->last != share ? turns->last : turns->other;

        return other && now < usec_add(other->active, ACTIVE_TIME);
}

static void note_active(Turns *turns, Share *share, uint64_t now) {
        share->active = now;
        if (turns->last == share)
                return;

        turns->other = turns->last;
        turns->last = share;
}

static void rest_for(Service *service, const Share *share, uint64_t *until, uint64_t usec) {
        uint64_t now = service_now(service);

        if (others_call(&service->turns, share, now))
                *until = MIN(MAX(*until, now) + usec, usec_add(now, REST_MAX));
}

static void rest(Service *service, Share *share, size_t bytes) {
        if (bytes >= LARGE)
                rest_for(service, share, &share->rests_until, bytes * REST_NSEC / 1000);
}

void turns_charge(Service *service, const Client *client, size_t bytes) {
        const Peer *peer = client->peer;

        if (peer && peer->turn.share)
                rest(service, peer->turn.share, bytes);
}

uint64_t turns_charge_time(Service *service, uid_t uid, uint64_t usec) {
        Share *share = get_share(&service->turns, uid, service_now(service));

        if (!share)
                return 0;

        rest_for(service, share, &share->works_at, usec * REST_TIMES);
        return share->works_at;
}

uint64_t turns_connection_waits(const Service *service, uid_t uid) {
        const Share *share;

        TAILQ_FOREACH(share, &service->turns.shares, link)
                if (share->uid == uid)
                        return share->rests_until;

        return 0;
}

void turns_charge_connection(Service *service, const Client *client) {
        const Peer *peer = client->peer;

        if (peer && peer->turn.share)
                rest_for(service, peer->turn.share, &peer->turn.share->rests_until, CONNECTION_REST);
}

/* Bytes that lie in the socket */
static int backlog(const Service *service) {
        int n = 0;

        (void)ioctl(sd_bus_get_fd(service->bus), FIONREAD, &n);
        return n;
}

/* The one whose turn is next; NULL: all rest until *ret_usec. */
static Turn *next_turn(const Turns *turns, uint64_t now, uint64_t *ret_usec) {
        const Share *share;

        *ret_usec = USEC_INFINITY;
        TAILQ_FOREACH(share, &turns->shares, link) {
                Turn *turn = TAILQ_FIRST(&share->waiting);

                if (!turn)
                        continue;
                if (share->rests_until > now) {
                        *ret_usec = MIN(*ret_usec, share->rests_until);
                        continue;
                }

                return turn;
        }

        return NULL;
}

static int on_rested(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        Service *service = userdata;

        return peers_process_queue(service, &service->turns.source, on_turn, service);
}

/* Puts the message back into the queue of its connection, which is processed ahead of all that comes in. */
static void serve(Service *service, Turn *turn) {
        Share *share = turn->share;
        size_t bytes = TAILQ_FIRST(&turn->waiting)->bytes;
        sd_bus_message *message;

        TAILQ_REMOVE(&service->turns.shares, share, link);
        TAILQ_INSERT_TAIL(&service->turns.shares, share, link);
        TAILQ_REMOVE(&share->waiting, turn, link);
        TAILQ_INSERT_TAIL(&share->waiting, turn, link);

        message = take_waiting(service, turn);
        note_active(&service->turns, share, service_now(service));
        if (turn->n_waiting > service->manager->quota.settings.limits.calls_per_connection)
                rest_for(service, share, &share->rests_until, FLOOD_REST);
        rest(service, share, bytes);
        bus_answered(message, peers_dispatch(service, message));
        sd_bus_message_unref(message);
}

/* Decides when to go on. */
static int arm(Service *service) {
        Turns *turns = &service->turns;
        uint64_t usec;

        if (turns->n_waiting == 0)
                return 0;
        if (next_turn(turns, service_now(service), &usec))
                return peers_process_queue(service, &turns->source, on_turn, service);

        if (!turns->timer)
                return sd_event_add_time(service->event, &turns->timer, CLOCK_MONOTONIC, usec, 1, on_rested, service);

        (void)sd_event_source_set_time(turns->timer, usec);
        return sd_event_source_set_enabled(turns->timer, SD_EVENT_ONESHOT);
}

static int on_turn(sd_event_source *source _unused_, void *userdata) {
        Service *service = userdata;
        uint64_t until = clock_usec() + READ_TIME, usec;
        Turn *turn;
        int r = 1;

        for (unsigned i = 0; r > 0 && backlog(service) > 0 && (i < READ_MIN || clock_usec() < until); i++)
                r = sd_bus_process(service->bus, NULL);
        if (r < 0)
                return sd_event_exit(service->event, r);
        if (backlog(service) == 0)
                service->turns.round++;

        turn = next_turn(&service->turns, service_now(service), &usec);
        if (turn)
                serve(service, turn);
        if (arm(service) < 0)
                return sd_event_exit(service->event, -ENOMEM);

        service_maybe_idle(service);
        return 0;
}

/* To add up what is in it means to have all its texts checked by sd-bus, which takes longer than to receive it. */
static int size_of(sd_bus_message *message, size_t known, size_t *ret, sd_bus_error *error) {
        if (known == 0)
                return message_size(message, ret, error);

        *ret = MESSAGE_FRAME + known;
        return message_check_descriptors(error);
}

static int wait_for_turn(Service *service, sd_bus_message *message, Peer *peer, size_t bytes, sd_bus_error *error) {
        Turns *turns = &service->turns;
        Turn *turn = &peer->turn;
        Share *share = turn->share;
        Failure failure = {};
        Waiting *waiting;

        if (quota_charge_waiting(&service->manager->quota, share->uid, bytes, &failure) < 0)
                return bus_error_set_failure(error, &failure);

        waiting = new0(Waiting, 1);
        if (!waiting) {
                quota_release_waiting(&service->manager->quota, share->uid, bytes);
                return -ENOMEM;
        }

        waiting->message = sd_bus_message_ref(message);
        waiting->bytes = bytes;
        if (TAILQ_EMPTY(&turn->waiting))
                TAILQ_INSERT_TAIL(&share->waiting, turn, link);
        TAILQ_INSERT_TAIL(&turn->waiting, waiting, link);
        turns->heavy = turns->heavy || service->manager->quota.counts.waiting_bytes > HEAVY;
        turn->n_waiting++;
        turns->n_waiting++;
        if (peer->connection)
                private_pause_reading(peer->connection, true);
        if (arm(service) < 0)
                (void)sd_event_exit(service->event, -ENOMEM);
        return 1;
}

/* Few enough of this round to be served as they come */
static bool is_direct(Turns *turns, Turn *turn) {
        Share *share = turn->share;

        if (share->round != turns->round)
                share->n_direct = 0;
        if (turn->round != turns->round)
                turn->n_direct = 0;
        share->round = turn->round = turns->round;
        return ++turn->n_direct <= DIRECT_MAX && ++share->n_direct <= DIRECT_USER_MAX;
}

/* sd-bus reads one message at a time, and not beyond. The kernel counts, by lowering SO_PEEK_OFF (socket(7)) by what is
 * read. */
size_t turns_count(Service *service) {
        Turns *turns = &service->turns;
        int fd = sd_bus_get_fd(service->bus), count = 0, last = turns->count;
        socklen_t length = sizeof(count);

        turns->count = 0;
        if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &count, &length) < 0)
                return 0;
        if (last <= 0 || count < COUNT_FROM / 2) {
                turns->count = COUNT_FROM;
                if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &turns->count, sizeof(turns->count)) < 0)
                        turns->count = 0;
        } else
                turns->count = count;

        return last > count && count > 0 ? (size_t)(last - count) : 0;
}

int turns_take(Service *service, sd_bus_message *message, Client *client, size_t size, sd_bus_error *error) {
        Turns *turns = &service->turns;
        Peer *peer = client->peer;
        Turn *turn = &peer->turn;
        Share *share = turn->share;
        uint64_t now = service_now(service);
        bool others;
        size_t bytes;
        int n, r;

        others = others_call(turns, share, now);
        n = peer->connection ? 0 : backlog(service);
        note_active(turns, share, now);
        if (n == 0 && turns->n_waiting == 0)
                turns->round++;
        if (!others && n < BACKLOG && TAILQ_EMPTY(&turn->waiting))
                return 0;

        r = size_of(message, size, &bytes, error);
        if (r < 0)
                return r;

        /* Who is alone may send what is large as fast as it is taken. */
        if (TAILQ_EMPTY(&turn->waiting) && share->rests_until <= now &&
            (bytes >= LARGE ? n == 0 || !others : is_direct(turns, turn))) {
                rest(service, share, bytes);
                return 0;
        }

        return wait_for_turn(service, message, peer, bytes, error);
}

int turns_wait(Service *service, sd_bus_message *message, Client *client, sd_bus_error *error) {
        size_t bytes;
        int r;

        r = size_of(message, /* known= */ 0, &bytes, error);
        return r < 0 ? r : wait_for_turn(service, message, client->peer, bytes, error);
}
