/* What servers ask of a session's client: whom a legacy worker's request is for, and how its answer finds the way back
 */

#include <stdio.h>

#include "broker/session-parts.h"

#define ROOTS_TIME (2 * USEC_PER_SEC) /* from the news that they have changed to the question which they are */

SessionQuestion *session_question_new(Session *session, const McpAsk *ask, const JsonTraits *traits) {
        size_t method = ask->method.size, params = ask->params.size, key = ask->key.size;
        SessionQuestion *question;

        if (session->n_questions >= SESSION_QUESTIONS_MAX)
                return NULL;

        question = new0(SessionQuestion, 1);
        if (!question)
                return NULL;
        question->text = malloc(method + params + key + 1);
        if (!question->text) {
                free(question);
                return NULL;
        }

        memcpy(question->text, ask->method.data, method);
        memcpy(question->text + method, ask->params.data ?: "", params);
        memcpy(question->text + method + params, ask->key.data ?: "", key);
        question->session = session;
        question->number = ++session->last_question;
        question->traits = *traits;
        question->ask = (McpAsk){
                .method = { question->text, method },
                .params = { params > 0 ? question->text + method : NULL, params },
                .key = { key > 0 ? question->text + method + params : NULL, key },
        };
        TAILQ_INSERT_TAIL(&session->questions, question, link);
        session->n_questions++;
        return question;
}

/* The calls that wait for it have their time again. */
static void hold_calls(Session *session, const Worker *worker, bool hold) {
        const SessionQuestion *question;
        SessionCall *call;

        TAILQ_FOREACH(question, &session->questions, link)
                if (!hold && question->worker == worker)
                        return;

        TAILQ_FOREACH(call, &session->calls, link)
                if (call->request.pool && call->request.worker == worker)
                        pool_hold_clock(&call->request, hold);
}

void session_question_free(SessionQuestion *question) {
        Session *session = question->session;

        TAILQ_REMOVE(&session->questions, question, link);
        session->n_questions--;
        if (question->worker)
                hold_calls(session, question->worker, /* hold= */ false);
        free((char *)question->worker_id.data);
        free(question->text);
        free(question);
}

static void refuse(Worker *worker, JsonSlice id, int code, const char *message) {
        Buffer *input = worker_side_input(worker);

        if (input)
                (void)worker_write(worker,
                                   rpc_append_broker_error(input, (JsonPiece){ id, NULL }, code, message, NULL));
}

void session_refuse_questions(Session *session, const char *why) {
        SessionQuestion *question, *next;

        TAILQ_FOREACH_SAFE(question, &session->questions, link, next) {
                if (question->call)
                        continue;
                refuse(question->worker, question->worker_id, RPC_BROKER, why);
                session_question_free(question);
        }

        /* A call that waits for answers that can't come any more */
        while ((question = TAILQ_FIRST(&session->questions)))
                session_call_fail(question->call, RPC_BROKER, why);
}

void session_forget_pool(Session *session, const ServerPool *server_pool, const char *why) {
        SessionQuestion *question, *next_question;
        SessionTask *task, *next_task;

        TAILQ_FOREACH_SAFE(question, &session->questions, link, next_question) {
                if (!question->worker || question->worker->pool != server_pool->pool || question->call)
                        continue;
                refuse(question->worker, question->worker_id, RPC_BROKER, why);
                session_question_withdraw(question, (JsonSlice){ "\"the server was taken away\"", 27 });
        }
        TAILQ_FOREACH_SAFE(task, &session->tasks, link, next_task)
                if (!task->clients && task->worker->pool == server_pool->pool)
                        session_task_free(session, task);
}

static void note_asker(Server *server, const char *tool) {
        size_t place = server->n_askers % ASKERS_MAX;

        for (size_t i = 0; i < ASKERS_MAX; i++)
                if (server->askers[i] && streq(server->askers[i], tool))
                        return;

        free(server->askers[place]);
        server->askers[place] = strdup(tool);
        server->n_askers++;
}

static bool is_asker(const Server *server, const SessionCall *call) {
        for (size_t i = 0; i < ASKERS_MAX && call->tool; i++)
                if (server->askers[i] && streq(server->askers[i], call->tool))
                        return true;

        return false;
}

/* Which calls count for whom a request is for, from all to few */
typedef enum Suspicion {
        ANY_CALL,
        CALLS_THAT_MAY_ASK, /* by their methods */
        CALLS_THAT_ASK,     /* tools that were seen to */
        _SUSPICION_MAX,
} Suspicion;

static bool counts(const Server *server, const SessionCall *call, Suspicion suspicion) {
        switch (suspicion) {
        case CALLS_THAT_MAY_ASK:
                return mcp_method_asks(call->method) || streq(call->method, "tasks/result");
        case CALLS_THAT_ASK:
                return is_asker(server, call);
        default:
                return true;
        }
}

/* The one session that has such calls on the worker. NULL where there is none, or where there are several, which
 * *ret_several tells. */
