#pragma once

#include <sys/types.h>

#include "base/macro.h"

typedef struct Server Server;
typedef struct Call Call;

typedef TAILQ_HEAD(CallList, Call) CallList;

/* One caller's connection, as the bus vouches for it. Kept by the bus layer for as long as it is there. */
typedef struct Client {
        TAILQ_ENTRY(Client) link;
        char *name; /* its unique name */
        uid_t uid;
        gid_t *gids;
        size_t n_gids;
        unsigned profile; /* what it does for servers that ask: MCP_PROFILE_*, sessions alone */

        CallList calls;
        unsigned n_calls;
        Server **servers; /* that it has called: it hears their notifications */
        size_t n_servers;

        void *peer; /* what the bus layer keeps of it */
} Client;

typedef TAILQ_HEAD(ClientList, Client) ClientList;

Client *client_new(const char *name);
/* Its calls have to be gone: manager_client_gone() sees to that. */
Client *client_free(Client *client);

/* -ENOMEM */
int client_note_server(Client *client, Server *server);
void client_forget_server(Client *client, const Server *server);
bool client_uses_server(const Client *client, const Server *server);
