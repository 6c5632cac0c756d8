/* Answers on the bus. What is under way when nothing more is accepted comes all the same, and of several users it would
 * be more than the bus takes: it waits here. */

#include "bus/errors.h"
#include "bus/unread.h"

/* An answer that waits until the bus has room for it */
typedef struct Answer {
        TAILQ_ENTRY(Answer) link;
        sd_bus_message *request, *reply;
        size_t bytes;
        uint64_t charged, since; /* bytes, descriptors included; usec, CLOCK_MONOTONIC */
} Answer;

static int send_answer(Service *service, const Client *client, sd_bus_message *reply, size_t bytes, uint64_t charged) {
        int r = sd_bus_send(NULL, reply, NULL);

        if (r < 0)
                return r;

        ((Peer *)client->peer)->descriptors_since += charged - bytes;
        unread_add(service, client, charged);
        turns_charge(service, client, bytes);
        return 1;
}

/* Who has hardly anything to read gets what he has asked for. */
static bool has_room(const Service *service, const Client *client, uint64_t charged) {
        const Quota *quota = &service->manager->quota;
        uint64_t own;

        if (service->unread - quota->counts.answer_bytes + charged <= quota->settings.limits.unread_bytes)
                return true;

        own = unread_of_user(service, client, /* answers= */ false);
        return own <= FEW || own + charged <= LITTLE;
}

static Answer *answer_free(Service *service, const Client *client, Answer *answer) {
        Peer *peer = client->peer;

        TAILQ_REMOVE(&peer->answers, answer, link);
        service->n_unproven--;
        peer->answer_bytes -= answer->charged;
        unread_set(peer, peer->unread - answer->charged);
        quota_release_answer(&service->manager->quota, client->uid, answer->charged);
        sd_bus_message_unref(answer->request);
        sd_bus_message_unref(answer->reply);
        free(answer);
        return NULL;
}

static int drop(sd_bus_message *request, const Excess *excess) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        (void)unread_refuse(&error, "The call was answered, and there is no room for the answer: m", excess);
        r = sd_bus_reply_method_error(request, &error);
        sd_bus_error_free(&error);
        return r < 0 ? r : 1;
}

static int hold_answer(Service *service, const Client *client, sd_bus_message *request, sd_bus_message *reply,
                       size_t bytes, uint64_t charged) {
        Peer *peer = client->peer;
        Excess excess = unread_excess_of_all(service);
        Failure failure = {};
        Answer *answer;

        if (quota_charge_answer(&service->manager->quota, client->uid, charged, &failure) < 0) {
                failure_done(&failure);
                return drop(request, &excess);
        }
        answer = new0(Answer, 1);
        if (!answer) {
                quota_release_answer(&service->manager->quota, client->uid, charged);
                return -ENOMEM;
        }

        *answer = (Answer){ .request = sd_bus_message_ref(request),
                            .reply = sd_bus_message_ref(reply),
                            .bytes = bytes,
                            .charged = charged,
                            .since = service_now(service) };
        TAILQ_INSERT_TAIL(&peer->answers, answer, link);
        service->n_unproven++;
        peer->answer_bytes += charged;
        unread_set(peer, peer->unread + charged);
        unread_ask_user(service, client);
        if (!peer->question && !peer->again)
                answers_send(service, client, /* all= */ true);
        return 1;
}

int peers_reply(Service *service, sd_bus_message *request, sd_bus_message *reply, size_t bytes, unsigned n_fds) {
        sd_bus *bus = sd_bus_message_get_bus(request);
        const char *sender = sd_bus_message_get_sender(request);
        const Client *client = bus == service->bus && sender ? manager_find_client(service->manager, sender)
                                                             : private_client(service, bus);
        uint64_t charged = bytes + n_fds * DESCRIPTOR;
        int r;

        if (client && client->peer && bus == service->bus) {
                /* Without a question there is no end to waiting. */
                if (service->asks == ASKS_NOTHING || has_room(service, client, charged))
                        return send_answer(service, client, reply, bytes, charged);
                return hold_answer(service, client, request, reply, bytes, charged);
        }

        r = sd_bus_send(NULL, reply, NULL);
        if (r < 0)
                return r;

        private_sent(service, bus, bytes);
        if (client)
                turns_charge(service, client, bytes);
        return 1;
}

int peers_reply_text(Service *service, sd_bus_message *request, const char *text) {
        sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(request, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", text);
        if (r >= 0)
                r = peers_reply(service, request, reply, strlen(text), /* n_fds= */ 0);
        sd_bus_message_unref(reply);
        return r;
}

int peers_reply_fd(Service *service, sd_bus_message *request, int fd) {
        sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(request, &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "h", fd);
        if (r >= 0)
                r = peers_reply(service, request, reply, /* bytes= */ 0, /* n_fds= */ 1);
        sd_bus_message_unref(reply);
        return r;
}

void answers_send(Service *service, const Client *client, bool all) {
        Peer *peer = client->peer;
        Answer *answer, *next;

        TAILQ_FOREACH_SAFE(answer, &peer->answers, link, next) {
                sd_bus_message *request = sd_bus_message_ref(answer->request),
                               *reply = sd_bus_message_ref(answer->reply);
                bool late = service_now(service) >= usec_add(MAX(answer->since, peer->read_at), PATIENCE);
                size_t bytes = answer->bytes;
                uint64_t charged = answer->charged;
                Excess excess = unread_excess_of_all(service);

                if (service->asks == ASKS_NOTHING || has_room(service, client, charged)) {
                        answer_free(service, client, answer);
                        bus_answered(request, send_answer(service, client, reply, bytes, charged));
                } else if (late || all) {
                        answer_free(service, client, answer);
                        bus_answered(request, drop(request, &excess));
                }
                sd_bus_message_unref(request);
                sd_bus_message_unref(reply);
        }
}

void answers_forget(Service *service, const Client *client) {
        Peer *peer = client->peer;
        Answer *answer, *next;

        TAILQ_FOREACH_SAFE(answer, &peer->answers, link, next) {
                (void)sd_bus_send(NULL, answer->reply, NULL);
                answer_free(service, client, answer);
        }
}
