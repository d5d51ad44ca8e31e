"""How far frames are from their due instants, against a bare timerfd wait of the same length in the same run."""

import tempfile
import time
from pathlib import Path

import trio

from fabric.assembly import Plan
from fabric.engine import Transmit
from fabric.live import envelope
from fabric.live.driver import NodeDriver
from fabric.live.precision import timer_errors
from fabric.live.zmq_channel import Endpoints, NodeChannels, ipc_address
from fabric.topology.yaml_model import parse
from fabric.units import MICROSECOND, MILLISECOND, Duration, Instant
from nodes.bench.figures import Figure, from_samples
from nodes.bench.forwarding import TOPOLOGY

LATENCIES = (1 * MILLISECOND, 5 * MILLISECOND, 20 * MILLISECOND)
CEILINGS = ((0.5, "p50", 3.0), (0.99, "p99", 5.0))


class _Sink:
    """An engine that notes how late each frame reaches it."""

    def __init__(self) -> None:
        self.late: list[Duration] = []

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        self.late.append(time.monotonic_ns() - now)

    def handle_timeout(self, now: Instant) -> None:
        """Nothing is ever due."""

    def poll_transmit(self, now: Instant) -> Transmit | None:
        return None

    def poll_event(self) -> None:
        return None

    def poll_timeout(self) -> Instant | None:
        return None

    def statistics(self) -> int:
        return len(self.late)


def measure(*, frames: int, rounds: int) -> list[Figure]:
    """``frames`` frames and as many bare waits per latency and round, in turns."""
    figures = []
    for latency in LATENCIES:
        ours: list[list[float]] = []
        bare: list[list[float]] = []
        for _ in range(rounds):
            ours.append([late / MICROSECOND for late in _frames(latency, frames)])
            bare.append([late / MICROSECOND for late in timer_errors(frames, latency)])
        for share, name, ceiling in CEILINGS:
            what = f"delay error {latency // MILLISECOND} ms {name}"
            figures.append(from_samples(what, "us", share, ours, bare, "bare timerfd wait", at_most=ceiling))
    return figures


def _frames(latency: Duration, count: int) -> list[float]:
    """Lateness in ns of frames that come over a channel, one at a time, each ``latency`` before it is due."""
    plan = Plan(parse(TOPOLOGY, "bench"))
    (incoming,) = plan.links_to("server")
    sink = _Sink()

    async def main(directory: Path) -> None:
        address = ipc_address(directory, "s1")
        s1 = NodeChannels("s1", Endpoints(address, {}))
        channels = NodeChannels("server", Endpoints(None, {"s1": address}))
        outgoing = [(link, plan.link_model(link, 1)) for link in plan.links_from("server")]
        driver = NodeDriver(sink, outgoing, [incoming], channels, lambda event, now: None, 1)
        try:
            with trio.fail_after(120):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(driver.run)
                    while not s1.can_reach("server"):
                        s1.drain()
                        await trio.sleep(0.001)
                    same = bytes(envelope.MACHINE_SIZE)  # both ends are this process, with one clock
                    s1.send("server", envelope.encode_heartbeat(incoming.index, 1, 0, 0, same))
                    for number in range(count):
                        due = time.monotonic_ns() + latency
                        s1.send("server", envelope.encode(incoming.index, 1, number, 0, [(due, b"frame")]))
                        while len(sink.late) <= number:  # noqa: ASYNC110 - the engine must not know of events
                            await trio.sleep(latency / 1e9 + 0.0005)
                    nursery.cancel_scope.cancel()
        finally:
            channels.close()
            s1.close()

    with tempfile.TemporaryDirectory(prefix="sl-") as name:
        trio.run(main, Path(name))
    return [float(late) for late in sink.late]
