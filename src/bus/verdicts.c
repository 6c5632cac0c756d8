/* What polkit is asked, and what it said a moment ago. */

#include "bus/polkit.h"

#define VERDICT_TIME (5 * USEC_PER_SEC) /* how long one is kept: the calls of an agent don't each ask */
#define VERDICTS_MAX 32                 /* of one client */

typedef struct Verdict {
        TAILQ_ENTRY(Verdict) link;
        Ask ask;
        uint64_t until; /* usec, CLOCK_MONOTONIC */
        bool granted;
} Verdict;

static void ask_done(Ask *ask) {
        free(ask->server);
        free(ask->method);
        free(ask->tool);
}

int ask_init(Ask *ask, Action action, const Question *question) {
        *ask = (Ask){
                .action = action,
                .server = strdup(question->server ?: ""),
                .method = strdup(question->method ?: ""),
                .tool = strdup(question->tool ?: ""),
        };
        if (ask->server && ask->method && ask->tool)
                return 0;

        ask_done(ask);
        return -ENOMEM;
}

Ask *asks_free(Ask *asks, size_t n_asks) {
        for (size_t i = 0; i < n_asks; i++)
                ask_done(&asks[i]);
        free(asks);
        return NULL;
}

bool ask_is(const Ask *ask, Action action, const Question *question) {
        return ask->action == action && streq(ask->server, question->server ?: "") &&
               streq(ask->method, question->method ?: "") && streq(ask->tool, question->tool ?: "");
}

Question ask_question(const Ask *ask) {
        return (Question){ ask->server, ask->method, ask->tool };
}

bool ask_equal(const Ask *a, const Ask *b) {
        const Question question = ask_question(b);

        return ask_is(a, b->action, &question);
}

static Verdict *verdict_free(Peer *peer, Verdict *verdict) {
        TAILQ_REMOVE(&peer->verdicts, verdict, link);
        peer->n_verdicts--;
        ask_done(&verdict->ask);
        free(verdict);
        return NULL;
}

int verdict_find(Service *service, const Client *client, Action action, const Question *question) {
        const Peer *peer = client->peer;
        const Verdict *verdict;

        if (peer)
                TAILQ_FOREACH(verdict, &peer->verdicts, link)
                        if (ask_is(&verdict->ask, action, question) && verdict->until > service_now(service))
                                return verdict->granted;

        return -ENODATA;
}

void verdict_keep(Service *service, Client *client, const Ask *ask, bool granted) {
        const Question question = ask_question(ask);
        Peer *peer = client->peer;
        Verdict *verdict, *next;

        TAILQ_FOREACH_SAFE(verdict, &peer->verdicts, link, next)
                if (ask_equal(&verdict->ask, ask))
                        verdict_free(peer, verdict);
        if (peer->n_verdicts >= VERDICTS_MAX)
                verdict_free(peer, TAILQ_FIRST(&peer->verdicts));

        verdict = new0(Verdict, 1);
        if (!verdict || ask_init(&verdict->ask, ask->action, &question) < 0) {
                free(verdict);
                return;
        }

        verdict->until = usec_add(service_now(service), VERDICT_TIME);
        verdict->granted = granted;
        TAILQ_INSERT_TAIL(&peer->verdicts, verdict, link);
        peer->n_verdicts++;
}

void verdicts_forget(Client *client) {
        Peer *peer = client->peer;

        while (peer && !TAILQ_EMPTY(&peer->verdicts))
                verdict_free(peer, TAILQ_FIRST(&peer->verdicts));
}
