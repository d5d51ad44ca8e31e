"""Bytes per second of one stream client - network switch - server, against a chain of plain trio TCP relays.

A stream passes three processes between the two applications (an agent, a network switch, an agent); so does the
baseline: three processes that copy from one TCP connection to the next. The links of the lab have no delay.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fabric.topology.yaml_model import parse
from nodes.bench.figures import Figure, from_rounds
from nodes.bench.forwarding import TOPOLOGY
from nodes.lab.engines import LAB_CLASSES, AnyLab

HOPS = 3
_RELAY = """
import sys, trio
async def main():
    async def handle(stream):
        async with stream, await trio.open_tcp_stream("127.0.0.1", int(sys.argv[1])) as onward:
            while data := await stream.receive_some(65536): await onward.send_all(data)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0, )
        print(listeners[0].socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
trio.run(main)
"""
_SINK = """
import os, sys, threading, time
if sys.argv[1] == "san":
    from provider import socket
else:
    import socket
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
with socket.create_server(("" if sys.argv[1] == "san" else "127.0.0.1", 7000 if sys.argv[1] == "san" else 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
got, began = 0, None
while data := connection.recv(1 << 18):
    began = began or time.monotonic()
    got += len(data)
print(got / (time.monotonic() - began) / (1 << 20), flush=True)
connection.close()
"""
_SOURCE = """
import sys
if sys.argv[1] == "san":
    from provider import socket
else:
    import socket
data = bytes(1 << 18)
with socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=60) as connection:
    for _ in range(int(sys.argv[4]) // len(data)): connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
"""


def measure(*, size: int, rounds: int, engine: str = "process") -> list[Figure]:
    """A transfer of ``size`` bytes per round over the lab, and one over the chain."""
    ours, baseline = [], []
    topology = parse(TOPOLOGY, "bench")
    with tempfile.TemporaryDirectory(prefix="sl-") as name, LAB_CLASSES[engine](topology, Path(name)) as lab:
        for _ in range(rounds):
            ours.append(_san(lab, size))
            baseline.append(_tcp(size))
    return [from_rounds("goodput", "MiB/s", ours, baseline, "chain of TCP relays")]


def _san(lab: AnyLab, size: int) -> float:
    sink = lab.command("server", "python", "-c", _SINK, "san", stdout=subprocess.PIPE)
    with sink:
        try:
            assert sink.stdout is not None
            sink.stdout.readline()
            source = lab.command("client", "python", "-c", _SOURCE, "san", "server", "7000", str(size))
            return _finish(source, sink)
        finally:
            sink.kill()


def _tcp(size: int) -> float:
    """The chain, on this machine; its sink and relays end with their standard input, whatever ends us."""
    sink = _piped(_SINK, "tcp")
    relays: list[subprocess.Popen[str]] = []
    try:
        assert sink.stdout is not None
        port = sink.stdout.readline().strip()
        for _ in range(HOPS):
            relay = _piped(_RELAY, port)
            relays.append(relay)
            assert relay.stdout is not None
            port = relay.stdout.readline().strip()
        source = subprocess.Popen([sys.executable, "-c", _SOURCE, "tcp", "127.0.0.1", port, str(size)], text=True)
        return _finish(source, sink)
    finally:
        for process in (sink, *relays):
            process.kill()
            process.communicate()


def _piped(program: str, argument: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _finish(source: "subprocess.Popen[str]", sink: "subprocess.Popen[str]") -> float:
    assert sink.stdout is not None
    deadline = time.monotonic() + 120
    try:
        rate = float(sink.stdout.readline())
        source.wait(max(0.0, deadline - time.monotonic()))
        return rate
    finally:
        source.kill()
        source.wait()
