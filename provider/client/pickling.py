"""SAN sockets as arguments of multiprocessing: they are handed over when the other process unpickles them.

What CPython does on Windows: the pickle names a helper thread of the sending process; the receiver connects to it and
says its pid, the helper shares the socket with that pid, and the receiver redeems the 628 bytes. The sender's object is
dormant afterwards, as after ``share``, and can be closed at any time. Sockets of the operating system travel as the
standard module's do. Plain ``pickle`` refuses both, as the original does.
"""

from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

from provider.client.any_socket import AnySocket, SystemSocket
from provider.client.san_socket import SanSocket


class _SharedSanSocket:
    """A socket on its way; ``detach`` is called once, in the process that gets it."""

    def __init__(self, sock: SanSocket) -> None:
        from multiprocessing import resource_sharer  # when needed: it takes as long as all of ours

        kept = sock.dup()  # the sender may close its own

        def send(connection: Any, pid: int) -> None:
            connection.send_bytes(kept.share(pid))

        self._id = resource_sharer._resource_sharer.register(send, kept.close)  # type: ignore[attr-defined]

    def detach(self) -> SanSocket:
        """Redeem it here."""
        from multiprocessing import resource_sharer

        with resource_sharer._resource_sharer.get_connection(self._id) as connection:  # type: ignore[attr-defined]
            return SanSocket.from_info(connection.recv_bytes())


def _reduce_san(sock: SanSocket) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return _rebuild_san, (_SharedSanSocket(sock), sock.gettimeout())


def _rebuild_san(shared: _SharedSanSocket, timeout: float | None) -> SanSocket:
    sock = shared.detach()
    sock.settimeout(timeout)
    return sock


def _reduce_system(sock: SystemSocket) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return _rebuild_system, (reduction.DupFd(sock.fileno()), int(sock.family), int(sock.type), sock.proto)


def _rebuild_system(duplicate: Any, family: int, kind: int, proto: int) -> AnySocket:
    return SystemSocket(family, kind, proto, fileno=duplicate.detach())


reduction.register(SanSocket, _reduce_san)
reduction.register(SystemSocket, _reduce_system)