static Session *only_caller(const Server *server, Worker *worker, Suspicion suspicion, SessionCall **ret_call,
                            unsigned *ret_n, bool *ret_several) {
        Session *session = NULL;
        Request *request;

        *ret_several = false;
        *ret_call = NULL;
        *ret_n = 0;
        TAILQ_FOREACH(request, &worker->requests, link) {
                SessionCall *call = session_call_of(request);

                if (!call || !counts(server, call, suspicion))
                        continue;
                if (session && call->session != session) {
                        *ret_several = true;
                        return NULL;
                }
                session = call->session;
                if (!*ret_call || is_asker(server, call))
                        *ret_call = call;
                (*ret_n)++;
        }

        return session;
}

static Session *of_task(const ServerPool *server_pool, Worker *worker, const McpMessage *message, bool clients) {
        JsonSlice id = clients ? mcp_task_of_params(message->params) : mcp_task_of_related(message->params);
        SessionServer *server;

        TAILQ_FOREACH(server, &server_pool->sessions, link) {
                SessionTask *task = session_find_task(server->session, id, clients ? worker : NULL);

                if (task && task->worker == worker)
                        return server->session;
        }

        return NULL;
}

/* Whom a request is for, where no call or task says so: the one session that there is, or, for roots, the one for which
 * a worker was started. */
static Session *without_call(const ServerPool *server_pool, bool roots) {
        SessionServer *first = TAILQ_FIRST(&server_pool->sessions);

        if (first && !TAILQ_NEXT(first, link))
                return first->session;

        return roots && server_pool->starter ? server_pool->starter->session : NULL;
}

/* Servers ask for them at once, whatever else they are at. */
void session_roots_changed(SessionServer *server) {
        server->pool->starter = server;
        server->pool->roots_due = usec_add(pool_now(server->pool->pool), ROOTS_TIME);
}

static Session *find_asked(ServerPool *server_pool, Worker *worker, const McpMessage *message, SessionCall **ret_call) {
        bool several, roots = json_equal(message->method, "roots/list");
        Session *session;
        unsigned n;

        session = of_task(server_pool, worker, message, /* clients= */ false);
        if (session)
                return session;
        if (roots && server_pool->starter && pool_now(server_pool->pool) < server_pool->roots_due)
                return server_pool->starter->session;

        for (Suspicion suspicion = ANY_CALL; suspicion < _SUSPICION_MAX; suspicion++) {
                session = only_caller(server_pool->server, worker, suspicion, ret_call, &n, &several);
                if (session) {
                        if (n == 1 && (*ret_call)->tool && !roots)
                                note_asker(server_pool->server, (*ret_call)->tool);
                        return session;
                }
                if (!several)
                        break;
        }

        *ret_call = NULL;
        return several ? NULL : without_call(server_pool, roots);
}

static char *copy_slice(JsonSlice slice) {
        char *copy = malloc(slice.size + 1);

        return copy ? memcpy(copy, slice.data, slice.size) : NULL;
}

static void note_elicitation(Session *session, const McpMessage *message) {
        char *id = json_decode(json_get(message->params, "elicitationId"));
        size_t place = session->n_elicitations % SESSION_ELICITATIONS_MAX;

        if (!id)
                return;

        free(session->elicitations[place]);
        session->elicitations[place] = id;
        session->n_elicitations++;
}

static bool ask(Session *session, Worker *worker, const McpMessage *message) {
        const McpAsk what = { .method = message->method, .params = message->params };
        Buffer *output = session_output(session, /* notification= */ false);
        SessionQuestion *question;
        char *id, number[24];

        question = output ? session_question_new(session, &what, &message->traits) : NULL;
        id = question ? copy_slice(message->id) : NULL;
        if (!id) {
                if (question)
                        session_question_free(question);
                return false;
        }

        question->worker_id = (JsonSlice){ id, message->id.size };
        question->worker = worker;
        question->token = json_get(json_get(question->ask.params, "_meta"), "progressToken");
        hold_calls(session, worker, /* hold= */ true);
        note_elicitation(session, message);
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)question->number);
        session_sent(session, rpc_append_request(output, (JsonPiece){ { number, strlen(number) }, NULL },
                                                 (JsonPiece){ message->method, &message->traits },
                                                 (JsonPiece){ message->params, &message->traits }, (JsonPiece){}));
        return true;
}

