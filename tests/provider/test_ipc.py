"""Packets between process and agent: what was encoded comes back, anything else is a BadPacket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider import ipc

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_round_trip(message):
    assert ipc.decode(ipc.encode(message)) == message


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_message_or_a_bad_packet(data):
    try:
        assert isinstance(ipc.decode(data), dict)
    except ipc.BadPacket:
        pass


@pytest.mark.parametrize("data", [b"", b"[1]", b"7", b'"x"', b"[" * 60_000, b"{" * 60_000, bytes(ipc.PACKET_MAX + 1)])
def test_each_way_to_be_bad(data):
    with pytest.raises(ipc.BadPacket):
        ipc.decode(data)


def test_too_long_to_send():
    with pytest.raises(ipc.BadPacket, match="longer than"):
        ipc.encode({"x": "y" * ipc.PACKET_MAX})


@given(st.binary(max_size=700))
def test_binary_members(data):
    assert ipc.from_text(ipc.to_text(data)) == data


@pytest.mark.parametrize("text", [None, 7, [], "a", "====", "ab\ncd", "\N{SNOWMAN}"])
def test_what_is_no_binary_member(text):
    with pytest.raises(ipc.BadPacket):
        ipc.from_text(text)


ADDRESS = st.tuples(st.text(max_size=20), st.integers(-10, 70_000) | st.booleans()).map(list)


@given(JSON | ADDRESS)
def test_addresses_are_text_and_port_or_bad(value):
    try:
        ip, port = ipc.address({"address": value})
    except ipc.BadPacket:
        return
    assert type(ip) is str
    assert type(port) is int
    assert 0 <= port <= 65_535
    assert value == [ip, port]


@given(JSON, st.sampled_from([int, str, bool, list]))
def test_members_have_their_type_or_are_bad(value, kind):
    try:
        found = ipc.member({"m": value}, "m", kind)
    except ipc.BadPacket:
        return
    assert type(found) is kind
