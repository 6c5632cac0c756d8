/* What a caller may do. Root, the service's own user and those whom a server's file names aren't asked about; for all
 * others polkit decides, and the message is held meanwhile, and dispatched again with what was granted for it. */

#include <strings.h>

#include "broker/call.h"
#include "bus/errors.h"
#include "bus/polkit.h"

#define TEXT_MAX 1024 /* bytes of a detail */
#define ACTIONS_OF_USE_MAX 2
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The verdict on whether a client sees all: by what it looks at there is no difference. */
static const Question view = { .method = "view" };

static bool all_powerful(const Service *service, const Client *client) {
        return service->options.user || client->uid == service->uid || client->uid == 0;
}

static bool in_access_list(const ServerConfig *config, const Client *client) {
        for (size_t i = 0; i < config->access.n_uids; i++)
                if (config->access.uids[i] == client->uid)
                        return true;

        for (size_t i = 0; i < config->access.n_gids; i++)
                for (size_t j = 0; j < client->n_gids; j++)
                        if (config->access.gids[i] == client->gids[j])
                                return true;

        return false;
}

/* For the message that is being dispatched, while it was held, or for one before it */
static bool is_granted(Service *service, const Check *passed, Action action, const Question *question) {
        for (size_t i = 0; passed && i < passed->n_asks; i++)
                if (ask_is(&passed->asks[i], action, question))
                        return true;

        return verdict_find(service, service->caller, action, question) > 0;
}

static bool all_granted(Service *service, const Check *passed, const Action *actions, size_t n_actions,
                        const Question *questions, size_t n_questions) {
        for (size_t i = 0; i < n_questions; i++)
                for (size_t j = 0; j < n_actions; j++)
                        if (!is_granted(service, passed, actions[j], &questions[i]))
                                return false;

        return true;
}

/* Asks for each of the actions with each of the questions. What was granted for the message is looked at again: while
 * it was held, the server may have become one that needs more. */
static int authorize(Service *service, sd_bus_message *message, const Action *actions, size_t n_actions,
                     const Question *questions, size_t n_questions, sd_bus_error *error) {
        const Check *passed = check_passed(service, message, /* quiet= */ false);
        size_t n = 0, n_granted = 0;
        Ask *asks;

        if (all_granted(service, passed, actions, n_actions, questions, n_questions)) {
                check_done(service);
                return 1;
        }

        asks = new0(Ask, n_actions * n_questions);
        if (!asks)
                return -ENOMEM;

        /* What is granted stands first, and stays so for this message. */
        for (size_t i = 0; i < n_questions; i++)
                for (size_t j = 0; j < n_actions; j++, n++) {
                        bool granted = is_granted(service, passed, actions[j], &questions[i]);
                        Ask ask;

                        if (ask_init(&ask, actions[j], &questions[i]) < 0) {
                                asks_free(asks, n);
                                return -ENOMEM;
                        }

                        asks[n] = asks[n_granted];
                        asks[granted ? n_granted++ : n] = ask;
                }

        return check_start(service, message, /* quiet= */ false, asks, n, n_granted, error);
}

bool authorize_known(void *service, const Client *client, const Server *server) {
        return all_powerful(service, client) || in_access_list(server->config, client);
}

bool authorize_asks(Service *service, const Server *server) {
        return !all_powerful(service, service->caller) && !in_access_list(server->config, service->caller);
}

void authorize_record(Service *service, const Question *question, FailureCode code) {
        call_record(service->manager, service->caller, question->server, question->method, question->tool,
                    /* started= */ 0, failure_code_to_string(code));
}

/* Whether a library may take the key for "name": there are some to which upper and lower case are the same, and some
 * that end a string at U+0000, which json_decode() makes U+FFFD. */
static bool reads_as_name(JsonSlice key) {
        _cleanup_(freep) char *text = json_decode(key);

        return !text || (strncasecmp(text, "name", 4) == 0 &&
                         (text[4] == 0 || strncmp(text + 4, REPLACEMENT, strlen(REPLACEMENT)) == 0));
}

