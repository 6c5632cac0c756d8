"""Programs of tests/npm that put an HTTP server before a stdio server, on 127.0.0.1 alone."""

import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from real_servers import NODE, npm_folder
from waiting import SLOWNESS

# Some of them would listen on all interfaces, and ask servers on the internet.
ONLY_LOCAL = Path(__file__).resolve().parent / "only-local.cjs"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it speaks HTTP
    except OSError:
        return False
    return True


@contextmanager
def started(script, arguments, port, environment, log):
    """A gateway while it runs, once it answers on its port."""
    env = {**environment, "NODE_OPTIONS": f"--require={ONLY_LOCAL}"}
    with open(log, "wb") as output:
        process = subprocess.Popen([NODE, str(npm_folder() / "node_modules" / script), *map(str, arguments)], env=env,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60 * SLOWNESS
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None and time.monotonic() < deadline, Path(log).read_text()[-3000:]
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20 * SLOWNESS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def supergateway(command, environment, log):
    """supergateway before that command, which it starts for each session: the URL of its streamable HTTP."""
    port = free_port()
    with started("supergateway/dist/index.js",
                 ["--stdio", shlex.join(map(str, command)), "--port", port, "--outputTransport", "streamableHttp", "--stateful"],
                 port, environment, log):
        yield f"http://127.0.0.1:{port}/mcp"
