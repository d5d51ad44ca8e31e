"""``AnySocket``: what the drop-in calls ``socket``. Making one chooses the service provider by family and type.

AF_INET streams are SAN sockets (:mod:`provider.client.san_socket`); everything else, and a descriptor that leads to no
SAN socket, is the operating system's business. A SAN socket that is told to connect to a place off the SAN becomes one
of the operating system then (:mod:`provider.client.leaving`).
"""

import os
import socket as stdlib
from socket import socket as _StdlibSocket  # as it was when we were imported: ``provider.run`` replaces it
from typing import TYPE_CHECKING, Any, Self

from provider.client.channel_table import find_entry
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.tcpip_provider.duplication import duplicate, redeem


class AnySocket(_StdlibSocket):
    """See the module text; the interface is that of :class:`socket.socket`."""

    def __new__(cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> Self:  # noqa: A002
        chosen = _choose(family, type, fileno) if cls is AnySocket else cls
        return super().__new__(chosen)  # type: ignore[return-value]

    def wait_for_return(self, timeout: float = 6.0) -> None:
        """Control of a socket of the operating system never goes away."""

    def take_control(self) -> None:
        """Nothing: the kernel shares its sockets over fork."""

    if TYPE_CHECKING:

        def accept(self) -> tuple["AnySocket", Any]: ...

    def share(self, process_id: int, mode: str | None = None, *, back: bool = False) -> bytes:
        """WSPDuplicateSocket of the TCP/IP provider; returns the 628 bytes to send to the process ``process_id``.

        This socket stays usable, and both processes may use the connection at once; its last descriptor ends it.
        Blocking mode and options are common to both. ``mode`` and ``back`` are for SAN sockets, which have a ``share``
        of their own, and mean nothing here.
        """
        return duplicate(self, int(process_id)).pack()


class SystemSocket(AnySocket):
    """A socket of the operating system."""

    @classmethod
    def from_info(cls, info: WSAPROTOCOL_INFOW) -> "SystemSocket":
        """WSPSocket of the TCP/IP provider with a special WSAPROTOCOL_INFOW. If the shared socket is in non-blocking
        mode (as one with a timeout is), so is this one, with a timeout of 0.
        """

        def make(fd: int) -> "SystemSocket":
            blocking = os.get_blocking(fd)
            made = cls(fileno=fd)
            if not blocking and made.gettimeout() is None:
                made.settimeout(0.0)
            return made

        return redeem(info, make)

    def accept(self) -> tuple["AnySocket", Any]:
        """As the original."""
        accepted, address = super().accept()
        timeout = accepted.gettimeout()
        made = SystemSocket(self.family, self.type, self.proto, fileno=accepted.detach())
        made.settimeout(timeout)
        return made, address


def _choose(family: int, kind: int, fileno: int | None) -> type[AnySocket]:
    from provider.client.san_socket import SanSocket

    if fileno is not None:
        return SystemSocket if find_entry(fileno) is None else SanSocket
    stream = kind == -1 or int(kind) & ~(stdlib.SOCK_NONBLOCK | stdlib.SOCK_CLOEXEC) == stdlib.SOCK_STREAM
    return SanSocket if family in (-1, stdlib.AF_INET) and stream else SystemSocket
