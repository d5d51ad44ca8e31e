"""The live driver: a network switch between two hosts, over real channels, with engines that only take notes."""

import time
from contextlib import asynccontextmanager

import pytest
import trio

from fabric.assembly import Plan
from fabric.capture.tap import IN, OUT
from fabric.engine import Transmit
from fabric.live import envelope
from fabric.live.driver import NodeDriver
from fabric.live.zmq_channel import Endpoints, NodeChannels, ipc_address
from fabric.topology.yaml_model import parse
from fabric.units import MILLISECOND, SECOND
from fabric.wire.fast import FrameBuilder

TEXT = """name: x
defaults: {link: {latency: 3ms}}
hosts: {a: {}, b: {}}
network-switches: {s1: {}}
links: [{endpoints: [a, s1]}, {endpoints: [b, s1]}]
"""
SAME = bytes(envelope.MACHINE_SIZE)
"""The machine of drivers that are given none."""


class Notes:
    """A host's engine that sends what it is told to and notes what comes, and when."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.arrived: list[tuple[int, bytes]] = []
        self.deadline: int | None = None
        self.rang: list[tuple[int, int]] = []

    def handle_frame(self, port, frame, now):
        self.arrived.append((now, frame))

    def handle_timeout(self, now):
        if self.deadline is not None and now >= self.deadline:
            self.rang.append((self.deadline, now))
            self.deadline = None

    def poll_transmit(self, now):
        return Transmit(0, self.out.pop(0), now) if self.out else None

    def poll_event(self):
        return None

    def poll_timeout(self):
        return self.deadline

    def statistics(self):
        return len(self.arrived)


class Fabric:
    """The three nodes of TEXT, in this process."""

    def __init__(self, runtime) -> None:
        self.runtime = runtime
        self.plan = Plan(parse(TEXT, "x"))
        self.hosts = {"a": Notes(), "b": Notes()}
        self.drivers: dict[str, NodeDriver] = {}

    def endpoints(self, node: str) -> Endpoints:
        address = ipc_address(self.runtime, "s1")
        return Endpoints(address, {}) if node == "s1" else Endpoints(None, {"s1": address})

    def make(self, node: str, boot_id: int = 1) -> NodeDriver:
        engine = self.hosts[node] if node in self.hosts else self.plan.network_switch(node)
        outgoing = [(link, self.plan.link_model(link, 1)) for link in self.plan.links_from(node)]
        channels = NodeChannels(node, self.endpoints(node))
        driver = NodeDriver(engine, outgoing, self.plan.links_to(node), channels, lambda event, now: None, boot_id)
        self.drivers[node] = driver
        return driver

    def frames(self, count: int) -> list[bytes]:
        (a, a_mac), (b, b_mac) = self.plan.addresses().items()
        builder = FrameBuilder(
            source_mac=a_mac, destination_mac=b_mac, source_ip=a, destination_ip=b, udp_source_port=49152
        )
        return [builder.build(4, psn, b"x" * 100, destination_qpn=5) for psn in range(count)]

    @asynccontextmanager
    async def running(self, *nodes: str):
        try:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for node in nodes or ("s1", "a", "b"):
                        nursery.start_soon(self.make(node).run)
                    yield nursery
                    nursery.cancel_scope.cancel()
        finally:
            for driver in self.drivers.values():
                driver.channels.close()


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await trio.sleep(0.001)


@pytest.fixture
def fabric(runtime):
    return Fabric(runtime)


def test_frames_arrive_in_order_with_now_at_their_due_instants(fabric):
    async def main():
        async with fabric.running():
            for driver in fabric.drivers.values():
                await driver.ready.wait()
            frames = fabric.frames(50)
            fabric.hosts["a"].out += frames
            sent_at = fabric.drivers["a"].command(lambda now: now)
            await until(lambda: len(fabric.hosts["b"].arrived) == 50)
            assert [frame for _, frame in fabric.hosts["b"].arrived] == frames
            assert {now - sent_at for now, _ in fabric.hosts["b"].arrived} == {6 * MILLISECOND}  # exact, over two hops
            assert all(driver.lost == 0 for driver in fabric.drivers.values())
            assert sum(fabric.drivers["b"].lateness) == 50
            assert fabric.drivers["s1"].neighbours() == {
                "a": {"state": "up", "restarts": 0, "clock": "same"},
                "b": {"state": "up", "restarts": 0, "clock": "same"},
            }

    trio.run(main)


def test_timeouts_come_at_their_deadlines_and_commands_after_what_was_due(fabric):
    async def main():
        async with fabric.running():
            host = fabric.hosts["a"]
            deadline = time.monotonic_ns() + 2 * MILLISECOND
            fabric.drivers["a"].command(lambda now: setattr(host, "deadline", deadline))
            await until(lambda: host.rang)
            assert host.rang == [(deadline, deadline)]
            host.deadline = overdue = time.monotonic_ns()
            order = fabric.drivers["a"].command(lambda now: (list(host.rang), now))
            assert order[0][-1] == (overdue, overdue)
            assert order[1] >= overdue

    trio.run(main)


def test_not_ready_before_all_neighbours_were_heard_and_a_restart_is_noticed(fabric):
    async def main():
        async with fabric.running("s1", "a") as nursery:
            await fabric.drivers["a"].ready.wait()
            assert not fabric.drivers["s1"].ready.is_set()
            assert fabric.drivers["s1"].neighbours()["b"]["state"] == "unheard"
            with trio.CancelScope() as first:
                async with trio.open_nursery() as inner:
                    inner.start_soon(fabric.make("b", boot_id=7).run)
                    await fabric.drivers["s1"].ready.wait()
                    fabric.hosts["a"].out += fabric.frames(3)
                    fabric.drivers["a"].command(lambda now: None)
                    await until(lambda: len(fabric.hosts["b"].arrived) == 3)
                    first.cancel()
            fabric.drivers["b"].channels.close()
            nursery.start_soon(fabric.make("b", boot_id=8).run)
            await until(lambda: fabric.drivers["s1"].neighbours()["b"]["restarts"] == 1)
            assert fabric.drivers["s1"].lost == 0

    trio.run(main)


def test_gaps_false_links_and_garbage_are_counted_and_nothing_else_happens(fabric):
    async def main():
        async with fabric.running("s1", "b"):
            await fabric.drivers["b"].ready.wait()
            rough = NodeChannels("a", fabric.endpoints("a"))
            try:
                fabric.drivers["s1"].debug = True
                s1 = fabric.drivers["s1"]
                into, other = (link.index for link in fabric.plan.links_to("s1"))
                due, (first, second) = time.monotonic_ns(), fabric.frames(2)
                rough.send("s1", envelope.encode_heartbeat(into, 5, 0, 0, SAME))
                rough.send("s1", envelope.encode(into, 5, 0, 0, [(due, first)]))
                rough.send("s1", envelope.encode(into, 5, 3, 0, [(due, second)]))  # 1 and 2 are missing
                await until(lambda: len(fabric.hosts["b"].arrived) == 2)
                assert s1.lost == 2
                rough.send("s1", envelope.encode_heartbeat(into, 5, 6, 0, SAME))  # 4 and 5 too
                rough.send("s1", envelope.encode(other, 5, 0, 0, [(due, first)]))  # the link of b
                rough.send("s1", envelope.encode(99, 5, 0, 0, [(due, first)]))
                rough.send("s1", b"garbage")
                await until(lambda: s1.lost == 7)
                rough.send("s1", envelope.encode(into, 5, 6, 0, [(due, b"no frame"), (due + 3600 * SECOND, first)]))
                rough.send("s1", envelope.encode(into, 5, 7, 0, [(due, first)]))
                await until(lambda: len(fabric.hosts["b"].arrived) == 3)
                assert s1.lost == 7
            finally:
                rough.close()

    trio.run(main)


def test_taps_see_both_sides(fabric):
    async def main():
        async with fabric.running():
            taps = {node: driver.taps.subscribe() for node, driver in fabric.drivers.items()}
            await fabric.drivers["s1"].ready.wait()
            fabric.hosts["a"].out += fabric.frames(2)
            fabric.drivers["a"].command(lambda now: None)
            await until(lambda: len(fabric.hosts["b"].arrived) == 2)
            seen = {node: [(f.link, f.direction) for f in tap.take()] for node, tap in taps.items()}
            assert seen["a"] == [("a->s1", OUT)] * 2
            assert seen["s1"] == [("a->s1", IN), ("s1->b", OUT)] * 2
            assert seen["b"] == [("s1->b", IN)] * 2

    trio.run(main)


def test_more_than_an_envelope_holds_leaves_in_several(fabric):
    async def main():
        async with fabric.running():
            for driver in fabric.drivers.values():
                await driver.ready.wait()
            (a, a_mac), (b, b_mac) = fabric.plan.addresses().items()
            builder = FrameBuilder(
                source_mac=a_mac, destination_mac=b_mac, source_ip=a, destination_ip=b, udp_source_port=49152
            )
            count = 2 * envelope.ENVELOPE_MAX // 4096
            frames = [builder.build(4, psn, bytes(4096), destination_qpn=5) for psn in range(count)]
            fabric.hosts["a"].out += frames
            fabric.drivers["a"].command(lambda now: None)
            await until(lambda: len(fabric.hosts["b"].arrived) == count)
            assert [frame for _, frame in fabric.hosts["b"].arrived] == frames
            assert all(driver.lost == 0 for driver in fabric.drivers.values())

    trio.run(main)
