#!/usr/bin/python3
"""A fuzzer of the live D-Bus interface.

    bus_fuzzer.py [--seconds N] [--seed N] [--way bus|private] [--uid N] [--rounds N]

Calls are made from the service's own introspection data (bus_grammar.py), with files of all kinds (bus_files.py), and lines are
written into the sessions that they open (bus_sessions.py). What must hold: each call has exactly one answer, a result or an
error of a documented name; a session answers what it was asked, once; a small call of somebody else works all the while; in
the end it is the same service, with no call left, and with the descriptors and the memory that it had. What is sent depends
on the seed alone, but for the names of jobs and workers and for the sessions that could be opened: what a run found, --seed and
--rounds show again. Where something doesn't hold, the message that did it is printed.
"""

import argparse
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "lib")]

from bus_files import Files, check_result  # noqa: E402
from bus_grammar import INTERFACES, PATHS, TEXTS, Grammar, members_of  # noqa: E402
from bus_sessions import FuzzedSession  # noqa: E402
from caller import ALICE, ERROR, NAME, PATH, another_user  # noqa: E402
from raw_connection import ERROR as ERROR_MESSAGE  # noqa: E402
from raw_connection import METHOD_CALL, METHOD_RETURN, SIGNAL, RawBus, auth_line, message, text  # noqa: E402
from service import SANITIZED, Service  # noqa: E402
from waiting import SLOWNESS, eventually  # noqa: E402

FAILURES = {ERROR + word for word in
            ("NoSuchServer ServerDisabled InvalidArguments InvalidJson TooLarge LaunchFailed HandshakeFailed Unavailable WorkerDied "
             "ProtocolError Timeout Cancelled LimitsExceeded Remote NotFinished").split()}
OF_DBUS = {"org.freedesktop.DBus.Error." + word for word in
           ("AccessDenied InteractiveAuthorizationRequired InvalidArgs InvalidSignature UnknownMethod UnknownObject UnknownInterface "
            "UnknownProperty PropertyReadOnly NotSupported LimitsExceeded InconsistentMessage").split()}
WINDOW = 8
FDS_MAX = 4  # of one message, on the private socket
SESSIONS_MAX = 8
MIB = 1024 * 1024


class Finding(Exception):
    pass


class Connection(RawBus):
    """passes: whether messages may bring file descriptors. fds: those that came and that nobody has taken."""

    passes = False

    def authenticate(self, fds=False):
        self.fds = []
        self.send(auth_line())
        self.line()
        if fds:
            self.send(b"NEGOTIATE_UNIX_FD\r\n")
            self.passes = self.line().startswith(b"AGREE")
        self.send(b"BEGIN\r\n")

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more, fds, _, _ = socket.recv_fds(self.socket, count - len(data), 16)
            self.fds += fds
            if not more:
                raise ConnectionError("the bus closed the connection")
            data += more
        return data

    def send_with(self, data, fds):
        sent = socket.send_fds(self.socket, [data], fds) if fds else 0
        self.send(data[sent:])

    def close(self):
        while self.fds:
            os.close(self.fds.pop())
        super().close()


