"""The complete codec: any bytes -> :class:`Frame` or MalformedFrame, and back to the very same bytes. Source: wire.md
1.

``fast`` does the same for the data path; tests hold the two against each other and against scapy.
"""

import struct
import zlib
from dataclasses import astuple

from fabric.errors import SanloomError
from fabric.wire.fast import CRC_SEED, ipv4_checksum
from fabric.wire.headers import (
    EXTENSIONS,
    ROCE_PORT,
    Aeth,
    AtomicAckEth,
    AtomicEth,
    Bth,
    Deth,
    Ethernet,
    Frame,
    Ieth,
    ImmDt,
    Ipv4,
    Ipv6,
    MalformedFrame,
    Reth,
    Udp,
)
from fabric.wire.opcodes import OPCODES

__all__ = ["compute_icrc", "decode", "encode"]
_BTH = struct.Struct(">BBHII")
_BTH_BITS = {
    "opcode": 8,
    "destination_qpn": 24,
    "psn": 24,
    "pad_count": 2,
    "transport_version": 4,
    "pkey": 16,
    "reserved_ecn": 8,
    "reserved": 7,
}
_IPV6_BITS = {"traffic_class": 8, "flow_label": 20, "hop_limit": 8}


def encode(frame: Frame) -> bytes:
    """The frame's bytes. An ``icrc`` of ``None`` is computed; a given one is written as it is.

    SanloomError for a number that does not fit its field, which would spill into its neighbour's bits.
    """
    _check_widths(frame.bth, _BTH_BITS)
    if isinstance(frame.ip, Ipv6):
        _check_widths(frame.ip, _IPV6_BITS)
    try:
        return _encode(frame)
    except struct.error as error:
        raise SanloomError(f"a number does not fit its field: {error}") from None


def _encode(frame: Frame) -> bytes:
    extensions = b"".join(_encode_extension(e) for e in frame.extensions)
    bth = frame.bth
    flags = bth.solicited << 7 | bth.migration << 6 | bth.pad_count << 4 | bth.transport_version
    transport = _BTH.pack(
        bth.opcode,
        flags,
        bth.pkey,
        bth.reserved_ecn << 24 | bth.destination_qpn,
        bth.ack_request << 31 | bth.reserved << 24 | bth.psn,
    )
    inner = transport + extensions + frame.payload + frame.pad
    length = 8 + len(inner) + 4
    udp = struct.pack(">HHHH", frame.udp.source_port, ROCE_PORT, length, frame.udp.checksum)
    ip = frame.ip
    if isinstance(ip, Ipv4):
        fields = [0x45, ip.tos, 20 + length, ip.identification, ip.flags_fragment, ip.ttl, 17, 0]
        addresses = ip.source + ip.destination
        fields[7] = ipv4_checksum(struct.pack(">BBHHHBBH", *fields) + addresses)
        network, ethertype = struct.pack(">BBHHHBBH", *fields) + addresses, b"\x08\x00"
    else:
        first = 6 << 28 | ip.traffic_class << 20 | ip.flow_label
        network = struct.pack(">IHBB", first, length, 17, ip.hop_limit) + ip.source + ip.destination
        ethertype = b"\x86\xdd"
    covered = network + udp + inner
    icrc = compute_icrc(covered) if frame.icrc is None else frame.icrc
    ethernet = frame.ethernet.destination + frame.ethernet.source + ethertype
    return ethernet + covered + struct.pack("<I", icrc) + frame.trailer


