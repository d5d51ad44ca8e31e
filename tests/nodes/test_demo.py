"""The main job, live: seventeen steps over lossy links, byte-equal; and what foreign decoders say of its capture."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter

import pytest

from fabric.wire.pcapng import PcapngReader
from tests.support.labs import sanloom

TSHARK = ("tshark", "--disable-heuristic", "rpcrdma_infiniband")
pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=["suspend", "local", "rehome"])
def demo(request, tmp_path_factory):
    """One run of 3 MB: its result, and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "source.bin").write_bytes(bytes(range(256)) * 12_000)
    out = folder / "runs"
    done = sanloom(
        "demo", "--mode", request.param, "--file", str(folder / "source.bin"), "--out", str(out), "--json", timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), out / "latest"


def packets(run):
    reader = PcapngReader()
    reader.feed((run / "capture.pcapng").read_bytes())
    return list(reader.packets())


def test_the_bytes_are_equal_and_seventeen_steps_are_done(demo):
    result, run = demo
    assert result["equal"]
    assert result["steps"] == 17
    assert result["frames_lost_outside_the_model"] == 0
    assert (run / "received.bin").read_bytes() == bytes(range(256)) * 12_000
    journal = (run / "events.jsonl").read_text()
    for step in range(1, 18):
        assert f"handoff.san.{step}." in journal, step


def test_scapy_agrees_with_every_icrc(demo):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scapy.contrib.roce import BTH
        from scapy.layers.l2 import Ether
    _, run = demo
    found = packets(run)
    assert len(found) > 2000
    for packet in found:
        bth = Ether(packet.data)[BTH]
        assert bth.compute_icrc(bytes(bth)[:-4]) == packet.data[-4:]


def test_frames_that_a_link_dropped_say_so_where_they_entered_it(demo):
    _, run = demo
    dropped = [packet for packet in packets(run) if packet.comments]
    assert dropped
    for packet in dropped:
        assert packet.interface_description.endswith(" entry")
        assert f"dropped by loss on {packet.interface_name} (frame " in packet.comments[0]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_names_the_messages_and_finds_no_malformed_frame(demo, tmp_path):
    result, run = demo
    done = subprocess.run(
        [*TSHARK, "-r", str(run / "capture.pcapng"), "-T", "fields", "-e", "_ws.malformed", "-e", "_ws.col.Info"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(packets(run))
    assert Counter(malformed for malformed, _ in lines) == {"": len(lines)}
    infos = " ".join(info for _, info in lines)
    names = ["ConnectRequest", "ConnectReply", "ReadyToUse", "DisconnectRequest", "DisconnectReply"]
    names += ["SDP Hello", "SDP HelloAck", "SDP Data", "SDP DisConn"]
    if result["mode"] != "local":
        names += ["SDP SuspComm", "SDP SuspCommAck"]
    assert [name for name in names if name not in infos] == []


def test_bad_option_is_told_and_nothing_starts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nodes", "demo", "--loss", "much", "--out", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "0.5%" in done.stderr
    assert not (tmp_path / "runs").exists()
