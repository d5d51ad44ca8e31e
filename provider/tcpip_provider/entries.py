"""What the TCP/IP provider installs in the catalogue: streams and datagrams over IPv4 and IPv6.

Names, flags and GUIDs are those of the provider that Windows calls MSAFD; one GUID stands for all entries of a family.
"""

import socket as stdlib
from dataclasses import replace

from provider import constants as c
from provider.catalog import FIRST_ENTRY_ID, TCPIP_ENTRY, CatalogEntry
from provider.protocol_info import GUID, WSAPROTOCOL_INFOW

_DATAGRAMS = (
    c.XP1_CONNECTIONLESS
    | c.XP1_MESSAGE_ORIENTED
    | c.XP1_SUPPORT_BROADCAST
    | c.XP1_SUPPORT_MULTIPOINT
    | c.XP1_IFS_HANDLES
)
_UDP = replace(
    TCPIP_ENTRY.info,
    dwServiceFlags1=_DATAGRAMS,
    dwCatalogEntryId=FIRST_ENTRY_ID + 2,
    iSocketType=c.SOCK_DGRAM,
    iProtocol=c.IPPROTO_UDP,
    dwMessageSize=0xFFBB,
    szProtocol="MSAFD Tcpip [UDP/IP]",
)


def _over_ipv6(info: WSAPROTOCOL_INFOW, entry_id: int, name: str) -> CatalogEntry:
    return CatalogEntry(
        replace(
            info,
            ProviderId=GUID.parse("f9eab0c0-26d4-11d0-bbbf-00aa006c34e4"),
            dwCatalogEntryId=entry_id,
            iAddressFamily=c.AF_INET6,
            iMaxSockAddr=28,
            iMinSockAddr=28,
            szProtocol=name,
        )
    )


UDP_ENTRY = CatalogEntry(_UDP)
TCP6_ENTRY = _over_ipv6(TCPIP_ENTRY.info, FIRST_ENTRY_ID + 3, "MSAFD Tcpip [TCP/IPv6]")
UDP6_ENTRY = _over_ipv6(_UDP, FIRST_ENTRY_ID + 4, "MSAFD Tcpip [UDP/IPv6]")
ENTRIES = (TCPIP_ENTRY, UDP_ENTRY, TCP6_ENTRY, UDP6_ENTRY)

_IDENTITY = (stdlib.SO_DOMAIN, stdlib.SO_TYPE, stdlib.SO_PROTOCOL)
_FAMILIES = {c.AF_INET: stdlib.AF_INET, c.AF_INET6: stdlib.AF_INET6}


def system_family(family: int) -> int | None:
    """Winsock's number of an address family -> the kernel's; None for one that the provider does not have."""
    return _FAMILIES.get(family)


def entry_of(sock: stdlib.socket) -> CatalogEntry | None:
    """The entry that a socket belongs to, by the kernel's word; None for any other family, type or protocol."""
    has = tuple(sock.getsockopt(stdlib.SOL_SOCKET, name) for name in _IDENTITY)
    for entry in ENTRIES:
        if (_FAMILIES[entry.info.iAddressFamily], entry.info.iSocketType, entry.info.iProtocol) == has:
            return entry
    return None


def is_ours(info: WSAPROTOCOL_INFOW) -> bool:
    """Whether the structure names an entry of this provider."""
    return any(
        (entry.info.ProviderId, entry.info.dwCatalogEntryId) == (info.ProviderId, info.dwCatalogEntryId)
        for entry in ENTRIES
    )