def decode(data: bytes, *, verify_icrc: bool = True) -> Frame:
    """The frame in ``data``. MalformedFrame says what is wrong with anything that is not a RoCEv2 frame.

    Bytes after the IP datagram (Ethernet pads short frames) are kept in ``trailer``. An IPv4 header with options, a
    fragment or a wrong header checksum is malformed, and so is a wrong ICRC unless ``verify_icrc`` is false.
    """
    data = bytes(data)
    if len(data) < 14:
        raise MalformedFrame(f"{len(data)} bytes are no Ethernet frame")
    kind = data[12:14]
    ip: Ipv4 | Ipv6
    if kind == b"\x08\x00":
        ip, start, end = _decode_ipv4(data)
    elif kind == b"\x86\xdd":
        ip, start, end = _decode_ipv6(data)
    else:
        raise MalformedFrame(f"Ethernet type {kind.hex()} is not IP")
    if end > len(data) or end - start < 24:
        raise MalformedFrame(f"the IP length does not fit a frame of {len(data)} bytes")
    source_port, port, length, checksum = struct.unpack_from(">HHHH", data, start)
    if port != ROCE_PORT:
        raise MalformedFrame(f"UDP port {port} is not {ROCE_PORT}")
    if length != end - start:
        raise MalformedFrame(f"UDP length {length} does not agree with the IP length")
    bth = _decode_bth(data, start + 8)
    info = OPCODES.get(bth.opcode)
    if info is None:
        raise MalformedFrame(f"unknown opcode {bth.opcode:#04x}")
    if bth.transport_version:
        raise MalformedFrame(f"transport version {bth.transport_version}")
    offset = start + 20
    stop = end - 4
    extensions = []
    for name in info.headers:
        extension = EXTENSIONS[name]
        if offset + extension.FORMAT.size > stop:
            raise MalformedFrame(f"the frame ends inside its {name} header")
        extensions.append(extension(*extension.FORMAT.unpack_from(data, offset)))
        offset += extension.FORMAT.size
    if offset + bth.pad_count > stop or (stop - offset) % 4:
        raise MalformedFrame("padding or length of the payload is wrong")
    (icrc,) = struct.unpack_from("<I", data, stop)
    if verify_icrc and icrc != compute_icrc(data[14:stop]):
        raise MalformedFrame(f"the ICRC {icrc:#010x} does not hold")
    split = stop - bth.pad_count
    return Frame(
        Ethernet(data[:6], data[6:12]),
        ip,
        Udp(source_port, checksum),
        bth,
        tuple(extensions),
        data[offset:split],
        data[split:stop],
        icrc,
        data[end:],
    )


def compute_icrc(covered: bytes) -> int:
    """The invariant CRC of an IP datagram without its last four bytes (wire.md 1.6); written little-endian on the
    wire.
    """
    masked = bytearray(covered)
    if covered[0] >> 4 == 4:
        ones: tuple[int, ...] = (1, 8, 10, 11, 26, 27, 32)
    else:
        masked[0] |= 0x0F
        ones = (1, 2, 3, 7, 46, 47, 52)
    for position in ones:
        masked[position] = 0xFF
    return zlib.crc32(masked, CRC_SEED)


def _check_widths(header: Bth | Ipv6, widths: dict[str, int]) -> None:
    for name, bits in widths.items():
        value = getattr(header, name)
        if not 0 <= value < 1 << bits:
            raise SanloomError(f"{type(header).__name__}.{name} is {value}; the field has {bits} bits")


def _decode_ipv4(data: bytes) -> tuple[Ipv4, int, int]:
    if len(data) < 34:
        raise MalformedFrame("the frame ends inside its IPv4 header")
    version, tos, length, identification, fragment, ttl, protocol, _ = struct.unpack_from(">BBHHHBBH", data, 14)
    if version != 0x45:
        raise MalformedFrame("not IPv4 without options")
    if ipv4_checksum(data[14:24] + b"\0\0" + data[26:34]) != data[24] << 8 | data[25]:
        raise MalformedFrame("the IPv4 header checksum is wrong")
    if protocol != 17:
        raise MalformedFrame(f"IP protocol {protocol} is not UDP")
    if fragment & 0x3FFF:
        raise MalformedFrame("an IPv4 fragment")
    return Ipv4(data[26:30], data[30:34], tos, identification, fragment, ttl), 34, 14 + length


def _decode_ipv6(data: bytes) -> tuple[Ipv6, int, int]:
    if len(data) < 54:
        raise MalformedFrame("the frame ends inside its IPv6 header")
    first, length, following, hop_limit = struct.unpack_from(">IHBB", data, 14)
    if first >> 28 != 6:
        raise MalformedFrame("not IPv6")
    if following != 17:
        raise MalformedFrame(f"IPv6 next header {following} is not UDP")
    return Ipv6(data[22:38], data[38:54], first >> 20 & 0xFF, first & 0xFFFFF, hop_limit), 54, 54 + length


def _decode_bth(data: bytes, offset: int) -> Bth:
    opcode, flags, pkey, qpn, tail = _BTH.unpack_from(data, offset)
    return Bth(
        opcode,
        qpn & 0xFFFFFF,
        tail & 0xFFFFFF,
        flags >= 0x80,
        bool(flags & 0x40),
        flags >> 4 & 3,
        flags & 0x0F,
        pkey,
        qpn >> 24,
        tail >= 0x80000000,
        tail >> 24 & 0x7F,
    )


def _encode_extension(extension: Reth | AtomicEth | Aeth | AtomicAckEth | ImmDt | Ieth | Deth) -> bytes:
    return extension.FORMAT.pack(*astuple(extension))
