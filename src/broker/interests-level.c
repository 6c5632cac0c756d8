/* How much of the log the sessions of a pool want to hear of */

#include "broker/interests-private.h"

struct Level {
        TAILQ_ENTRY(Level) link;
        const void *subscriber;
        McpLevel level, wanted; /* wanted: while it is asked for, or level */
        InterestReply reply;
        bool asked;
        Request request;
        ServerPool *server_pool;
};

/* The params of logging/setLevel; static, for they have to outlive the request */
static const char *const level_params[_MCP_LEVEL_MAX] = {
        [MCP_LEVEL_DEBUG] = "{\"level\":\"debug\"}",   [MCP_LEVEL_INFO] = "{\"level\":\"info\"}",
        [MCP_LEVEL_NOTICE] = "{\"level\":\"notice\"}", [MCP_LEVEL_WARNING] = "{\"level\":\"warning\"}",
        [MCP_LEVEL_ERROR] = "{\"level\":\"error\"}",   [MCP_LEVEL_CRITICAL] = "{\"level\":\"critical\"}",
        [MCP_LEVEL_ALERT] = "{\"level\":\"alert\"}",   [MCP_LEVEL_EMERGENCY] = "{\"level\":\"emergency\"}",
};

static Level *find_level(const Interests *interests, const void *subscriber) {
        Level *level;

        TAILQ_FOREACH(level, &interests->levels, link)
                if (level->subscriber == subscriber)
                        return level;

        return NULL;
}

McpLevel interests_level(const ServerPool *server_pool) {
        const Interests *interests = server_pool->interests;
        McpLevel most = _MCP_LEVEL_NONE;
        Level *level;

        if (!interests)
                return _MCP_LEVEL_NONE;

        TAILQ_FOREACH(level, &interests->levels, link)
                if (level->level != _MCP_LEVEL_NONE && (most == _MCP_LEVEL_NONE || level->level < most))
                        most = level->level;

        return most;
}

McpLevel interests_level_of(const ServerPool *server_pool, const void *subscriber) {
        const Level *level = server_pool->interests ? find_level(server_pool->interests, subscriber) : NULL;

        return level ? level->level : _MCP_LEVEL_NONE;
}

/* asked: as interests_tell_workers() */
static void tell_level(ServerPool *server_pool, const Worker *asked) {
        Interests *interests = server_pool->interests;
        McpLevel most = interests_level(server_pool);

        if (most == _MCP_LEVEL_NONE || most == interests->told)
                return;

        interests->told = most;
        interests_tell_workers(server_pool, "logging/setLevel", level_params[most], asked);
}

static void level_free(Level *level) {
        TAILQ_REMOVE(&level->server_pool->interests->levels, level, link);
        free(level);
}

static void level_asked(Request *request, const Outcome *outcome) {
        Level *level = (Level *)((char *)request - offsetof(Level, request));
        ServerPool *server_pool = level->server_pool;
        InterestReply reply = level->reply;

        level->asked = false;
        if (!outcome->failure) {
                level->level = level->wanted;
                tell_level(server_pool, interests_only_ready(server_pool));
        } else if (level->level == _MCP_LEVEL_NONE) {
                level_free(level);
                interests_hold_pool(server_pool);
        }
        interest_give(reply, outcome);
}

int interests_set_level(ServerPool *server_pool, const void *subscriber, McpLevel wanted, InterestReply reply,
                        Failure *failure) {
        Interests *interests = interests_get(server_pool);
        Worker *worker = interests_first_ready(server_pool);
        Level *level;
        int r;

        level = interests ? find_level(interests, subscriber) : NULL;
        if (interests && !level && (level = new0(Level, 1))) {
                *level = (Level){
                        .subscriber = subscriber,
                        .level = _MCP_LEVEL_NONE,
                        .server_pool = server_pool,
                };
                TAILQ_INSERT_TAIL(&interests->levels, level, link);
        }
        if (!level)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (level->asked)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "A level is being set already");

        /* The workers say as much already, or are told so when they come, or with each request. */
        if (!worker || worker->era != MCP_ERA_LEGACY ||
            (interests->told != _MCP_LEVEL_NONE && interests->told <= wanted)) {
                level->level = wanted;
                tell_level(server_pool, NULL);
                interest_give(reply, &interest_empty);
                return 0;
        }

        level->wanted = wanted;
        level->reply = reply;
        level->request = (Request){
                .kind = REQUEST_CALL,
                .uid = server_pool->uid,
                .caller = server_pool,
                .method = "logging/setLevel",
                .params.text = { level_params[wanted], strlen(level_params[wanted]) },
                .done = level_asked,
        };
        r = pool_submit(server_pool->pool, &level->request, failure);
        if (r < 0 && level->level == _MCP_LEVEL_NONE)
                level_free(level);
        else if (r >= 0)
                level->asked = true;
        return r;
}

void levels_leave(ServerPool *server_pool, const void *subscriber) {
        Level *level = find_level(server_pool->interests, subscriber);

        if (!level)
                return;

        if (level->asked)
                pool_cancel(&level->request, "its session has left");
        level_free(level);
        tell_level(server_pool, NULL);
}

bool interests_want_log(const ServerPool *server_pool, const void *subscriber, McpLevel level) {
        McpLevel own = interests_level_of(server_pool, subscriber);

        if (own == _MCP_LEVEL_NONE)
                own = interests_level(server_pool) == _MCP_LEVEL_NONE ? MCP_LEVEL_DEBUG : MCP_LEVEL_INFO;

        return level >= own;
}

void levels_worker_ready(ServerPool *server_pool, Worker *worker) {
        McpLevel level = interests_level(server_pool);

        server_pool->interests->told = level;
        if (level != _MCP_LEVEL_NONE)
                worker_tell(worker, "logging/setLevel", level_params[level]);
}

void levels_free(ServerPool *server_pool) {
        Level *level;

        while ((level = TAILQ_FIRST(&server_pool->interests->levels))) {
                if (level->asked)
                        pool_cancel(&level->request, "the server was taken away");
                level_free(level);
        }
}
