"""Winsock's error numbers, and the exception that carries one.

``WsaError`` is an :class:`OSError`: ``winerror`` is the Winsock number, ``errno`` the POSIX one, and it is caught by
the class that the standard library raises for the same failure: ``WsaError(WsaErrno.WSAECONNRESET, ...)`` is a
``ConnectionResetError``. Numbers: winsock-direct.md 3.1.
"""

import errno
from enum import IntEnum
from typing import Any, Self


class WsaErrno(IntEnum):
    """Error numbers of Windows Sockets."""

    WSA_INVALID_HANDLE = 6
    WSA_NOT_ENOUGH_MEMORY = 8
    WSA_INVALID_PARAMETER = 87
    WSA_OPERATION_ABORTED = 995
    WSA_IO_INCOMPLETE = 996
    WSA_IO_PENDING = 997
    WSAEINTR = 10004
    WSAEBADF = 10009
    WSAEACCES = 10013
    WSAEFAULT = 10014
    WSAEINVAL = 10022
    WSAEMFILE = 10024
    WSAEWOULDBLOCK = 10035
    WSAEINPROGRESS = 10036
    WSAEALREADY = 10037
    WSAENOTSOCK = 10038
    WSAEDESTADDRREQ = 10039
    WSAEMSGSIZE = 10040
    WSAEPROTOTYPE = 10041
    WSAENOPROTOOPT = 10042
    WSAEPROTONOSUPPORT = 10043
    WSAESOCKTNOSUPPORT = 10044
    WSAEOPNOTSUPP = 10045
    WSAEPFNOSUPPORT = 10046
    WSAEAFNOSUPPORT = 10047
    WSAEADDRINUSE = 10048
    WSAEADDRNOTAVAIL = 10049
    WSAENETDOWN = 10050
    WSAENETUNREACH = 10051
    WSAENETRESET = 10052
    WSAECONNABORTED = 10053
    WSAECONNRESET = 10054
    WSAENOBUFS = 10055
    WSAEISCONN = 10056
    WSAENOTCONN = 10057
    WSAESHUTDOWN = 10058
    WSAETOOMANYREFS = 10059
    WSAETIMEDOUT = 10060
    WSAECONNREFUSED = 10061
    WSAELOOP = 10062
    WSAENAMETOOLONG = 10063
    WSAEHOSTDOWN = 10064
    WSAEHOSTUNREACH = 10065
    WSAENOTEMPTY = 10066
    WSAEPROCLIM = 10067
    WSAEUSERS = 10068
    WSAEDQUOT = 10069
    WSAESTALE = 10070
    WSAEREMOTE = 10071
    WSAEDISCON = 10101
    WSAENOMORE = 10102
    WSAECANCELLED = 10103
    WSAEINVALIDPROCTABLE = 10104
    WSAEINVALIDPROVIDER = 10105
    WSAEPROVIDERFAILEDINIT = 10106
    WSAEREFUSED = 10112
    WSASYSNOTREADY = 10091
    WSAVERNOTSUPPORTED = 10092
    WSANOTINITIALISED = 10093
    WSASYSCALLFAILURE = 10107
    WSASERVICE_NOT_FOUND = 10108
    WSATYPE_NOT_FOUND = 10109
    WSA_E_NO_MORE = 10110
    WSA_E_CANCELLED = 10111
    WSAHOST_NOT_FOUND = 11001
    WSATRY_AGAIN = 11002
    WSANO_RECOVERY = 11003
    WSANO_DATA = 11004


_POSIX_NAMES = {
    WsaErrno.WSA_OPERATION_ABORTED: errno.ECANCELED,
    WsaErrno.WSA_IO_INCOMPLETE: errno.EINPROGRESS,
    WsaErrno.WSA_IO_PENDING: errno.EINPROGRESS,
    WsaErrno.WSA_NOT_ENOUGH_MEMORY: errno.ENOMEM,
    WsaErrno.WSA_INVALID_HANDLE: errno.EBADF,
    WsaErrno.WSANOTINITIALISED: errno.ENETDOWN,
    WsaErrno.WSASYSNOTREADY: errno.ENETDOWN,
    WsaErrno.WSAVERNOTSUPPORTED: errno.EPROTONOSUPPORT,
    WsaErrno.WSAEPROCLIM: errno.EAGAIN,
    WsaErrno.WSAEDISCON: errno.ESHUTDOWN,
    WsaErrno.WSATRY_AGAIN: errno.EAGAIN,
    WsaErrno.WSAECANCELLED: errno.ECANCELED,
    WsaErrno.WSAEREFUSED: errno.ECONNREFUSED,
}


