"""How long a hand-over takes: from the call of WSPDuplicateSocket to WSPSocket's return in the target, and to the first
byte that it reads; against a bare pass of a descriptor between the same two processes with SCM_RIGHTS.

The two processes hand the connection to and fro, with a bare pass before each hand-over. Even ``rounds`` go both ways
alike. ``idle``: nothing but one byte per round waits to be read;
``loaded``: the peer sends as fast as it can meanwhile, over links of 2 ms.
"""

import json
import math
import subprocess
import tempfile
from pathlib import Path

from fabric.topology.yaml_model import parse
from fabric.units import MILLISECOND
from nodes.bench.figures import Figure, from_samples
from nodes.bench.forwarding import TOPOLOGY
from nodes.lab.engines import LAB_CLASSES

CEILINGS_MS = {"local": 3.0, "suspend": 5.0, "rehome": 10.0}
"""To the descriptor, p50, with nothing else going on; the links of that lab have no latency."""
BLOCKS = 4
"""Rounds that the samples are cut into for the spread."""
LOADED = TOPOLOGY.replace("hosts:", "defaults: {link: {latency: 2ms}}\nhosts:")
_PEER = """
import sys
from provider import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
try:
    if sys.argv[1] == "loaded":
        while True: connection.sendall(bytes(1 << 18))
    connection.sendall(bytes(int(sys.argv[2])))
    connection.recv(1)
except ConnectionError:
    pass
"""
_PAIR = """
import json, os, socket as plain, sys, time
from provider import socket
load, mode, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
here, there = plain.socketpair(plain.AF_UNIX, plain.SOCK_SEQPACKET)
source = os.getpid()
connection = socket.create_connection(("client", 7000), timeout=60)
child = os.fork()
wire = there if child == 0 else here
wire.settimeout(60)
(here if child == 0 else there).close()
def note(*values): return json.dumps(values).encode()
if child: wire.send(note(source)); other = child
else: other = json.loads(wire.recv(100))[0]; connection = None
near, far = plain.socketpair()
bare, bare_byte, first, byte = [], [], [], []
turn = bool(child)
for _ in range(rounds):
    if child:
        near.send(b"x")
        began = time.monotonic_ns()
        plain.send_fds(wire, [b"x"], [far.fileno()])
        got, read = json.loads(wire.recv(100))
        bare.append(got - began); bare_byte.append(read - began)
    else:
        _, (fd,), _, _ = plain.recv_fds(wire, 10, 1)
        got = time.monotonic_ns()
        os.read(fd, 1)
        wire.send(note(got, time.monotonic_ns()))
        os.close(fd)
    if turn:
        began = time.monotonic_ns()
        info = connection.share(other, mode)
        wire.send(info)
        got, read = json.loads(wire.recv(100))
        first.append(got - began); byte.append(read - began)
        connection.close()
    else:
        taken = socket.fromshare(wire.recv(628))
        got = time.monotonic_ns()
        taken.settimeout(60)
        taken.recv(1)
        read = time.monotonic_ns()
        wire.send(note(got, read))
        connection = taken
    turn = not turn
if child:
    theirs = json.loads(wire.recv(1 << 20))
    first = [x for pair in zip(first, theirs[0]) for x in pair]
    byte = [x for pair in zip(byte, theirs[1]) for x in pair]
    print(json.dumps({"bare first": bare, "bare byte": bare_byte, "first": first, "byte": byte}))
    os.waitpid(child, 0)
else:
    wire.send(note(first, byte))
    os._exit(0)
"""


def measure(*, rounds: int, engine: str = "process") -> list[Figure]:
    """``rounds`` hand-overs per mode and load."""
    figures = []
    for load, text in (("idle", TOPOLOGY), ("loaded", LOADED)):
        for mode in ("local", "suspend", "rehome"):
            samples = _run(text, load, mode, rounds, engine)
            for key, what in (("first", "to the descriptor"), ("byte", "to the first byte")):
                for share, name in ((0.5, "p50"), (0.99, "p99")):
                    judged = (load, name, key) == ("idle", "p50", "first")
                    figures.append(
                        from_samples(
                            f"handoff {mode}, {load}, {what}, {name}",
                            "ms",
                            share,
                            _blocks(samples[key]),
                            _blocks(samples[f"bare {key}"]),
                            "bare SCM_RIGHTS",
                            at_most=CEILINGS_MS[mode] if judged else None,
                            judge_value=True,
                        )
                    )
    return figures


def _blocks(samples: list[int]) -> list[list[float]]:
    """In milliseconds, as BLOCKS rounds of samples that follow each other."""
    size = max(1, math.ceil(len(samples) / BLOCKS))
    return [[at / MILLISECOND for at in samples[start : start + size]] for start in range(0, len(samples), size)]


def _run(text: str, load: str, mode: str, rounds: int, engine: str) -> dict[str, list[int]]:
    topology = parse(text, "bench")
    with tempfile.TemporaryDirectory(prefix="sl-") as name, LAB_CLASSES[engine](topology, Path(name)) as lab:
        peer = lab.command("client", "python", "-c", _PEER, load, str(2 * rounds), stdout=subprocess.PIPE)
        with peer:
            try:
                assert peer.stdout is not None
                peer.stdout.readline()
                pair = lab.command("server", "python", "-c", _PAIR, load, mode, str(rounds), stdout=subprocess.PIPE)
                with pair:
                    try:
                        output, _ = pair.communicate(timeout=120)
                    finally:
                        pair.kill()
            finally:
                peer.kill()
    samples: dict[str, list[int]] = json.loads(output)
    return samples
