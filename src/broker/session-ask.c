/* What a server wants of its client in the midst of a call, where the two are of different eras. A modern worker gives
 * the call back and says what it needs: a legacy client is asked, and the call made again. A legacy worker asks while
 * it works: to a modern client the call is given back, and goes on when that comes again. */

#include <stdio.h>
#include <systemd/sd-id128.h>

#include "broker/session-parts.h"

typedef struct SessionInput {
        SessionCall *call;
        unsigned rounds;
        sd_event_source *patience; /* as long as the client has to say something */

        /* A legacy client is asked */
        unsigned n_due;
        Buffer responses; /* the members of inputResponses that are there */
        char *state;      /* requestState, as JSON, or NULL */

        /* A modern client comes again */
        bool parked;                         /* it has been told, and hasn't */
        char own_state[SD_ID128_STRING_MAX]; /* of this round: whoever knows it goes on with the call */
        char *id_text;                       /* of the request with which it came last */
        bool finished;                       /* the worker has answered meanwhile */
        Failure failure;
        Buffer result, error;
} SessionInput;

static SessionInput *get_input(SessionCall *call) {
        if (!call->input) {
                call->input = new0(SessionInput, 1);
                if (call->input)
                        call->input->call = call;
        }
        return call->input;
}

static int on_impatience(sd_event_source *source _unused_, uint64_t usec _unused_, void *userdata) {
        SessionInput *input = userdata;

        if (input->parked)
                session_call_cancel(input->call, "the client didn't come again with what it was asked for");
        else
                session_call_fail(input->call, RPC_BROKER, "The client didn't answer in time what the server asks for");
        return 0;
}

/* A client that never says what it was asked for has its call no longer than any call may take. */
static void wait_for_client(SessionCall *call) {
        uint64_t usec = call->server->server->config->timeouts.call_max;
        sd_event *event = call->session->manager->event;
        SessionInput *input = call->input;

        input->patience = sd_event_source_disable_unref(input->patience);
        (void)sd_event_add_time_relative(event, &input->patience, CLOCK_MONOTONIC, usec, 0, on_impatience, input);
}

void session_ask_free(SessionCall *call) {
        SessionInput *input = call->input;
        SessionQuestion *question, *next;

        if (!input)
                return;

        TAILQ_FOREACH_SAFE(question, &call->session->questions, link, next)
                if (question->call == call)
                        session_question_withdraw(question, (JsonSlice){});
        sd_event_source_disable_unref(input->patience);
        buffer_done(&input->responses);
        buffer_done(&input->result);
        buffer_done(&input->error);
        failure_done(&input->failure);
        free(input->state);
        free(input->id_text);
        free(input);
        call->input = NULL;
}

/* Makes the call again, with what has been answered. */
static void repeat(SessionCall *call) {
        SessionInput *input = call->input;
        JsonTraits traits = call->request.params.traits;
        Buffer responses = {}, text = {};
        Failure failure = {};
        const char *reason;
        McpParams params;
        int r;

        input->patience = sd_event_source_disable_unref(input->patience);
        r = buffer_append(&responses, "{", 1);
        if (r >= 0)
                r = buffer_append(&responses, buffer_data(&input->responses) ?: "", buffer_size(&input->responses));
        if (r >= 0)
                r = buffer_append(&responses, "}", 1);
        if (r >= 0)
                r = mcp_append_repeat_params(
                        &text, &call->request.params,
                        (JsonPiece){ { buffer_data(&responses), buffer_size(&responses) }, NULL },
                        (JsonPiece){ { input->state, input->state ? strlen(input->state) : 0 }, NULL });
        buffer_done(&responses);
        buffer_done(&input->responses);
        if (r >= 0)
                r = mcp_params_of((JsonSlice){ buffer_data(&text), buffer_size(&text) }, &traits, &params, &reason);
        if (r < 0) {
                buffer_done(&text);
                session_call_fail(call, RPC_BROKER, "The call can't be made again");
                return;
        }

        free(call->kept);
        call->kept = text.data;
        params.client = &call->client;
        call->request.params = params;
        if (session_call_repeat(call, &failure) < 0)
                session_call_fail(call, RPC_BROKER, failure_message(&failure));
        failure_done(&failure);
}

