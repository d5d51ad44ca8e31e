"""Whether a connection can be handed over now."""

from provider.errors import WsaErrno, WsaError
from provider.sockets_switch.shared_socket import SharedSocket, SocketPhase

STILL_OUT = "the peer has not answered an earlier hand-over that was given up; try again"


def require_peer(socket: SharedSocket, mode: str) -> None:
    """The documented error unless the connection can be handed over now."""
    if socket.ended and socket.phase is SocketPhase.FAILED:
        raise WsaError(WsaErrno.WSAENETDOWN, "the peer is gone")
    connected = socket.phase is SocketPhase.CONNECTED and socket.pump is not None and not socket.ended
    if not connected or socket.session is None:
        raise WsaError(WsaErrno.WSAEINVAL, f"a socket that is {socket.phase.value} cannot be handed over")
    if mode != "local" and socket.session.is_suspension_given_up:
        raise WsaError(WsaErrno.WSAENOBUFS, STILL_OUT)
    if socket.session.is_suspended:
        raise WsaError(WsaErrno.WSAENOBUFS, STILL_OUT)
    if socket.session.is_peer_suspended:
        raise WsaError(WsaErrno.WSAENOBUFS, "the peer is handing the connection over itself; try again")
