/* A session on several servers: whom a request is for, and what they are together */

#include "broker/aggregate.h"

#include <stdio.h>

#include "base/log.h"
#include "base/text.h"

#define ROOM 64 /* for servers that come later */

bool aggregate_offers(const SessionServer *server, const char *capability) {
        JsonSlice greeting = aggregate_greeting(server);

        return !greeting.data || json_get(json_get(greeting, "capabilities"), capability).data;
}

SessionServer *aggregate_member(Session *session, const char *name, size_t size) {
        for (size_t i = 0; i < session->n_servers; i++) {
                SessionServer *member = &session->servers[i];

                if (!member->gone && strlen(member->name) == size && memcmp(member->name, name, size) == 0)
                        return member;
        }

        return NULL;
}

static Member *member_of(const SessionServer *server) {
        return &server->session->aggregate->members[server - server->session->servers];
}

/* The server that the prefix names, and where the rest begins */
static SessionServer *split_name(Session *session, const char *name, const char **ret_rest) {
        const char *separator = strstr(name, AGGREGATE_SEPARATOR);

        if (!separator || !separator[strlen(AGGREGATE_SEPARATOR)])
                return NULL;

        *ret_rest = separator + strlen(AGGREGATE_SEPARATOR);
        return aggregate_member(session, name, separator - name);
}

/* params with another string in the place of old, a value in them */
static int rewrite(McpParams *params, JsonSlice old, const char *string, Buffer *rewritten) {
        JsonSlice before = { params->text.data, old.data - params->text.data },
                  behind = { old.data + old.size, params->text.data + params->text.size - (old.data + old.size) };
        const JsonTraits traits = params->traits;
        const char *reason;
        int r;

        r = json_append(rewritten, before, &params->traits);
        if (r >= 0)
                r = json_append_quoted(rewritten, string, strlen(string));
        if (r >= 0)
                r = json_append(rewritten, behind, &params->traits);
        if (r >= 0)
                /* The id, which stands in the line, has the traits still. */
                r = mcp_params_of((JsonSlice){ buffer_data(rewritten), buffer_size(rewritten) }, &traits, params,
                                  &reason);
        return r;
}

static int route_by_name(Session *session, JsonSlice value, const char *what, McpParams *params, SessionServer **ret,
                         Buffer *rewritten, Failure *failure) {
        _cleanup_(freep) char *name = json_decode(value);
        const char *rest;

        if (!name)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "The name of the %s is missing", what);

        *ret = split_name(session, name, &rest);
        if (!*ret)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS,
                                   "Unknown %s: %s. It is named SERVER" AGGREGATE_SEPARATOR "NAME here", what, name);
        if (rewrite(params, value, rest, rewritten) < 0)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        return 0;
}

/* Whether a template (RFC 6570) may stand for uri: an expression for any text. */
static bool template_matches(const char *template, const char *uri) {
        const char *expression = NULL, *tried = NULL;

        while (*uri)
                if (*template == '{' && strchr(template, '}')) {
                        template = strchr(template, '}') + 1;
                        expression = template;
                        tried = uri;
                } else if (*template == *uri) {
                        template ++;
                        uri++;
                } else if (expression) {
                        template = expression;
                        uri = ++tried;
                } else
                        return false;

        while (*template == '{' && strchr(template, '}'))
                template = strchr(template, '}') + 1;
        return *template == 0;
}

static bool has_template(const Names *templates, const char *uri) {
        for (size_t i = 0; i < templates->n; i++)
                if (template_matches(templates->names[i], uri))
                        return true;

        return false;
}

static bool has_scheme(const Names *names, const char *uri) {
        const char *colon = strchr(uri, ':');

        for (size_t i = 0; colon && i < names->n; i++)
                if (strncmp(names->names[i], uri, colon - uri + 1) == 0)
                        return true;

        return false;
}

static bool is_listed(const Member *member, const char *uri) {
        return names_have(&member->uris, uri) || names_have(&member->templates, uri);
}

static bool is_template(const Member *member, const char *uri) {
        return has_template(&member->templates, uri);
}

/* A server may have more than it lists. */
static bool is_of_scheme(const Member *member, const char *uri) {
        return has_scheme(&member->uris, uri) || has_scheme(&member->templates, uri);
}

static SessionServer *first_with(Session *session, bool (*has)(const Member *member, const char *uri),
                                 const char *uri) {
        for (size_t i = 0; i < session->n_servers; i++)
                if (!session->servers[i].gone && has(member_of(&session->servers[i]), uri))
                        return &session->servers[i];

        return NULL;
}

static SessionServer *only_with_resources(Session *session) {
        SessionServer *only = NULL;

        for (size_t i = 0; i < session->n_servers; i++) {
                SessionServer *server = &session->servers[i];

                if (server->gone || !aggregate_offers(server, "resources"))
                        continue;
                if (only)
                        return NULL;
                only = server;
        }

        return only;
}