static int put_question(SessionCall *call, const McpAsk *ask, const JsonTraits *traits) {
        Session *session = call->session;
        SessionQuestion *question;
        char number[24];
        Buffer *output;

        if (mcp_profile_missing(session->mcp.profile, ask->method, ask->params) != 0)
                return -EOPNOTSUPP;
        output = session_output(session, /* notification= */ false);
        question = output ? session_question_new(session, ask, traits) : NULL;
        if (!question)
                return -ENOBUFS;

        question->call = call;
        call->input->n_due++;
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)question->number);
        session_sent(session, mcp_append_ask(output, (JsonPiece){ { number, strlen(number) }, NULL }, ask, traits));
        return 0;
}

void session_ask_legacy(SessionCall *call, const Outcome *outcome) {
        SessionInput *input = get_input(call);
        const char *reason = NULL;
        McpAsk asks[MCP_ASKS_MAX];
        Buffer kept = {};
        JsonSlice state;
        size_t n;
        int r;

        /* Of no other request have the params been kept. */
        if (!mcp_method_asks(call->method)) {
                session_call_fail(call, RPC_BROKER, "The server wants input for a request that needs none");
                return;
        }
        if (!input || mcp_read_input_required(outcome->result, asks, &n, &state, &reason) < 0) {
                session_call_fail(call, RPC_BROKER, reason ?: "Out of memory");
                return;
        }
        if (call->session->state != SESSION_OPEN || input->rounds++ >= SESSION_ROUNDS_MAX) {
                session_call_fail(call, RPC_BROKER,
                                  call->session->state != SESSION_OPEN ? "The client can't be asked any more"
                                                                       : "The server wants input again and again");
                return;
        }

        free(input->state);
        input->state = NULL;
        if (state.data) {
                if (json_append(&kept, state, &outcome->traits) < 0 || buffer_append(&kept, "", 1) < 0) {
                        buffer_done(&kept);
                        session_call_fail(call, RPC_BROKER, "Out of memory");
                        return;
                }
                input->state = kept.data;
        }

        input->n_due = 0;
        for (size_t i = 0; i < n; i++) {
                r = put_question(call, &asks[i], &outcome->traits);
                if (r < 0) {
                        session_call_fail(call, RPC_BROKER,
                                          r == -EOPNOTSUPP ? "The server wants what the client doesn't serve"
                                                           : "The client can't be asked now");
                        return;
                }
        }
        if (n == 0)
                repeat(call);
        else
                wait_for_client(call);
}

/* There is no word for it in inputResponses: without that the call can't be made again. */
static void fail_refused(SessionQuestion *question, JsonSlice error) {
        _cleanup_(freep) char *method = json_decode(question->ask.method),
                              *said = json_decode(json_get(error, "message")), *text = NULL;
        SessionCall *call = question->call;

        if (asprintf(&text, "The client refused %s, which the server needs: %s", method ?: "?", said ?: "") < 0)
                text = NULL;
        session_question_free(question);
        session_call_fail(call, RPC_BROKER, text ?: "Out of memory");
}

void session_ask_answered(SessionQuestion *question, const McpMessage *message) {
        SessionCall *call = question->call;
        SessionInput *input = call->input;
        bool first = buffer_size(&input->responses) == 0;
        int r;

        r = mcp_append_input_response(&input->responses, &first, &question->ask, &question->traits,
                                      message->kind == MCP_RESULT ? (JsonPiece){ message->result, &message->traits }
                                                                  : (JsonPiece){});
        if (r == -EINVAL) {
                fail_refused(question, message->error);
                return;
        }

        session_question_free(question);
        if (r < 0)
                session_call_fail(call, RPC_BROKER, "Out of memory");
        else if (buffer_size(&input->responses) > call->server->server->config->limits.message)
                session_call_fail(call, RPC_BROKER, "The client's answers are longer than the server's limits.message");
        else if (--input->n_due == 0)
                repeat(call);
}

