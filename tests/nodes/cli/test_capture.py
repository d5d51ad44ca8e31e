"""Live captures of a running lab: by the command, by SanTap; and what foreign decoders say of the frames."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fabric.wire import decode
from fabric.wire.pcapng import PcapngReader
from nodes.control import client
from nodes.lab import records
from nodes.lab.process_engine import Lab
from tests.support.labs import ECHO_CLIENT, FAST_PAIR, echo_server, sanloom, wait_until

pytestmark = pytest.mark.live
TSHARK = ("tshark", "--disable-heuristic", "rpcrdma_infiniband")
LOSSY = FAST_PAIR.replace("latency: 100us", "latency: 100us, loss: 3%")


@pytest.fixture
def lab(tmp_path):
    from fabric.topology.yaml_model import parse

    with Lab(parse(LOSSY, "lossy"), tmp_path / "run", name="fast", seed=5) as lab:
        yield lab


def traffic() -> None:
    with echo_server("fast"):
        assert sanloom("exec", "client", "--", "python", "-c", ECHO_CLIENT).stdout == "True\n"


def capturing(*arguments: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "nodes", "capture", *arguments], stderr=subprocess.PIPE, **options)


def taps(node: str) -> int:
    (record,) = records.running()
    return int(client.ask(record.control_path(node), "statistics")["taps"])


def packets(data: bytes):
    reader = PcapngReader()
    reader.feed(data)
    return list(reader.packets())


def test_capture_into_a_file_has_every_frame_once_in_order_with_its_fate(lab, tmp_path):
    target = tmp_path / "c.pcapng"
    with capturing("-w", str(target)) as capture:
        wait_until(lambda: all(taps(node) == 1 for node in ("client", "s1", "server")))
        traffic()
        capture.send_signal(signal.SIGINT)
        _, errors = capture.communicate(timeout=20)
    assert capture.returncode == 0, errors
    wait_until(lambda: all(taps(node) == 0 for node in ("client", "s1", "server")))
    found = packets(target.read_bytes())
    assert f"{len(found)} frames captured".encode() in errors
    assert [p.at_ns for p in found] == sorted(p.at_ns for p in found)
    assert {p.interface_description for p in found} == {
        "client->s1 entry",
        "s1->server entry",
        "server->s1 entry",
        "s1->client entry",
    }
    dropped = [p for p in found if p.comments]
    assert dropped
    assert all("dropped by loss on " in p.comments[0] for p in dropped)
    assert not any(p.crc_error for p in found)
    for packet in found:
        decode(packet.data)  # every ICRC is right


def test_capture_of_a_host_shows_both_directions_and_of_an_exit_only_what_came_out(lab, tmp_path):
    both, out = tmp_path / "both.pcapng", tmp_path / "out.pcapng"
    with (
        capturing("--on", "client", "-w", str(both)) as first,
        capturing("--on", "client->s1 exit", "-w", str(out)) as second,
    ):
        wait_until(lambda: (taps("client"), taps("s1")) == (1, 1))
        traffic()
        for capture in (first, second):
            capture.send_signal(signal.SIGTERM)
            capture.communicate(timeout=20)
    seen = packets(both.read_bytes())
    assert {p.interface_description for p in seen} == {"client->s1 entry", "s1->client exit"}
    left = [p for p in seen if p.interface_name == "client->s1"]
    arrived = packets(out.read_bytes())
    assert {p.interface_description for p in arrived} == {"client->s1 exit"}
    assert sorted(p.data for p in arrived) == sorted(p.data for p in left if not p.comments)


def test_the_reader_of_a_pipe_goes_and_capture_and_tap_end(lab):
    with capturing("--on", "s1", "-w", "-", stdout=subprocess.PIPE) as capture:
        wait_until(lambda: taps("s1") == 1)
        assert capture.stdout is not None
        traffic()
        assert capture.stdout.read(4) == b"\x0a\x0d\x0d\x0a"
        capture.stdout.close()
        assert capture.wait(20) == 0
        assert b"Traceback" not in capture.stderr.read()
    wait_until(lambda: taps("s1") == 0)


def test_a_killed_capture_leaves_no_tap(lab, tmp_path):
    with capturing("-w", str(tmp_path / "c")) as capture:
        wait_until(lambda: taps("s1") == 1)
        capture.kill()
    wait_until(lambda: all(taps(node) == 0 for node in ("client", "s1", "server")))


def test_a_stopped_reader_costs_frames_not_the_lab(lab):
    with capturing("-w", "-", stdout=subprocess.PIPE) as capture:
        wait_until(lambda: taps("s1") == 1)
        os.kill(capture.pid, signal.SIGSTOP)
        traffic()
        capture.kill()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--on", "clint", "-w", "x"], "did you mean 'client'?"),
        (["--on", "client->s2", "-w", "x"], "did you mean"),
        (["-w", "no/such/folder/x"], "cannot be written"),
    ],
)
def test_bad_places_are_told(lab, arguments, told, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = sanloom("capture", *arguments, cwd=tmp_path, env=env)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "x").exists()


def test_scapy_sniffs_a_running_lab_with_all_layers(lab):
    code = """
import sys
from scapy.all import sniff
from fabric.capture import SanTap
tap = SanTap(sys.argv[1], sys.argv[2])
print("ready", flush=True)
packets = sniff(opened_socket=tap, stop_filter=lambda p: p.haslayer("CM DREP"), timeout=30)
tap.close()
layers = {layer.__name__ for p in packets for layer in p.layers()}
print(sorted(layers))
"""
    arguments = [sys.executable, "-W", "ignore", "-c", code, "client", lab.record.directory]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        traffic()
        layers, _ = sniffer.communicate(timeout=40)
    for layer in ("Ether", "IP", "UDP", "BTH", "AETH", "CMReq", "SDPHello", "CMRep", "SDPHelloAck", "CMDreq", "SDP"):
        assert repr(layer) in layers


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_names_every_frame_and_calls_none_malformed(lab, tmp_path):
    target = tmp_path / "c.pcapng"
    with capturing("-w", str(target)) as capture:
        wait_until(lambda: taps("s1") == 1)
        traffic()
        wait_until(lambda: not lab.ask("client", "ps")["sockets"])  # the connection has been taken down
        capture.send_signal(signal.SIGINT)
        capture.communicate(timeout=20)
    done = subprocess.run(
        [*TSHARK, "-r", str(target), "-T", "json", "-e", "_ws.malformed", "-e", "_ws.col.Info"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    shown = [frame["_source"]["layers"] for frame in json.loads(done.stdout)]
    infos = " ".join(frame["_ws.col.Info"][0] for frame in shown)
    assert len(shown) == len(packets(target.read_bytes()))
    assert [frame for frame in shown if "_ws.malformed" in frame] == []
    for name in ("ConnectRequest", "ConnectReply", "ReadyToUse", "SDP Data", "SDP DisConn", "DisconnectRequest"):
        assert name in infos, name
