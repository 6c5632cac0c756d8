/* What a server wants of its client in the midst of a call, where the two are of different eras. A modern worker gives
 * the call back and says what it needs: a legacy client is asked, and the call made again. A legacy worker asks while
 * it works: to a modern client the call is given back, and goes on when that comes again. */

#include <stdio.h>

#include "broker/session-parts.h"

#define STATE_PREFIX "mcp-exec:"

typedef struct SessionInput {
        unsigned rounds;

        /* A legacy client is asked */
        unsigned n_due;
        Buffer responses; /* the members of inputResponses that are there */
        char *state;      /* requestState, as JSON, or NULL */

        /* A modern client comes again */
        bool parked; /* it has been told, and hasn't */
        char own_state[48];
        char *id_text; /* of the request with which it came last */
        bool finished; /* the worker has answered meanwhile */
        Failure failure;
        Buffer result, error;
} SessionInput;

static SessionInput *get_input(SessionCall *call) {
        if (!call->input)
                call->input = new0(SessionInput, 1);
        return call->input;
}

void session_ask_free(SessionCall *call) {
        SessionInput *input = call->input;
        SessionQuestion *question, *next;

        if (!input)
                return;

        TAILQ_FOREACH_SAFE(question, &call->session->questions, link, next)
                if (question->call == call)
                        session_question_withdraw(question, (JsonSlice){});
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
}

void session_ask_answered(SessionQuestion *question, const McpMessage *message) {
        SessionCall *call = question->call;
        SessionInput *input = call->input;
        bool first = buffer_size(&input->responses) == 0;
        int r;

        r = mcp_append_input_response(&input->responses, &first, &question->ask, &question->traits,
                                      message->kind == MCP_RESULT ? (JsonPiece){ message->result, &message->traits }
                                                                  : (JsonPiece){});
        session_question_free(question);
        if (r < 0)
                session_call_fail(call, RPC_BROKER,
                                  r == -EINVAL ? "The client refused what the server wants of it" : "Out of memory");
        else if (--input->n_due == 0)
                repeat(call);
}

/* Gives the call back to a modern client, with all that is to be answered first. */
static void park(SessionCall *call) {
        const JsonTraits *traits[SESSION_QUESTIONS_MAX];
        McpAsk asks[SESSION_QUESTIONS_MAX];
        Session *session = call->session;
        SessionQuestion *question;
        Buffer *output;
        size_t n = 0;

        TAILQ_FOREACH(question, &session->questions, link)
                if (question->call == call && n < SESSION_QUESTIONS_MAX) {
                        traits[n] = &question->traits;
                        asks[n++] = question->ask;
                }

        output = session_output(session, /* notification= */ false);
        if (output)
                session_sent(session, mcp_append_input_required(output, session_call_id(call), asks, traits, n,
                                                                call->input->own_state));
        call->input->parked = true;
        call->id.size = 0;
}

bool session_ask_modern(SessionCall *call, Worker *worker, const McpMessage *message) {
        SessionInput *input = get_input(call);
        Session *session = call->session;
        SessionQuestion *question;
        char key[32], *id;

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
        if (!input->own_state[0])
                (void)snprintf(input->own_state, sizeof(input->own_state), STATE_PREFIX "%llu",
                               (unsigned long long)question->number);
        if (!input->parked)
                park(call);
        return true;
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
        text = json_decode(state);
        if (!text || strncmp(text, STATE_PREFIX, strlen(STATE_PREFIX)) != 0)
                return 0;

        call = find_parked(session, text);
        if (!call)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "requestState is none of a call that waits");
        if (adopt(call, input) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (call->input->finished) {
                deliver(call);
                return 1;
        }

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

        if (!left)
                pool_hold_clock(&call->request, /* hold= */ false);
        else if (call->input->rounds++ < SESSION_ROUNDS_MAX)
                park(call);
        else
                session_call_fail(call, RPC_INVALID_PARAMS, "What the server wants was not answered");
        return 1;
}

bool session_ask_done(SessionCall *call, const Outcome *outcome) {
        SessionInput *input = call->input;
        SessionQuestion *question, *next;

        if (!input || !input->parked)
                return false;

        TAILQ_FOREACH_SAFE(question, &call->session->questions, link, next)
                if (question->call == call)
                        session_question_free(question);

        input->finished = true;
        if (outcome->failure)
                failure_copy(&input->failure, outcome->failure);
        if ((outcome->result.data && json_append(&input->result, outcome->result, &outcome->traits) < 0) ||
            (outcome->error.data && json_append(&input->error, outcome->error, &outcome->traits) < 0))
                failure_set(&input->failure, FAILURE_UNAVAILABLE, "Out of memory");
        return true;
}
