"""The ten steps of the generic page, live on the TCP/IP provider: in order, byte-exact, both processes at once."""

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
ORDER = ((1, 2), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (6, 10))


def run(lab, tmp_path):
    """(what the sender reported, what source and worker reported) of one run."""
    send = [sys.executable, "-m", "nodes.apps.file_sender", str(tmp_path / "in.bin"), "--tcpip", "127.0.0.1"]
    with lab.command("client", *send, "--port", "0", stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        port = json.loads(sender.stdout.readline())["port"]
        receive = [sys.executable, "-m", "nodes.apps.generic_source", f"127.0.0.1:{port}"]
        with lab.command("server", *receive, "--out", str(tmp_path / "out.bin"), stdout=subprocess.PIPE) as source:
            received, _ = source.communicate(timeout=60)
        assert source.returncode == 0
        sent, _ = sender.communicate(timeout=60)
        assert sender.returncode == 0
    return [[json.loads(line) for line in text.splitlines()] for text in (sent, received)]


def test_ten_steps(tmp_path):
    data = bytes(range(251)) * 16_000
    (tmp_path / "in.bin").write_bytes(data)
    with Lab(parse(FAST_PAIR, "generic"), tmp_path / "run") as lab:
        sent, reports = run(lab, tmp_path)
        wait_until(lambda: not left(lab), tell=lambda: left(lab))
    assert [r["event"] for r in sent] == ["accepted", "sent", "done"]
    at = {(r["step"], r["moment"]): r["at"] for r in reports if r["event"] == "step"}
    assert sorted(at) == sorted((step, moment) for step in GENERIC_TITLES for moment in ("before", "after"))
    for earlier, later in ORDER:
        assert at[earlier, "before"] <= at[later, "after"], (earlier, later)
    assert at[9, "before"] <= at[10, "before"]  # the worker had begun when the source read its last part
    received = next(r for r in reports if r["event"] == "received")
    assert received["sha256"] == hashlib.sha256(data).hexdigest()
    assert [(r["role"], r["name"]) for r in reports if r["event"] == "upcall"] == [
        ("source", "WPUModifyIFSHandle"),
        ("worker", "WPUModifyIFSHandle"),
    ]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert {e["event"] for e in events} >= {
        f"handoff.generic.{n}.{m}" for n in range(1, 11) for m in ("before", "after")
    }
    assert "handoff.commit" not in {e["event"] for e in events}  # no control moves: both may use the socket