/* NULL where that isn't told in one way: it has to be the tool that the server finds there, whatever it reads with. */
static char *tool_of(const McpParams *params) {
        _cleanup_(freep) char *tool = json_decode(params->name);
        const char *position = NULL;
        JsonSlice key, value;

        if (!tool || !*tool || strstr(tool, REPLACEMENT))
                return NULL;

        while (json_next_member(params->text, &position, &key, &value))
                if (value.data != params->name.data && reads_as_name(key))
                        return NULL;

        return TAKE_PTR(tool);
}

int authorize_tool(Service *service, const Server *server, const char *method, const char *params, char **ret,
                   sd_bus_error *error) {
        McpParams read;
        JsonError problem;

        *ret = NULL;
        if (!authorize_asks(service, server) || !streq(method, "tools/call") ||
            mcp_params_read(params, strlen(params), server->config->limits.depth, &read, &problem) < 0)
                return 0;

        *ret = tool_of(&read);
        if (*ret)
                return 0;

        authorize_record(service, &(Question){ server->config->name, method, NULL }, FAILURE_INVALID_ARGUMENTS);
        return sd_bus_error_set(error, BUS_ERROR("InvalidArguments"),
                                "params have to say in one way which tool is called: a string \"name\", and nothing "
                                "like it beside it");
}

static size_t actions_of(const Service *service, const Server *server, Action *ret) {
        size_t n = 0;

        ret[n++] = server->config->executor ? ACTION_EXECUTE_CODE : ACTION_CALL;
        if (service->launcher->ops->has_network(server->config))
                ret[n++] = ACTION_USE_NETWORK;
        return n;
}

int authorize_use(Service *service, sd_bus_message *message, const Server *server, const Question *questions,
                  size_t n_questions, sd_bus_error *error) {
        Action actions[ACTIONS_OF_USE_MAX];

        if (!authorize_asks(service, server) || n_questions == 0)
                return 1;

        for (size_t i = 0; i < n_questions; i++)
                if (strlen(questions[i].method ?: "") > TEXT_MAX || strlen(questions[i].tool ?: "") > TEXT_MAX) {
                        authorize_record(service, &questions[i], FAILURE_INVALID_ARGUMENTS);
                        return sd_bus_error_setf(error, BUS_ERROR("InvalidArguments"),
                                                 "method and tool have at most %d bytes", TEXT_MAX);
                }

        return authorize(service, message, actions, actions_of(service, server, actions), questions, n_questions,
                         error);
}

/* What polkit is asked about the servers; *ret_n is 0 where that is nothing. */
static int ask_about(Service *service, Server *const *servers, size_t n_servers, const char *method, Ask **ret,
                     size_t *ret_n) {
        Ask *asks = new0(Ask, n_servers * ACTIONS_OF_USE_MAX + 1);
        size_t n = 0;

        if (!asks)
                return -ENOMEM;

        for (size_t i = 0; i < n_servers; i++) {
                const Question question = { servers[i]->config->name, method, NULL };
                Action actions[ACTIONS_OF_USE_MAX];
                size_t n_actions = authorize_asks(service, servers[i]) ? actions_of(service, servers[i], actions) : 0;

                for (size_t j = 0; j < n_actions; j++)
                        if (ask_init(&asks[n++], actions[j], &question) < 0) {
                                asks_free(asks, n - 1);
                                return -ENOMEM;
                        }
        }

        *ret = asks;
        *ret_n = n;
        return 0;
}

/* Whether each of the asks about the server is granted: of this message, or, choosing, as was said when it was held */
static bool is_chosen(Service *service, const Check *passed, const char *server, const Ask *asks, size_t n_asks) {
        for (size_t i = 0; i < n_asks; i++) {
                const Question question = ask_question(&asks[i]);
                bool granted = false;

                if (!streq(asks[i].server, server))
                        continue;
                for (size_t j = 0; passed && j < passed->n_asks && !granted; j++)
                        granted = passed->asks[j].granted && ask_equal(&passed->asks[j], &asks[i]);
                if (!granted && verdict_find(service, service->caller, asks[i].action, &question) <= 0)
                        return false;
        }

        return true;
}

