"""The world is deterministic, and leaf-spine spreads flows."""

import os
import subprocess
import sys
from pathlib import Path

from fabric.assembly import Plan
from fabric.engine import Transmit
from fabric.ids import NodeName
from fabric.journal import LineJournal
from fabric.sim import World
from fabric.topology.yaml_model import load
from fabric.wire.fast import FrameBuilder

ROOT = Path(__file__).parents[3] / "topologies"


class Sender:
    """Sends frames when told to; counts what comes."""

    def __init__(self):
        self.out, self.arrived = [], []

    def handle_frame(self, port, frame, now):
        self.arrived.append(now)

    def handle_timeout(self, now):
        pass

    def poll_transmit(self, now):
        return Transmit(0, self.out.pop(0), now) if self.out else None

    def poll_event(self):
        return None

    def poll_timeout(self):
        return None

    def statistics(self):
        return len(self.arrived)


def run(name: str, seed: int, flows: int = 1):
    lines: list[str] = []
    world = World(
        load(ROOT / name / "topology.yaml"),
        seed,
        lambda _n, _p: Sender(),
        LineJournal(lines.append),
        frame_records=True,
    )
    plan: Plan = world.plan
    a, b = plan.addresses[NodeName("client")], plan.addresses[NodeName("server")]
    for flow in range(flows):
        builder = FrameBuilder(
            source_mac=a.mac, destination_mac=b.mac, source_ip=a.ip, destination_ip=b.ip, udp_source_port=49152 + flow
        )
        world.engines["client"].out += [builder.build(4, psn, b"x" * 64, destination_qpn=5) for psn in range(200)]
    world.at(0, lambda: world.service(NodeName("client")))
    world.run_until_idle()
    return "".join(lines), world


def test_same_seed_same_bytes_other_seed_other_bytes():
    assert run("pair", 1)[0] == run("pair", 1)[0] != run("pair", 2)[0]


def test_frames_arrive_or_are_dropped():
    journal, world = run("pair", 1)
    assert len(world.engines["server"].arrived) == 200 - journal.count("link.drop")
    assert min(world.engines["server"].arrived) >= 3_600_000


def test_one_flow_takes_one_spine_and_many_take_both():
    one, _ = run("leaf-spine", 1)
    assert ("leaf1->spine1" in one) != ("leaf1->spine2" in one)
    many, _ = run("leaf-spine", 1, flows=16)
    assert "leaf1->spine1" in many
    assert "leaf1->spine2" in many


def test_the_hash_seed_of_python_does_not_matter():
    code = (
        "import hashlib, runpy; run = runpy.run_path('tests/fabric/sim/test_world.py')['run'];"
        "print(hashlib.sha256(run('leaf-spine', 1, 4)[0].encode()).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT.parent,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "4242")
    ]
    assert digests[0] == digests[1] != b""
