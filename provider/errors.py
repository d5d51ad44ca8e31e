"""Winsock error numbers, and the exception that carries them.

Numbers are those of ``winerror.h`` (winsock-direct.md 3.1). A :class:`WsaError` is an ``OSError``: ``winerror`` is
the Winsock number, ``errno`` the nearest POSIX one, and where the standard library has a class of its own for that
``errno`` the exception is of that class too, so that ``except ConnectionResetError`` catches ``WSAECONNRESET``.
"""

import errno as posix
from collections.abc import Callable
from enum import IntEnum
from typing import Self, cast


class WsaErrno(IntEnum):
    """Every error number of Winsock 2, Windows-based ones first. QoS errors have no POSIX counterpart (``EIO``)."""

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
    WSASYSNOTREADY = 10091
    WSAVERNOTSUPPORTED = 10092
    WSANOTINITIALISED = 10093
    WSAEDISCON = 10101
    WSAENOMORE = 10102
    WSAECANCELLED = 10103
    WSAEINVALIDPROCTABLE = 10104
    WSAEINVALIDPROVIDER = 10105
    WSAEPROVIDERFAILEDINIT = 10106
    WSASYSCALLFAILURE = 10107
    WSASERVICE_NOT_FOUND = 10108
    WSATYPE_NOT_FOUND = 10109
    WSA_E_NO_MORE = 10110
    WSA_E_CANCELLED = 10111
    WSAEREFUSED = 10112
    WSAHOST_NOT_FOUND = 11001
    WSATRY_AGAIN = 11002
    WSANO_RECOVERY = 11003
    WSANO_DATA = 11004
    WSA_QOS_RECEIVERS = 11005
    WSA_QOS_SENDERS = 11006
    WSA_QOS_NO_SENDERS = 11007
    WSA_QOS_NO_RECEIVERS = 11008
    WSA_QOS_REQUEST_CONFIRMED = 11009
    WSA_QOS_ADMISSION_FAILURE = 11010
    WSA_QOS_POLICY_FAILURE = 11011
    WSA_QOS_BAD_STYLE = 11012
    WSA_QOS_BAD_OBJECT = 11013
    WSA_QOS_TRAFFIC_CTRL_ERROR = 11014
    WSA_QOS_GENERIC_ERROR = 11015
    WSA_QOS_ESERVICETYPE = 11016
    WSA_QOS_EFLOWSPEC = 11017
    WSA_QOS_EPROVSPECBUF = 11018
    WSA_QOS_EFILTERSTYLE = 11019
    WSA_QOS_EFILTERTYPE = 11020
    WSA_QOS_EFILTERCOUNT = 11021
    WSA_QOS_EOBJLENGTH = 11022
    WSA_QOS_EFLOWCOUNT = 11023
    WSA_QOS_EUNKNOWNPSOBJ = 11024
    WSA_QOS_EPOLICYOBJ = 11025
    WSA_QOS_EFLOWDESC = 11026
    WSA_QOS_EPSFLOWSPEC = 11027
    WSA_QOS_EPSFILTERSPEC = 11028
    WSA_QOS_ESDMODEOBJ = 11029
    WSA_QOS_ESHAPERATEOBJ = 11030
    WSA_QOS_RESERVED_PETYPE = 11031
    WSA_SECURE_HOST_NOT_FOUND = 11032
    WSA_IPSEC_NAME_POLICY_ERROR = 11033


_POSIX_SPECIAL: dict[WsaErrno, int] = {
    WsaErrno.WSA_INVALID_HANDLE: posix.EBADF,
    WsaErrno.WSA_NOT_ENOUGH_MEMORY: posix.ENOMEM,
    WsaErrno.WSA_INVALID_PARAMETER: posix.EINVAL,
    WsaErrno.WSA_OPERATION_ABORTED: posix.ECANCELED,
    WsaErrno.WSA_IO_INCOMPLETE: posix.EAGAIN,
    WsaErrno.WSA_IO_PENDING: posix.EINPROGRESS,
    WsaErrno.WSAEPROCLIM: posix.EAGAIN,
    WsaErrno.WSAEDISCON: posix.ESHUTDOWN,
    WsaErrno.WSAENOMORE: posix.ENOENT,
    WsaErrno.WSA_E_NO_MORE: posix.ENOENT,
    WsaErrno.WSAECANCELLED: posix.ECANCELED,
    WsaErrno.WSA_E_CANCELLED: posix.ECANCELED,
    WsaErrno.WSASYSNOTREADY: posix.ENETDOWN,
    WsaErrno.WSAVERNOTSUPPORTED: posix.EPROTONOSUPPORT,
    WsaErrno.WSANOTINITIALISED: posix.ENXIO,
    WsaErrno.WSAEREFUSED: posix.ECONNREFUSED,
}