static bool resources_known(Session *session) {
        for (size_t i = 0; i < session->n_servers; i++) {
                const Member *member = member_of(&session->servers[i]);

                if (!session->servers[i].gone && !(member->uris.known && member->templates.known))
                        return false;
        }

        return true;
}

static SessionServer *find_listed(Session *session, const char *uri) {
        return first_with(session, is_listed, uri) ?: first_with(session, is_template, uri);
}

SessionServer *aggregate_find_resource(Session *session, const char *uri) {
        return find_listed(session, uri) ?: first_with(session, is_of_scheme, uri) ?: only_with_resources(session);
}

static int route_by_uri(Session *session, const RpcInput *input, const McpClient *client, const char *method,
                        JsonSlice value, SessionServer **ret, Failure *failure) {
        _cleanup_(freep) char *uri = json_decode(value);

        if (!uri)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "uri has to be a string");

        *ret = find_listed(session, uri);
        if (*ret)
                return 0;

        /* Whoever listed them knows better; but the client can have it from elsewhere. */
        if (!resources_known(session) && !session->aggregate->found_out) {
                int r = aggregate_find_out(session, input, method, failure);

                if (r != 0)
                        return r;
        }

        *ret = aggregate_find_resource(session, uri);
        if (*ret)
                return 0;

        session_reply_error(session, (JsonPiece){ input->message.id, &input->message.traits },
                            client->era == MCP_ERA_MODERN ? RPC_INVALID_PARAMS : RPC_RESOURCE_NOT_FOUND,
                            "No server has the resource %s", uri);
        return AGGREGATE_DONE;
}

static int route_completion(Session *session, RpcInput *input, const McpClient *client, const char *method,
                            SessionServer **ret, Buffer *text, Failure *failure) {
        JsonSlice ref = json_get(input->params.text, "ref"), type = json_get(ref, "type");

        if (json_equal(type, "ref/prompt"))
                return route_by_name(session, json_get(ref, "name"), "prompt", &input->params, ret, text, failure);
        if (json_equal(type, "ref/resource"))
                return route_by_uri(session, input, client, method, json_get(ref, "uri"), ret, failure);

        return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "ref has to be a ref/prompt or a ref/resource");
}

static int route_task(Session *session, const RpcInput *input, SessionServer **ret, Failure *failure) {
        const SessionTask *task = session_find_task(session, mcp_task_of_params(input->params.text), NULL);

        for (size_t i = 0; task && i < session->n_servers; i++) {
                SessionServer *server = &session->servers[i];

                if (server->pool && server->pool->pool == task->worker->pool) {
                        *ret = server;
                        return 0;
                }
        }

        return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "This session has no such task");
}

static void ignore(void *userdata _unused_, const Outcome *outcome _unused_) {
}

/* Each server gets the level as soon as it is used. */
void aggregate_joined(SessionServer *server) {
        const McpClient *client = &server->session->mcp;
        Failure failure = {};

        if (client->era == MCP_ERA_LEGACY && client->level != _MCP_LEVEL_NONE)
                (void)interests_set_level(server->pool, server, client->level, (InterestReply){ ignore, NULL },
                                          &failure);
        failure_done(&failure);
}

static int on_set_level(Session *session, const RpcInput *input, Failure *failure) {
        McpLevel level = mcp_level_read(json_get(input->params.text, "level"));

        if (level < 0)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "level is none of the levels");

        session->mcp.level = level;
        for (size_t i = 0; i < session->n_servers; i++)
                if (session->servers[i].pool)
                        aggregate_joined(&session->servers[i]);
        session_reply_text(session, (JsonPiece){ input->message.id, &input->message.traits }, "{}");
        return AGGREGATE_DONE;
}

/* So that their greetings that were kept are known, and what they say unasked is heard */
static void join_pools(Session *session) {
        ServerPool *server_pool;

        for (size_t i = 0; i < session->n_servers; i++)
                if (!session->servers[i].gone)
                        (void)session_get_pool(&session->servers[i], &server_pool);
}

