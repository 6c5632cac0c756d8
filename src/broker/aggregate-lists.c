/* A session on several servers: their lists, asked for side by side and joined. A server that fails is left out, and
 * said so. */

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/text.h"
#include "broker/aggregate.h"
#include "wire/meta.h"

#define PARTS_AT_ONCE 4                 /* servers that are asked, and perhaps started, at a time */
#define PAGE_BYTES ((size_t)512 * 1024) /* a page ends behind the item that reaches so many */
#define GATHERS_MAX 8                   /* requests that collect lists */
#define WAITING_MAX 64                  /* requests that wait for lists */
#define UNAVAILABLE "org.example.McpExec/unavailable"
#define FAILURE_SHOWN ((size_t)512)

/* One list of one server */
typedef struct Part {
        Gather *gather;
        SessionServer *server;
        ListKind kind;
        enum { PART_WAITING, PART_ASKED, PART_DONE } state;
        ListItem *items; /* text: as the client gets it */
        size_t n_items;
        size_t begin; /* where the page before ended: the first of items in the server's list */
        bool more;    /* behind the last of items */
        Failure failure;
} Part;

struct Gather {
        TAILQ_ENTRY(Gather) link;
        Session *session; /* NULL: nobody waits for it any more */
        ListKind kind;
        McpEra era;            /* the client's */
        char *line;            /* the request, where it is tried once more: the lists are for the broker; or NULL */
        SessionServer *server; /* whose start is waited for; or NULL */
        bool found_out;        /* the lists were asked for already */
        bool pumping;
        JsonSlice id;
        Part *parts;
        size_t n_parts, n_asked, n_done;
        char data[];
};

static Names *names_of(const SessionServer *server, ListKind kind) {
        Member *member = &server->session->aggregate->members[server - server->session->servers];

        return kind == LIST_RESOURCES ? &member->uris : kind == LIST_TEMPLATES ? &member->templates : NULL;
}

static void part_clear(Part *part) {
        for (size_t i = 0; i < part->n_items; i++) {
                free(part->items[i].name);
                free(part->items[i].text);
        }
        free(part->items);
        part->items = NULL;
        part->n_items = 0;
        failure_done(&part->failure);
}

static void gather_free(Gather *gather) {
        for (size_t i = 0; i < gather->n_parts; i++)
                part_clear(&gather->parts[i]);
        free(gather->parts);
        free(gather->line);
        free(gather);
}

static int part_take(Part *part, const ListItem *items, size_t n) {
        bool named = part->kind == LIST_TOOLS || part->kind == LIST_PROMPTS;

        part->items = new0(ListItem, n + 1);
        if (!part->items)
                return -ENOMEM;

        /* No page has more of one server. */
        for (size_t i = part->begin, bytes = 0; i < n && bytes < PAGE_BYTES; i++) {
                const ListItem *item = &items[i];
                ListItem *copy = &part->items[part->n_items];

                *copy = (ListItem){ .name = strdup(item->name),
                                    .text = named ? aggregate_prefixed(part->server->name, item) : strdup(item->text) };
                if (!copy->name || !copy->text) {
                        free(copy->name);
                        free(copy->text);
                        return -ENOMEM;
                }
                part->n_items++;
                bytes += strlen(copy->text);
        }

        part->more = part->begin + part->n_items < n;
        return 0;
}

static int append_cursor(Buffer *text, const Session *session, const Part *part, size_t item) {
        char cursor[160];

        (void)snprintf(cursor, sizeof(cursor), ",\"nextCursor\":\"%.8s.%zu.%s\"", session->id, item,
                       part->server->name);
        return buffer_append_string(text, cursor);
}

/* Of the cursor of an earlier page: -EINVAL where it is none of this session's */
static int read_cursor(Session *session, const char *cursor, SessionServer **ret_server, size_t *ret_item) {
        unsigned long long item;
        char start[9];
        int n = 0;

        if (sscanf(cursor, "%8[0-9a-f].%8llu.%n", start, &item, &n) != 2 || n == 0 ||
            strncmp(start, session->id, 8) != 0)
                return -EINVAL;

        *ret_server = aggregate_member(session, cursor + n, strlen(cursor + n));
        *ret_item = item;
        return *ret_server ? 0 : -EINVAL;
}

/* Whether a server before it has the same uri: that one has the resource then. */
static bool is_taken(const Gather *gather, const Part *part, const char *name) {
        const Session *session = gather->session;

        for (const SessionServer *other = session->servers; other < part->server; other++)
                if (!other->gone && names_of(other, part->kind) && names_have(names_of(other, part->kind), name))
                        return true;

        return false;
}

