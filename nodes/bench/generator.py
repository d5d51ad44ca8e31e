"""A host of a measuring lab: ``python -m nodes.bench.generator``, a live node whose engine makes and counts frames.

It is driven as an agent is: same driver, same channels, same link models. Beside the control socket of every node it
has ``NODE.bench`` with the operation ``burst`` {frame (hex), window, seconds}: this frame, as fast as the window lets
it out, until the other host has acknowledged the last; {frames, ns} is the answer.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from fabric.assembly import ip_bytes, mac_of
from fabric.engine import Transmit
from fabric.live.relay_ends import ACK_EVERY
from fabric.units import SECOND, Instant
from fabric.wire.fast import FrameBuilder
from fabric.wire.opcodes import Opcode
from nodes.control.server import Connection, ControlServer
from nodes.daemon import NodeConfig, NodeDaemon, parse_arguments

_ACKNOWLEDGE = int(Opcode.RC_ACKNOWLEDGE)
_OPCODE_AT = 42
"""Offset of the base transport header in a frame over IPv4."""


class Generator:
    """The engine. It asks a clock for the end of a burst: over links without latency, instants of frames that go to
    and fro stand still.
    """

    def __init__(self, acknowledgement: bytes, clock: Callable[[], Instant]) -> None:
        self._acknowledgement = acknowledgement
        self._clock = clock
        self._frame = b""
        self._window = self._sent = self._acknowledged = self._received = 0
        self._until: Instant = 0
        self._answers: deque[bytes] = deque()
        self._finished: deque[int] = deque()

    def burst(self, frame: bytes, window: int, until: Instant) -> None:
        """Send ``frame`` again and again, at most ``window`` unacknowledged, up to ``until``."""
        self._frame, self._window, self._until = frame, window, until
        self._sent = self._acknowledged = 0

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """Count a frame of the peer, or take its acknowledgement."""
        if frame[_OPCODE_AT] == _ACKNOWLEDGE:
            self._acknowledged += ACK_EVERY
            return
        self._received += 1
        if self._received % ACK_EVERY == 0:
            self._answers.append(self._acknowledgement)

    def handle_timeout(self, now: Instant) -> None:
        """Nothing is ever due."""

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """Acknowledgements, then the burst, which ends with a whole number of acknowledgements."""
        if self._answers:
            return Transmit(0, self._answers.popleft(), now)
        if self._sent - self._acknowledged >= self._window:
            return None
        if self._sent % ACK_EVERY == 0 and self._clock() >= self._until:
            if self._acknowledged == self._sent:
                self._finished.append(self._sent)
                self._window = 0
            return None
        self._sent += 1
        return Transmit(0, self._frame, now)

    def poll_event(self) -> int | None:
        """The number of frames of a burst that is over."""
        return self._finished.popleft() if self._finished else None

    def poll_timeout(self) -> Instant | None:
        """Always ``None``."""
        return None

    def statistics(self) -> dict[str, int]:
        """What was sent and received."""
        return {"sent": self._sent, "received": self._received}


def make_acknowledgement(config: NodeConfig) -> bytes:
    """An acknowledgement from this host to the only other one."""
    own, peer = (
        next(ip_bytes(host.ip) for host in config.topology.hosts.values() if (host.name == config.node) is ours)
        for ours in (True, False)
    )
    builder = FrameBuilder(
        source_mac=mac_of(own), destination_mac=mac_of(peer), source_ip=own, destination_ip=peer, udp_source_port=0xC000
    )
    return builder.build(_ACKNOWLEDGE, 0, destination_qpn=2, extension=bytes(4))


def main() -> int:
    """Entry point."""
    arguments = parse_arguments("generator")
    config = NodeConfig.read(arguments.config)

    async def run() -> None:
        daemon = NodeDaemon(config)
        engine = Generator(make_acknowledgement(config), time.monotonic_ns)
        finished = trio.Event()
        frames = 0

        def on_event(event: object, now: Instant) -> None:
            nonlocal frames
            assert isinstance(event, int)
            frames = event
            finished.set()

        driver = daemon.build(engine, on_event)

        async def burst(request: dict[str, Any], connection: Connection) -> None:
            nonlocal finished
            finished = trio.Event()
            began = time.monotonic_ns()
            until = began + int(request["seconds"] * SECOND)
            frame = bytes.fromhex(request["frame"])
            driver.command(lambda _: engine.burst(frame, request["window"], until))
            await finished.wait()
            await connection.answer({"frames": frames, "ns": time.monotonic_ns() - began})

        async def serve(nursery: trio.Nursery) -> None:
            await nursery.start(ControlServer(config.directory / f"{config.node}.bench", {}, {"burst": burst}).serve)

        await daemon.run(arguments, [serve], lambda: {"kind": "generator", "node": config.node})

    trio.run(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
