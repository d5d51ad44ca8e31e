"""The envelope: many frames in one zmq message, each with the instant at which it is due at the far end of its link.

Header, little-endian: version u8, kind u8 (0 frames, 1 heartbeat), 2 bytes of zero, link index u32, boot id of the
sender u64, number u64. In an envelope of frames ``number`` counts the envelopes on this link since the boot; a
heartbeat carries the number that the next one will have, so that a loss shows even when nothing follows it. Then, per
frame: due instant i64, length u32, bytes. Bounded: ENVELOPE_MAX bytes, FRAME_MAX per frame.
"""

import struct
from typing import NamedTuple

VERSION = 2
FRAMES, HEARTBEAT = 0, 1
FRAME_MAX = 9_216
ENVELOPE_MAX = 4 << 20
_HEADER = struct.Struct("<BBHIQQ")
_FRAME = struct.Struct("<qI")


class MalformedEnvelope(ValueError):
    """Bytes that are no envelope."""


class Envelope(NamedTuple):
    """Frames of one link, in order, with their due instants; none in a heartbeat."""

    kind: int
    link: int
    boot_id: int
    number: int
    frames: list[tuple[int, bytes]]


def encode(link: int, boot_id: int, number: int, frames: list[tuple[int, bytes]]) -> bytes:
    """An envelope of frames."""
    parts = [_HEADER.pack(VERSION, FRAMES, 0, link, boot_id, number)]
    pack, append = _FRAME.pack, parts.append
    for due, frame in frames:
        append(pack(due, len(frame)))
        append(frame)
    return b"".join(parts)


def encode_heartbeat(link: int, boot_id: int, number: int) -> bytes:
    """A heartbeat; ``number`` is what the next envelope of frames will have."""
    return _HEADER.pack(VERSION, HEARTBEAT, 0, link, boot_id, number)


def decode(data: bytes) -> Envelope:
    """The frames of an envelope; MalformedEnvelope for anything else."""
    size = len(data)
    if size < _HEADER.size or size > ENVELOPE_MAX:
        raise MalformedEnvelope(f"an envelope of {size} bytes")
    version, kind, zero, link, boot_id, number = _HEADER.unpack_from(data)
    if version != VERSION or kind not in (FRAMES, HEARTBEAT) or zero:
        raise MalformedEnvelope(f"envelope version {version}, kind {kind}")
    if kind == HEARTBEAT and size > _HEADER.size:
        raise MalformedEnvelope("a heartbeat with frames")
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
    return Envelope(kind, link, boot_id, number, frames)
