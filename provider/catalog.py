"""The catalog: which protocols are installed. Ids count from 1001, as Windows has them (winsock-direct.md 2.2, 2.3)."""

import uuid
from dataclasses import dataclass, replace

from fabric.ids import CatalogEntryId
from provider import constants as c
from provider.protocol_info import WSAPROTOCOL_INFOW, protocol_name


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One installed protocol."""

    info: WSAPROTOCOL_INFOW

    @property
    def entry_id(self) -> CatalogEntryId:
        """dwCatalogEntryId."""
        return CatalogEntryId(self.info.dwCatalogEntryId)

    def duplicate(self, token: int) -> WSAPROTOCOL_INFOW:
        """The entry as the stand-in for the shared socket that ``token`` names."""
        return replace(self.info, dwProviderReserved=token)


TCPIP_ENTRY = CatalogEntry(
    WSAPROTOCOL_INFOW(
        dwServiceFlags1=c.XP1_GUARANTEED_DELIVERY
        | c.XP1_GUARANTEED_ORDER
        | c.XP1_GRACEFUL_CLOSE
        | c.XP1_EXPEDITED_DATA
        | c.XP1_IFS_HANDLES,
        dwProviderFlags=c.PFL_MATCHES_PROTOCOL_ZERO,
        ProviderId=uuid.UUID("e70f1aa0-ab8b-11cf-8ca3-00805f48a192"),
        dwCatalogEntryId=1001,
        szProtocol=protocol_name("TCP/IP [Sanloom base]"),
    )
)
SAN_ENTRY = CatalogEntry(
    WSAPROTOCOL_INFOW(
        dwServiceFlags1=c.XP1_GUARANTEED_DELIVERY
        | c.XP1_GUARANTEED_ORDER
        | c.XP1_MESSAGE_ORIENTED
        | c.XP1_GRACEFUL_CLOSE,
        dwProviderFlags=c.PFL_HIDDEN,
        ProviderId=uuid.UUID("5a2f6c0e-4f0b-4f6e-9d5c-2f7b1c8e9a41"),
        dwCatalogEntryId=1002,
        dwMessageSize=c.MESSAGE_SIZE_UNLIMITED,
        szProtocol=protocol_name("Sanloom SAN provider"),
    )
)
CATALOG = (TCPIP_ENTRY, SAN_ENTRY)
