"""Frames per second through one network switch, against a bare pyzmq relay of the same frames.

In both cases this process is source and sink, another process is in between, all over ipc://, and as many frames are on
their way at once. The network switch gets the frames in envelopes of BATCH, as hosts send them under load. The relay is
measured twice: with a zmq message per frame, which is the arrangement that "a relay of the frames" means and what the
floor refers to, and with the very envelopes that the network switch gets, which it passes on unread.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fabric.assembly import Plan
from fabric.errors import SanloomError
from fabric.live import envelope
from fabric.live.machine import machine_id
from fabric.live.zmq_channel import Endpoints, NodeChannels, ipc_address
from fabric.topology.yaml_model import parse
from fabric.wire.fast import FrameBuilder
from nodes.bench.figures import Figure, from_rounds
from nodes.lab import leftovers

SIZES = (1024, 4096)
BATCH = 64
ON_THEIR_WAY = 4096
FLOOR = 0.3
LEFTOVER_SECONDS = 1.0
TOPOLOGY = """name: bench
hosts: {client: {}, server: {}}
network-switches: {s1: {}}
links: [{endpoints: [client, s1]}, {endpoints: [server, s1]}]
"""


def measure(*, seconds: float, rounds: int) -> list[Figure]:
    """Interleaved rounds of ``seconds`` each."""
    figures = []
    with _network_switch() as ours_at, relay() as relay_at:
        for size in SIZES:
            ours, per_frame, batched = [], [], []
            for _ in range(rounds):
                ours.append(_rate(ours_at, size, BATCH, seconds))
                per_frame.append(_rate(relay_at, size, 1, seconds))
                batched.append(_rate(relay_at, size, BATCH, seconds))
            for name, baseline, floor in (("message per frame", per_frame, FLOOR), ("whole envelopes", batched, None)):
                figures.append(
                    from_rounds(
                        f"forwarding {size} B", "frames/s", ours, baseline, f"bare pyzmq relay, {name}", at_least=floor
                    )
                )
    return figures


def _rate(directory: Path, size: int, batch: int, seconds: float) -> float:
    """Frames per second from the client's end to the server's."""
    plan = Plan(parse(TOPOLOGY, "bench"))
    link = next(link for link in plan.links if link.name == "client->s1")
    frame = make_frame(plan, size)
    near = {"s1": ipc_address(directory, "s1")}
    client, server = NodeChannels("client", Endpoints(None, near)), NodeChannels("server", Endpoints(None, near))
    try:
        for name, channels in (("client", client), ("server", server)):
            index = next(link.index for link in plan.links if link.source == name)
            channels.send("s1", envelope.encode_heartbeat(index, 1, 0, 0, machine_id()))
        time.sleep(0.2)  # both are connected, whichever is in between
        empty = len(envelope.encode(0, 0, 0, 0, []))
        entry = len(envelope.encode(0, 0, 0, 0, [(0, frame)])) - empty
        sent = got = number = 0
        began = now = time.monotonic()
        fds = server.file_descriptors()
        while now - began < seconds:
            while sent - got < ON_THEIR_WAY:
                client.send("s1", envelope.encode(link.index, 1, number, 0, [(0, frame)] * batch))
                number += 1
                sent += batch
            arrived, _ = server.drain()
            got += sum((len(data) - empty) // entry for _, data in arrived)
            client.drain()
            if not arrived and not server.has_input():
                select.select(fds, [], [], 0.05)
            now = time.monotonic()
        rate = got / (now - began)
        while got < sent and time.monotonic() - now < LEFTOVER_SECONDS:  # they are none of the next round's
            select.select(fds, [], [], 0.01)
            arrived, _ = server.drain()
            got += sum((len(data) - empty) // entry for _, data in arrived)
        return rate
    finally:
        client.close()
        server.close()


def make_frame(plan: Plan, size: int) -> bytes:
    """A frame of about ``size`` bytes from the client to the server."""
    (a, a_mac), (b, b_mac) = plan.addresses().items()
    builder = FrameBuilder(
        source_mac=a_mac, destination_mac=b_mac, source_ip=a, destination_ip=b, udp_source_port=50_000
    )
    payload = bytes(size - len(builder.build(4, 0, b"", destination_qpn=5)))
    return builder.build(4, 0, payload, destination_qpn=5)


@contextlib.contextmanager
def _network_switch() -> Iterator[Path]:
    """A network switch as a lab runs it."""
    with tempfile.TemporaryDirectory(prefix="sl-") as name:
        directory = Path(name)
        config = {
            "lab": "bench",
            "node": "s1",
            "run_id": "bench",
            "topology": parse(TOPOLOGY, "bench").to_json(),
            "seed": 1,
            "directory": name,
            "journal": str(directory / "s1.jsonl"),
            "mode": "suspend",
        }
        (directory / "s1.config").write_text(json.dumps(config))
        lifeline, keep = os.pipe()
        ready, tell = os.pipe()
        arguments = ["--config", str(directory / "s1.config"), "--ready-fd", str(tell), "--lifeline-fd", str(lifeline)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nodes.netswitch", *arguments], pass_fds=(tell, lifeline)
        )
        for fd in (tell, lifeline, ready):
            os.close(fd)
        try:
            _await_socket(directory, process)
            yield directory
        finally:
            os.close(keep)
            _end(process)


@contextlib.contextmanager
def relay() -> Iterator[Path]:
    """A bare relay in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="sl-") as name:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fabric.live.relay", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            try:
                _await_socket(Path(name), process)
                yield Path(name)
            finally:
                _end(process)


def _await_socket(directory: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not (directory / "s1.frames").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SanloomError("the process in between did not come up")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(leftovers.GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
