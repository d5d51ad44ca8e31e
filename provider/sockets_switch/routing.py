"""Which connections the SAN provider serves.

The switch uses a provider only if its ProviderId is in the list that Windows keeps under "TCP on SAN". It asks every
provider instance for its addresses when it starts (they never change while a host runs); a destination in their subnet
is the SAN's, any other TCP/IP's, which the process half has.
"""

from fabric.units import Instant
from provider import constants as c
from provider.catalog import SAN_ENTRY
from provider.protocol_info import GUID
from provider.spi import ProcTable
from provider.subnets import is_on_san


class Routing:
    """The list "TCP on SAN", and the table of subnets made of the providers' answers."""

    def __init__(self, tcp_on_san: tuple[GUID, ...], names: dict[str, str]) -> None:
        self._listed = dict.fromkeys(tcp_on_san)
        self._hosts = tuple(names.values())
        self.addresses: tuple[str, ...] = ()
        """The host's own addresses on the SAN, as its provider told them."""

    @property
    def is_installed(self) -> bool:
        """Whether the SAN provider is in the list."""
        return SAN_ENTRY.info.ProviderId in self._listed

    def install(self, provider_id: GUID) -> bool:
        """Add a provider to the list; whether the SAN provider has come into use by that."""
        before = self.is_installed
        self._listed[provider_id] = None
        return self.is_installed and not before

    def query(self, table: ProcTable, now: Instant) -> None:
        """SIO_ADDRESS_LIST_QUERY, on a socket of its own."""
        asking = table.WSPSocket(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP, None, c.WSA_FLAG_OVERLAPPED, now)
        self.addresses = table.WSPIoctl(asking, c.SIO_ADDRESS_LIST_QUERY, b"", now)
        table.WSPCloseSocket(asking, now)

    def serves(self, ip: str) -> bool:
        """Whether the destination is on a subnet of the SAN provider's."""
        return bool(self.addresses) and is_on_san(ip, (*self.addresses, *self._hosts))
