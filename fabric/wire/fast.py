"""The wire at data-path speed: build a frame from few arguments, and parse one into a flat tuple, ICRC included.

A :class:`FrameBuilder` belongs to one connection. Everything up to the base transport header depends only on the
frame's length, so it is made once per length, together with the CRC of its masked form; per frame remain one pack,
one CRC over the base transport header and one over the payload. ``fabric.wire.codec`` is the complete codec and the
reference for this one.
"""

import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

from fabric.wire.headers import DEFAULT_PKEY, ROCE_PORT, MalformedFrame
from fabric.wire.opcodes import EXTENSION_SIZE

CRC_SEED = zlib.crc32(b"\xff" * 8)
"""CRC-32 of the eight bytes that stand in for the local route header."""
_BTH = struct.Struct(">BBHII")
_MASKED_RESERVED = 0xFF000000
_ICRC = struct.Struct("<I")
_ETHERNET, _IPV4_PREFIX, _IPV6_PREFIX = 14, 28, 48
"""Sizes of the headers; a prefix is IP and UDP."""
_PADS = (b"", b"\0", b"\0\0", b"\0\0\0")
_crc32 = zlib.crc32


class Packet(NamedTuple):
    """One InfiniBand packet out of a frame."""

    source_ip: bytes
    destination_ip: bytes
    opcode: int
    solicited: bool
    pkey: int
    destination_qpn: int
    ack_request: bool
    psn: int
    extension: bytes
    """All extension headers, raw."""
    payload: bytes
    """Without padding."""
    congestion: bool
    """The IP header says "congestion experienced"."""


def ipv4_checksum(header: bytes) -> int:
    """The Internet checksum of a 20-byte header whose checksum field is zero (RFC 1071)."""
    total: int = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def ip_udp_prefix(
    source_ip: bytes, destination_ip: bytes, udp_source_port: int, udp_length: int, *, tos: int = 0, ttl: int = 64
) -> tuple[bytes, bytes]:
    """IP and UDP headers for a datagram of ``udp_length`` bytes: as sent, and masked for the ICRC (wire.md 1.6)."""
    udp = struct.pack(">HHHH", udp_source_port, ROCE_PORT, udp_length, 0)
    masked_udp = udp[:6] + b"\xff\xff"
    if len(source_ip) == 4:
        fields = [0x45, tos, 20 + udp_length, 0, 0x4000, ttl, 17, 0]
        plain = struct.pack(">BBHHHBBH", *fields) + source_ip + destination_ip
        fields[7] = ipv4_checksum(plain)
        header = struct.pack(">BBHHHBBH", *fields) + source_ip + destination_ip
        fields[1], fields[5], fields[7] = 0xFF, 0xFF, 0xFFFF
        masked = struct.pack(">BBHHHBBH", *fields) + source_ip + destination_ip
    else:
        header = struct.pack(">IHBB", 0x6 << 28 | tos << 20, udp_length, 17, ttl) + source_ip + destination_ip
        masked = struct.pack(">IHBB", 0x6FFFFFFF, udp_length, 17, 0xFF) + source_ip + destination_ip
    return header + udp, masked + masked_udp


class FrameBuilder:
    """Builds the frames of one connection, or of queue pair 1 towards one host."""

    def __init__(
        self,
        *,
        source_mac: bytes,
        destination_mac: bytes,
        source_ip: bytes,
        destination_ip: bytes,
        udp_source_port: int,
    ) -> None:
        ethertype = b"\x08\x00" if len(source_ip) == 4 else b"\x86\xdd"
        self._ethernet = destination_mac + source_mac + ethertype
        self._source_ip = source_ip
        self._destination_ip = destination_ip
        self._udp_source_port = udp_source_port
        self._prefixes: dict[int, tuple[bytes, int]] = {}

    def build(
        self,
        opcode: int,
        psn: int,
        payload: bytes | memoryview = b"",
        *,
        destination_qpn: int,
        extension: bytes = b"",
        ack_request: bool = False,
        solicited: bool = False,
        pkey: int = DEFAULT_PKEY,
    ) -> bytes:
        """A whole Ethernet frame with padding and ICRC."""
        size = len(payload)
        pad = -size & 3
        length = 24 + len(extension) + size + pad  # UDP 8, base transport header 12, ICRC 4
        prefix = self._prefixes.get(length)
        if prefix is None:
            plain, masked = ip_udp_prefix(self._source_ip, self._destination_ip, self._udp_source_port, length)
            prefix = self._prefixes[length] = self._ethernet + plain, _crc32(masked, CRC_SEED)
        flags = pad << 4 | (0x80 if solicited else 0)
        tail = psn | 0x80000000 if ack_request else psn
        crc = _crc32(_BTH.pack(opcode, flags, pkey, _MASKED_RESERVED | destination_qpn, tail) + extension, prefix[1])
        crc = _crc32(payload, crc)
        if pad:
            crc = _crc32(_PADS[pad], crc)
        header = _BTH.pack(opcode, flags, pkey, destination_qpn, tail)
        return b"".join((prefix[0], header, extension, payload, _PADS[pad], _ICRC.pack(crc)))


