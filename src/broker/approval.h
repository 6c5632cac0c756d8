#pragma once

#include "broker/manager.h"

/* A server whose file says which tools it may have (tools_digest): a worker gets no call before it has listed them, and
 * one that lists others is stopped, and what waits for it fails. */

/* The worker is ready, or has said that its tools are others now. */
void approval_ask(ServerPool *server_pool, Worker *worker);
