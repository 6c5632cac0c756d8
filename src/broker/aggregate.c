/* A session on several servers: whom a request is for, and what they are together */

#include "broker/aggregate.h"

#include <stdio.h>

#include "base/log.h"
#include "base/text.h"

#define INSTRUCTIONS_MAX ((size_t)4096) /* bytes of one server's */
#define INSTRUCTIONS_ALL_MAX ((size_t)32 * 1024)
#define ROOM 64 /* for servers that come later */

static const JsonTraits no_traits = {};

static JsonSlice greeting_of(const SessionServer *member) {
        const Buffer *greeting = member->pool ? &member->pool->pool->greeting : NULL;

        return greeting && buffer_size(greeting) > 0 ? (JsonSlice){ buffer_data(greeting), buffer_size(greeting) }
                                                     : (JsonSlice){};
}

bool aggregate_knows(const SessionServer *member) {
        return greeting_of(member).data;
}

bool aggregate_offers(const SessionServer *member, const char *capability) {
        JsonSlice greeting = greeting_of(member);

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
        const char *reason;
        int r;

        r = json_append(rewritten, before, &params->traits);
        if (r >= 0)
                r = json_append_quoted(rewritten, string, strlen(string));
        if (r >= 0)
                r = json_append(rewritten, behind, &params->traits);
        if (r >= 0)
                r = mcp_params_locate((JsonSlice){ buffer_data(rewritten), buffer_size(rewritten) }, &no_traits, params,
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

static int route_by_uri(Session *session, const McpMessage *message, const char *method, JsonSlice value,
                        McpParams *params, SessionServer **ret, Failure *failure) {
        _cleanup_(freep) char *uri = json_decode(value);

        if (!uri)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "uri has to be a string");

        *ret = first_with(session, is_listed, uri);
        if (!*ret)
                *ret = first_with(session, is_template, uri);
        if (*ret)
                return 0;

        /* Whoever listed them knows better; but the client can have it from elsewhere. */
        if (!resources_known(session) && message->id.data && !session->aggregate->found_out)
                return aggregate_find_out(session, message, method, params, failure);

        *ret = first_with(session, is_of_scheme, uri) ?: only_with_resources(session);
        if (*ret)
                return 0;

        session_reply_error(session, message->id, MCP_RESOURCE_NOT_FOUND, "No server has the resource %s", uri);
        return 2;
}

static int route_completion(Session *session, const McpMessage *message, const char *method, McpParams *params,
                            SessionServer **ret, Buffer *rewritten, Failure *failure) {
        JsonSlice ref = json_get(params->text, "ref"), type = json_get(ref, "type");

        if (json_equal(type, "ref/prompt"))
                return route_by_name(session, json_get(ref, "name"), "prompt", params, ret, rewritten, failure);
        if (json_equal(type, "ref/resource"))
                return route_by_uri(session, message, method, json_get(ref, "uri"), params, ret, failure);

        return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "ref has to be a ref/prompt or a ref/resource");
}

typedef struct Joined {
        bool all_known, subscribe, completions, logging;
} Joined;

static Joined join_capabilities(const Session *session) {
        Joined joined = { .all_known = !session->aggregate->all };

        for (size_t i = 0; i < session->n_servers; i++) {
                const SessionServer *member = &session->servers[i];
                JsonSlice greeting = greeting_of(member), capabilities = json_get(greeting, "capabilities");

                if (member->gone)
                        continue;
                if (!greeting.data)
                        joined.all_known = false;
                joined.subscribe =
                        joined.subscribe || json_is(json_get(json_get(capabilities, "resources"), "subscribe"), 't');
                joined.completions = joined.completions || json_get(capabilities, "completions").data;
                joined.logging = joined.logging || json_get(capabilities, "logging").data;
        }

        return joined;
}

/* Each server's own, as far as they are known without a start, and what the configuration says of it */
static int append_instructions(Buffer *text, const Session *session) {
        int r = buffer_append_string(text,
                                     "Several MCP servers behind one connection. The name of each tool and prompt "
                                     "begins with its server's name and two underscores.\n");

        for (size_t i = 0; i < session->n_servers && r >= 0; i++) {
                const SessionServer *member = &session->servers[i];
                _cleanup_(freep) char *own = json_decode(json_get(greeting_of(member), "instructions"));
                const char *description = member->gone ? NULL : member->server->config->description;

                if (member->gone || (!own && !description) || buffer_size(text) > INSTRUCTIONS_ALL_MAX)
                        continue;
                r = buffer_append_string(text, "\n# ");
                if (r >= 0)
                        r = buffer_append_string(text, member->name);
                if (r >= 0)
                        r = buffer_append_string(text, "\n");
                if (r >= 0 && description)
                        r = buffer_append(text, description, MIN(strlen(description), INSTRUCTIONS_MAX));
                if (r >= 0 && description)
                        r = buffer_append_string(text, "\n");
                if (r >= 0 && own)
                        r = buffer_append(text, own, MIN(strlen(own), INSTRUCTIONS_MAX));
                if (r >= 0 && own)
                        r = buffer_append_string(text, "\n");
        }

        return r;
}