static void tell_taken(const Part *part, const char *name) {
        _cleanup_(freep) char *shown = text_escape(name, strlen(name), FAILURE_SHOWN);

        log_notice("%s: its %s in a joined list are a server's before it, too, and that one's count, as %s",
                   part->server->name, list_member(part->kind), shown ?: "?");
}

static int append_failures(Buffer *text, const Gather *gather) {
        bool first = true;
        int r = 0;

        for (size_t i = 0; i < gather->n_parts && r >= 0; i++) {
                const Part *part = &gather->parts[i];
                const char *message = failure_message(&part->failure);

                if (part->failure.code == FAILURE_NONE)
                        continue;
                r = buffer_append_string(text, first ? ",\"_meta\":{\"" UNAVAILABLE "\":{" : ",");
                first = false;
                if (r >= 0)
                        r = json_append_quoted(text, part->server->name, strlen(part->server->name));
                if (r >= 0)
                        r = buffer_append_string(text, ":");
                if (r >= 0)
                        r = json_append_quoted(text, message, strlen(message));
        }

        return r < 0 || first ? r : buffer_append_string(text, "}}");
}

/* Appends the items of a part that have room on the page. 1: there are more, from *ret on. */
static int append_items(Buffer *text, const Gather *gather, const Part *part, bool *first, size_t *ret) {
        bool told = false;
        int r = 0;

        for (size_t i = 0; i < part->n_items && r >= 0; i++) {
                *ret = part->begin + i;
                if (buffer_size(text) >= PAGE_BYTES)
                        return 1;
                if (is_taken(gather, part, part->items[i].name)) {
                        if (!told)
                                tell_taken(part, part->items[i].name);
                        told = true;
                        continue;
                }
                r = *first ? 0 : buffer_append_string(text, ",");
                *first = false;
                if (r >= 0)
                        r = buffer_append_string(text, part->items[i].text);
        }

        *ret = part->begin + part->n_items;
        return r < 0 ? r : part->more;
}

static int append_page(Buffer *text, const Gather *gather) {
        bool first = true;
        size_t item = 0;
        int r;

        r = buffer_append_string(text, "{\"");
        if (r >= 0)
                r = buffer_append_string(text, list_member(gather->kind));
        if (r >= 0)
                r = buffer_append_string(text, "\":[");

        for (size_t i = 0; i < gather->n_parts && r >= 0; i++) {
                const Part *part = &gather->parts[i];

                r = append_items(text, gather, part, &first, &item);
                if (r <= 0)
                        continue;

                r = buffer_append_string(text, "]");
                if (r >= 0)
                        r = append_cursor(text, gather->session, part, item);
                if (r >= 0)
                        r = append_failures(text, gather);
                return r < 0 ? r : buffer_append_string(text, "}");
        }

        if (r >= 0)
                r = buffer_append_string(text, "]");
        if (r >= 0)
                r = append_failures(text, gather);
        return r < 0 ? r : buffer_append_string(text, "}");
}

/* Where no server has a list, the error says more than an empty one. */
static const Failure *failed_all(const Gather *gather) {
        const Failure *failure = NULL;

        for (size_t i = 0; i < gather->n_parts; i++) {
                if (gather->parts[i].failure.code == FAILURE_NONE)
                        return NULL;
                failure = failure ?: &gather->parts[i].failure;
        }

        return failure;
}

static void answer(Gather *gather) {
        Session *session = gather->session;
        const Failure *failure = failed_all(gather);
        JsonPiece id = { gather->id, NULL };
        Buffer text = {}, *output;

        if (failure)
                session_reply_failure(session, id, failure);
        else if (append_page(&text, gather) < 0)
                session_close(session, "out of memory");
        else if ((output = session_output(session, /* notification= */ false)))
                /* Items of servers of both eras stand in it: it is as if it came from one of the other. */
                session_sent(session,
                             mcp_append_client_result(output, id, list_method(gather->kind),
                                                      (JsonPiece){ { buffer_data(&text), buffer_size(&text) }, NULL },
                                                      gather->era == MCP_ERA_LEGACY ? MCP_ERA_MODERN : MCP_ERA_LEGACY,
                                                      gather->era, (JsonPiece)JSON_LITERAL(MCP_BROKER_INFO)));
        buffer_done(&text);
}

static void gather_done(Gather *gather) {
        Session *session = gather->session;

        if (session) {
                Manager *manager = session->manager;

                TAILQ_REMOVE(&session->aggregate->gathers, gather, link);
                if (gather->line) {
                        session->aggregate->found_out = true;
                        session_take_again(session, gather->line, strlen(gather->line));
                        session->aggregate->found_out = false;
                } else
                        answer(gather);
                session_update(session);
                sessions_pump(manager);
        }

        gather_free(gather);
}

static void gather_pump(Gather *gather);

