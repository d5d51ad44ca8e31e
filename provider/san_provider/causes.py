"""What an application hears of a cause in the fabric."""

from fabric.rc.work import CompletionStatus
from fabric.wire.cm import RejectReason
from provider.errors import WsaErrno


def errno_of(status: CompletionStatus) -> WsaErrno:
    """What an application hears when the transport gives up: silence is a reset, as a SAN reports it."""
    return WsaErrno.WSAECONNABORTED if status is CompletionStatus.LOCAL_LENGTH_ERROR else WsaErrno.WSAECONNRESET


def errno_of_reject(reason: int) -> WsaErrno:
    """winsock-direct.md 1.5: nobody listens -> WSAECONNRESET; the peer refused -> WSAECONNREFUSED; else
    WSAETIMEDOUT.
    """
    if reason == RejectReason.INVALID_SERVICE_ID:
        return WsaErrno.WSAECONNRESET
    if reason in (RejectReason.CONSUMER_DEFINED, RejectReason.NO_RESOURCES):
        return WsaErrno.WSAECONNREFUSED
    return WsaErrno.WSAETIMEDOUT
