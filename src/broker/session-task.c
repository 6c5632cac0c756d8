/* Tasks: whose they are, and which worker has them. A task is nobody's but the session's that made it. */

#include "broker/session-parts.h"

SessionTask *session_find_task(const Session *session, JsonSlice id, const Worker *worker) {
        SessionTask *task;

        TAILQ_FOREACH(task, &session->tasks, link)
                if (task->clients == (worker != NULL) && (!worker || task->worker == worker) &&
                    task->id.size == id.size && id.size > 0 && memcmp(task->id.data, id.data, id.size) == 0)
                        return task;

        return NULL;
}

void session_task_ended(SessionTask *task) {
        if (!task->ended && !task->clients)
                worker_release(task->worker);
        task->ended = true;
}

void session_task_free(Session *session, SessionTask *task) {
        session_task_ended(task);
        TAILQ_REMOVE(&session->tasks, task, link);
        session->n_tasks--;
        free(task);
}

void session_note_task(Session *session, JsonSlice id, Worker *worker, bool clients, const SessionCall *call) {
        JsonSlice token = call && call->token.size > 0 ? call->token : (JsonSlice){};
        SessionTask *task;

        task = malloc(sizeof(SessionTask) + id.size + token.size);
        if (!task)
                return;

        *task = (SessionTask){
                .worker = worker,
                .clients = clients,
                .progress = call ? call->request.id : 0,
                .id = { task->data, id.size },
                .token = { task->data + id.size, token.size },
        };
        memcpy(task->data, id.data, id.size);
        memcpy(task->data + id.size, token.data ?: "", token.size);
        TAILQ_INSERT_TAIL(&session->tasks, task, link);
        session->n_tasks++;
        if (!clients)
                worker_hold(worker);
}

/* What runs for nobody is cancelled. */
static void cancel_at_worker(const SessionTask *task) {
        Buffer params = {};
        int r;

        r = buffer_append_string(&params, "{\"taskId\":");
        if (r >= 0)
                r = buffer_append(&params, task->id.data, task->id.size);
        if (r >= 0)
                r = buffer_append(&params, "}", 2);
        if (r >= 0)
                worker_tell(task->worker, "tasks/cancel", params.data);
        buffer_done(&params);
}

void session_leave_tasks(Session *session) {
        SessionTask *task;

        while ((task = TAILQ_FIRST(&session->tasks))) {
                if (!task->over && !task->ended && !task->clients)
                        cancel_at_worker(task);
                session_task_free(session, task);
        }
}

static bool is_over(JsonSlice status) {
        return json_equal(status, "completed") || json_equal(status, "failed") || json_equal(status, "cancelled");
}

/* What a worker says of one of its tasks: a task itself, or what has one */
void session_task_watch(Session *session, JsonSlice task_object, bool asked) {
        SessionTask *task = session_find_task(session, json_get(task_object, "taskId"), NULL);
        JsonSlice status = json_get(task_object, "status");

        if (!task || !is_over(status))
                return;

        /* Its worker may be about to leave, and the result is still to be asked for: by tasks/result, or, of a modern
         * one, by tasks/get. */
        task->over = true;
        if (json_equal(status, "cancelled") || (asked && task->worker->era == MCP_ERA_MODERN))
                session_task_ended(task);
}

/* Where all places are taken, tasks that are over make room. */
static void make_room(Session *session) {
        SessionTask *task, *next;

        TAILQ_FOREACH_SAFE(task, &session->tasks, link, next)
                if (session->n_tasks >= SESSION_TASKS_MAX && (task->over || task->ended || task->clients))
                        session_task_free(session, task);
}

void session_task_created(SessionCall *call, JsonSlice id) {
        Session *session = call->session;

        make_room(session);
        if (id.data && !session_find_task(session, id, NULL) && session->n_tasks < SESSION_TASKS_MAX)
                session_note_task(session, id, call->request.answered_by, /* clients= */ false, call);
}

static void created(SessionCall *call, const Outcome *outcome) {
        McpHello hello;

        (void)session_hello(call->server, &hello);
        if (!outcome->failure)
                session_task_created(call, mcp_task_created(outcome->result, hello.era));
        session_call_pass_on(call, outcome);
}

/* Of tasks/get, result, cancel and update */
static void told(SessionCall *call, const Outcome *outcome) {
        SessionTask *task = session_find_task(call->session, mcp_task_of_params(call->request.params.text), NULL);

        if (!outcome->failure) {
                session_task_watch(call->session, outcome->result, /* asked= */ true);
                if (task && streq(call->method, "tasks/result"))
                        session_task_ended(task);
        } else if (task && rpc_error_is(outcome->error, RPC_INVALID_PARAMS))
                session_task_free(call->session, task); /* the worker has forgotten it */
        else if (task && task->over && streq(call->method, "tasks/result"))
                session_task_ended(task);
        session_call_pass_on(call, outcome);
}

static bool mine(void *userdata, JsonSlice id) {
        return session_find_task(userdata, id, NULL);
}

static void listed(SessionCall *call, const Outcome *outcome) {
        Session *session = call->session;
        Buffer list = {};
        int r;

        if (outcome->failure) {
                session_call_pass_on(call, outcome);
                return;
        }

        r = mcp_append_task_list(&list, (JsonPiece){ outcome->result, &outcome->traits }, mine, session);
        if (r == -EINVAL)
                session_reply_error(session, session_call_id(call), RPC_BROKER,
                                    "The server's answer has no list of tasks");
        else if (r < 0)
                session_close(session, "out of memory");
        else
                session_reply_result(session, session_call_id(call),
                                     (JsonPiece){ { buffer_data(&list), buffer_size(&list) }, NULL });
        buffer_done(&list);
}

/* The worker that has the session's tasks, if it still takes new ones: so that a list of them is one worker's. */
static Worker *worker_of_tasks(const Session *session, const SessionServer *server, bool takes_new) {
        Worker *worker = NULL;
        SessionTask *task;

        TAILQ_FOREACH(task, &session->tasks, link)
                if (!task->clients && server->pool && task->worker->pool == server->pool->pool &&
                    (!takes_new || task->worker->state == WORKER_READY))
                        worker = task->worker;

        return worker;
}

int session_method_of_tasks(Session *session, const SessionCallSpec *spec, Failure *failure) {
        SessionCallSpec call = *spec;
        SessionTask *task;

        if (!mcp_method_of_tasks(spec->method)) {
                make_room(session);
                if (session->n_tasks >= SESSION_TASKS_MAX)
                        return failure_set(failure, FAILURE_UNAVAILABLE,
                                           "A session may have %d tasks, and all of these are running",
                                           SESSION_TASKS_MAX);
                call.pinned = worker_of_tasks(session, spec->server, /* takes_new= */ true);
                call.done = created;
                return session_call_start(session, &call, failure);
        }

        if (streq(spec->method, "tasks/list")) {
                call.pinned = worker_of_tasks(session, spec->server, /* takes_new= */ false);
                call.done = listed;
                if (call.pinned)
                        return session_call_start(session, &call, failure);

                session_reply_text(session, (JsonPiece){ spec->id, &spec->params.traits }, "{\"tasks\":[]}");
                return 0;
        }

        task = session_find_task(session, mcp_task_of_params(spec->params.text), NULL);
        if (!task)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "This session has no such task");

        call.pinned = task->worker;
        call.done = told;
        return session_call_start(session, &call, failure);
}