static void part_done(void *userdata, const ListItem *items, size_t n_items, const Failure *failure) {
        static const char *const capabilities[] = { "tools", "prompts", "resources", "resources" };
        Part *part = userdata;
        Gather *gather = part->gather;

        part->state = PART_DONE;
        gather->n_done++;
        if (gather->session && !part->server->gone) {
                Names *names = names_of(part->server, part->kind);

                /* Before it was started nobody knew that it has none. */
                if (failure && failure->code == FAILURE_REMOTE &&
                    !aggregate_offers(part->server, capabilities[part->kind]))
                        failure = NULL;

                if (!failure && !gather->line && part_take(part, items, n_items) < 0)
                        failure_set(&part->failure, FAILURE_UNAVAILABLE, "Out of memory");
                else if (failure) {
                        failure_copy(&part->failure, failure);
                        log_notice("%s: its %s are missing in a joined list: %s", part->server->name,
                                   list_member(part->kind), failure_message(failure));
                } else if (names)
                        names_take(names, items, n_items);
        }

        if (!gather->pumping)
                gather_pump(gather);
}

static void ask(Part *part) {
        Session *session = part->gather->session;
        ServerPool *server_pool;
        Failure failure = {};
        Server *server;
        int r;

        part->state = PART_ASKED;
        if (!session || part->server->gone) {
                part_done(part, NULL, 0, NULL);
                return;
        }

        r = manager_get_callable(session->manager, part->server->name, &server, &failure);
        if (r >= 0 && session_get_pool(part->server, &server_pool) < 0)
                r = failure_set(&failure, FAILURE_UNAVAILABLE, "Out of memory");
        if (r >= 0)
                r = list_get(server, session->client, part->kind, part_done, part, &failure);
        if (r < 0)
                part_done(part, NULL, 0, &failure);
        failure_done(&failure);
}

/* Whether all is done */
static bool gather_ask(Gather *gather) {
        gather->pumping = true;
        while (gather->n_asked < gather->n_parts && gather->n_asked - gather->n_done < PARTS_AT_ONCE)
                ask(&gather->parts[gather->n_asked++]);
        gather->pumping = false;

        return gather->n_done == gather->n_parts;
}

/* Frees it where all is done. */
static void gather_pump(Gather *gather) {
        if (gather_ask(gather))
                gather_done(gather);
}

/* Those that collect lists, or all */
static unsigned count_waiting(const Session *session, bool lists) {
        const Gather *gather;
        unsigned n = 0;

        TAILQ_FOREACH(gather, &session->aggregate->gathers, link)
                n += !lists || gather->n_parts > 0;

        return n;
}

/* The request as a line of its own. -ENOMEM */
static int append_request(Buffer *line, JsonSlice id, const RpcInput *input, const char *method) {
        const JsonTraits *traits = &input->message.traits;
        int r;

        r = buffer_append_string(line, "{\"jsonrpc\":\"2.0\",\"id\":");
        if (r >= 0)
                r = buffer_append(line, id.data, id.size);
        if (r >= 0)
                r = buffer_append_string(line, ",\"method\":");
        if (r >= 0)
                r = json_append_quoted(line, method, strlen(method));
        if (r >= 0 && input->message.params.data)
                r = buffer_append_string(line, ",\"params\":");
        if (r >= 0 && input->message.params.data)
                r = json_append(line, input->message.params, traits);
        return r < 0 ? r : buffer_append(line, "}", 2);
}

/* method: the request is kept, to be tried again; or NULL. 0; 1: too many wait; or -EREMOTEIO with *failure. */
static int gather_new(Session *session, const RpcInput *input, const char *method, size_t n_parts_max, Gather **ret,
                      Failure *failure) {
        Buffer id = {}, line = {};
        Gather *gather = NULL;
        int r;

        if (count_waiting(session, /* lists= */ false) >= WAITING_MAX ||
            (n_parts_max > 0 && count_waiting(session, /* lists= */ true) >= GATHERS_MAX))
                return 1;

        r = json_append(&id, input->message.id, &input->message.traits);
        if (r >= 0 && method)
                r = append_request(&line, (JsonSlice){ buffer_data(&id), buffer_size(&id) }, input, method);
        if (r >= 0)
                gather = malloc(sizeof(Gather) + buffer_size(&id));
        if (gather) {
                *gather = (Gather){
                        .session = session,
                        .line = line.data,
                        .id = { memcpy(gather->data, buffer_data(&id), buffer_size(&id)), buffer_size(&id) },
                        .parts = new0(Part, n_parts_max + 1),
                };
                if (!gather->parts) {
                        gather_free(gather);
                        gather = NULL;
                }
        } else
                buffer_done(&line);
        buffer_done(&id);
        if (!gather)
                return failure_set(failure, FAILURE_UNAVAILABLE, "Out of memory");

        TAILQ_INSERT_TAIL(&session->aggregate->gathers, gather, link);
        *ret = gather;
        return 0;
}