class Fuzzer:
    def __init__(self, service, seed, way="bus", uid=None):
        self.service = service
        self.address = service.bus.address if way == "bus" else service.private_address
        self.way = way
        self.uid = uid
        self.seed = seed
        self.draw = random.Random(seed)
        self.files = Files(self.draw)
        self.raw = None
        self.sent = {}  # serial → message, while its answer is waited for
        self.ends = {}  # serial → our ends of what it attaches
        self.members = {}  # serial → member
        self.serial = 100
        self.calls = self.thrown_out = self.rounds = self.opened = 0
        self.answers = {}
        self.results = {}  # member → how many of its calls had a result
        self.jobs, self.workers = deque(maxlen=8), []
        self.sessions = []
        self.methods, properties = self.introspect()
        self.grammar = Grammar(self.draw, properties)
        self.of_jobs = [method for method in self.methods if method[0] == "job"]
        self.calls_to_workers = [method for method in self.methods
                                 if method[2].startswith(("Call", "Notify", "ListTools", "StartJob", "OpenSession", "AttachSession"))]

    def connect(self):
        if self.raw:
            self.drop()
        self.sent.clear()
        with another_user(self.uid):
            self.raw = Connection(self.address, fds=True)
        self.raw.socket.settimeout(30 * SLOWNESS)

    def introspect(self):
        """All methods, with the kind of object that has them, and all properties. The job and the worker are somebody else's,
        unless root calls."""
        root = self.service.caller()
        self.jobs.append(root.start_job("steady", "ping"))
        root.job_done(self.jobs[0])
        self.workers += [path for path in root.objects() if path.startswith(f"{PATH}/worker/")]
        kinds = {"": PATH, "server": f"{PATH}/server/echo", "job": self.jobs[0], "worker": self.workers[0], "tree": "/"}
        methods, properties = set(), set()
        for kind, path in kinds.items():
            text = root.invoke("Introspect", "", path=path, interface="org.freedesktop.DBus.Introspectable")
            members = members_of(text)
            if kind in ("", "job", "tree"):
                methods |= {(kind, *method) for method in members[0]}
            properties |= set(members[1])
        methods.add(("", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ""))
        root.close()
        return sorted(methods), sorted(properties)

    def path_of(self, kind):
        place = self.draw.random()
        known = {"server": [f"{PATH}/server/echo", f"{PATH}/server/helper", f"{PATH}/server/secret"], "job": self.jobs, "worker": self.workers,
                 "tree": ["/"]}.get(kind, [PATH])
        return known[int(place * len(known))]

    # One call

    def make(self, tame):
        """A call: its serial, its bytes, the files that it brings, and whether a sound client could have sent it, as all are that are
        tame."""
        draw, grammar = self.draw, self.grammar
        place = draw.random()
        kind, interface, member, signature = draw.choice(self.calls_to_workers if place < 0.5 else self.of_jobs if place < 0.65 else self.methods)
        path = self.path_of(kind)
        kind = draw.choice([1, draw.random() * (0.60 if tame else 1)])  # 1: nothing is wrong but, perhaps, a value
        destination, sound = NAME, True
        fds = self.files_for(member, signature)
        grammar.n_fds = len(fds)
        body = grammar.likely_body(member, signature)
        if kind < 0.15:
            body = grammar.body(signature)
        elif kind < 0.35:
            signature = grammar.signature()
            body = grammar.body(signature)
        elif kind < 0.55:
            path, interface = draw.choice(PATHS), draw.choice(INTERFACES)
        elif kind < 0.60:
            member = draw.choice(["Nothing", "a" * 255, member + "_", "_"])
        elif kind < 0.65:  # a body that is not of its signature
            signature, sound = grammar.signature(), False
        elif kind < 0.68:
            body, sound = body + bytes(draw.randrange(1, 9)), False
        self.serial += 1
        self.members[self.serial] = member
        while fds and not self.raw.passes:
            os.close(fds.pop())
        if len(fds) > FDS_MAX and (self.way == "private" or len(fds) == 16):
            sound = False  # the bus counts those of two messages that come close together
        data = message(METHOD_CALL, self.serial, destination, path, interface, member, body=body, signature=signature or None,
                       unix_fds=len(fds) or None)
        if 0.68 <= kind < 0.72:
            data, sound = self.damaged(data), False
        elif 0.72 <= kind < 0.73:
            data, sound = self.other_header(path, interface, member, body, signature), False
        return self.serial, data, fds, sound

    def files_for(self, member, signature):
        """As many as it wants, or others. Where they are a session's ends, ours are kept."""
        draw = self.draw
        if member == "AttachSession" and draw.random() < 0.6:
            theirs, ours = self.session_ends()
            self.ends[self.serial + 1] = ours
            return theirs
        fds = []
        for _ in range(signature.count("h") if draw.random() < 0.95 else draw.choice([0, 1, 2, 3, 4, 5, 16])):
            fds.append(self.files.params(draw.choice(TEXTS)) if member == "CallFd" and draw.random() < 0.6 else self.files.any())
        return fds

    def session_ends(self):
        """What a session is attached to: ([in, out], (what it reads from us, what we read))."""
        if self.draw.random() < 0.5:
            ours, theirs = socket.socketpair()
            ours = ours.detach()
            return [theirs.fileno(), os.dup(theirs.detach())], (ours, ours)
        read_end, our_write_end = os.pipe()
        our_read_end, write_end = os.pipe()
        return [read_end, write_end], (our_write_end, our_read_end)

    def damaged(self, data):
        """Not in its serial, by which its answer is known."""
        data = bytearray(data)
        for _ in range(self.draw.randrange(1, 4)):
            behind = 16 + int(self.draw.random() * (len(data) - 16))  # the names of jobs aren't always as long
            at = self.draw.choice([1, 2, 3, 4, 5, 6, 12, 13, behind, behind])
            data[at] = self.draw.choice([0, 1, 0x7F, 0x80, 0xFF, self.draw.randrange(256)])
        return bytes(data)

    def other_header(self, path, interface, member, body, signature):
        """Fields that a call hasn't, or other types of messages."""
        draw = self.draw
        return message(draw.choice([0, 2, 3, 4, 5, 255]), self.serial, NAME, path, interface, member, body=body, signature=signature or None,
                       sender=draw.choice([None, ":1.1", NAME, "org.freedesktop.DBus"]), reply_serial=draw.choice([None, 0, 1, 2, 3, 1 << 31]),
                       error=draw.choice([None, "a.b"]), unix_fds=draw.choice([None, 0, 1, 16]))

    # One round: some calls at once, and their answers

    def round(self):
        self.rounds += 1
        if not self.raw:
            self.connect()
        draw, clean = self.draw, True
        tame = draw.random() < 0.85
        plan = [self.make(tame) for _ in range(draw.randrange(1, WINDOW))]
        too_many_fds = self.raw.passes and draw.random() < 0.03
        half, half_of_it = draw.random() < 0.03, draw.random()
        steps = [(draw.random(), draw.getrandbits(32)) for _ in range(draw.randrange(3))]
        try:
            for serial, data, fds, sound in plan:
                clean = clean and sound
                self.sent[serial] = data
                self.calls += 1
                if too_many_fds and sound and not fds:  # more than the header says
                    fds.append(os.open("/dev/null", os.O_RDONLY))
                    clean = False
                self.raw.send_with(data, fds)
            if half:
                self.raw.send(plan[0][1][:1 + int(half_of_it * (len(plan[0][1]) - 1))])
                self.drop()
                return
            self.collect(clean)
            if not clean and any(fds for _, _, fds, _ in plan):
                self.drop()  # the bus keeps files that it takes for those of later messages
        except TimeoutError:
            # Damaged, it may announce more than it brings: whose end is waited for then is the connection's own matter.
            if clean:
                raise Finding(f"no answer to {self.shown()}") from None
            self.drop()
        except (ConnectionError, struct.error) as error:
            if clean:
                raise Finding(f"thrown out ({error}) after {self.shown()}") from None
            self.thrown_out += 1
            self.drop()
        finally:
            for _, _, fds, _ in plan:
                for fd in fds:
                    os.close(fd)
            self.close_ends()
        self.step(steps)

    def close_ends(self):
        """Ours, of what wasn't attached."""
        for ends in self.ends.values():
            for fd in set(ends):
                os.close(fd)
        self.ends.clear()
        self.members.clear()

    def step(self, steps):
        for place, seed in steps:
            if self.sessions:
                self.sessions[int(place * len(self.sessions))].step(seed)
        for session in self.sessions:
            if session.finished:
                session.read()
        self.sessions = [session for session in self.sessions if not session.over]

    def end_sessions(self):
        """Those that the connection doesn't take along: what they were asked is answered."""
        for session in self.sessions:
            session.finish()

        def over():
            self.step([])
            return not self.sessions

        eventually(over, "all sessions have ended", 60)

    def close(self):
        if self.raw:
            self.drop()
        for session in self.sessions:
            session.close()
        self.sessions = []
        self.files.close()

    def drop(self):
        self.raw.close()
        self.raw = None
        for session in [session for session in self.sessions if not session.kept]:
            session.close()
        self.sessions = [session for session in self.sessions if not session.over]

    def collect(self, clean):
        """All answers; behind them that to a ping, so that a second one to a call would be seen."""
        if not clean:
            self.raw.socket.settimeout(0.3 * SLOWNESS)
        while self.sent:
            self.take_answer()
        self.serial += 1
        ping = self.serial
        self.sent[ping] = b"ping"
        self.raw.send(message(METHOD_CALL, ping, NAME, PATH, "org.freedesktop.DBus.Peer", "Ping"))
        while self.sent:
            self.take_answer()
        self.raw.socket.settimeout(30 * SLOWNESS)

    def take_answer(self):
        kind, fields, body = self.raw.receive()
        fds = [self.raw.fds.pop(0) for _ in range(fields.get(9, 0))]
        if kind not in (METHOD_RETURN, ERROR_MESSAGE):
            if kind != SIGNAL or fds:
                raise Finding(f"a message of type {kind} with {len(fds)} files")
            return
        serial, name = fields.get(5), fields.get(4)
        if serial not in self.sent:
            raise Finding(f"an answer too many, to {serial}: {name}")
        data = self.sent.pop(serial)
        self.answers[name] = self.answers.get(name, 0) + 1
        if name and name not in FAILURES | OF_DBUS:
            raise Finding(f"the error {name} is not documented: {data[:2000]!r}")

        if kind == METHOD_RETURN:
            member = self.members.get(serial, "ping")
            self.results[member] = self.results.get(member, 0) + 1
            self.take_result(serial, fields.get(8), body, fds)

    def take_result(self, serial, signature, body, fds):
        """What a result opens the way to."""
        member = self.members.get(serial)
        if member == "StartJob" and signature == "o":
            self.jobs.append(text(body))
        if member == "AttachSession" and serial in self.ends:
            write_fd, read_fd = self.ends.pop(serial)
            self.add_session(read_fd, write_fd, kept=False)
        for fd in fds:
            if member == "OpenSession":
                self.add_session(fd, fd, kept=True)
                continue
            wrong = check_result(fd)
            os.close(fd)
            if wrong:
                raise Finding(wrong)

    def add_session(self, read_fd, write_fd, kept):
        self.opened += 1
        session = FuzzedSession(self.opened, read_fd, write_fd, kept)
        if len(self.sessions) < SESSIONS_MAX:
            self.sessions.append(session)
        else:
            session.close()

    def shown(self):
        return [(serial, data[:1500]) for serial, data in self.sent.items()]


