"""The codec against frames of a real Soft-RoCE stack, against the fast path, and against anything at all."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.wire import MalformedFrame, decode, encode
from fabric.wire.fast import FrameBuilder, parse
from tests.fabric.wire.vectors import VECTORS


@pytest.mark.parametrize("text", VECTORS)
def test_a_real_frame_decodes_and_encodes_to_the_same_bytes(text):
    data = bytes.fromhex(text)
    frame = decode(data)
    assert encode(frame) == data
    assert encode(dataclasses.replace(frame, icrc=None)) == data
    packet = parse(data)
    assert (packet.opcode, packet.psn, packet.payload) == (frame.bth.opcode, frame.bth.psn, frame.payload)


@pytest.mark.parametrize("text", VECTORS)
def test_every_covered_bit_is_in_the_icrc(text):
    data = bytearray.fromhex(text)
    start = 42 if data[12] == 8 else 62
    for position in range(start, len(data)):
        if position == start + 4:  # FECN, BECN and reserved bits change en route
            continue
        data[position] ^= 1
        with pytest.raises(MalformedFrame):
            parse(bytes(data))
        with pytest.raises(MalformedFrame):
            decode(bytes(data))
        data[position] ^= 1


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_malformed(data):
    for function in (decode, parse):
        try:
            function(data)
        except MalformedFrame:
            pass


@given(st.sampled_from(VECTORS), st.integers(0, 79), st.integers(0, 255))
def test_mutated_frames_decode_or_are_malformed(text, position, value):
    data = bytearray.fromhex(text)
    data[position % len(data)] = value
    for function in (decode, parse):
        try:
            function(bytes(data))
        except MalformedFrame:
            pass


@given(st.binary(max_size=4096), st.integers(0, 0xFFFFFF), st.booleans(), st.booleans())
def test_built_frames_read_back(payload, psn, ack_request, v6):
    size = 16 if v6 else 4
    builder = FrameBuilder(
        source_mac=b"\2" * 6,
        destination_mac=b"\4" * 6,
        source_ip=b"\1" * size,
        destination_ip=b"\3" * size,
        udp_source_port=50_000,
    )
    data = builder.build(4, psn, payload, destination_qpn=77, ack_request=ack_request)
    packet = parse(data)
    assert (packet.payload, packet.psn, packet.ack_request, packet.destination_qpn) == (payload, psn, ack_request, 77)
    assert encode(decode(data)) == data