static void add_part(Gather *gather, SessionServer *server, ListKind kind) {
        gather->parts[gather->n_parts++] = (Part){ .gather = gather, .server = server, .kind = kind };
}

int aggregate_list(Session *session, const RpcInput *input, const McpClient *client, ListKind kind, Failure *failure) {
        static const char *const capabilities[] = { "tools", "prompts", "resources", "resources" };
        JsonSlice said = json_get(input->params.text, "cursor");
        _cleanup_(freep) char *cursor = json_decode(said);
        SessionServer *first = session->servers;
        Gather *gather = NULL;
        size_t item = 0;
        int r;

        if (said.data && (!cursor || read_cursor(session, cursor, &first, &item) < 0))
                return failure_set(failure, FAILURE_INVALID_ARGUMENTS, "The cursor is none of this session");

        r = gather_new(session, input, NULL, session->n_servers, &gather, failure);
        if (r != 0)
                return r;

        gather->kind = kind;
        gather->era = client->era;
        for (SessionServer *server = first; server < session->servers + session->n_servers; server++)
                if (!server->gone && (aggregate_offers(server, capabilities[kind]) || (cursor && server == first)))
                        add_part(gather, server, kind);
        if (gather->n_parts > 0)
                gather->parts[0].begin = item;
        gather_pump(gather);
        return AGGREGATE_DONE;
}

int aggregate_find_out(Session *session, const RpcInput *input, const char *method, Failure *failure) {
        Gather *gather = NULL;
        int r;

        r = gather_new(session, input, method, 2 * session->n_servers, &gather, failure);
        if (r != 0)
                return r;

        for (SessionServer *server = session->servers; server < session->servers + session->n_servers; server++) {
                if (server->gone || !aggregate_offers(server, "resources"))
                        continue;
                if (!names_of(server, LIST_RESOURCES)->known)
                        add_part(gather, server, LIST_RESOURCES);
                if (!names_of(server, LIST_TEMPLATES)->known)
                        add_part(gather, server, LIST_TEMPLATES);
        }
        if (!gather_ask(gather))
                return AGGREGATE_DONE;

        /* What is known at once is no reason for the request to come again, behind those that wait. */
        TAILQ_REMOVE(&session->aggregate->gathers, gather, link);
        gather_free(gather);
        return 0;
}

int aggregate_wait(Session *session, const RpcInput *input, const char *method, SessionServer *server,
                   Failure *failure) {
        Gather *gather = NULL;
        int r;

        r = gather_new(session, input, method, 0, &gather, failure);
        if (r != 0)
                return r;

        gather->server = server;
        gather->found_out = session->aggregate->found_out;
        return AGGREGATE_DONE;
}

void aggregate_warmed(SessionServer *server) {
        Session *session = server->session;
        struct GatherList ready = TAILQ_HEAD_INITIALIZER(ready);
        Gather *gather, *next;

        TAILQ_FOREACH_SAFE(gather, &session->aggregate->gathers, link, next)
                if (gather->server == server) {
                        TAILQ_REMOVE(&session->aggregate->gathers, gather, link);
                        TAILQ_INSERT_TAIL(&ready, gather, link);
                }

        while ((gather = TAILQ_FIRST(&ready))) {
                TAILQ_REMOVE(&ready, gather, link);
                session->aggregate->found_out = gather->found_out;
                session_take_again(session, gather->line, strlen(gather->line));
                session->aggregate->found_out = false;
                gather_free(gather);
        }
}

bool aggregate_waits(const Session *session) {
        return session->aggregate && !TAILQ_EMPTY(&session->aggregate->gathers);
}

static Gather *find_gather(const Session *session, JsonSlice id) {
        Gather *gather = NULL;

        if (session->aggregate)
                TAILQ_FOREACH(gather, &session->aggregate->gathers, link)
                        if (gather->id.size == id.size && id.size > 0 && memcmp(gather->id.data, id.data, id.size) == 0)
                                return gather;

        return NULL;
}

bool aggregate_has_request(const Session *session, JsonSlice id) {
        return find_gather(session, id);
}

/* Its lists are still asked for, and good for the next who wants them. */
static void abandon(Gather *gather) {
        TAILQ_REMOVE(&gather->session->aggregate->gathers, gather, link);
        gather->session = NULL;
        if (gather->server)
                gather_free(gather);
}

void aggregate_cancel(Session *session, JsonSlice id) {
        Gather *gather = find_gather(session, id);

        if (gather)
                abandon(gather);
}

void aggregate_abandon(Session *session) {
        Gather *gather = NULL;

        while ((gather = TAILQ_FIRST(&session->aggregate->gathers)))
                abandon(gather);
}
