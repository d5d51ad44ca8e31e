"""Errors of the kernel as Winsock's numbers."""

import errno as posix
import socket as stdlib
from collections.abc import Iterator
from contextlib import contextmanager

from provider.errors import WsaErrno, WsaError

_BY_POSIX: dict[int, WsaErrno] = {
    number: WsaErrno[f"WSA{name}"] for number, name in posix.errorcode.items() if f"WSA{name}" in WsaErrno.__members__
}
_BY_POSIX |= {
    posix.EAGAIN: WsaErrno.WSAEWOULDBLOCK,
    posix.EINPROGRESS: WsaErrno.WSAEWOULDBLOCK,
    posix.EBADF: WsaErrno.WSAENOTSOCK,
    posix.EPERM: WsaErrno.WSAEACCES,
    posix.EPIPE: WsaErrno.WSAECONNRESET,
    posix.ENFILE: WsaErrno.WSAEMFILE,
    posix.ENOMEM: WsaErrno.WSAENOBUFS,
}


def winsock_number(number: int) -> WsaErrno:
    """The Winsock number of an ``errno``; WSAENETDOWN for one that has no counterpart."""
    return _BY_POSIX.get(number, WsaErrno.WSAENETDOWN)


def winsock_error(error: OSError) -> WsaError:
    """The same failure as a WsaError. EINPROGRESS is WSAEWOULDBLOCK, as the SPI has it for connects."""
    if isinstance(error, WsaError):
        return error
    if isinstance(error, stdlib.gaierror):
        return WsaError(WsaErrno.WSAEADDRNOTAVAIL, f"no address: {error.strerror}")
    number = error.errno or 0
    return WsaError(winsock_number(number), error.strerror or str(error), in_progress=number == posix.EINPROGRESS)


@contextmanager
def as_winsock_errors() -> Iterator[None]:
    """Whatever the kernel refuses inside is raised as a WsaError."""
    try:
        yield
    except OSError as error:
        raise winsock_error(error) from None
