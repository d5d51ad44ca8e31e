"""How long a hand-over takes: from the call of WSPDuplicateSocket to WSPSocket's return in the target, and to the first
byte that it reads; against a bare pass of a descriptor between the same two processes with SCM_RIGHTS.

The two processes hand the connection to and fro. ``idle``: nothing but one byte per round waits to be read;
``loaded``: the peer sends as fast as it can meanwhile, over links of 2 ms.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from fabric.topology.yaml_model import parse
from fabric.units import MILLISECOND
from nodes.bench.figures import Figure, percentile
from nodes.bench.forwarding import TOPOLOGY
from nodes.lab.engines import LAB_CLASSES

CEILING_MS = 20.0
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
bare, first, byte = [], [], []
if child:
    for _ in range(rounds):
        began = time.monotonic_ns()
        plain.send_fds(wire, [b"x"], [0])
        bare.append(json.loads(wire.recv(100))[0] - began)
else:
    connection = None
    for _ in range(rounds):
        _, fds, _, _ = plain.recv_fds(wire, 10, 1)
        at = time.monotonic_ns(); os.close(fds[0])
        wire.send(note(at))
other = int(json.loads(wire.recv(100))[0]) if child else None
if not child:
    wire.send(note(os.getpid())); other = source
turn = bool(child)
for _ in range(rounds):
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
    print(json.dumps({"bare": bare, "first": first + theirs[0], "byte": byte + theirs[1]}))
    os.waitpid(child, 0)
else:
    wire.send(note(first, byte))
    os._exit(0)
"""


def measure(*, rounds: int, engine: str = "process") -> list[Figure]:
    """``rounds`` hand-overs per mode and load."""
    figures = []
    for load, text in (("idle", TOPOLOGY), ("loaded", LOADED)):
        for mode in ("local", "suspend"):
            samples = _run(text, load, mode, rounds, engine)
            for key, what in (("first", "to the descriptor"), ("byte", "to the first byte")):
                for share, name in ((0.5, "p50"), (0.99, "p99")):
                    value = percentile(samples[key], share) / MILLISECOND
                    ceiling = CEILING_MS if (mode, name, key) == ("local", "p50", "first") else None
                    figures.append(
                        Figure(
                            f"handoff {mode}, {load}, {what}, {name}",
                            "ms",
                            value,
                            percentile(samples["bare"], share) / MILLISECOND,
                            "bare SCM_RIGHTS",
                            at_most=ceiling,
                            judge_value=True,
                        )
                    )
    return figures


def _run(text: str, load: str, mode: str, rounds: int, engine: str) -> dict[str, list[float]]:
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
    samples: dict[str, list[float]] = json.loads(output)
    return samples
