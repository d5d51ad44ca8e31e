"""Addresses as programs write them -> addresses of the fabric; and which of them are off it."""

import socket as stdlib
from typing import Any

from provider.subnets import is_on_san as is_on_san

ANY = "0.0.0.0"


def resolve(address: Any, names: dict[str, str]) -> tuple[str, int]:
    """(host, port) with the host as dotted numbers. TypeError, OverflowError, gaierror as the original raises them."""
    if not isinstance(address, tuple) or len(address) != 2:
        raise TypeError(f"AF_INET address must be a pair (host, port), not {address!r}")
    host, port = address
    if isinstance(host, bytes | bytearray):
        host = host.decode()
    if not isinstance(host, str) or not isinstance(port, int):
        raise TypeError("AF_INET address must be (str, int)")
    if not 0 <= port <= 65_535:
        raise OverflowError("port must be 0-65535.")
    if host in ("", ANY):
        return ANY, port
    name = names.get(host) or ("127.0.0.1" if host == "localhost" else host)
    try:
        return stdlib.inet_ntoa(stdlib.inet_aton(name)), port
    except OSError:
        return stdlib.gethostbyname(host), port


def is_loopback(ip: str) -> bool:
    """Whether the address is this host, on whatever network."""
    return ip.startswith("127.")