/* Gives the call back to a modern client, with all that is to be answered first. False: it can't. */
static bool park(SessionCall *call) {
        const JsonTraits *traits[SESSION_QUESTIONS_MAX];
        McpAsk asks[SESSION_QUESTIONS_MAX];
        Session *session = call->session;
        SessionQuestion *question;
        Buffer *output;
        sd_id128_t state;
        size_t n = 0;

        if (sd_id128_randomize(&state) < 0)
                return false;

        TAILQ_FOREACH(question, &session->questions, link)
                if (question->call == call && n < SESSION_QUESTIONS_MAX) {
                        traits[n] = &question->traits;
                        asks[n++] = question->ask;
                }

        sd_id128_to_string(state, call->input->own_state);
        output = session_output(session, /* notification= */ false);
        if (output)
                session_sent(session, mcp_append_input_required(output, session_call_id(call), asks, traits, n,
                                                                call->input->own_state));
        call->input->parked = true;
        call->id.size = 0;
        wait_for_client(call);
        return true;
}

bool session_ask_modern(SessionCall *call, Worker *worker, const McpMessage *message) {
        SessionInput *input = get_input(call);
        Session *session = call->session;
        SessionQuestion *question;
        char key[32], *id;

        if (!mcp_method_asks(call->method))
                return false;

        (void)snprintf(key, sizeof(key), "\"q%llu\"", (unsigned long long)session->last_question + 1);
        question = input ? session_question_new(session,
                                                &(McpAsk){ .key = { key, strlen(key) },
                                                           .method = message->method,
                                                           .params = message->params },
                                                &message->traits)
                         : NULL;
        id = question ? malloc(message->id.size + 1) : NULL;
        if (!id) {
                if (question)
                        session_question_free(question);
                return false;
        }

        question->worker_id = (JsonSlice){ memcpy(id, message->id.data, message->id.size), message->id.size };
        question->worker = worker;
        question->call = call;
        pool_hold_clock(&call->request, /* hold= */ true);
        if (input->parked || park(call))
                return true;

        session_question_free(question);
        return false;
}

static SessionCall *find_parked(const Session *session, const char *state) {
        SessionCall *call;

        TAILQ_FOREACH(call, &session->calls, link)
                if (call->input && call->input->parked && streq(call->input->own_state, state))
                        return call;

        return NULL;
}

/* The call has another id from now on. */
static int adopt(SessionCall *call, const RpcInput *input) {
        JsonSlice id = input->message.id, token = input->params.token;
        char *text = malloc(id.size + token.size + 1);

        if (!text)
                return -ENOMEM;

        memcpy(text, id.data, id.size);
        memcpy(text + id.size, token.data ?: "", token.size);
        free(call->input->id_text);
        call->input->id_text = text;
        call->input->parked = false;
        call->input->patience = sd_event_source_disable_unref(call->input->patience);
        call->id = (JsonSlice){ text, id.size };
        call->token = (JsonSlice){ text + id.size, token.size };
        call->request.params.token = token.size > 0 ? call->token : (JsonSlice){};
        return 0;
}

static void deliver(SessionCall *call) {
        SessionInput *input = call->input;
        Outcome outcome = {
                .failure = input->failure.code != FAILURE_NONE ? &input->failure : NULL,
                .result = { buffer_data(&input->result), buffer_size(&input->result) },
                .error = { buffer_data(&input->error), buffer_size(&input->error) },
        };

        session_call_finish(call, &outcome);
}

