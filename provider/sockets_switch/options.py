"""Socket options that the switch keeps: their defaults and which of them are read-only (winsock-direct.md 1.11, 4.2).

Options belong to the shared socket, so a value set through one descriptor is read through every other. The Winsock
numbers are used here and on the IPC; ``provider.socket`` translates the host's own numbers.
"""

from collections.abc import Mapping
from dataclasses import replace

from provider import constants as c
from provider.session.session import Session

DEFAULTS: dict[tuple[int, int], int] = {
    (c.SOL_SOCKET, c.SO_DEBUG): 0,
    (c.SOL_SOCKET, c.SO_REUSEADDR): 0,
    (c.SOL_SOCKET, c.SO_KEEPALIVE): 0,
    (c.SOL_SOCKET, c.SO_DONTROUTE): 0,
    (c.SOL_SOCKET, c.SO_OOBINLINE): 0,
    (c.SOL_SOCKET, c.SO_LINGER): 0,
    (c.SOL_SOCKET, c.SO_REUSE_UNICASTPORT): 0,
    (c.SOL_SOCKET, c.SO_SNDBUF): 1 << 20,
    (c.SOL_SOCKET, c.SO_RCVBUF): 2 << 20,
    (c.SOL_SOCKET, c.SO_TYPE): c.SOCK_STREAM,
    (c.SOL_SOCKET, c.SO_MAX_MSG_SIZE): 32_768,
    (c.IPPROTO_TCP, 1): 1,  # TCP_NODELAY: a session never waits for more bytes
}
"""(level, name) -> default value. SO_LINGER: on or off in bit 16, seconds below."""
ABORTIVE = 1 << 16
"""SO_LINGER on with no time: closing is an abort."""

READ_ONLY: dict[tuple[int, int], None] = {
    (c.SOL_SOCKET, c.SO_TYPE): None,
    (c.SOL_SOCKET, c.SO_MAX_MSG_SIZE): None,
}

SEND_BUFFER_LEAST, SEND_BUFFER_MOST = 4_096, 16 << 20
"""What SO_SNDBUF can bring about, in bytes."""


def apply_options(options: Mapping[tuple[int, int], int], session: Session) -> None:
    """Those of the options that were set which the session itself heeds: SO_OOBINLINE and SO_SNDBUF."""
    session.urgent.inline = bool(options.get((c.SOL_SOCKET, c.SO_OOBINLINE)))
    size = options.get((c.SOL_SOCKET, c.SO_SNDBUF))
    if size is not None:
        size = max(SEND_BUFFER_LEAST, min(size, SEND_BUFFER_MOST))
        session.config = replace(session.config, send_buffer=size)
