"""Which addresses are on the fabric's subnet."""

import ipaddress
from collections.abc import Iterable


def is_on_san(ip: str, hosts: Iterable[str]) -> bool:
    """Whether the address belongs to the fabric's subnet: the smallest, of /24 or wider, that has all its hosts."""
    addresses = [int(ipaddress.IPv4Address(host)) for host in hosts]
    prefix = 24
    while prefix and len({address >> (32 - prefix) for address in addresses}) > 1:
        prefix -= 1
    return any(int(ipaddress.IPv4Address(ip)) >> (32 - prefix) == address >> (32 - prefix) for address in addresses)
