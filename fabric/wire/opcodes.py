"""The opcodes of the base transport header: service in the top three bits, operation in the lower five (wire.md
1.4).
"""

from dataclasses import dataclass
from enum import IntEnum


class Opcode(IntEnum):
    """Opcodes of reliable connection, unreliable datagram and the congestion notification packet."""

    RC_SEND_FIRST = 0x00
    RC_SEND_MIDDLE = 0x01
    RC_SEND_LAST = 0x02
    RC_SEND_LAST_IMMEDIATE = 0x03
    RC_SEND_ONLY = 0x04
    RC_SEND_ONLY_IMMEDIATE = 0x05
    RC_WRITE_FIRST = 0x06
    RC_WRITE_MIDDLE = 0x07
    RC_WRITE_LAST = 0x08
    RC_WRITE_LAST_IMMEDIATE = 0x09
    RC_WRITE_ONLY = 0x0A
    RC_WRITE_ONLY_IMMEDIATE = 0x0B
    RC_READ_REQUEST = 0x0C
    RC_READ_RESPONSE_FIRST = 0x0D
    RC_READ_RESPONSE_MIDDLE = 0x0E
    RC_READ_RESPONSE_LAST = 0x0F
    RC_READ_RESPONSE_ONLY = 0x10
    RC_ACKNOWLEDGE = 0x11
    RC_ATOMIC_ACKNOWLEDGE = 0x12
    RC_COMPARE_SWAP = 0x13
    RC_FETCH_ADD = 0x14
    RC_SEND_LAST_INVALIDATE = 0x16
    RC_SEND_ONLY_INVALIDATE = 0x17
    UD_SEND_ONLY = 0x64
    UD_SEND_ONLY_IMMEDIATE = 0x65
    CNP = 0x81


@dataclass(frozen=True, slots=True)
class OpcodeInfo:
    """What follows the base transport header, and the packet's place in its message."""

    headers: tuple[str, ...]
    first: bool = False
    middle: bool = False
    last: bool = False
    response: bool = False
    payload: bool = True


_FIRST = {"first": True}
_MIDDLE = {"middle": True}
_LAST = {"last": True}
_ONLY = {"first": True, "last": True}

OPCODES: dict[int, OpcodeInfo] = {
    Opcode.RC_SEND_FIRST: OpcodeInfo((), **_FIRST),
    Opcode.RC_SEND_MIDDLE: OpcodeInfo((), **_MIDDLE),
    Opcode.RC_SEND_LAST: OpcodeInfo((), **_LAST),
    Opcode.RC_SEND_LAST_IMMEDIATE: OpcodeInfo(("ImmDt",), **_LAST),
    Opcode.RC_SEND_ONLY: OpcodeInfo((), **_ONLY),
    Opcode.RC_SEND_ONLY_IMMEDIATE: OpcodeInfo(("ImmDt",), **_ONLY),
    Opcode.RC_WRITE_FIRST: OpcodeInfo(("Reth",), **_FIRST),
    Opcode.RC_WRITE_MIDDLE: OpcodeInfo((), **_MIDDLE),
    Opcode.RC_WRITE_LAST: OpcodeInfo((), **_LAST),
    Opcode.RC_WRITE_LAST_IMMEDIATE: OpcodeInfo(("ImmDt",), **_LAST),
    Opcode.RC_WRITE_ONLY: OpcodeInfo(("Reth",), **_ONLY),
    Opcode.RC_WRITE_ONLY_IMMEDIATE: OpcodeInfo(("Reth", "ImmDt"), **_ONLY),
    Opcode.RC_READ_REQUEST: OpcodeInfo(("Reth",), **_ONLY, payload=False),
    Opcode.RC_READ_RESPONSE_FIRST: OpcodeInfo(("Aeth",), **_FIRST, response=True),
    Opcode.RC_READ_RESPONSE_MIDDLE: OpcodeInfo((), **_MIDDLE, response=True),
    Opcode.RC_READ_RESPONSE_LAST: OpcodeInfo(("Aeth",), **_LAST, response=True),
    Opcode.RC_READ_RESPONSE_ONLY: OpcodeInfo(("Aeth",), **_ONLY, response=True),
    Opcode.RC_ACKNOWLEDGE: OpcodeInfo(("Aeth",), **_ONLY, response=True, payload=False),
    Opcode.RC_ATOMIC_ACKNOWLEDGE: OpcodeInfo(("Aeth", "AtomicAckEth"), **_ONLY, response=True, payload=False),
    Opcode.RC_COMPARE_SWAP: OpcodeInfo(("AtomicEth",), **_ONLY, payload=False),
    Opcode.RC_FETCH_ADD: OpcodeInfo(("AtomicEth",), **_ONLY, payload=False),
    Opcode.RC_SEND_LAST_INVALIDATE: OpcodeInfo(("Ieth",), **_LAST),
    Opcode.RC_SEND_ONLY_INVALIDATE: OpcodeInfo(("Ieth",), **_ONLY),
    Opcode.UD_SEND_ONLY: OpcodeInfo(("Deth",), **_ONLY),
    Opcode.UD_SEND_ONLY_IMMEDIATE: OpcodeInfo(("Deth", "ImmDt"), **_ONLY),
    Opcode.CNP: OpcodeInfo((), **_ONLY),
}
"""Every opcode that this wire layer knows; a frame with another is malformed."""

HEADER_SIZES = {"Reth": 16, "AtomicEth": 28, "Aeth": 4, "AtomicAckEth": 8, "ImmDt": 4, "Ieth": 4, "Deth": 8}
EXTENSION_SIZE: dict[int, int] = {int(op): sum(HEADER_SIZES[h] for h in info.headers) for op, info in OPCODES.items()}
"""Opcode -> bytes of extension headers."""
