"""The headers of a RoCEv2 frame as frozen values, and the codes inside them. Sources: wire.md 1.1 to 1.7.

Addresses are bytes (6 for Ethernet, 4 or 16 for IP); every other field is an unsigned int. A value that is too large
for its field is the caller's mistake: ``encode`` raises ``struct.error`` or ValueError.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from fabric.errors import SanloomError
from fabric.units import Duration

ROCE_PORT = 4791
DEFAULT_PKEY = 0xFFFF


class MalformedFrame(SanloomError, ValueError):
    """Bytes from outside that are no valid frame; the text says what is wrong. Carries no blame: count it and go on."""


@dataclass(frozen=True, slots=True)
class Ethernet:
    """Ethernet II header, 14 bytes; the type follows from the IP header."""

    destination: bytes
    source: bytes


@dataclass(frozen=True, slots=True)
class Ipv4:
    """IPv4 header without options, 20 bytes. Lengths and the checksum are computed."""

    source: bytes
    destination: bytes
    tos: int = 0
    identification: int = 0
    flags_fragment: int = 0x4000
    ttl: int = 64


@dataclass(frozen=True, slots=True)
class Ipv6:
    """IPv6 header, 40 bytes, UDP as the next header."""

    source: bytes
    destination: bytes
    traffic_class: int = 0
    flow_label: int = 0
    hop_limit: int = 64


@dataclass(frozen=True, slots=True)
class Udp:
    """UDP header, 8 bytes; the destination port is 4791."""

    source_port: int
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Bth:
    """Base transport header, 12 bytes."""

    opcode: int
    destination_qpn: int
    psn: int
    solicited: bool = False
    migration: bool = False
    pad_count: int = 0
    transport_version: int = 0
    pkey: int = DEFAULT_PKEY
    reserved_ecn: int = 0
    """Byte 4: FECN, BECN and six reserved bits; outside the ICRC."""
    ack_request: bool = False
    reserved: int = 0
    """Seven bits beside the acknowledge request."""


@dataclass(frozen=True, slots=True)
class Reth:
    """RDMA extended transport header."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">QII")
    virtual_address: int
    rkey: int
    dma_length: int


@dataclass(frozen=True, slots=True)
class AtomicEth:
    """Atomic extended transport header."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">QIQQ")
    virtual_address: int
    rkey: int
    swap_add: int
    compare: int


@dataclass(frozen=True, slots=True)
class Aeth:
    """ACK extended transport header: syndrome in the top byte, message sequence number below."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">I")
    syndrome_msn: int

    @property
    def syndrome(self) -> int:
        """8 bits; see the syndrome functions."""
        return self.syndrome_msn >> 24

    @property
    def msn(self) -> int:
        """24 bits."""
        return self.syndrome_msn & 0xFFFFFF


@dataclass(frozen=True, slots=True)
class AtomicAckEth:
    """The original value at the remote address."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">Q")
    original: int


@dataclass(frozen=True, slots=True)
class ImmDt:
    """Immediate data."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">I")
    data: int


@dataclass(frozen=True, slots=True)
class Ieth:
    """The remote key to invalidate."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">I")
    rkey: int


@dataclass(frozen=True, slots=True)
class Deth:
    """Datagram extended transport header; the top byte of the second word is reserved."""

    FORMAT: ClassVar[struct.Struct] = struct.Struct(">II")
    qkey: int
    source_qpn: int


Extension: TypeAlias = Reth | AtomicEth | Aeth | AtomicAckEth | ImmDt | Ieth | Deth
EXTENSIONS: dict[str, type[Extension]] = {
    "Reth": Reth,
    "AtomicEth": AtomicEth,
    "Aeth": Aeth,
    "AtomicAckEth": AtomicAckEth,
    "ImmDt": ImmDt,
    "Ieth": Ieth,
    "Deth": Deth,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole RoCEv2 frame. ``payload`` is without padding; ``pad`` holds the padding bytes, at most three."""

    ethernet: Ethernet
    ip: Ipv4 | Ipv6
    udp: Udp
    bth: Bth
    extensions: tuple[Extension, ...]
    payload: bytes
    pad: bytes = b""
    icrc: int | None = None
    """As found on the wire; ``None`` when it is to be computed."""
    trailer: bytes = b""
    """Ethernet padding after the IP datagram, kept so that encoding gives the same bytes."""


ACK = 0
RNR = 1
NAK = 3
NAK_PSN_SEQUENCE = 0
NAK_INVALID_REQUEST = 1
NAK_REMOTE_ACCESS = 2
NAK_REMOTE_OPERATIONAL = 3
CREDITS_UNUSED = 0x1F


def ack_syndrome(credit: int = CREDITS_UNUSED) -> int:
    """Syndrome of a plain ACK with a credit code (31: credits are not used)."""
    return credit


def rnr_syndrome(code: int) -> int:
    """Syndrome of "receiver not ready" with a timer code."""
    return 0x20 | code


def nak_syndrome(code: int) -> int:
    """Syndrome of a NAK."""
    return 0x60 | code


_RNR_UNITS = (
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
    6144, 8192, 12288, 16384, 24576, 32768, 49152,
)  # fmt: skip  # in hundredths of a millisecond; note that code 0 is the longest
RNR_TIMER: tuple[Duration, ...] = tuple(unit * 10_000 for unit in _RNR_UNITS)
"""RNR NAK timer code -> nanoseconds (wire.md 1.3)."""


def local_ack_timeout(code: int) -> Duration:
    """4.096 us * 2^code in nanoseconds; code 0 means no timeout and gives 0 (wire.md 1.7)."""
    return 4096 << code if code else 0
