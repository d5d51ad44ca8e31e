"""Socket options: Winsock's numbers and values <-> the kernel's."""

import socket as stdlib
import struct

from provider import constants as c
from provider.client.options import LINGER, TO_WINSOCK, linger_number
from provider.errors import WsaErrno, WsaError
from provider.tcpip_provider.winsock_errors import winsock_number

IPV6_V6ONLY = 27
"""Winsock's number of the option, at level IPPROTO_IPV6."""
_SYSTEM = {winsock: system for system, winsock in TO_WINSOCK.items()} | {
    (c.SOL_SOCKET, c.SO_BROADCAST): (stdlib.SOL_SOCKET, stdlib.SO_BROADCAST),
    (c.IPPROTO_IPV6, IPV6_V6ONLY): (stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY),
}
_LINGER = struct.Struct("ii")


def system_option(level: int, name: int) -> tuple[int, int]:
    """The kernel's level and number; WSAENOPROTOOPT for an option that it does not have."""
    found = _SYSTEM.get((level, name))
    if found is None:
        raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {name:#x} of level {level:#x}")
    return found


def linger(sock: stdlib.socket) -> tuple[bool, int]:
    """SO_LINGER of a socket: on or off, and seconds."""
    on, seconds = _LINGER.unpack(sock.getsockopt(*LINGER, _LINGER.size))
    return bool(on), int(seconds)


def get_option(sock: stdlib.socket, level: int, name: int) -> int:
    """The value. SO_LINGER is one number: on or off in bit 16, seconds below; SO_ERROR is a Winsock number."""
    if (level, name) == (c.SOL_SOCKET, c.SO_DONTLINGER):
        return int(not linger(sock)[0])
    where = system_option(level, name)
    if where == LINGER:
        return linger_number(sock.getsockopt(*where, _LINGER.size))
    value = sock.getsockopt(*where)
    return int(winsock_number(value)) if where == (stdlib.SOL_SOCKET, stdlib.SO_ERROR) and value else value


def set_option(sock: stdlib.socket, level: int, name: int, value: int) -> None:
    """Set it, for all descriptors of the socket."""
    if (level, name) == (c.SOL_SOCKET, c.SO_DONTLINGER):
        sock.setsockopt(*LINGER, _LINGER.pack(int(not value), 0))
        return
    where = system_option(level, name)
    if where == LINGER:
        sock.setsockopt(*where, _LINGER.pack(value >> 16 & 1, value & 0xFFFF))
    else:
        sock.setsockopt(*where, value)