/* What goes on has to be what was begun. */
static bool same_request(const SessionCall *call, const RpcInput *input) {
        return json_equal(input->message.method, call->method) &&
               (!call->tool || json_equal(input->params.name, call->tool));
}

int session_ask_retried(Session *session, const RpcInput *input, Failure *failure) {
        _cleanup_(freep) char *text = NULL;
        SessionQuestion *question, *next;
        JsonSlice responses, state;
        bool left = false;
        const char *reason;
        SessionCall *call;
        int r;

        r = mcp_read_retry(input->params.text, &responses, &state, &reason);
        if (r < 0)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "%s", reason);
        if (!state.data)
                return 0;

        text = json_decode(state);
        call = text ? find_parked(session, text) : NULL;
        if (!call || !same_request(call, input))
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "requestState is none of a call that waits");
        if (adopt(call, input) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        TAILQ_FOREACH_SAFE(question, &session->questions, link, next) {
                _cleanup_(freep) char *key = NULL;
                Buffer *worker_input;

                if (question->call != call)
                        continue;
                key = json_decode(question->ask.key);
                worker_input = worker_side_input(question->worker);
                r = key && worker_input ? mcp_append_response_of(worker_input, (JsonPiece){ question->worker_id, NULL },
                                                                 (JsonPiece){ responses, &input->message.traits }, key)
                                        : 0;
                if (r > 0) {
                        (void)worker_write(question->worker, r);
                        session_question_free(question);
                } else
                        left = true;
        }

        if (call->input->finished)
                deliver(call);
        else if (!left)
                pool_hold_clock(&call->request, /* hold= */ false);
        else if (call->input->rounds++ >= SESSION_ROUNDS_MAX || !park(call))
                session_call_fail(call, RPC_INVALID_PARAMS, "What the server wants was not answered");
        return 1;
}

static bool on_worker(const SessionCall *call, const Worker *worker) {
        return call->request.pool && call->request.worker == worker;
}

bool session_ask_done(SessionCall *call, const Outcome *outcome) {
        SessionInput *input = call->input;
        SessionQuestion *question, *next;
        SessionCall *other;
        bool alone = true;

        if (!input || !input->parked)
                return false;

        /* The worker waits no longer for what it asked; unless it was for another call of the client, which can't
         * always be told. */
        TAILQ_FOREACH(other, &call->session->calls, link)
                if (other != call && on_worker(other, call->request.answered_by))
                        alone = false;
        TAILQ_FOREACH_SAFE(question, &call->session->questions, link, next)
                if (question->call == call && alone)
                        session_question_free(question);

        input->finished = true;
        if (outcome->failure)
                failure_copy(&input->failure, outcome->failure);
        if ((outcome->result.data && json_append(&input->result, outcome->result, &outcome->traits) < 0) ||
            (outcome->error.data && json_append(&input->error, outcome->error, &outcome->traits) < 0))
                failure_set(&input->failure, FAILURE_UNAVAILABLE, "Out of memory");
        return true;
}

void session_ask_end(Session *session) {
        SessionCall *call, *next;

        TAILQ_FOREACH_SAFE(call, &session->calls, link, next)
                if (call->input && call->input->parked)
                        session_call_cancel(call, "the client has ended its session");
}

/* How likely it is that a worker asks for the call: not where it has asked already, rather where its tool has done so
 * before. */
static unsigned likelihood(const SessionCall *call) {
        return (call->input && call->input->parked ? 0 : 4) + (call->request.asks ? 2 : 0) + (call->tool ? 1 : 0);
}

SessionCall *session_ask_choose(const Session *session, const Worker *worker, SessionCall *call) {
        SessionCall *other, *best = NULL;

        TAILQ_FOREACH(other, &session->calls, link)
                if (on_worker(other, worker) && mcp_method_asks(other->method) &&
                    (!best || likelihood(other) > likelihood(best)))
                        best = other;

        return best ?: call;
}
