"""Envelopes: what was encoded comes back, anything else is malformed, and nothing is believed unbounded."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.live import envelope

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FRAMES = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=100)), max_size=20)


@given(U32, U64, U64, FRAMES)
def test_round_trip(link, boot_id, number, frames):
    found = envelope.decode(envelope.encode(link, boot_id, number, frames))
    assert found == (envelope.FRAMES, link, boot_id, number, frames)


@given(U32, U64, U64)
def test_heartbeat(link, boot_id, number):
    assert envelope.decode(envelope.encode_heartbeat(link, boot_id, number)) == (1, link, boot_id, number, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_malformed(data):
    try:
        assert envelope.decode(data).kind in (0, 1)
    except envelope.MalformedEnvelope:
        pass


@given(FRAMES.filter(bool), st.data())
def test_a_cut_envelope_is_malformed_or_ends_between_two_frames(frames, data):
    whole = envelope.encode(1, 2, 3, frames)
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
        struct.pack("<BBHIQQ", 1, 0, 0, 0, 0, 0),
        struct.pack("<BBHIQQ", 2, 2, 0, 0, 0, 0),
        struct.pack("<BBHIQQ", 2, 0, 1, 0, 0, 0),
        struct.pack("<BBHIQQ", 2, 1, 0, 0, 0, 0) + struct.pack("<qI", 0, 0),
        struct.pack("<BBHIQQqI", 2, 0, 0, 0, 0, 0, 0, envelope.FRAME_MAX + 1) + bytes(envelope.FRAME_MAX + 1),
    ],
)
def test_each_way_to_be_malformed(data):
    with pytest.raises(envelope.MalformedEnvelope):
        envelope.decode(data)
