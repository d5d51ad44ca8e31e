"""SanTap against a fake node: real sockets, a real pipe, real scapy."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.all import AsyncSniffer, sniff
from scapy.layers.inet import IP, UDP

from fabric.capture import SanTap
from fabric.capture.live_stream import open_live_capture
from fabric.errors import EnvironmentLacks, UsageError
from fabric.wire.pcapng import PcapngWriter
from tests.support.captures import pcapng, roce_frame

EPOCH = 1_700_000_000_123_456_789
JOIN_SECONDS = 30


class FakeNode:
    """Answers one capture request with the read end of a pipe; the test writes to the other end."""

    def __init__(self, path: Path, reply: bytes | None = None) -> None:
        self.request: dict[str, object] = {}
        self.reply = reply
        self.read_end, self.write_end = os.pipe()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.closed_by_peer = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(JOIN_SECONDS)
            request = connection.recv(65536)
            if not request:
                return
            self.request = json.loads(request)
            good = json.dumps({"id": 1, "result": {}}).encode()
            socket.send_fds(connection, [self.reply or good], [] if self.reply else [self.read_end])
            os.close(self.read_end)
            self.read_end = -1
            if connection.recv(1) == b"":
                self.closed_by_peer.set()

    def write(self, data: bytes) -> None:
        os.write(self.write_end, data)

    def end_stream(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def stop(self) -> None:
        self.end_stream()
        self.thread.join(JOIN_SECONDS)
        assert not self.thread.is_alive()
        self.listener.close()
        if self.read_end >= 0:
            os.close(self.read_end)


@contextmanager
def fake_lab(folder: Path, name: str = "client", reply: bytes | None = None):
    """A lab of client - s1 - server in which one node answers."""
    nodes = {node: {"control": str(folder / f"{node}.sock")} for node in ("client", "s1", "server")}
    ends = [("client", "s1"), ("s1", "client"), ("s1", "server"), ("server", "s1")]
    links = [{"name": f"{source}->{sink}", "source": source, "sink": sink} for source, sink in ends]
    (folder / "lab.json").write_text(json.dumps({"nodes": nodes, "links": links}))
    node = FakeNode(folder / f"{name}.sock", reply)
    try:
        yield node
    finally:
        node.stop()


def test_sniff_sees_live_frames_with_all_layers(tmp_path, monkeypatch):
    monkeypatch.setenv("SANLOOM_LAB_DIR", str(tmp_path))
    with fake_lab(tmp_path) as node, SanTap("client") as tap:
        node.write(pcapng([(EPOCH + psn, "client->s1", roce_frame(psn)) for psn in range(3)]))
        packets = sniff(opened_socket=tap, count=3, timeout=JOIN_SECONDS)
        assert [bytes(packet) for packet in packets] == [roce_frame(psn) for psn in range(3)]
        assert [int(packet.time * 10**9) for packet in packets] == [EPOCH, EPOCH + 1, EPOCH + 2]
        assert packets[2][IP].dst == "10.77.0.2"
        assert packets[2][UDP].dport == 4791
        assert packets[2]["BTH"].psn == 2
        assert packets[2]["BTH"].dqpn == 0x12
        assert node.request == {"id": 1, "op": "capture", "links": None}


def test_frames_that_came_in_one_read_are_not_left_waiting(tmp_path):
    with fake_lab(tmp_path) as node, SanTap("client", tmp_path) as tap:
        node.write(pcapng([(EPOCH, "client->s1", roce_frame(psn)) for psn in range(5)]))
        assert tap.recv()["BTH"].psn == 0
        assert len(sniff(opened_socket=tap, count=4, timeout=JOIN_SECONDS)) == 4


def test_frame_that_arrives_in_pieces_is_one_frame(tmp_path):
    with fake_lab(tmp_path) as node, SanTap("client", tmp_path) as tap:
        data = pcapng([(EPOCH, "client->s1", roce_frame(7))])
        sniffer = AsyncSniffer(opened_socket=tap, count=1)
        sniffer.start()
        for start in range(0, len(data), 50):
            node.write(data[start : start + 50])
        sniffer.join(JOIN_SECONDS)
        assert [packet["BTH"].psn for packet in sniffer.results] == [7]


def test_sniff_ends_when_the_node_ends_the_stream(tmp_path):
    with fake_lab(tmp_path) as node, SanTap("client", tmp_path) as tap:
        node.write(pcapng([(EPOCH, "client->s1", roce_frame(psn)) for psn in range(2)]))
        node.end_stream()
        assert len(sniff(opened_socket=tap)) == 2
        with pytest.raises(EOFError, match="has ended"):
            tap.recv()


def test_closing_the_tap_ends_the_capture_at_the_node(tmp_path):
    with fake_lab(tmp_path) as node:
        tap = SanTap("client", tmp_path)
        tap.close()
        tap.close()
        assert node.closed_by_peer.wait(JOIN_SECONDS)
        assert tap.fileno() == -1
        with pytest.raises(BrokenPipeError):
            node.write(b"x")


def test_packet_carries_comment_direction_and_side(tmp_path):
    data = bytearray()
    writer = PcapngWriter(data.extend)
    interface = writer.add_interface("client->s1", "client->s1 entry")
    writer.write_packet(interface, EPOCH, roce_frame(), comment="dropped by loss", direction="out")
    writer.write_packet(interface, EPOCH, b"\x01\x02", direction="in")
    with fake_lab(tmp_path) as node, SanTap("client", tmp_path) as tap:
        node.write(bytes(data))
        first, second = tap.recv(), tap.recv()
        assert (first.comments, first.direction, first.sniffed_on) == ([b"dropped by loss"], 2, "client->s1 entry")
        assert (bytes(second), second.direction, second.comments) == (b"\x01\x02", 1, [])
        with pytest.raises(OSError, match="only listens"):
            tap.send(first)


@pytest.mark.parametrize(
    ("where", "asked", "links"),
    [
        ("s1", "s1", None),
        ("client->s1", "client", ["client->s1"]),
        ("client->s1 entry", "client", ["client->s1"]),
        ("client->s1 exit", "s1", ["client->s1"]),
    ],
)
def test_where_decides_which_node_is_asked_for_which_links(tmp_path, where, asked, links):
    with fake_lab(tmp_path, asked) as node:
        open_live_capture(where, tmp_path).close()
        assert node.closed_by_peer.wait(JOIN_SECONDS)
        assert node.request["links"] == links


def test_unknown_name_is_answered_with_what_was_probably_meant(tmp_path):
    (tmp_path / "lab.json").write_text(json.dumps({"nodes": {"client": {"control": "x"}}, "links": []}))
    with pytest.raises(UsageError, match="did you mean 'client'"):
        SanTap("cleint", tmp_path)
    with pytest.raises(UsageError, match="there are client"):
        SanTap("zzz", tmp_path)


def test_without_a_lab_the_message_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.delenv("SANLOOM_LAB_DIR", raising=False)
    with pytest.raises(EnvironmentLacks, match="SANLOOM_LAB_DIR"):
        SanTap("client")
    with pytest.raises(EnvironmentLacks, match="sanloom up"):
        SanTap("client", tmp_path)


def test_lab_that_is_gone_is_reported(tmp_path):
    (tmp_path / "lab.json").write_text(json.dumps({"nodes": {"client": {"control": "client.sock"}}, "links": []}))
    with pytest.raises(EnvironmentLacks, match="does not answer"):
        SanTap("client", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"nodes": {"a": 1}, "links": []}', '{"nodes": {}, "links": [{}]}'])
def test_damaged_lab_file_is_reported(tmp_path, text):
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(UsageError, match="not a lab file"):
        SanTap("client", tmp_path)


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (b'{"id": 1, "error": {"wsa": 10013, "text": "no such link"}}', UsageError, "no such link"),
        (b'{"id": 1, "result": {}}', EnvironmentLacks, "gave no stream"),
        (b"nonsense", EnvironmentLacks, "cannot be understood"),
        (b"[1]", EnvironmentLacks, "cannot be understood"),
    ],
)
def test_refusal_and_nonsense_of_a_node_are_reported(tmp_path, reply, error, text):
    with fake_lab(tmp_path, reply=reply) as node:
        with pytest.raises(error, match=text):
            SanTap("client", tmp_path)
        assert node.closed_by_peer.wait(JOIN_SECONDS)


def test_importing_the_package_does_not_import_scapy():
    program = "import sys, fabric.capture, fabric.capture.live_stream; print([m for m in sys.modules if 'scapy' in m])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute"):
        __import__("fabric.capture").capture.Nothing  # noqa: B018