int authorize_servers(Service *service, sd_bus_message *message, Server **servers, size_t *n_servers, bool choose,
                      const char *method, sd_bus_error *error) {
        const Check *passed = check_passed(service, message, /* quiet= */ choose);
        size_t n_asks, n_granted = 0, n = 0;
        Ask *asks;
        int r;

        r = ask_about(service, servers, *n_servers, method, &asks, &n_asks);
        if (r < 0)
                return r;

        if (choose && (passed || n_asks == 0)) {
                for (size_t i = 0; i < *n_servers; i++)
                        if (is_chosen(service, passed, servers[i]->config->name, asks, n_asks))
                                servers[n++] = servers[i];
                *n_servers = n;
                n_granted = n_asks;
        } else if (!choose)
                for (size_t i = 0; i < n_asks; i++) {
                        const Question question = ask_question(&asks[i]);
                        Ask ask = asks[i];

                        if (!is_granted(service, passed, ask.action, &question))
                                continue;
                        asks[i] = asks[n_granted];
                        asks[n_granted++] = ask;
                }

        if (n_granted == n_asks) {
                check_done(service);
                asks_free(asks, n_asks);
                return 1;
        }

        return check_start(service, message, /* quiet= */ choose, asks, n_asks, n_granted, error);
}

int authorize_call(Service *service, sd_bus_message *message, const Question *question, const char *params,
                   sd_bus_error *error) {
        _cleanup_(freep) char *tool = NULL;
        const Server *server = manager_find_server(service->manager, question->server);
        Failure failure = {};
        int r = 0;

        if (!server)
                (void)manager_no_such_server(service->manager, question->server, &failure);
        else if (question->tool && !streq(question->method, "tools/call"))
                failure_set(&failure, FAILURE_INVALID_ARGUMENTS, "The option tool is for the method tools/call");
        else if (!question->tool && !params && streq(question->method, "tools/call") && authorize_asks(service, server))
                failure_set(
                        &failure, FAILURE_INVALID_ARGUMENTS,
                        "The option tool has to say which tool is called, and params are its arguments then: polkit "
                        "is asked for it");
        if (failure.code != FAILURE_NONE) {
                authorize_record(service, question, failure.code);
                return bus_error_set_failure(error, &failure);
        }

        if (!question->tool && params)
                r = authorize_tool(service, server, question->method, params, &tool, error);
        if (r < 0)
                return r;

        return authorize_use(service, message, server,
                             &(Question){ question->server, question->method, question->tool ?: tool }, 1, error);
}

int authorize_manage(Service *service, sd_bus_message *message, const Question *question, sd_bus_error *error) {
        if (all_powerful(service, service->caller))
                return 1;

        return authorize(service, message, &(const Action){ ACTION_MANAGE }, 1, question, 1, error);
}

int authorize_view(Service *service, sd_bus_message *message) {
        Client *client = service->caller;
        Ask *ask;

        /* Asked for whether there is something to hide or not: what others do doesn't show in the time that it takes.
         */
        if (all_powerful(service, client) || check_passed(service, message, /* quiet= */ true) ||
            verdict_find(service, client, ACTION_MANAGE, &view) >= 0) {
                check_done(service);
                return 1;
        }

        ask = new0(Ask, 1);
        if (!ask || ask_init(ask, ACTION_MANAGE, &view) < 0) {
                free(ask);
                return 1;
        }

        return check_start(service, message, /* quiet= */ true, ask, 1, /* n_granted= */ 0, /* error= */ NULL) < 0 ? 1
                                                                                                                   : 0;
}

uid_t authorize_sees(Service *service, const Client *client) {
        return all_powerful(service, client) || verdict_find(service, client, ACTION_MANAGE, &view) > 0
                       ? QUOTA_EVERYBODY
                       : client->uid;
}

uid_t authorize_viewer(Service *service, sd_bus *bus) {
        if (service->audience)
                return *service->audience;

        return sd_bus_get_current_message(bus) && service->caller ? authorize_sees(service, service->caller)
                                                                  : VIEWER_NOBODY;
}
