"""The envelope: many frames in one zmq message, each with the instant at which it is due at the far end of its link.

Header, little-endian: version u8, 3 bytes of zero, link index u32, number of the envelope on this link u64. Per
frame: due instant i64, length u32, bytes. Bounded: ENVELOPE_MAX bytes, FRAME_MAX per frame.
"""

import struct
from typing import NamedTuple

VERSION = 1
FRAME_MAX = 9_216
ENVELOPE_MAX = 4 << 20
_HEADER = struct.Struct("<B3xIQ")
_FRAME = struct.Struct("<qI")


class MalformedEnvelope(ValueError):
    """Bytes that are no envelope."""


class Envelope(NamedTuple):
    """Frames of one link, in order, with their due instants."""

    link: int
    number: int
    frames: list[tuple[int, bytes]]


def encode(link: int, number: int, frames: list[tuple[int, bytes]]) -> bytes:
    """One envelope."""
    parts = [_HEADER.pack(VERSION, link, number)]
    pack, append = _FRAME.pack, parts.append
    for due, frame in frames:
        append(pack(due, len(frame)))
        append(frame)
    return b"".join(parts)


def decode(data: bytes) -> Envelope:
    """The frames of an envelope; MalformedEnvelope for anything else."""
    size = len(data)
    if size < _HEADER.size or size > ENVELOPE_MAX:
        raise MalformedEnvelope(f"an envelope of {size} bytes")
    version, link, number = _HEADER.unpack_from(data)
    if version != VERSION:
        raise MalformedEnvelope(f"envelope version {version}")
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
    return Envelope(link, number, frames)
