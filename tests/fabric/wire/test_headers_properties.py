"""Every frame that the header classes can express goes through the codec and back; nothing else gets in."""

import dataclasses
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import SanloomError
from fabric.wire import MalformedFrame, decode, encode
from fabric.wire.codec import compute_icrc
from fabric.wire.fast import parse
from fabric.wire.headers import (
    EXTENSIONS,
    RNR_TIMER,
    Aeth,
    Bth,
    Ethernet,
    Frame,
    Ipv4,
    Ipv6,
    Udp,
    ack_syndrome,
    local_ack_timeout,
    nak_syndrome,
    rnr_syndrome,
)
from fabric.wire.opcodes import EXTENSION_SIZE, HEADER_SIZES, OPCODES

WIDTH = {"B": 8, "H": 16, "I": 32, "Q": 64}


def bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << count) - 1)


def octets(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


ipv4s = st.builds(Ipv4, octets(4), octets(4), bits(8), bits(16), st.sampled_from((0, 0x4000, 0x8000, 0xC000)), bits(8))
ipv6s = st.builds(Ipv6, octets(16), octets(16), bits(8), bits(20), bits(8))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any frame that is valid; its ICRC is left to be computed."""
    opcode = draw(st.sampled_from(sorted(OPCODES)))
    extensions = []
    for name in OPCODES[opcode].headers:
        kind = EXTENSIONS[name]
        extensions.append(kind(*[draw(bits(WIDTH[code])) for code in kind.FORMAT.format[1:]]))
    payload = draw(st.binary(max_size=80))
    pad = draw(octets(-len(payload) & 3))
    bth = Bth(
        opcode=int(opcode),
        destination_qpn=draw(bits(24)),
        psn=draw(bits(24)),
        solicited=draw(st.booleans()),
        migration=draw(st.booleans()),
        pad_count=len(pad),
        pkey=draw(bits(16)),
        reserved_ecn=draw(bits(8)),
        ack_request=draw(st.booleans()),
        reserved=draw(bits(7)),
    )
    return Frame(
        Ethernet(draw(octets(6)), draw(octets(6))),
        draw(ipv4s | ipv6s),
        Udp(draw(bits(16)), draw(bits(16))),
        bth,
        tuple(extensions),
        payload,
        pad,
        trailer=draw(st.binary(max_size=20)),
    )


def resealed(data: bytes) -> bytes:
    """``data`` with IP checksum and ICRC made right wherever its lengths allow, so that deeper checks are reached."""
    out = bytearray(data)
    if len(out) < 58:
        return bytes(out)
    if out[12:14] == b"\x08\x00":
        out[24:26] = b"\0\0"
        total = sum(struct.unpack_from(">10H", out, 14))
        total = (total & 0xFFFF) + (total >> 16)
        out[24:26] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
        end, least = 14 + int.from_bytes(out[16:18], "big"), 58
    else:
        end, least = 54 + int.from_bytes(out[18:20], "big"), 78
    if least <= end <= len(out) and out[14] >> 4 == (4 if least == 58 else 6):
        out[end - 4 : end] = struct.pack("<I", compute_icrc(bytes(out[14 : end - 4])))
    return bytes(out)


@given(frames())
def test_a_frame_survives_the_codec_in_both_directions(frame):
    data = encode(frame)
    decoded = decode(data)
    assert dataclasses.replace(decoded, icrc=None) == frame
    assert encode(decoded) == data
    assert decode(encode(decoded)) == decoded


@given(frames())
def test_the_fast_path_agrees_with_the_codec(frame):
    packet = parse(encode(frame))
    bth = frame.bth
    assert (packet.source_ip, packet.destination_ip) == (frame.ip.source, frame.ip.destination)
    assert (packet.opcode, packet.solicited, packet.pkey) == (bth.opcode, bth.solicited, bth.pkey)
    assert (packet.destination_qpn, packet.ack_request, packet.psn) == (bth.destination_qpn, bth.ack_request, bth.psn)
    assert packet.payload == frame.payload
    assert len(packet.extension) == EXTENSION_SIZE[bth.opcode]
    tos = frame.ip.tos if isinstance(frame.ip, Ipv4) else frame.ip.traffic_class
    assert packet.congestion == (tos & 3 == 3)


@given(frames(), bits(32))
def test_a_wrong_icrc_is_malformed_unless_nobody_asks_and_then_it_is_kept(frame, icrc):
    data = encode(dataclasses.replace(frame, icrc=icrc))
    unverified = decode(data, verify_icrc=False)
    assert unverified.icrc == icrc
    assert encode(unverified) == data
    if encode(frame) == data:
        return
    for function in (decode, parse):
        with pytest.raises(MalformedFrame, match="ICRC"):
            function(data)


@settings(max_examples=300)
@given(frames(), st.lists(st.tuples(st.integers(0, 200), bits(8)), min_size=1, max_size=4), st.none() | bits(8))
def test_a_damaged_frame_gives_a_frame_that_encodes_to_itself_or_is_malformed(frame, damage, cut):
    data = bytearray(encode(frame))
    for position, value in damage:
        data[position % len(data)] = value
    for candidate in (bytes(data)[:cut], resealed(bytes(data)[:cut])):
        for verify in (True, False):
            try:
                decoded = decode(candidate, verify_icrc=verify)
            except MalformedFrame:
                continue
            assert encode(decoded) == candidate
            if verify:
                assert parse(candidate).payload == decoded.payload


@given(st.binary(max_size=200), st.sampled_from((b"\x08\x00\x45", b"\x86\xdd\x60", b"\x88\xb5\x00", b"")))
def test_any_bytes_give_a_frame_or_are_malformed(data, kind):
    candidate = data[:12] + kind + data[12:]
    for verify in (True, False):
        try:
            decoded = decode(candidate, verify_icrc=verify)
        except MalformedFrame:
            continue
        assert encode(decoded) == candidate


def test_every_extension_header_has_the_size_of_the_standard():
    assert {name: kind.FORMAT.size for name, kind in EXTENSIONS.items()} == HEADER_SIZES


def test_a_value_too_large_for_its_field_is_the_callers_mistake():
    frame = decode(encode(Frame(Ethernet(b"\2" * 6, b"\4" * 6), Ipv4(b"abcd", b"efgh"), Udp(1), Bth(4, 1, 2), (), b"")))
    for wrong in (
        dataclasses.replace(frame, bth=dataclasses.replace(frame.bth, pkey=1 << 16)),
        dataclasses.replace(frame, udp=Udp(1 << 16)),
        dataclasses.replace(frame, ip=dataclasses.replace(frame.ip, ttl=256)),
    ):
        with pytest.raises(SanloomError, match="field"):
            encode(wrong)


@given(bits(8), bits(24))
def test_an_aeth_holds_a_syndrome_and_a_message_number(syndrome, msn):
    aeth = Aeth(syndrome << 24 | msn)
    assert (aeth.syndrome, aeth.msn) == (syndrome, msn)


def test_syndromes_and_timers_are_those_of_the_standard():
    """wire.md 1.3 and 1.7."""
    assert ack_syndrome() == 0x1F
    assert [ack_syndrome(0), rnr_syndrome(0), rnr_syndrome(31)] == [0x00, 0x20, 0x3F]
    assert [nak_syndrome(code) for code in range(4)] == [0x60, 0x61, 0x62, 0x63]
    milliseconds = (
        "655.36 .01 .02 .03 .04 .06 .08 .12 .16 .24 .32 .48 .64 .96 1.28 1.92 2.56 3.84 5.12 7.68 10.24 15.36 20.48 "
        "30.72 40.96 61.44 81.92 122.88 163.84 245.76 327.68 491.52"
    )
    assert tuple(round(float(text) * 1_000_000) for text in milliseconds.split()) == RNR_TIMER
    assert local_ack_timeout(0) == 0
    assert [local_ack_timeout(code) for code in (1, 14, 31)] == [8192, 67_108_864, 8_796_093_022_208]