int aggregate_route(Session *session, RpcInput *input, const McpClient *client, const char *method, SessionServer **ret,
                    McpHello *ret_hello, Buffer *text, Failure *failure) {
        static const char *const by_uri[] = { "resources/read", "resources/subscribe", "resources/unsubscribe" };
        static const char *const joined[] = { "initialize", "server/discover", "subscriptions/listen", "ping" };
        McpParams *params = &input->params;

        *ret = NULL;
        for (size_t i = 0; i < ELEMENTSOF(joined); i++)
                if (streq(method, joined[i])) {
                        if (!streq(method, "ping"))
                                join_pools(session);
                        return aggregate_hello(session, text, ret_hello) < 0
                                       ? failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory")
                                       : 0;
                }
        for (ListKind kind = 0; kind < _LIST_KIND_MAX; kind++)
                if (streq(method, list_method(kind)))
                        return aggregate_list(session, input, client, kind, failure);
        for (size_t i = 0; i < ELEMENTSOF(by_uri); i++)
                if (streq(method, by_uri[i]))
                        return route_by_uri(session, input, client, method, json_get(params->text, "uri"), ret,
                                            failure);
        if (streq(method, "tools/call") || streq(method, "prompts/get"))
                return route_by_name(session, params->name, *method == 't' ? "tool" : "prompt", params, ret, text,
                                     failure);
        if (streq(method, "completion/complete"))
                return route_completion(session, input, client, method, ret, text, failure);
        if (streq(method, "logging/setLevel") && client->era == MCP_ERA_LEGACY)
                return on_set_level(session, input, failure);
        if (mcp_method_of_tasks(method) && !streq(method, "tasks/list"))
                return route_task(session, input, ret, failure);

        session_reply_error(session, (JsonPiece){ input->message.id, &input->message.traits }, RPC_METHOD_NOT_FOUND,
                            "Method not found");
        return AGGREGATE_DONE;
}

static const struct {
        unsigned list;
        JsonPiece method;
} changes[] = {
        { MCP_LISTEN_TOOLS, JSON_LITERAL("\"notifications/tools/list_changed\"") },
        { MCP_LISTEN_PROMPTS, JSON_LITERAL("\"notifications/prompts/list_changed\"") },
        { MCP_LISTEN_RESOURCES, JSON_LITERAL("\"notifications/resources/list_changed\"") },
};

static void notify_all(Session *session) {
        static const JsonPiece nothing = {};
        static const JsonPiece empty = JSON_LITERAL("{}");

        for (size_t i = 0; i < ELEMENTSOF(changes); i++) {
                Buffer *output =
                        session->mcp.era == MCP_ERA_LEGACY ? session_output(session, /* notification= */ true) : NULL;
                SessionListen *listen;

                if (output)
                        session_sent(session, rpc_append_notification(output, changes[i].method, nothing, NULL, 0));
                TAILQ_FOREACH(listen, &session->listens, link)
                        if (listen->announced && (listen->filter.lists & changes[i].list) &&
                            (output = session_output(session, /* notification= */ true)))
                                session_sent(session,
                                             mcp_append_subscribed(output, changes[i].method, empty,
                                                                   (JsonPiece){ listen->id, &listen->traits }));
        }
}

void aggregate_list_changed(SessionServer *server, unsigned lists) {
        Member *member = member_of(server);

        if (lists & MCP_LISTEN_RESOURCES)
                member->uris.known = member->templates.known = false;
}

void aggregate_server_gone(Session *session, SessionServer *server) {
        Member *member = member_of(server);

        names_clear(&member->uris);
        names_clear(&member->templates);
        server->gone = true;
        aggregate_warmed(server);
        notify_all(session);
}

void aggregate_server_came(Session *session, Server *server) {
        Aggregate *aggregate = session->aggregate;
        const ServerConfig *config = server->config;
        Manager *manager = session->manager;
        SessionServer *place = NULL;

        for (size_t i = 0; i < session->n_servers && !place; i++)
                if (streq(session->servers[i].name, config->name))
                        place = &session->servers[i];
        if (place && !place->gone)
                return;
        if (!place && aggregate->all && session->n_servers < aggregate->room) {
                place = &session->servers[session->n_servers];
                *place = (SessionServer){ .session = session, .name = strdup(config->name), .gone = true };
                if (!place->name)
                        return;
                session->n_servers++;
        }
        if (!place || config->disabled || config->protocol != SERVER_PROTOCOL_MCP ||
            !manager->handlers->may_use(manager->userdata, session->client, server) ||
            client_note_server(session->client, server) < 0)
                return;

        place->server = server;
        place->gone = false;
        notify_all(session);
}

int aggregate_new(Session *session, bool all) {
        Aggregate *aggregate = new0(Aggregate, 1);

        if (!aggregate)
                return -ENOMEM;

        aggregate->all = all;
        aggregate->room = session->n_servers + (all ? ROOM : 0);
        aggregate->members = new0(Member, aggregate->room + 1);
        TAILQ_INIT(&aggregate->gathers);
        session->aggregate = aggregate;
        return aggregate->members ? 0 : -ENOMEM;
}

void aggregate_free(Session *session) {
        Aggregate *aggregate = session->aggregate;

        if (!aggregate)
                return;

        aggregate_abandon(session);
        for (size_t i = 0; aggregate->members && i < aggregate->room; i++) {
                names_clear(&aggregate->members[i].uris);
                names_clear(&aggregate->members[i].templates);
        }
        free(aggregate->members);
        free(aggregate);
        session->aggregate = NULL;
}
