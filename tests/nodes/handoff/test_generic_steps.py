"""The ten steps of the generic page, live and under loss: in order, byte-exact, nothing left."""

import hashlib
import json
import subprocess
import sys

import pytest

from fabric.topology.yaml_model import parse
from nodes.apps.steps import GENERIC_TITLES
from nodes.lab.process_engine import Lab
from tests.nodes.handoff.conftest import left
from tests.support.labs import FAST_PAIR, wait_until

pytestmark = pytest.mark.live


@pytest.mark.parametrize("mode", ["suspend", "local", "rehome"])
def test_ten_steps(tmp_path, mode):
    data = bytes(range(256)) * 8_000
    (tmp_path / "in.bin").write_bytes(data)
    topology = parse(FAST_PAIR.replace("latency: 100us", "latency: 500us, loss: 0.5%"), "lossy")
    with Lab(topology, tmp_path / "run", mode=mode, seed=3) as lab:
        sender = lab.command(
            "client",
            *[sys.executable, "-m", "nodes.apps.file_sender", str(tmp_path / "in.bin")],
            stdout=subprocess.PIPE,
        )
        with sender:
            assert sender.stdout is not None
            sender.stdout.readline()
            arguments = ["client:7000", "--out", str(tmp_path / "out.bin"), "--mode", mode]
            source = lab.command(
                "server", *[sys.executable, "-m", "nodes.apps.generic_source", *arguments], stdout=subprocess.PIPE
            )
            with source:
                output, _ = source.communicate(timeout=60)
            assert source.returncode == 0
            sender.communicate(timeout=60)
            assert sender.returncode == 0
        wait_until(lambda: not left(lab), tell=lambda: left(lab))
    reports = [json.loads(line) for line in output.splitlines()]
    at = {(r["step"], r["moment"]): r["at"] for r in reports if r["event"] == "step"}
    assert sorted(at) == sorted((step, moment) for step in GENERIC_TITLES for moment in ("before", "after"))
    for earlier, later in ((1, 2), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (6, 10)):
        assert at[earlier, "before"] <= at[later, "after"], (earlier, later)
    received = next(r for r in reports if r["event"] == "received")
    assert received["sha256"] == hashlib.sha256(data).hexdigest()
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert {e["event"] for e in events} >= {
        f"handoff.generic.{n}.{m}" for n in range(1, 11) for m in ("before", "after")
    }
    assert [e["event"] for e in events].count("handoff.commit") == 1