def posix_errno(wsa: WsaErrno) -> int:
    """The POSIX number of the same failure; EIO where POSIX has none."""
    named = _POSIX_NAMES.get(wsa)
    if named is not None:
        return named
    found = getattr(errno, wsa.name.removeprefix("WSA"), errno.EIO)
    return int(found)


class WsaError(OSError):
    """A Winsock error. ``in_progress`` chooses EINPROGRESS for WSAEWOULDBLOCK: what connect reports on POSIX."""

    wsa: WsaErrno
    text: str
    winerror: int

    def __new__(cls, wsa: WsaErrno, text: str = "", *, in_progress: bool = False) -> Self:
        """Pick the subclass that the standard library would raise."""
        if cls is WsaError:
            return super().__new__(_CLASSES.get(WsaErrno(wsa), WsaError))  # type: ignore[return-value]
        return super().__new__(cls)

    def __init__(self, wsa: WsaErrno, text: str = "", *, in_progress: bool = False) -> None:
        wsa = WsaErrno(wsa)
        number = errno.EINPROGRESS if in_progress else posix_errno(wsa)
        super().__init__(number, f"{wsa.name}: {text}" if text else wsa.name)
        self.errno = number
        self.wsa = wsa
        self.winerror = int(wsa)
        self.text = text
        self._in_progress = in_progress

    @property
    def name(self) -> str:
        """The error's name, for example ``WSAEINVAL``."""
        return self.wsa.name

    def __str__(self) -> str:
        return f"[WinError {self.winerror}] {self.name}" + (f": {self.text}" if self.text else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (int(self.wsa), self.text, self._in_progress)


def _rebuild(wsa: int, text: str, in_progress: bool) -> WsaError:
    return WsaError(WsaErrno(wsa), text, in_progress=in_progress)


class WsaBlockingIOError(WsaError, BlockingIOError):
    """WSAEWOULDBLOCK, WSAEALREADY, WSAEINPROGRESS."""


class WsaBrokenPipeError(WsaError, BrokenPipeError):
    """WSAESHUTDOWN."""


class WsaConnectionAbortedError(WsaError, ConnectionAbortedError):
    """WSAECONNABORTED."""


class WsaConnectionRefusedError(WsaError, ConnectionRefusedError):
    """WSAECONNREFUSED."""


class WsaConnectionResetError(WsaError, ConnectionResetError):
    """WSAECONNRESET."""


class WsaInterruptedError(WsaError, InterruptedError):
    """WSAEINTR."""


class WsaPermissionError(WsaError, PermissionError):
    """WSAEACCES."""


class WsaTimeoutError(WsaError, TimeoutError):
    """WSAETIMEDOUT."""


_CLASSES: dict[WsaErrno, type[WsaError]] = {
    WsaErrno.WSAEWOULDBLOCK: WsaBlockingIOError,
    WsaErrno.WSAEALREADY: WsaBlockingIOError,
    WsaErrno.WSAEINPROGRESS: WsaBlockingIOError,
    WsaErrno.WSAESHUTDOWN: WsaBrokenPipeError,
    WsaErrno.WSAECONNABORTED: WsaConnectionAbortedError,
    WsaErrno.WSAECONNREFUSED: WsaConnectionRefusedError,
    WsaErrno.WSAECONNRESET: WsaConnectionResetError,
    WsaErrno.WSAEINTR: WsaInterruptedError,
    WsaErrno.WSAEACCES: WsaPermissionError,
    WsaErrno.WSAETIMEDOUT: WsaTimeoutError,
}
