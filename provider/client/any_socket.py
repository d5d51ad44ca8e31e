"""``AnySocket``: what the drop-in calls ``socket``. Making one chooses the service provider by family and type.

AF_INET streams are SAN sockets (:mod:`provider.client.san_socket`); everything else, and a descriptor that leads to no
SAN socket, is the operating system's business. A SAN socket that is told to connect to a place off the SAN becomes one
of the operating system then (``become_system_socket``).
"""

import os
import socket as stdlib
from socket import socket as _StdlibSocket  # as it was when we were imported: ``provider.run`` replaces it
from typing import TYPE_CHECKING, Any, Self

from provider.client.channel_table import find_entry
from provider.errors import WsaErrno, WsaError


class AnySocket(_StdlibSocket):
    """See the module text; the interface is that of :class:`socket.socket`."""

    def __new__(cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> Self:  # noqa: A002
        chosen = _choose(family, type, fileno) if cls is AnySocket else cls
        return super().__new__(chosen)  # type: ignore[return-value]

    def share(self, process_id: int, mode: str | None = None, *, back: bool = False) -> bytes:
        """WSAEOPNOTSUPP: only SAN sockets can be handed over."""
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "a socket of the operating system cannot be handed over")

    def wait_for_return(self, timeout: float = 6.0) -> None:
        """WSAEOPNOTSUPP: only SAN sockets can be handed over."""
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "a socket of the operating system cannot be handed over")

    def take_control(self) -> None:
        """Nothing: the kernel shares its sockets over fork."""

    if TYPE_CHECKING:

        def accept(self) -> tuple["AnySocket", Any]: ...

    def become_system_socket(self) -> None:
        """A fresh AF_INET stream of the operating system takes this object's place, under the same descriptor
        number.
        """
        timeout = self.gettimeout()
        with _StdlibSocket(stdlib.AF_INET, stdlib.SOCK_STREAM) as fresh:
            number = self.fileno()
            os.dup2(fresh.fileno(), number, inheritable=False)
        self.__class__ = SystemSocket
        _StdlibSocket.__init__(self, stdlib.AF_INET, stdlib.SOCK_STREAM, 0, fileno=number)
        self.settimeout(timeout)


class SystemSocket(AnySocket):
    """A socket of the operating system."""

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