int aggregate_append_capabilities(Buffer *buffer, const Session *session) {
        Joined joined = join_capabilities(session);
        int r;

        r = buffer_append_string(buffer, "{\"tools\":{\"listChanged\":true},\"prompts\":{\"listChanged\":true},"
                                         "\"resources\":{\"listChanged\":true");
        if (r >= 0 && (joined.subscribe || !joined.all_known))
                r = buffer_append_string(buffer, ",\"subscribe\":true");
        if (r >= 0)
                r = buffer_append_string(buffer, "}");
        if (r >= 0 && (joined.completions || !joined.all_known))
                r = buffer_append_string(buffer, ",\"completions\":{}");
        if (r >= 0 && (joined.logging || !joined.all_known))
                r = buffer_append_string(buffer, ",\"logging\":{}");
        if (r >= 0)
                r = buffer_append_string(buffer, "}");
        return r;
}

int aggregate_append_instructions(Buffer *buffer, const Session *session) {
        Buffer text = {};
        int r;

        r = append_instructions(&text, session);
        if (r >= 0)
                r = json_append_quoted(buffer, buffer_data(&text), buffer_size(&text));
        buffer_done(&text);
        return r;
}

static int on_initialize(Session *session, const McpMessage *message, const McpParams *params, Failure *failure) {
        _cleanup_(freep) char *asked = json_decode(json_get(params->text, "protocolVersion"));
        const char *version = asked && mcp_legacy_version_supported(asked) ? asked : MCP_VERSION_LEGACY;
        Buffer text = {};
        int r;

        if (session->era != MCP_ERA_AUTO) {
                session_reply_error(session, message->id, RPC_INVALID_REQUEST, "The session is initialized already");
                return 2;
        }
        if (!asked)
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "protocolVersion has to be a string");

        session->client->profile = mcp_profile_read(json_get(params->text, "capabilities"));
        session->era = MCP_ERA_LEGACY;

        r = buffer_append_string(&text, "{\"protocolVersion\":\"");
        if (r >= 0)
                r = buffer_append_string(&text, version);
        if (r >= 0)
                r = buffer_append_string(&text, "\",\"capabilities\":");
        if (r >= 0)
                r = aggregate_append_capabilities(&text, session);
        if (r >= 0)
                r = buffer_append_string(&text, ",\"serverInfo\":{\"name\":\"mcp-exec\",\"version\":\"" PROJECT_VERSION
                                                "\"},\"instructions\":");
        if (r >= 0)
                r = aggregate_append_instructions(&text, session);
        if (r >= 0)
                r = buffer_append_string(&text, "}");
        if (r < 0)
                session_close(session, "out of memory");
        else
                session_reply_result(session, message->id, (JsonSlice){ buffer_data(&text), buffer_size(&text) },
                                     &no_traits);
        buffer_done(&text);
        return 2;
}

int aggregate_route(Session *session, const McpMessage *message, const char *method, McpParams *params,
                    SessionServer **ret, Buffer *rewritten, Failure *failure) {
        static const char *const by_uri[] = { "resources/read", "resources/subscribe", "resources/unsubscribe" };
        static const char *const by_none[] = { "ping", "logging/setLevel" };

        if (streq(method, "initialize"))
                return on_initialize(session, message, params, failure);
        for (ListKind kind = 0; kind < _LIST_KIND_MAX; kind++)
                if (streq(method, list_method(kind)))
                        return aggregate_list(session, message, kind, params, failure);
        for (size_t i = 0; i < ELEMENTSOF(by_uri); i++)
                if (streq(method, by_uri[i]))
                        return route_by_uri(session, message, method, json_get(params->text, "uri"), params, ret,
                                            failure);
        for (size_t i = 0; i < ELEMENTSOF(by_none); i++)
                if (streq(method, by_none[i]))
                        return 0;
        if (streq(method, "tools/call") || streq(method, "prompts/get"))
                return route_by_name(session, params->name, *method == 't' ? "tool" : "prompt", params, ret, rewritten,
                                     failure);
        if (streq(method, "completion/complete"))
                return route_completion(session, message, method, params, ret, rewritten, failure);

        session_reply_error(session, message->id, RPC_METHOD_NOT_FOUND, "Method not found");
        return 2;
}

static void notify(Session *session, const char *method) {
        static const McpParams no_params = {};
        Buffer *output = session->era == MCP_ERA_LEGACY ? session_output(session, /* notification= */ true) : NULL;

        if (output)
                session_sent(session, mcp_append_notification(output, method, &no_params));
}

static void notify_all(Session *session) {
        notify(session, "notifications/tools/list_changed");
        notify(session, "notifications/prompts/list_changed");
        notify(session, "notifications/resources/list_changed");
}

void aggregate_list_changed(SessionServer *server, const char *method) {
        Member *member = member_of(server);

        if (streq(method, "notifications/resources/list_changed"))
                member->uris.known = member->templates.known = false;
}

void aggregate_server_gone(Session *session, SessionServer *server) {
        Member *member = member_of(server);

        names_clear(&member->uris);
        names_clear(&member->templates);
        server->gone = true;
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
