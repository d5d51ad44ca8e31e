"""The host's own numbers of socket options (``socket.SO_KEEPALIVE``) and Winsock's, which the agent keeps."""

import socket as stdlib
import struct
from collections.abc import Callable
from typing import Any

from provider import constants as c
from provider.client.channel_table import ChannelEntry
from provider.errors import WsaErrno, WsaError

TO_WINSOCK: dict[tuple[int, int], tuple[int, int]] = {
    (stdlib.SOL_SOCKET, stdlib.SO_DEBUG): (c.SOL_SOCKET, c.SO_DEBUG),
    (stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR): (c.SOL_SOCKET, c.SO_REUSEADDR),
    (stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE): (c.SOL_SOCKET, c.SO_KEEPALIVE),
    (stdlib.SOL_SOCKET, stdlib.SO_DONTROUTE): (c.SOL_SOCKET, c.SO_DONTROUTE),
    (stdlib.SOL_SOCKET, stdlib.SO_OOBINLINE): (c.SOL_SOCKET, c.SO_OOBINLINE),
    (stdlib.SOL_SOCKET, stdlib.SO_LINGER): (c.SOL_SOCKET, c.SO_LINGER),
    (stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT): (c.SOL_SOCKET, c.SO_REUSE_UNICASTPORT),
    (stdlib.SOL_SOCKET, stdlib.SO_SNDBUF): (c.SOL_SOCKET, c.SO_SNDBUF),
    (stdlib.SOL_SOCKET, stdlib.SO_RCVBUF): (c.SOL_SOCKET, c.SO_RCVBUF),
    (stdlib.SOL_SOCKET, stdlib.SO_ERROR): (c.SOL_SOCKET, c.SO_ERROR),
    (stdlib.SOL_SOCKET, stdlib.SO_TYPE): (c.SOL_SOCKET, c.SO_TYPE),
    (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN): (c.SOL_SOCKET, c.SO_ACCEPTCONN),
    (stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY): (c.IPPROTO_TCP, 1),
}

LINGER = (stdlib.SOL_SOCKET, stdlib.SO_LINGER)
_LINGER = struct.Struct("ii")


def linger_number(value: bytes | bytearray) -> int:
    """``struct linger`` -> one number: on or off in bit 16, seconds below. ValueError for bytes of another size."""
    if len(value) != _LINGER.size:
        raise ValueError(f"struct linger has {_LINGER.size} bytes, not {len(value)}")
    on, seconds = _LINGER.unpack(value)
    seconds = min(max(int(seconds), 0), 0xFFFF)
    return bool(on) << 16 | seconds


class WithOptions:
    """A part of ``SanSocket``: its options."""

    _entry: ChannelEntry
    _call: Callable[..., dict[str, Any]]
    _call_controlled: Callable[..., dict[str, Any]]

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """As the original; SO_ERROR is a POSIX error number. WSAENOPROTOOPT for an option that the SAN does not
        have.
        """
        known = TO_WINSOCK.get((level, optname))
        if known is None:
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {optname} of level {level}")
        value = int(self._call("WSPGetSockOpt", level=known[0], name=known[1])["value"])
        if optname == stdlib.SO_ERROR and level == stdlib.SOL_SOCKET and value:
            value = WsaError(WsaErrno(value), "").errno or value
        if (level, optname) == LINGER:
            return struct.pack("ii", value >> 16 & 1, value & 0xFFFF)
        return value.to_bytes(4, "little", signed=True)[:buflen] if buflen else value

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int = 0) -> None:
        """As the original. WSAENOPROTOOPT for an option that the SAN does not have."""
        known, given = TO_WINSOCK.get((level, optname)), value
        if isinstance(value, bytes | bytearray):
            value = (
                linger_number(value) if (level, optname) == LINGER else int.from_bytes(value[:4], "little", signed=True)
            )
        if known is None or not isinstance(value, int):
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {optname} of level {level}")
        self._call_controlled("WSPSetSockOpt", level=known[0], name=known[1], value=int(value))
        self._entry.options[level, optname] = given
