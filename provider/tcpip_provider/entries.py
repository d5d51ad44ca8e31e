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
_IPV6 = {
    "ProviderId": GUID.parse("f9eab0c0-26d4-11d0-bbbf-00aa006c34e4"),
    "iAddressFamily": c.AF_INET6,
    "iMaxSockAddr": 28,
    "iMinSockAddr": 28,
}
_UDP = replace(
    TCPIP_ENTRY.info,
    dwServiceFlags1=_DATAGRAMS,
    dwCatalogEntryId=FIRST_ENTRY_ID + 2,
    iSocketType=c.SOCK_DGRAM,
    iProtocol=c.IPPROTO_UDP,
    dwMessageSize=0xFFBB,
    szProtocol="MSAFD Tcpip [UDP/IP]",
)

UDP_ENTRY = CatalogEntry(_UDP)
TCP6_ENTRY = CatalogEntry(
    replace(
        TCPIP_ENTRY.info, **_IPV6, dwCatalogEntryId=FIRST_ENTRY_ID + 3, szProtocol="MSAFD Tcpip [TCP/IPv6]"
    )
)
UDP6_ENTRY = CatalogEntry(
    replace(_UDP, **_IPV6, dwCatalogEntryId=FIRST_ENTRY_ID + 4, szProtocol="MSAFD Tcpip [UDP/IPv6]")
)
ENTRIES = (TCPIP_ENTRY, UDP_ENTRY, TCP6_ENTRY, UDP6_ENTRY)

_FAMILIES = {c.AF_INET: stdlib.AF_INET, c.AF_INET6: stdlib.AF_INET6}


def system_family(family: int) -> int | None:
    """Winsock's number of an address family -> the kernel's; None for one that the provider does not have."""
    return _FAMILIES.get(family)


def entry_of(sock: stdlib.socket) -> CatalogEntry | None:
    """The entry that a socket of the kernel belongs to; None for any other family or type."""
    for entry in ENTRIES:
        if (_FAMILIES[entry.info.iAddressFamily], entry.info.iSocketType) == (sock.family, sock.type):
            return entry
    return None


def is_ours(info: WSAPROTOCOL_INFOW) -> bool:
    """Whether the structure names an entry of this provider."""
    return any(
        (entry.info.ProviderId, entry.info.dwCatalogEntryId) == (info.ProviderId, info.dwCatalogEntryId)
        for entry in ENTRIES
    )