def posix_errno(number: WsaErrno) -> int:
    """The POSIX number nearest to a Winsock one: ``WSAEX`` is ``EX``, or ``EIO`` where there is none."""
    special = _POSIX_SPECIAL.get(number)
    if special is not None:
        return special
    return int(getattr(posix, number.name.removeprefix("WSA"), posix.EIO))


def _errno_of(number: WsaErrno, in_progress: bool) -> int:
    return posix.EINPROGRESS if in_progress else posix_errno(number)


class WsaError(OSError):
    """A call failed with a Winsock number.

    ``WsaError(WsaErrno.WSAECONNRESET, "text")`` is of the subclass that is also a ``ConnectionResetError``. Pickles.
    ``in_progress`` gives WSAEWOULDBLOCK the ``errno`` of a connect under way.
    """

    winerror: int

    def __new__(cls, number: int, text: str = "", *, in_progress: bool = False) -> Self:
        """Picks the subclass by the POSIX number."""
        number = WsaErrno(number)
        chosen = cast("type[Self]", _SUBCLASSES.get(posix_errno(number), cls)) if cls is WsaError else cls
        return OSError.__new__(chosen, _errno_of(number, in_progress), text or number.name)

    def __init__(self, number: int, text: str = "", *, in_progress: bool = False) -> None:
        number = WsaErrno(number)
        self.text = text or number.name
        # A non-blocking connect fails with WSAEWOULDBLOCK on Windows and with EINPROGRESS on POSIX hosts.
        super().__init__(_errno_of(number, in_progress), self.text)
        self.errno = _errno_of(number, in_progress)
        self._in_progress = in_progress
        self.wsa = number
        self.winerror = int(number)

    def __str__(self) -> str:
        named = f"{self.wsa.name} ({int(self.wsa)})"
        return named if self.text == self.wsa.name else f"{named}: {self.text}"

    @property
    def name(self) -> str:
        """The Winsock name, ``WSAECONNRESET``."""
        return self.wsa.name

    def __reduce__(self) -> tuple[Callable[..., "WsaError"], tuple[int, str, bool]]:
        return _rebuild, (int(self.wsa), self.text, self._in_progress)


def _rebuild(number: int, text: str, in_progress: bool) -> WsaError:
    return WsaError(number, text, in_progress=in_progress)


class WsaBlockingIOError(WsaError, BlockingIOError):
    """WSAEWOULDBLOCK, WSAEALREADY, WSAEINPROGRESS."""


class WsaConnectionRefusedError(WsaError, ConnectionRefusedError):
    """WSAECONNREFUSED."""


class WsaConnectionResetError(WsaError, ConnectionResetError):
    """WSAECONNRESET."""


class WsaConnectionAbortedError(WsaError, ConnectionAbortedError):
    """WSAECONNABORTED."""


class WsaBrokenPipeError(WsaError, BrokenPipeError):
    """WSAESHUTDOWN: sending after the direction was shut down."""


class WsaTimeoutError(WsaError, TimeoutError):
    """WSAETIMEDOUT."""


class WsaInterruptedError(WsaError, InterruptedError):
    """WSAEINTR."""


class WsaPermissionError(WsaError, PermissionError):
    """WSAEACCES."""


class WsaFileNotFoundError(WsaError, FileNotFoundError):
    """WSAENOMORE."""


_SUBCLASSES: dict[int, type[WsaError]] = {
    posix.EAGAIN: WsaBlockingIOError,
    posix.EALREADY: WsaBlockingIOError,
    posix.EINPROGRESS: WsaBlockingIOError,
    posix.ECONNREFUSED: WsaConnectionRefusedError,
    posix.ECONNRESET: WsaConnectionResetError,
    posix.ECONNABORTED: WsaConnectionAbortedError,
    posix.ESHUTDOWN: WsaBrokenPipeError,
    posix.ETIMEDOUT: WsaTimeoutError,
    posix.EINTR: WsaInterruptedError,
    posix.EACCES: WsaPermissionError,
    posix.ENOENT: WsaFileNotFoundError,
}
