"""The world: virtual time, deterministic to the byte, frames only where the topology leads."""

from pathlib import Path

import pytest

from fabric.assembly import Plan
from fabric.engine import Transmit
from fabric.journal import LineJournal
from fabric.sim.world import World
from fabric.topology.yaml_model import load
from fabric.units import MILLISECOND, SECOND
from fabric.wire.fast import FrameBuilder

TOPOLOGIES = Path(__file__).parents[3] / "topologies"


class Sender:
    """A host that sends what it is told to, wakes once, and notes what comes."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.arrived: list[tuple[int, bytes]] = []
        self.deadline: int | None = None
        self.rang: list[int] = []

    def handle_frame(self, port, frame, now):
        self.arrived.append((now, frame))

    def handle_timeout(self, now):
        if self.deadline is not None and now >= self.deadline:
            self.rang.append(now)
            self.deadline = None

    def poll_transmit(self, now):
        return Transmit(0, self.out.pop(0), now) if self.out else None

    def poll_event(self):
        return None

    def poll_timeout(self):
        return self.deadline

    def statistics(self):
        return len(self.arrived)


def run(name: str, seed: int, source: str, sink: str, flows: int = 1, count: int = 200):
    """``count`` frames per flow from source to sink at time 0; the world, its hosts and its journal."""
    plan = Plan(load(TOPOLOGIES / name / "topology.yaml"))
    lines: list[str] = []
    hosts = {host: Sender() for host in plan.topology.hosts}
    world = World(plan, seed, hosts, LineJournal(lines.append), frame_records=True)
    a, b = plan.topology.hosts[source].ip, plan.topology.hosts[sink].ip
    macs = {".".join(map(str, ip)): mac for ip, mac in plan.addresses().items()}
    for flow in range(flows):
        builder = FrameBuilder(
            source_mac=macs[a],
            destination_mac=macs[b],
            source_ip=bytes(map(int, a.split("."))),
            destination_ip=bytes(map(int, b.split("."))),
            udp_source_port=49152 + flow,
        )
        hosts[source].out += [builder.build(4, psn, b"x" * 64, destination_qpn=5) for psn in range(count)]
    world.command(source, lambda now: None)
    world.run_until(10 * SECOND)
    return world, hosts, "".join(lines)


def test_same_seed_same_bytes_other_seed_other_bytes():
    assert run("pair", 1, "client", "server")[2] == run("pair", 1, "client", "server")[2]
    assert run("pair", 1, "client", "server")[2] != run("pair", 2, "client", "server")[2]


def test_every_frame_arrives_after_its_latency_or_is_journalled_as_dropped():
    _, hosts, journal = run("pair", 1, "client", "server")
    arrived = hosts["server"].arrived
    assert len(arrived) + journal.count("frame.dropped") == 200
    assert journal.count("frame.dropped") > 0
    assert min(at for at, _ in arrived) >= 2 * (2 * MILLISECOND - MILLISECOND // 5)
    assert [at for at, _ in arrived] == sorted(at for at, _ in arrived)
    assert hosts["client"].arrived == []


def test_one_flow_takes_one_spine_and_many_take_both():
    _, _, one = run("leaf-spine", 1, "h1", "h8")
    assert ("leaf1->spine1" in one) != ("leaf1->spine2" in one)
    _, hosts, many = run("leaf-spine", 1, "h1", "h8", flows=16, count=5)
    assert "leaf1->spine1" in many
    assert "leaf1->spine2" in many
    assert len(hosts["h8"].arrived) == 80


def test_calls_timeouts_and_time():
    world, hosts, _ = run("pair", 1, "client", "server", count=0)
    seen = []
    start = world.now
    hosts["client"].deadline = start + 5
    world.at(start + 7, lambda: seen.append(world.now))
    world.run_until(start + 6)
    assert (hosts["client"].rang, seen, world.now) == ([start + 5], [], start + 6)
    assert not world.run_while(lambda: not seen, start + 6)
    assert world.run_while(lambda: not seen, start + 8)
    assert seen == [start + 7]


def test_an_error_of_a_command_comes_out_and_its_frames_leave_all_the_same():
    world, hosts, _ = run("pair", 1, "client", "server", count=0)

    def fail(now):
        raise LookupError

    with pytest.raises(LookupError):
        world.command("client", fail)
    assert hosts["client"].out == []
