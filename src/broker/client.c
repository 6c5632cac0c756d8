#include "broker/client.h"

Client *client_new(const char *name) {
        Client *client = new0(Client, 1);

        if (!client)
                return NULL;

        client->uid = (uid_t)-1;
        TAILQ_INIT(&client->calls);
        client->name = strdup(name);
        return client->name ? client : client_free(client);
}

Client *client_free(Client *client) {
        if (!client)
                return NULL;

        free(client->name);
        free(client->gids);
        free(client->servers);
        free(client);
        return NULL;
}

bool client_uses_server(const Client *client, const Server *server) {
        for (size_t i = 0; i < client->n_servers; i++)
                if (client->servers[i] == server)
                        return true;

        return false;
}

int client_note_server(Client *client, Server *server) {
        Server **servers;

        if (client_uses_server(client, server))
                return 0;

        servers = reallocarray(client->servers, client->n_servers + 1, sizeof(*servers));
        if (!servers)
                return -ENOMEM;

        client->servers = servers;
        client->servers[client->n_servers++] = server;
        return 0;
}

void client_forget_server(Client *client, const Server *server) {
        for (size_t i = 0; i < client->n_servers; i++)
                if (client->servers[i] == server) {
                        client->servers[i] = client->servers[--client->n_servers];
                        return;
                }
}
