"""pcapng, written and read: nanosecond integer times, named interfaces, comments, direction and CRC-error flags.

Blocks: section header, interface description, enhanced packet (the pcapng specification, draft-ietf-opsawg-pcapng,
sections 4.1 to 4.3). The reader skips every other block, understands both byte orders, and bounds what it believes of
lengths.
"""

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, NamedTuple

from fabric.errors import SanloomError

Direction = Literal["in", "out"]
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_ETHERNET = 1
BLOCK_MAX = 1 << 20
INTERFACES_MAX = 65_536
_CRC_ERROR = 1 << 24
_DIRECTIONS: dict[int, Direction | None] = {0: None, 1: "in", 2: "out", 3: None}
_CODES: dict[Direction | None, int] = {None: 0, "in": 1, "out": 2}


class MalformedCapture(SanloomError, ValueError):
    """Bytes that are no pcapng; the text says where."""


class CapturedPacket(NamedTuple):
    """One packet of a capture. ``at_ns`` counts nanoseconds since the epoch."""

    interface_name: str
    interface_description: str
    at_ns: int
    data: bytes
    comments: tuple[str, ...]
    direction: Direction | None
    crc_error: bool
    packet_id: int | None


class PcapngWriter:
    """Writes one section, little-endian, to ``write``."""

    def __init__(self, write: Callable[[bytes], object], *, comment: str = "") -> None:
        self._write = write
        self._interfaces = 0
        options = _option(4, b"Sanloom") + (_option(1, comment.encode()) if comment else b"")
        self._block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + options + bytes(4))

    def add_interface(self, name: str, description: str = "") -> int:
        """Declare an Ethernet interface; returns its number for ``write_packet``."""
        options = _option(2, name.encode()) + _option(3, description.encode()) + _option(9, b"\x09")
        self._block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0) + options + bytes(4))
        self._interfaces += 1
        return self._interfaces - 1

    def write_packet(
        self,
        interface: int,
        at_ns: int,
        data: bytes,
        *,
        comment: str = "",
        direction: Direction | None = None,
        crc_error: bool = False,
        packet_id: int | None = None,
    ) -> None:
        """One packet; ``at_ns`` in nanoseconds since the epoch."""
        size = len(data)
        options = _option(1, comment.encode()[:65_000]) if comment else b""
        flags = _CODES[direction] | (_CRC_ERROR if crc_error else 0)
        if flags:
            options += _option(2, flags.to_bytes(4, "little"))
        if packet_id is not None:
            options += _option(5, packet_id.to_bytes(8, "little"))
        if options:
            options += bytes(4)
        header = struct.pack("<IIIII", interface, at_ns >> 32, at_ns & 0xFFFFFFFF, size, size)
        self._block(_PACKET, b"".join((header, data, bytes(-size % 4), options)))

    def _block(self, kind: int, body: bytes) -> None:
        length = (len(body) + 12).to_bytes(4, "little")
        self._write(b"".join((kind.to_bytes(4, "little"), length, body, length)))


class PcapngReader:
    """Reads a stream as it comes: ``feed`` bytes, then take ``packets``. MalformedCapture for what is no pcapng."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._order = "<"
        self._interfaces: list[tuple[str, str, int]] = []
        self._started = False

    def feed(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer += data

    def packets(self) -> Iterator[CapturedPacket]:
        """The packets that are complete so far."""
        while (packet := self._next()) is not None:
            if isinstance(packet, CapturedPacket):
                yield packet

    def _next(self) -> CapturedPacket | bool | None:
        buffer = self._buffer
        if len(buffer) < 12:
            return None
        if int.from_bytes(buffer[:4], "little") == _SECTION:
            magic = bytes(buffer[8:12])
            if magic not in (struct.pack("<I", _MAGIC), struct.pack(">I", _MAGIC)):
                raise MalformedCapture("a section header without its magic number")
            self._order = "<" if magic == struct.pack("<I", _MAGIC) else ">"
        elif not self._started:
            raise MalformedCapture("the stream does not begin with a section header")
        kind, length = struct.unpack_from(self._order + "II", buffer)
        if length < 12 or length % 4 or length > BLOCK_MAX:
            raise MalformedCapture(f"a block of {length} bytes")
        if len(buffer) < length:
            return None
        body = bytes(buffer[8 : length - 4])
        if struct.unpack_from(self._order + "I", buffer, length - 4)[0] != length:
            raise MalformedCapture("a block whose two lengths differ")
        del buffer[:length]
        return self._read(kind, body)

    def _read(self, kind: int, body: bytes) -> CapturedPacket | bool:
        if kind == _SECTION:
            self._started = True
            self._interfaces = []
        elif kind == _INTERFACE:
            if len(body) < 8 or len(self._interfaces) >= INTERFACES_MAX:
                raise MalformedCapture("an interface block that is too short, or too many of them")
            self._interfaces.append(self._interface(body))
        elif kind == _PACKET:
            return self._packet(body)
        return True

    def _interface(self, body: bytes) -> tuple[str, str, int]:
        name = description = ""
        unit = 1000
        for code, value in self._options(body, 8):
            if code == 2:
                name = value.decode(errors="replace")
            elif code == 3:
                description = value.decode(errors="replace")
            elif code == 9 and value:
                exponent = value[0]
                unit = 10 ** (9 - exponent) if exponent <= 9 else 0
        if not unit:
            raise MalformedCapture("times finer than a nanosecond, or in powers of two, are not supported")
        return name, description, unit

    def _packet(self, body: bytes) -> CapturedPacket:
        if len(body) < 20:
            raise MalformedCapture("a packet block that is too short")
        number, high, low, captured, _ = struct.unpack_from(self._order + "IIIII", body)
        end = 20 + captured
        if end > len(body) or number >= len(self._interfaces):
            raise MalformedCapture("a packet longer than its block, or of an unknown interface")
        name, description, unit = self._interfaces[number]
        comments: list[str] = []
        flags, packet_id = 0, None
        for code, value in self._options(body, end + -captured % 4):
            if code == 1:
                comments.append(value.decode(errors="replace"))
            elif code == 2 and len(value) == 4:
                (flags,) = struct.unpack(self._order + "I", value)
            elif code == 5 and len(value) == 8:
                (packet_id,) = struct.unpack(self._order + "Q", value)
        at = (high << 32 | low) * unit
        direction, broken = _DIRECTIONS[flags & 3], bool(flags & _CRC_ERROR)
        return CapturedPacket(name, description, at, body[20:end], tuple(comments), direction, broken, packet_id)

    def _options(self, body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
        while offset + 4 <= len(body):
            code, size = struct.unpack_from(self._order + "HH", body, offset)
            if code == 0:
                return
            if offset + 4 + size > len(body):
                raise MalformedCapture("an option longer than its block")
            yield code, body[offset + 4 : offset + 4 + size]
            offset += 4 + size + -size % 4


def read_pcapng(file: BinaryIO) -> Iterator[CapturedPacket]:
    """The packets of a capture file that is open for reading bytes."""
    reader = PcapngReader()
    while chunk := file.read(1 << 20):
        reader.feed(chunk)
        yield from reader.packets()


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
