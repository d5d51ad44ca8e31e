"""WSAPROTOCOL_INFOW, 628 bytes, byte for byte as in the SDK (winsock-direct.md 2)."""

import struct
import uuid
from dataclasses import dataclass, field

_LAYOUT = struct.Struct("<5I16sIi7I9iII512s")
SIZE = _LAYOUT.size
CHAIN_ENTRIES = 7
_NO_ID = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class WSAPROTOCOLCHAIN:
    """ChainLen: 0 layered, 1 base, more: a chain whose catalog ids follow."""

    ChainLen: int = 1
    ChainEntries: tuple[int, ...] = (0,) * CHAIN_ENTRIES


@dataclass(frozen=True, slots=True)
class WSAPROTOCOL_INFOW:
    """One entry of the catalog, or the stand-in for a shared socket. Member names as in the SDK.

    ``szProtocol`` is the whole field of 512 bytes; ``name`` is the text in front of its terminating NUL.
    """

    dwServiceFlags1: int = 0
    dwServiceFlags2: int = 0
    dwServiceFlags3: int = 0
    dwServiceFlags4: int = 0
    dwProviderFlags: int = 0
    ProviderId: uuid.UUID = _NO_ID
    dwCatalogEntryId: int = 0
    ProtocolChain: WSAPROTOCOLCHAIN = field(default_factory=WSAPROTOCOLCHAIN)
    iVersion: int = 2
    iAddressFamily: int = 2
    iMaxSockAddr: int = 16
    iMinSockAddr: int = 16
    iSocketType: int = 1
    iProtocol: int = 6
    iProtocolMaxOffset: int = 0
    iNetworkByteOrder: int = 0
    iSecurityScheme: int = 0
    dwMessageSize: int = 0
    dwProviderReserved: int = 0
    szProtocol: bytes = bytes(512)

    @property
    def name(self) -> str:
        """The protocol's name."""
        text = self.szProtocol.decode("utf-16-le", errors="replace")
        return text.partition("\0")[0]

    def pack(self) -> bytes:
        """The 628 bytes."""
        return _LAYOUT.pack(
            self.dwServiceFlags1,
            self.dwServiceFlags2,
            self.dwServiceFlags3,
            self.dwServiceFlags4,
            self.dwProviderFlags,
            self.ProviderId.bytes_le,
            self.dwCatalogEntryId,
            self.ProtocolChain.ChainLen,
            *self.ProtocolChain.ChainEntries,
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
            self.szProtocol,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "WSAPROTOCOL_INFOW":
        """From exactly 628 bytes; ValueError otherwise."""
        if len(data) != SIZE:
            raise ValueError(f"a WSAPROTOCOL_INFOW has {SIZE} bytes, not {len(data)}")
        f = _LAYOUT.unpack(data)
        chain = WSAPROTOCOLCHAIN(f[7], tuple(f[8:15]))
        identity = (*f[:5], uuid.UUID(bytes_le=f[5]), f[6], chain)
        return cls(*identity, *f[15:])


def protocol_name(name: str) -> bytes:
    """A name as the szProtocol field: UTF-16LE, zero-padded; ValueError beyond 255 characters."""
    encoded = name.encode("utf-16-le")
    if len(encoded) > 510:
        raise ValueError(f"the name {name!r} is longer than 255 characters")
    return encoded.ljust(512, b"\0")