def serve(folder, way, log_level="error"):
    """A system service with something to call: (service, a caller that nobody disturbs)."""
    service = Service(folder, system=True, private=way == "private", log_level=log_level)
    short = {"timeouts": {"start": 10, "call": 2, "stop": 0.3}, "restart": {"burst": 0}}
    service.settings(keep_jobs=3)
    service.echo("echo", access={"users": [ALICE]}, **short)
    service.obedient("helper", access={"users": [ALICE]}, **short)
    service.obedient("steady", **short)
    service.obedient("secret", **short)
    service.run_directly()
    service.let_others_in()
    return service


def time_of_small_call(caller):
    before = time.monotonic()
    assert caller.tool_text("steady", "echo", {"message": "hi"}) == "hi"
    return time.monotonic() - before


def run(service, seed, seconds=None, rounds=None, way="bus", uid=None, say=lambda text: None):
    """Raises Finding. Returns the fuzzer, with its counts."""
    control = service.caller()
    steady = control.tool_text("steady", "pid")
    fuzzer = Fuzzer(service, seed, way, uid)
    fds, memory, daemon = len(service.open_fds()), service.private_memory(), service.daemon()
    deadline = time.monotonic() + (seconds or 1e9)
    try:
        while time.monotonic() < deadline and (rounds is None or fuzzer.rounds < rounds):
            fuzzer.round()
            if fuzzer.rounds % 50 == 0:
                took = time_of_small_call(control)
                if took > 2 * SLOWNESS and (took := min(time_of_small_call(control) for _ in range(3))) > 2 * SLOWNESS:
                    raise Finding(f"small calls of another take {took:.1f} s")  # not because the machine stood still
                if not SANITIZED and service.private_memory() > memory + 64 * MIB:
                    raise Finding(f"memory has grown from {memory} to {service.private_memory()}")
                if len(service.open_fds()) > fds + 300:
                    raise Finding(f"{len(service.open_fds())} descriptors are open")
            if fuzzer.rounds % 2000 == 0:
                say(f"{fuzzer.rounds} rounds, {fuzzer.calls} calls")
        fuzzer.end_sessions()
        fuzzer.close()
        if service.daemon() != daemon:
            raise Finding("the service was replaced")
        eventually(lambda: control.property("CallsInFlight") == 0, "no call is left", 30)
        for name in ("echo", "helper", "secret", "steady"):
            control.stop_server(name)
        eventually(lambda: len(service.open_fds()) <= fds, "the descriptors are given back", 30)
        if not SANITIZED:
            eventually(lambda: service.private_memory() < memory + 8 * MIB, "the memory is given back", 30)
        return fuzzer
    except Exception as error:
        fuzzer.close()
        alive = "" if service.daemon() == daemon else f"; the service is gone: {service.log_text()[-2000:]}"
        raise Finding(f"--seed={seed} --rounds={fuzzer.rounds} --way={way} --uid={uid}: {error}{alive}; sent: {fuzzer.shown()}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--way", choices=["bus", "private"], default="bus")
    parser.add_argument("--uid", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "service"
        folder.mkdir()
        service = serve(folder, options.way)
        try:
            fuzzer = run(service, options.seed, None if options.rounds else options.seconds, options.rounds, options.way, options.uid, print)
        except Finding as finding:
            print(f"FOUND: {finding}")
            return 1
        finally:
            service.close()
    print(f"seed {options.seed}: {fuzzer.rounds} rounds, {fuzzer.calls} calls, {fuzzer.thrown_out} times thrown out, {fuzzer.opened} sessions; answers:")
    for answer, count in sorted(fuzzer.answers.items(), key=lambda item: -item[1]):
        print(f"{count:8} {answer or 'a result'}")
    print("results of", ", ".join(f"{member} {count}" for member, count in sorted(fuzzer.results.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