bool sessions_request(ServerPool *server_pool, Worker *worker, const McpMessage *message) {
        bool roots = json_equal(message->method, "roots/list"), tasks = false;
        SessionCall *call = NULL;
        McpProfile profile;
        Session *session;

        if (TAILQ_EMPTY(&server_pool->sessions))
                return false;

        for (size_t i = 0; i < 4 && !tasks; i++) {
                static const char *const methods[] = { "tasks/get", "tasks/result", "tasks/cancel", "tasks/list" };

                tasks = json_equal(message->method, methods[i]);
        }
        if (!tasks && !roots && !json_equal(message->method, "sampling/createMessage") &&
            !json_equal(message->method, "elicitation/create"))
                return false;

        if (tasks) {
                session = of_task(server_pool, worker, message, /* clients= */ true);
                if (!session || session->state != SESSION_OPEN || !ask(session, worker, message))
                        refuse(worker, message->id, RPC_INVALID_PARAMS, "There is no such task");
                return true;
        }

        session = find_asked(server_pool, worker, message, &call);
        if (!session && roots)
                return worker_answer(worker, message->id, (JsonSlice){ "{\"roots\":[]}", 12 }, (JsonSlice){},
                                     &(JsonTraits){}),
                       true;
        if (!session) {
                refuse(worker, message->id, RPC_BROKER,
                       "Several clients' calls are under way, and it can't be told which of them is to be asked");
                return true;
        }

        if (session->mcp.era == MCP_ERA_MODERN)
                call = session_ask_choose(session, worker, call);
        profile = session->mcp.era == MCP_ERA_MODERN && call ? call->client.profile : session->mcp.profile;
        if (session->state != SESSION_OPEN)
                refuse(worker, message->id, RPC_BROKER, "The client has ended its session");
        else if (mcp_profile_missing(profile, message->method, message->params) != 0)
                refuse(worker, message->id, RPC_METHOD_NOT_FOUND, "The client doesn't serve that");
        else if (session->mcp.era == MCP_ERA_MODERN ? !call || !session_ask_modern(call, worker, message)
                                                    : !ask(session, worker, message))
                refuse(worker, message->id, RPC_BROKER, "The client can't be asked now");
        return true;
}

void session_answered(Session *session, const McpMessage *message) {
        SessionQuestion *question;

        TAILQ_FOREACH(question, &session->questions, link)
                if (message->ours && question->number == message->number)
                        break;
        if (!question || (!question->worker && !question->call))
                return;

        if (!question->worker) {
                session_ask_answered(question, message);
                return;
        }

        if (message->kind == MCP_RESULT) {
                JsonSlice task = mcp_task_created(message->result, MCP_ERA_LEGACY);

                if (task.data && mcp_task_wanted(question->ask.params) && session->n_tasks < SESSION_TASKS_MAX)
                        session_note_task(session, task, question->worker, /* clients= */ true, NULL);
        }
        worker_answer(question->worker, question->worker_id, message->result, message->error, &message->traits);
        session_question_free(question);
}

/* The client reports on something that a worker asked of it, or on a task that it runs for one. */
void session_asked_progress(Session *session, JsonSlice params, const JsonTraits *traits) {
        JsonSlice token = json_get(params, "progressToken");
        const SessionQuestion *question;

        TAILQ_FOREACH(question, &session->questions, link)
                if (question->worker && token.size > 0 && question->token.size == token.size &&
                    memcmp(question->token.data, token.data, token.size) == 0) {
                        worker_notify(question->worker, "notifications/progress",
                                      &(McpParams){ .text = params, .traits = *traits });
                        return;
                }
}

/* Tells who waits for it, or who has it, that nothing comes of it. */
void session_question_withdraw(SessionQuestion *question, JsonSlice reason) {
        bool parked = question->worker && question->call; /* the client knows it by the call */
        Buffer *output = parked ? NULL : session_output(question->session, /* notification= */ false);
        char number[24];

        if (parked)
                refuse(question->worker, question->worker_id, RPC_BROKER, "The client has given the call up");
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)question->number);
        if (output)
                session_sent(question->session,
                             rpc_append_cancelled(output, (JsonPiece){ { number, strlen(number) }, NULL },
                                                  (JsonPiece){ reason, NULL }));
        session_question_free(question);
}

void sessions_cancelled(ServerPool *server_pool, Worker *worker, JsonSlice params) {
        JsonSlice id = json_get(params, "requestId"), reason = json_get(params, "reason");
        SessionServer *server;

        TAILQ_FOREACH(server, &server_pool->sessions, link) {
                SessionQuestion *question, *next;

                TAILQ_FOREACH_SAFE(question, &server->session->questions, link, next)
                        if (question->worker == worker && !question->call && question->worker_id.size == id.size &&
                            id.size > 0 && memcmp(question->worker_id.data, id.data, id.size) == 0)
                                session_question_withdraw(question, json_is(reason, '"') ? reason : (JsonSlice){});
        }
}

void sessions_worker_removed(ServerPool *server_pool, Worker *worker) {
        SessionServer *server;

        TAILQ_FOREACH(server, &server_pool->sessions, link) {
                SessionQuestion *question, *next_question;
                SessionTask *task, *next_task;

                TAILQ_FOREACH_SAFE(question, &server->session->questions, link, next_question)
                        if (question->worker == worker && question->call)
                                session_question_free(question);
                        else if (question->worker == worker)
                                session_question_withdraw(question, (JsonSlice){ "\"the server has ended\"", 22 });
                TAILQ_FOREACH_SAFE(task, &server->session->tasks, link, next_task)
                        if (task->worker == worker)
                                session_task_free(server->session, task);
        }
}
