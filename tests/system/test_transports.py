"""What isn't an MCP server on stdio runs in a worker's sandbox as well."""

import json

from machine import systemctl, worker_units
from waiting import eventually

COMPILER = ("import os, sys; args = dict(zip(sys.argv[1::2], sys.argv[2::2])); print('stray');"
            "open(args['--output'], 'w').write(open(args['--input']).read().upper() + os.getcwd())")
SOCKET = ("import socket\nconnection = socket.socket(fileno=3).accept()[0]\n"
          "for line in connection.makefile(): connection.sendall(line.upper().encode())")


def call(caller, server, params):
    return json.loads(caller.invoke("Call", "sss", server, "any", json.dumps(params)))


def test_a_command_per_call(machine, alice):
    machine.server("upper", "tr", "a-z", "A-Z", protocol="once")
    assert call(alice, "upper", "text") == "TEXT"
    assert call(alice, "upper", "again") == "AGAIN"
    eventually(lambda: not worker_units(), "no unit is left")


def test_a_compiler_over_files(machine, alice):
    machine.server("compiler", "/usr/bin/python3", "-c", COMPILER, "--input", "{input}", "--output", "{output}",
                   protocol="once", transport="file")
    result = call(alice, "compiler", "source")
    assert result.startswith("SOURCE/tmp/call-")
    eventually(lambda: not worker_units(), "no unit is left")


def test_a_worker_at_a_socket(machine, alice):
    machine.server("socket", "/usr/bin/python3", "-c", SOCKET, protocol="lines", transport="socket")
    assert call(alice, "socket", "text") == "TEXT"
    assert len(worker_units()) == 1
    assert systemctl("is-active", *worker_units()).stdout.strip() == "active"


def test_a_loop_that_reads_lines(machine, alice):
    machine.server("loop", "/bin/sh", "-c", 'while read -r line; do echo "got $line"; done', protocol="lines")
    assert [call(alice, "loop", str(i)) for i in range(5)] == [f"got {i}" for i in range(5)]
