"""A message bus of one's own, with real activation, carried by dbus-daemon or by dbus-broker.

MCP_EXEC_TEST_BUS chooses: "daemon" (the default) or "broker". dbus-broker has its services started by
systemd, so it needs one that it can ask: tests/with-systemd boots a throwaway one. Each PrivateBus is a bus of
its own in both cases, so tests may run side by side.
"""

import os
import shutil
import signal
import socket
import subprocess
import time

from processes import Process

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{services}</servicedir>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
{limits}</busconfig>
"""

# Those of a session's bus; without any, those of the system's hold.
LIMITS = """\
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">1000000000</limit>
  <limit name="service_start_timeout">120000</limit>
  <limit name="auth_timeout">240000</limit>
  <limit name="max_completed_connections">100000</limit>
  <limit name="max_incomplete_connections">10000</limit>
  <limit name="max_connections_per_user">100000</limit>
  <limit name="max_pending_service_starts">10000</limit>
  <limit name="max_names_per_connection">50000</limit>
  <limit name="max_match_rules_per_connection">50000</limit>
  <limit name="max_replies_per_connection">50000</limit>
"""


def chosen():
    return os.environ.get("MCP_EXEC_TEST_BUS", "daemon")


class PrivateBus:
    """limits: LIMITS, or "". folder gets the bus's socket, its configuration, its log and its services/."""

    def __init__(self, folder, kind=None, limits=LIMITS):
        self.folder = folder
        self.kind = kind or chosen()
        self.services = folder / "services"
        self.services.mkdir(parents=True)
        self.socket = folder / "bus"
        self.address = f"unix:path={self.socket}"
        self.log = folder / "bus.log"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(path=self.socket, services=self.services, limits=limits))
        self._process = None

    def activate_by(self, name, command):
        """Have the bus start the shell-quoted command when somebody speaks to name."""
        (self.services / f"{name}.service").write_text(f"[D-BUS Service]\nName={name}\nExec={command}\n")

    def start(self):
        """Also once more, after stop()."""
        self.socket.unlink(missing_ok=True)
        {"daemon": self._start_daemon, "broker": self._start_broker}[self.kind]()
        self.process = Process.of(self._process.pid)

    def _start_daemon(self):
        ready, told = os.pipe()
        with open(ready, "rb") as reader, open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", f"--print-address={told}"],
                pass_fds=[told], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            os.close(told)
            address = reader.readline()
        if not address:
            raise RuntimeError(f"dbus-daemon did not start: {self.log.read_text()}")
        self.socket.chmod(0o666)

    def _start_broker(self):
        manager = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
        launcher = shutil.which("dbus-broker-launch", path=f"{os.environ.get('PATH', '')}:/usr/bin")
        if not manager or not launcher:
            raise RuntimeError("dbus-broker's services are started by systemd: run this in tests/with-systemd --bus broker")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listening.bind(str(self.socket))
        listening.listen(4096)
        self.socket.chmod(0o666)
        # The launcher asks the systemd on the bus that it takes for the session's to start the services.
        script = 'exec 3<&"$1"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$2" --scope user --config-file "$3"'
        with listening, open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", str(listening.fileno()), launcher, str(self._config)],
                env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": manager}, pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._await_hello()

    def _await_hello(self):
        """The socket listens before the broker is there: wait until it answers the first bytes of a client."""
        deadline = time.monotonic() + 30
        while True:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(max(0.1, deadline - time.monotonic()))
                try:
                    client.connect(str(self.socket))
                    client.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
                    if client.recv(100):
                        return
                except OSError:
                    pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"dbus-broker did not start: {self.log.read_text()}")
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        if not self._process:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._process = None
