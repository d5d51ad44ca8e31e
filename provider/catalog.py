"""The catalogue of transport providers: which protocol entries a host has, by catalogue entry id.

Ids are assigned from 1001 upwards, as Ws2_32 does on installation. The SAN entry follows the rules for SAN providers
(winsock-direct.md 2.3): hidden, message-oriented with no limit, a base protocol.
"""

from dataclasses import dataclass, replace

from fabric.ids import CatalogEntryId
from provider import constants as c
from provider.protocol_info import GUID, WSAPROTOCOL_INFOW, WSAPROTOCOLCHAIN

FIRST_ENTRY_ID = 1001


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One installed protocol."""

    info: WSAPROTOCOL_INFOW

    @property
    def entry_id(self) -> CatalogEntryId:
        """``dwCatalogEntryId``, which the provider passes to WPUCreateSocketHandle."""
        return CatalogEntryId(self.info.dwCatalogEntryId)

    def duplicate(self, token: int) -> WSAPROTOCOL_INFOW:
        """The entry as the description of one duplicated socket; ``token`` is not zero (zero means a new socket)."""
        assert 0 < token <= 0xFFFFFFFF, "a token is a 32-bit number above zero"
        return replace(self.info, dwProviderReserved=token)


_SAN = WSAPROTOCOL_INFOW(
    dwServiceFlags1=c.XP1_GUARANTEED_DELIVERY | c.XP1_GUARANTEED_ORDER | c.XP1_MESSAGE_ORIENTED | c.XP1_GRACEFUL_CLOSE,
    dwProviderFlags=c.PFL_HIDDEN,
    ProviderId=GUID.parse("c943654d-2c84-4db7-af3e-fdf1c5322458"),
    dwCatalogEntryId=FIRST_ENTRY_ID,
    ProtocolChain=WSAPROTOCOLCHAIN(c.BASE_PROTOCOL),
    iVersion=2,
    iAddressFamily=c.AF_INET,
    iMaxSockAddr=16,
    iMinSockAddr=16,
    iSocketType=c.SOCK_STREAM,
    iProtocol=c.IPPROTO_TCP,
    iNetworkByteOrder=c.BIGENDIAN,
    iSecurityScheme=c.SECURITY_PROTOCOL_NONE,
    dwMessageSize=0xFFFFFFFF,
    szProtocol="Sanloom SAN",
)
SAN_ENTRY = CatalogEntry(_SAN)
"""What the SAN provider installs."""

_TCPIP = WSAPROTOCOL_INFOW(
    dwServiceFlags1=c.XP1_GUARANTEED_DELIVERY
    | c.XP1_GUARANTEED_ORDER
    | c.XP1_GRACEFUL_CLOSE
    | c.XP1_EXPEDITED_DATA
    | c.XP1_IFS_HANDLES,
    dwProviderFlags=c.PFL_MATCHES_PROTOCOL_ZERO,
    ProviderId=GUID.parse("e70f1aa0-ab8b-11cf-8ca3-00805f48a192"),
    dwCatalogEntryId=FIRST_ENTRY_ID + 1,
    ProtocolChain=WSAPROTOCOLCHAIN(c.BASE_PROTOCOL),
    iVersion=2,
    iAddressFamily=c.AF_INET,
    iMaxSockAddr=16,
    iMinSockAddr=16,
    iSocketType=c.SOCK_STREAM,
    iProtocol=c.IPPROTO_TCP,
    szProtocol="MSAFD Tcpip [TCP/IP]",
)
TCPIP_ENTRY = CatalogEntry(_TCPIP)
"""The host's own TCP/IP provider, which every companion socket belongs to."""


class Catalog:
    """Entries in the order of installation; an entry's id is its own and must be free."""

    def __init__(self, entries: tuple[CatalogEntry, ...] = (SAN_ENTRY, TCPIP_ENTRY)) -> None:
        self._entries: dict[int, CatalogEntry] = {}
        for entry in entries:
            if entry.entry_id in self._entries:
                raise ValueError(f"catalogue entry {entry.entry_id} exists already")
            self._entries[entry.entry_id] = entry

    def entries(self, *, hidden: bool = True) -> tuple[CatalogEntry, ...]:
        """All entries; without hidden ones as WSAEnumProtocols shows them to applications."""
        return tuple(e for e in self._entries.values() if hidden or not e.info.dwProviderFlags & c.PFL_HIDDEN)

    def find(self, entry_id: int) -> CatalogEntry | None:
        """The entry with this id, or None."""
        return self._entries.get(entry_id)

    def choose(self, family: int, socket_type: int, protocol: int) -> CatalogEntry | None:
        """The first visible entry that matches; protocol 0 matches entries that say so. None if there is none."""
        for entry in self.entries(hidden=False):
            zero = protocol == 0 and bool(entry.info.dwProviderFlags & c.PFL_MATCHES_PROTOCOL_ZERO)
            if (entry.info.iAddressFamily, entry.info.iSocketType) == (family, socket_type) and (
                zero or entry.info.iProtocol == protocol
            ):
                return entry
        return None
