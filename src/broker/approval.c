#include "broker/approval.h"

#include <stdio.h>

#include "base/log.h"
#include "broker/list-changes.h"

/* One worker's list, while it is fetched */
typedef struct Approval {
        Request request;
        ServerPool *server_pool;
        Worker *worker;
        List list;
        char *params;
} Approval;

static void on_page(Request *request, const Outcome *outcome);

static void approval_free(Approval *approval) {
        list_clear(&approval->list);
        free(approval->params);
        free(approval);
}

/* Whoever waits is told at once why: another worker of the same command would be no better. */
static void refuse(Approval *approval, const char *why) {
        Pool *pool = approval->server_pool->pool;
        Worker *worker, *there = NULL;
        Failure failure = {};

        TAILQ_FOREACH(worker, &pool->workers, link)
                if (worker == approval->worker && worker->state <= WORKER_DRAINING)
                        there = worker;

        if (there) {
                failure_set(&failure, FAILURE_UNAVAILABLE, "Server %s: %s", there->config->name, why);
                log_warning("%s", failure_message(&failure));
                pool_fail_queue(pool, &failure);
                worker_fail(there, FAILURE_UNAVAILABLE, "%s", why);
                failure_done(&failure);
        }
        approval_free(approval);
}

static void conclude(Approval *approval) {
        char digest[SHA256_HEX_SIZE], why[256];

        if (list_changes_digest(approval->list.items, approval->list.n, digest) < 0) {
                refuse(approval, "out of memory");
                return;
        }

        for (char **approved = approval->worker->config->tools_digest; approved && *approved; approved++)
                if (streq(*approved, digest)) {
                        approval->worker->n_unapproved--;
                        pool_schedule(approval->server_pool->pool);
                        approval_free(approval);
                        return;
                }

        (void)snprintf(why, sizeof(why),
                       "its tools are not those that its file approves of: their digest is %s (tools_digest)", digest);
        refuse(approval, why);
}

static int ask_page(Approval *approval, Failure *failure) {
        approval->request = (Request){
                .kind = REQUEST_CALL,
                .uid = approval->server_pool->uid,
                .caller = approval,
                .method = list_method(LIST_TOOLS),
                .params.text = { approval->params, approval->params ? strlen(approval->params) : 0 },
                .pinned = approval->worker,
                .approves = true,
                .done = on_page,
        };
        return pool_submit(approval->server_pool->pool, &approval->request, failure);
}

static void on_page(Request *request, const Outcome *outcome) {
        Approval *approval = (Approval *)((char *)request - offsetof(Approval, request));
        Failure failure = {};
        char *params;
        int r;

        if (outcome->failure) {
                refuse(approval, failure_message(outcome->failure));
                return;
        }

        r = list_add_page(&approval->list, LIST_TOOLS, outcome->result, &outcome->traits, &params);
        free(approval->params);
        approval->params = params;
        if (r < 0)
                (void)list_failed(&failure, r, LIST_TOOLS, approval->worker->config->name);
        else if (params)
                r = ask_page(approval, &failure);

        if (r < 0)
                refuse(approval, failure_message(&failure));
        else if (!params)
                conclude(approval);
        failure_done(&failure);
}

void approval_ask(ServerPool *server_pool, Worker *worker) {
        Approval *approval;
        Failure failure = {};

        if (!worker->config->tools_digest || worker->state != WORKER_READY)
                return;

        approval = new0(Approval, 1);
        worker->n_unapproved++;
        if (!approval) {
                worker_fail(worker, FAILURE_UNAVAILABLE, "out of memory");
                return;
        }

        *approval = (Approval){ .server_pool = server_pool, .worker = worker };
        if (ask_page(approval, &failure) < 0)
                refuse(approval, failure_message(&failure));
        failure_done(&failure);
}
