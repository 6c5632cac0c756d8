#!/usr/bin/python3
"""What a call costs with each isolation of the Python executor, driven directly through its pipes.

usage: tests/executors/bench/isolation.py [--rounds N] [--one-cpu] [--json] [MODE ...]

Compiles a copy of src/executors, as an installation does, and measures it: all modes in turn, round by round, so that
what disturbs the machine disturbs each of them. `apart`: the median of calls 5 ms apart; `back to back`: calls a second,
each sent when the one before it is answered, the median of the rounds; with 8 in flight likewise. A call with `fresh` is a
process of its own, from its start to its end.
"""

import argparse
import compileall
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "src" / "executors"
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
CODE = "x = 20\nprint(x + 1)\nx * 2 + 2"
GAP = 0.005
IN_FLIGHT = 8


class Executor:
    def __init__(self, program, mode, concurrency=1):
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/"),
                       "MCP_EXEC_ISOLATION": mode, "MCP_EXEC_CONCURRENCY": str(concurrency)}
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.count = 0

    def send(self):
        self.count += 1
        params = {"name": "run", "arguments": {"code": CODE}, "_meta": META}
        message = {"jsonrpc": "2.0", "id": self.count, "method": "tools/call", "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self):
        content = json.loads(self.process.stdout.readline())["result"]["structuredContent"]
        assert content["value"] == "42" and content["stdout"] == "21\n", content

    def call(self):
        self.send()
        self.receive()

    def memory(self):
        """Private bytes of the process and its children."""
        total = 0
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return total

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Fresh:
    """An executor of its own for each call."""

    def __init__(self, program):
        self.program = program

    def call(self):
        executor = Executor(self.program, "fresh")
        executor.call()
        self.size = executor.memory() if self.size is None else self.size
        executor.end()

    size = 0

    def memory(self):
        self.size = None
        self.call()
        return self.size

    def end(self):
        pass


def descendants(pid):
    found = []
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        for child in file.read().split():
            found += [int(child), *descendants(child)]
    return found


def timed(function, count):
    begun = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begun) / count


def apart(executor, count):
    times = []
    for _ in range(count):
        time.sleep(GAP)
        times.append(timed(executor.call, 1))
    return times


def in_flight(executor, count):
    begun = time.perf_counter()
    for _ in range(IN_FLIGHT):
        executor.send()
    for _ in range(count - IN_FLIGHT):
        executor.receive()
        executor.send()
    for _ in range(IN_FLIGHT):
        executor.receive()
    return count / (time.perf_counter() - begun)


def measure(program, modes, rounds):
    figures = {mode: {"apart": [], "rate": [], "in_flight": []} for mode in modes}
    executors = {mode: Fresh(program) if mode == "fresh" else Executor(program, mode) for mode in modes}
    parallel = {mode: Executor(program, mode, IN_FLIGHT) for mode in modes if mode != "fresh"}
    for executor in [*executors.values(), *parallel.values()]:
        for _ in range(1 if isinstance(executor, Fresh) else 30):
            executor.call()
    for _ in range(rounds):
        for mode, executor in executors.items():
            count = 4 if mode == "fresh" else 40
            figures[mode]["apart"] += apart(executor, count // 2)
            figures[mode]["rate"].append(1 / timed(executor.call, count))
            if mode in parallel:
                figures[mode]["in_flight"].append(in_flight(parallel[mode], 80))
    result = {}
    for mode, executor in executors.items():
        rates = figures[mode]["in_flight"]
        result[mode] = {"apart_us": statistics.median(figures[mode]["apart"]) * 1e6,
                        "per_second": statistics.median(figures[mode]["rate"]),
                        "per_second_in_flight": statistics.median(rates) if rates else None,
                        "memory_kb": executor.memory()}
        executor.end()
    for executor in parallel.values():
        executor.end()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--one-cpu", action="store_true", help="have all processes share one CPU")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("modes", nargs="*", metavar="MODE")
    options = parser.parse_args()
    modes = options.modes or ["fresh", "shared", "reset", "fork"]
    if options.one_cpu:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = tempfile.mkdtemp()
    try:
        shutil.copytree(SOURCE, f"{folder}/executors", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(f"{folder}/executors/mcp_exec_executor", quiet=1)
        result = measure(f"{folder}/executors/python/mcp-exec-python", modes, options.rounds)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'':8} {'5 ms apart':>12} {'back to back':>14} {IN_FLIGHT:>5} in flight {'memory':>10}")
    for mode, row in result.items():
        rate = row["per_second_in_flight"]
        print(f"{mode:8} {row['apart_us']:9.0f} us {row['per_second']:12.0f}/s "
              f"{f'{rate:.0f}/s' if rate else '':>15} {row['memory_kb'] / 1024:7.1f} MB")
    if {"fresh", "reset", "fork"} <= result.keys():
        ratio = result["fork"]["apart_us"] / result["reset"]["apart_us"]
        rate = result["fork"]["per_second"] / result["fresh"]["per_second"]
        print(f"fork: {ratio:.2f} x reset's latency 5 ms apart (at most 1.8), {rate:.1f} x fresh's calls a second (at least 10)")


if __name__ == "__main__":
    main()
