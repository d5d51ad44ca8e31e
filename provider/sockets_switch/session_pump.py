"""Between a session and the provider: posts receives, sends the session's messages, feeds it what arrived.

The pump is *attached* to the provider descriptor of the controlling process and detached while control is elsewhere.
Receives that the provider completes with zero bytes when it is detached (statement 83) are no end of file: they are
counted and posted again by the next controller, so that the peer's credits stay true across a handoff. When the
connection is made anew they go with the old one, and the new one gets its own.
"""

from typing import TYPE_CHECKING

from fabric.ids import SocketDescriptor
from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.session.session import Session
from provider.spi import Overlapped, ProcTable

if TYPE_CHECKING:
    from provider.sockets_switch.shared_socket import AttachedProcess


class SessionPump:
    """Moves one session's messages through WSPSend and WSPRecv."""

    def __init__(self, session: Session, receive_size: int) -> None:
        self.session = session
        self.lost: WsaErrno | None = None
        self.sends_under_way = 0
        self._receive_size = receive_size
        self.table: ProcTable | None = None
        self.owner: AttachedProcess | None = None
        """The process whose provider instance has the connection, or had it last."""
        self.san = SocketDescriptor(0)
        self._taken_back = 0
        self.held = False
        """Nothing new is sent, so that what is under way comes to its end."""

    @property
    def attached(self) -> bool:
        """Whether a process controls the socket, so that messages can move."""
        return self.table is not None

    def attach(self, owner: "AttachedProcess", san: SocketDescriptor, now: Instant) -> None:
        """Control is with ``san`` of ``owner``: post again the receives that were taken back."""
        self.owner, self.table, self.san = owner, owner.table, san
        taken_back, self._taken_back = self._taken_back, 0
        self.post(taken_back, now)

    def restart(self, owner: "AttachedProcess", san: SocketDescriptor) -> None:
        """``san`` of ``owner`` has a new connection, or is about to; ``post`` follows."""
        self.owner, self.table, self.san = owner, owner.table, san
        self._taken_back = self.sends_under_way = 0
        self.lost = None

    def post(self, count: int, now: Instant) -> None:
        """Post ``count`` receives that the session already counts. A connection that has ended is ``lost``, no
        error.
        """
        table, san = self.table, self.san
        assert table is not None
        for _ in range(count):
            if self.lost is None:
                try:
                    table.WSPRecv(san, Overlapped(length=self._receive_size), now)
                except WsaError as error:
                    self.lost = error.wsa

    def detach(self) -> None:
        """Control is leaving."""
        self.table = None

    def release(self, now: Instant) -> None:
        """The connection is over for us: close the provider's descriptor, if control is not elsewhere."""
        table, self.table = self.table, None
        if table is not None:
            table.WSPCloseSocket(self.san, now)

    def on_complete(self, overlapped: Overlapped, error: int, transferred: int, now: Instant) -> None:
        """WPUCompleteOverlappedRequest for one of our operations."""
        if overlapped.length == 0:
            self.sends_under_way -= 1
        elif error == 0 and transferred == 0:
            self._taken_back += 1
        elif error == 0:
            self.session.handle_message(overlapped.data, now)
        if error not in (0, WsaErrno.WSA_OPERATION_ABORTED):
            self.lost = WsaErrno(error)

    def flush(self, now: Instant) -> None:
        """Post the receives that the session wants, then send all that it has to say."""
        table, session, san = self.table, self.session, self.san
        if table is None:
            return
        while self.lost is None and (wanted := session.receives_wanted()) > 0:
            session.posted(wanted)
            self.post(wanted, now)
        while self.lost is None and not self.held and (message := session.poll_transmit(now)) is not None:
            self.sends_under_way += 1
            try:
                table.WSPSend(san, Overlapped(data=message), now)
            except WsaError as error:
                self.sends_under_way -= 1
                self.lost = error.wsa
