"""Frames recorded from real stacks decode, hold their ICRC, and encode to the same bytes."""

import struct
from pathlib import Path

import pytest

from fabric.wire import MalformedFrame, decode, encode
from fabric.wire.cm import decode_mad, encode_mad
from fabric.wire.fast import parse

CAPTURES = Path(__file__).parents[2] / "data" / "captures"


def frames(path: Path) -> list[bytes]:
    """The frames of a classic pcap file that go to UDP port 4791."""
    data, found, offset = path.read_bytes(), [], 24
    while offset < len(data):
        _, _, size, _ = struct.unpack_from("<IIII", data, offset)
        frame = data[offset + 16 : offset + 16 + size]
        offset += 16 + size
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == (4791).to_bytes(2, "big"):
            found.append(frame)
    return found


@pytest.mark.parametrize("name", ["rping_v4", "rdma_cs", "reject_noport"])
def test_every_frame(name):
    found = frames(CAPTURES / f"{name}.pcap")
    assert found
    for data in found:
        frame = decode(data)
        assert encode(frame) == data
        packet = parse(data)
        assert (packet.opcode, packet.psn, packet.payload) == (frame.bth.opcode, frame.bth.psn, frame.payload)
        with pytest.raises(MalformedFrame):
            parse(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("name", ["rping_v4", "rdma_cs", "reject_noport"])
def test_every_connection_management_message(name):
    messages = [
        frame.payload for data in frames(CAPTURES / f"{name}.pcap") if (frame := decode(data)).bth.opcode == 0x64
    ]
    assert messages
    for data in messages:
        assert encode_mad(decode_mad(data)) == data
