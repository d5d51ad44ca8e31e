"""The host's own numbers of socket options (``socket.SO_KEEPALIVE``) and Winsock's, which the agent keeps."""

import socket as stdlib
import struct

from provider import constants as c

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
