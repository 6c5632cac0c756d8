/* What servers ask of a session's client: whom a request is for, and how its answer finds the way back */

#include <stdio.h>

#include "broker/session-parts.h"

bool sessions_request(ServerPool *server_pool _unused_, Worker *worker _unused_, const McpMessage *message _unused_) {
        return false;
}

void sessions_cancelled(ServerPool *server_pool _unused_, Worker *worker _unused_, JsonSlice params _unused_) {
}

void sessions_worker_removed(ServerPool *server_pool _unused_, Worker *worker _unused_) {
}

void session_answered(Session *session _unused_, const McpMessage *message _unused_) {
}

void session_asked_progress(Session *session _unused_, JsonSlice params _unused_, const JsonTraits *traits _unused_) {
}

void session_refuse_questions(Session *session _unused_, const char *why _unused_) {
}

void sessions_notification(ServerPool *server_pool, Worker *worker _unused_, const char *method, JsonSlice params,
                           const JsonTraits *traits) {
        SessionServer *server;

        TAILQ_FOREACH(server, &server_pool->sessions, link) {
                Buffer *output = session_output(server->session, /* notification= */ true);

                if (server->session->era == MCP_ERA_LEGACY && output)
                        session_sent(server->session,
                                     mcp_append_notification(output, method,
                                                             &(McpParams){ .text = params, .traits = *traits }));
        }
}
