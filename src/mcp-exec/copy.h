#pragma once

/* Copies between a session's socket and the standard streams until the service has closed the session and all of its
 * bytes are written. End of input is handed on; what is then still answered is. Takes the socket. */
int status_copy_streams(int input, int output, int socket);
