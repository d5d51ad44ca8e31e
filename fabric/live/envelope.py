"""The envelope: many frames in one zmq message, each with the instant at which it is due at the far end of its link.

Header, little-endian: version u8, kind u8, 2 bytes of zero, link index u32, boot id of the sender u64, number u64,
sent i64 (the sender's clock when the envelope left). In an envelope of frames ``number`` counts the envelopes on this
link since the boot; in the others it is the number that the next one will have, so that a loss shows even when
nothing follows.

==========  =====================================================================================================
FRAMES      per frame: due instant i64, length u32, bytes
HEARTBEAT   16 bytes that name the sender's machine, or rather its clock
PROBE       nothing more: ``sent`` is t1
ANSWER      t1 i64 (the probe's), t2 i64 (when it came): ``sent`` is t3
==========  =====================================================================================================

Bounded: ENVELOPE_MAX bytes, FRAME_MAX per frame.
"""

import struct
from typing import NamedTuple

VERSION = 3
FRAMES, HEARTBEAT, PROBE, ANSWER = 0, 1, 2, 3
MACHINE_SIZE = 16
FRAME_MAX = 9_216
ENVELOPE_MAX = 4 << 20
_HEADER = struct.Struct("<BBHIQQq")
_FRAME = struct.Struct("<qI")
_ANSWER = struct.Struct("<qq")
_BODY_SIZES = {HEARTBEAT: MACHINE_SIZE, PROBE: 0, ANSWER: _ANSWER.size}


class MalformedEnvelope(ValueError):
    """Bytes that are no envelope."""


class Envelope(NamedTuple):
    """What came on one link. ``frames``: in order, with their due instants; ``body``: what the other kinds carry."""

    kind: int
    link: int
    boot_id: int
    number: int
    sent: int
    frames: list[tuple[int, bytes]]
    body: bytes = b""


def encode(link: int, boot_id: int, number: int, sent: int, frames: list[tuple[int, bytes]]) -> bytes:
    """An envelope of frames."""
    parts = [_HEADER.pack(VERSION, FRAMES, 0, link, boot_id, number, sent)]
    pack, append = _FRAME.pack, parts.append
    for due, frame in frames:
        append(pack(due, len(frame)))
        append(frame)
    return b"".join(parts)


def encode_heartbeat(link: int, boot_id: int, number: int, sent: int, machine: bytes) -> bytes:
    """A heartbeat of a node on ``machine`` (MACHINE_SIZE bytes)."""
    assert len(machine) == MACHINE_SIZE
    return _HEADER.pack(VERSION, HEARTBEAT, 0, link, boot_id, number, sent) + machine


def encode_probe(link: int, boot_id: int, number: int, t1: int) -> bytes:
    """A question for the neighbour's time."""
    return _HEADER.pack(VERSION, PROBE, 0, link, boot_id, number, t1)


def encode_answer(link: int, boot_id: int, number: int, t1: int, t2: int, t3: int) -> bytes:
    """The answer to a probe."""
    return _HEADER.pack(VERSION, ANSWER, 0, link, boot_id, number, t3) + _ANSWER.pack(t1, t2)


def decode_answer(body: bytes) -> tuple[int, int]:
    """t1 and t2 of an ANSWER's body."""
    t1, t2 = _ANSWER.unpack(body)
    return t1, t2


def decode(data: bytes) -> Envelope:
    """An envelope; MalformedEnvelope for anything else."""
    size = len(data)
    if size < _HEADER.size or size > ENVELOPE_MAX:
        raise MalformedEnvelope(f"an envelope of {size} bytes")
    version, kind, zero, link, boot_id, number, sent = _HEADER.unpack_from(data)
    if version != VERSION or kind > ANSWER or zero:
        raise MalformedEnvelope(f"envelope version {version}, kind {kind}")
    if kind != FRAMES:
        body = data[_HEADER.size :]
        if len(body) != _BODY_SIZES[kind]:
            raise MalformedEnvelope(f"an envelope of kind {kind} with {len(body)} bytes")
        return Envelope(kind, link, boot_id, number, sent, [], body)
    frames = []
    offset, unpack, head = _HEADER.size, _FRAME.unpack_from, _FRAME.size
    while offset < size:
        if offset + head > size:
            raise MalformedEnvelope("the envelope ends inside a frame's header")
        due, length = unpack(data, offset)
        offset += head
        if length > FRAME_MAX or offset + length > size:
            raise MalformedEnvelope(f"a frame of {length} bytes")
        frames.append((due, data[offset : offset + length]))
        offset += length
    return Envelope(kind, link, boot_id, number, sent, frames)
