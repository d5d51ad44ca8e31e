"""Envelopes: what was encoded comes back, anything else is malformed, and nothing is believed unbounded."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.live import envelope

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FRAMES = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=100)), max_size=20)


I64 = st.integers(-(2**63), 2**63 - 1)


@given(U32, U64, U64, I64, FRAMES)
def test_round_trip(link, boot_id, number, sent, frames):
    found = envelope.decode(envelope.encode(link, boot_id, number, sent, frames))
    assert found == (envelope.FRAMES, link, boot_id, number, sent, frames, b"")


@given(U32, U64, U64, I64, st.binary(min_size=16, max_size=16))
def test_heartbeat(link, boot_id, number, sent, machine):
    found = envelope.decode(envelope.encode_heartbeat(link, boot_id, number, sent, machine))
    assert found == (envelope.HEARTBEAT, link, boot_id, number, sent, [], machine)


@given(U32, U64, U64, I64, I64, I64)
def test_probe_and_answer(link, boot_id, number, t1, t2, t3):
    found = envelope.decode(envelope.encode_probe(link, boot_id, number, t1))
    assert found == (envelope.PROBE, link, boot_id, number, t1, [], b"")
    found = envelope.decode(envelope.encode_answer(link, boot_id, number, t1, t2, t3))
    assert (found.kind, found.sent, envelope.decode_answer(found.body)) == (envelope.ANSWER, t3, (t1, t2))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_malformed(data):
    try:
        assert envelope.decode(data).kind in range(4)
    except envelope.MalformedEnvelope:
        pass


@given(FRAMES.filter(bool), st.data())
def test_a_cut_envelope_is_malformed_or_ends_between_two_frames(frames, data):
    whole = envelope.encode(1, 2, 3, 4, frames)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        assert envelope.decode(cut).frames == frames[: len(envelope.decode(cut).frames)]
    except envelope.MalformedEnvelope:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(envelope.ENVELOPE_MAX + 1),
        struct.pack("<BBHIQQq", 2, 0, 0, 0, 0, 0, 0),
        struct.pack("<BBHIQQq", 3, 4, 0, 0, 0, 0, 0),
        struct.pack("<BBHIQQq", 3, 0, 1, 0, 0, 0, 0),
        struct.pack("<BBHIQQq", 3, 1, 0, 0, 0, 0, 0) + bytes(15),
        struct.pack("<BBHIQQq", 3, 2, 0, 0, 0, 0, 0) + b"x",
        struct.pack("<BBHIQQq", 3, 3, 0, 0, 0, 0, 0) + bytes(17),
        struct.pack("<BBHIQQqqI", 3, 0, 0, 0, 0, 0, 0, 0, envelope.FRAME_MAX + 1) + bytes(envelope.FRAME_MAX + 1),
    ],
)
def test_each_way_to_be_malformed(data):
    with pytest.raises(envelope.MalformedEnvelope):
        envelope.decode(data)
