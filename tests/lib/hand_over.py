#!/usr/bin/python3
"""A listening socket that outlives the daemons it is handed to, as systemd's do.

As a program: hand_over.py COUNTER COMMAND... fetches the socket there and runs the command with it (sd_listen_fds(3)).
"""

import os
import socket
import sys
import threading


class ListeningSocket:
    """path: where clients connect; counter: where a daemon that starts is given the listening socket."""

    def __init__(self, folder):
        self.path = str(folder / "private")
        self.counter = str(folder / "counter")
        self.socket = self._listen(self.path)
        self._server = self._listen(self.counter)
        threading.Thread(target=self._serve, daemon=True).start()

    @staticmethod
    def _listen(path):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        os.chmod(path, 0o666)
        listening.listen(4096)
        return listening

    def _serve(self):
        while True:
            try:
                customer, _ = self._server.accept()
            except OSError:
                return
            with customer:
                socket.send_fds(customer, [b"."], [self.socket.fileno()])

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.socket.close()


def main():
    with socket.socket(socket.AF_UNIX) as customer:
        customer.connect(sys.argv[1])
        _, fds, _, _ = socket.recv_fds(customer, 1, 1)
    if fds[0] != 3:
        os.dup2(fds[0], 3)
        os.close(fds[0])
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="bus")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
