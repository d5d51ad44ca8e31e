"""WSAPROTOCOL_INFOW: what a catalogue entry is, and what a duplicated socket travels as.

Layout from ``winsock2.h`` (winsock-direct.md 2): 628 bytes, little-endian, no padding, the same on x86 and x64.
Member names are the SDK's own. ``szProtocol`` is kept as its 256 UTF-16 code units, so that what stands behind the
terminating NUL (a ticket's secret) travels too.
"""

import struct
from dataclasses import dataclass, field

from provider.constants import MAX_PROTOCOL_CHAIN, WSAPROTOCOL_LEN

_LAYOUT = struct.Struct("<5I16sIi7I9iII512s")
SIZE = _LAYOUT.size
"""628 bytes."""
_NAME_BYTES = 512


@dataclass(frozen=True, slots=True)
class GUID:
    """16 bytes as they stand in memory: u32, u16, u16 little-endian, then 8 bytes in order.

    Engines may not import ``uuid`` (it reaches for clocks and entropy); this needs neither.

    >>> str(GUID.parse("c943654d-2c84-4db7-af3e-fdf1c5322458"))
    'c943654d-2c84-4db7-af3e-fdf1c5322458'
    """

    bytes_le: bytes = bytes(16)

    def __post_init__(self) -> None:
        if len(self.bytes_le) != 16:
            raise ValueError(f"a GUID has 16 bytes, not {len(self.bytes_le)}")

    @classmethod
    def parse(cls, text: str) -> "GUID":
        """From ``8-4-4-4-12`` hexadecimal digits; ValueError otherwise."""
        parts = text.split("-")
        if [len(part) for part in parts] != [8, 4, 4, 4, 12]:
            raise ValueError(f"{text!r} is not a GUID; write for example {cls()}")
        first, second, third, fourth, fifth = (bytes.fromhex(part) for part in parts)
        return cls(first[::-1] + second[::-1] + third[::-1] + fourth + fifth)

    def __str__(self) -> str:
        raw = self.bytes_le
        parts = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:])
        return "-".join(part.hex() for part in parts)


_NO_GUID = GUID()


@dataclass(frozen=True, slots=True)
class WSAPROTOCOLCHAIN:
    """``ChainLen``: 0 layered provider, 1 base protocol, more: a chain of the catalogue ids in the 7 places."""

    ChainLen: int = 1
    ChainEntries: tuple[int, ...] = (0,) * MAX_PROTOCOL_CHAIN

    def __post_init__(self) -> None:
        if len(self.ChainEntries) != MAX_PROTOCOL_CHAIN:
            raise ValueError(f"ChainEntries has {MAX_PROTOCOL_CHAIN} places, not {len(self.ChainEntries)}")


@dataclass(frozen=True, slots=True)
class WSAPROTOCOL_INFOW:
    """One protocol, or one duplicated socket when ``dwProviderReserved`` is not zero."""

    dwServiceFlags1: int = 0
    dwServiceFlags2: int = 0
    dwServiceFlags3: int = 0
    dwServiceFlags4: int = 0
    dwProviderFlags: int = 0
    ProviderId: GUID = _NO_GUID
    dwCatalogEntryId: int = 0
    ProtocolChain: WSAPROTOCOLCHAIN = field(default_factory=WSAPROTOCOLCHAIN)
    iVersion: int = 0
    iAddressFamily: int = 0
    iMaxSockAddr: int = 0
    iMinSockAddr: int = 0
    iSocketType: int = 0
    iProtocol: int = 0
    iProtocolMaxOffset: int = 0
    iNetworkByteOrder: int = 0
    iSecurityScheme: int = 0
    dwMessageSize: int = 0
    dwProviderReserved: int = 0
    szProtocol: bytes | str = b""
    """All 512 bytes of the UTF-16LE name; a str or shorter bytes given to the constructor are zero-padded."""

    def __post_init__(self) -> None:
        raw = self.szProtocol
        if isinstance(raw, str):
            raw = raw.encode("utf-16-le")
            if len(raw) > 2 * WSAPROTOCOL_LEN:
                raise ValueError(f"a protocol name has at most {WSAPROTOCOL_LEN} UTF-16 units, not {len(raw) // 2}")
        if len(raw) > _NAME_BYTES:
            raise ValueError(f"szProtocol has {_NAME_BYTES} bytes, not {len(raw)}")
        object.__setattr__(self, "szProtocol", bytes(raw).ljust(_NAME_BYTES, b"\0"))

    @property
    def name_bytes(self) -> bytes:
        """szProtocol as its 512 bytes."""
        assert isinstance(self.szProtocol, bytes)
        return self.szProtocol

    @property
    def protocol_name(self) -> str:
        """szProtocol up to its NUL; broken UTF-16 reads as replacement characters."""
        return self.name_bytes.decode("utf-16-le", "replace").split("\0", 1)[0]

    def pack(self) -> bytes:
        """The 628 bytes; ValueError if a member does not fit."""
        chain = self.ProtocolChain
        try:
            return _LAYOUT.pack(
                self.dwServiceFlags1,
                self.dwServiceFlags2,
                self.dwServiceFlags3,
                self.dwServiceFlags4,
                self.dwProviderFlags,
                self.ProviderId.bytes_le,
                self.dwCatalogEntryId,
                chain.ChainLen,
                *chain.ChainEntries,
                self.iVersion,
                self.iAddressFamily,
                self.iMaxSockAddr,
                self.iMinSockAddr,
                self.iSocketType,
                self.iProtocol,
                self.iProtocolMaxOffset,
                self.iNetworkByteOrder,
                self.iSecurityScheme,
                self.dwMessageSize,
                self.dwProviderReserved,
                self.name_bytes,
            )
        except struct.error as error:
            raise ValueError(f"a member of WSAPROTOCOL_INFOW does not fit: {error}") from error

    @classmethod
    def unpack(cls, data: bytes) -> "WSAPROTOCOL_INFOW":
        """Reads exactly 628 bytes; ValueError for any other length. Every content of that length is accepted."""
        if len(data) != SIZE:
            raise ValueError(f"WSAPROTOCOL_INFOW has {SIZE} bytes, not {len(data)}")
        values = _LAYOUT.unpack(data)
        head, guid, entry, chain = values[:5], GUID(values[5]), values[6], tuple(values[8:15])
        # mypy counts the starred members as any number; the layout has exactly the members of this class.
        members = (*head, guid, entry, WSAPROTOCOLCHAIN(values[7], chain), *values[15:])
        return cls(*members)