@lru_cache(maxsize=1024)
def _read_prefix(prefix: bytes) -> tuple[int, bytes, bytes, bool, int]:
    """What the IP and UDP headers of a frame say; MalformedFrame if they hold no packet.

    Gives where the datagram ends in the frame, source and destination, "congestion experienced", and the CRC so far.
    These bytes are the same for all packets of one size of a connection, which is why this is worth remembering.
    """
    if len(prefix) == _IPV4_PREFIX:
        if prefix[0] != 0x45 or prefix[9] != 17:
            raise MalformedFrame("not an IPv4 UDP datagram that could hold a packet")
        if prefix[6] & 0x3F or prefix[7]:
            raise MalformedFrame("an IPv4 fragment")
        ip_size, size = 20, prefix[2] << 8 | prefix[3]
        source, destination, ecn = prefix[12:16], prefix[16:20], prefix[1] & 3
        masked_at: tuple[int, ...] = (1, 8, 10, 11, 26, 27)
    else:
        if prefix[0] >> 4 != 6 or prefix[6] != 17:
            raise MalformedFrame("not an IPv6 UDP datagram that could hold a packet")
        ip_size, size = 40, 40 + (prefix[4] << 8 | prefix[5])
        source, destination, ecn = prefix[8:24], prefix[24:40], prefix[1] >> 4 & 3
        masked_at = (1, 2, 3, 7, 46, 47)
    if size - ip_size < 24:
        raise MalformedFrame(f"an IP length of {size} leaves no room for a packet")
    if prefix[ip_size + 2] << 8 | prefix[ip_size + 3] != ROCE_PORT:
        raise MalformedFrame("not for UDP port 4791")
    if prefix[ip_size + 4] << 8 | prefix[ip_size + 5] != size - ip_size:
        raise MalformedFrame("the UDP length does not agree with the IP length")
    masked = bytearray(prefix)
    for at in masked_at:
        masked[at] = 0xFF
    if ip_size == 40:
        masked[0] = 0x6F
    return _ETHERNET + size, source, destination, ecn == 3, _crc32(masked, CRC_SEED)


def parse(frame: bytes) -> Packet:
    """The packet in a frame whose ICRC holds; MalformedFrame for everything else.

    Ethernet padding behind the IP datagram is ignored, as a network card does.
    """
    size = len(frame)
    kind = frame[12:14]
    if kind == b"\x08\x00":
        bth = _ETHERNET + _IPV4_PREFIX
    elif kind == b"\x86\xdd":
        bth = _ETHERNET + _IPV6_PREFIX
    else:
        raise MalformedFrame("not an IP datagram")
    if size < bth + 16:
        raise MalformedFrame(f"{size} bytes are too short for a packet")
    end, source, destination, congestion, crc = _read_prefix(frame[_ETHERNET:bth])
    if end > size:
        raise MalformedFrame(f"the IP length does not fit a frame of {size} bytes")
    opcode, flags, pkey, qpn, tail = _BTH.unpack_from(frame, bth)
    extension_size = EXTENSION_SIZE.get(opcode)
    if extension_size is None:
        raise MalformedFrame(f"unknown opcode {opcode:#04x}")
    if flags & 0x0F:
        raise MalformedFrame(f"transport version {flags & 0x0F}")
    body = bth + 12 + extension_size
    stop = end - 4
    pad = flags >> 4 & 3
    if body + pad > stop or (stop - body) & 3:
        raise MalformedFrame("padding or length of the payload is wrong")
    crc = _crc32(_BTH.pack(opcode, flags, pkey, qpn | _MASKED_RESERVED, tail), crc)
    if _crc32(memoryview(frame)[bth + 12 : stop], crc) != _ICRC.unpack_from(frame, stop)[0]:
        raise MalformedFrame("the ICRC does not hold")
    return Packet(
        source,
        destination,
        opcode,
        flags >= 0x80,
        pkey,
        qpn & 0xFFFFFF,
        tail >= 0x80000000,
        tail & 0xFFFFFF,
        frame[bth + 12 : body],
        frame[body : stop - pad],
        congestion,
    )


def destination_ip(frame: bytes) -> bytes:
    """The destination address of an IP frame, ``b""`` of anything else; nothing is verified."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 34:
        return frame[30:34]
    if kind == b"\x86\xdd" and len(frame) >= 54:
        return frame[38:54]
    return b""


def flow_key(frame: bytes) -> bytes:
    """What tells one flow from another: addresses and UDP ports; ``b""`` if the frame is not IP."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 38:
        return frame[26:38]
    if kind == b"\x86\xdd" and len(frame) >= 58:
        return frame[22:58]
    return b""
