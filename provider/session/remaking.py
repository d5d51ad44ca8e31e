"""A session whose connection goes down and is made anew, as SDP's SuspComm has it: commands and checks.

The end that hands over says SuspComm with the number of a service. The other end listens there before it answers,
and says nothing more. After the answer nothing is under way in either direction; the old connection may go down, and
the request for the new one carries a Hello, its reply a HelloAck, as at the beginning. In their reserved bytes both
ends name the connection and the last messages that they had sent and received on the old one: a difference means a
message that was lost or repeated, and aborts (G4). A peer without the extension names nothing and is taken at its
word. Numbers of messages and credits begin anew; the byte streams go on.
"""

from fabric.units import Instant
from fabric.wire.headers import MalformedFrame
from fabric.wire.sdp import Extension, decode_hello, decode_hello_ack
from provider.errors import WsaErrno
from provider.session.core import SessionCore
from provider.session.credits import Credits
from provider.session.events import PeerResumed, Remade

_MASK = 0xFFFFFFFF
RECEIVES_MIN = 16
"""Receives of a new connection although the application has not read what occupies the others."""


class RemakingSession(SessionCore):
    """Adds to :class:`SessionCore` what follows a SuspComm that names a service."""

    _said = (0, 0)
    """Numbers of the last messages that we had sent and received on the old connection."""

    @property
    def is_remaking(self) -> bool:
        """The connection goes down, or is down, and is made anew: no receives are wanted on it."""
        return self._suspension.is_remaking and not self.is_closed

    @property
    def receives_outstanding(self) -> int:
        """Receives that the peer was told of: to be posted on the new connection."""
        return self._credits.outstanding

    @property
    def service_id(self) -> int:
        """The service that the SuspComm under way names, 0 if none."""
        return self._suspension.service_id

    def remake(self, epoch: int, now: Instant) -> bytes:
        """SUSPENDED: the private data of the request for the new connection. IllegalTransition otherwise."""
        self._suspension.remake()
        extension = self._last_word(epoch)
        self._begin_window()
        return self._hello(extension)

    def handle_remake_ack(self, private: bytes, now: Instant) -> bool:
        """The reply's private data; false if the connection cannot go on with it (then it has been aborted)."""
        try:
            ack = decode_hello_ack(private)
        except MalformedFrame:
            self._fail(WsaErrno.WSAECONNABORTED, now)
            return False
        reached = self._reach(ack.bufs, ack.receive_size, ack.extension)
        if not reached or not self._agrees(ack.extension) or not self._suspension.remade(0, self._credits):
            self._fail(WsaErrno.WSAECONNABORTED, now)
            return False
        self._events.append(Remade())
        return True

    def handle_remake(self, private: bytes, now: Instant) -> bytes | None:
        """PEER_SUSPENDED: the request's private data, from the peer's address; returns the reply's.

        None, without effect, for what is not the peer's Hello of this connection. A Hello that is, but does not fit
        what was said and heard, aborts; then there is no reply either, and ``Aborted`` follows.
        """
        try:
            hello = decode_hello(private)
        except MalformedFrame:
            return None
        theirs = hello.extension
        ours = theirs.connection_id == self.connection_id if theirs is not None else not self.supports_suspension
        if not self.is_remaking or not ours or hello.port != self.remote[1]:
            return None
        said = self._last_word(0)
        fits = self._agrees(theirs)
        epoch = theirs.epoch if theirs is not None else 0
        self._begin_window()
        reached = self._reach(hello.bufs, hello.receive_size, theirs)
        if not fits or not reached or not self._suspension.remade(epoch, self._credits):
            self._fail(WsaErrno.WSAECONNABORTED, now)
            return None
        self._events.append(PeerResumed(epoch))
        return self._hello_ack(said)

    def refuse_suspension(self, now: Instant) -> None:
        """The service that the peer's SuspComm names cannot be had: abort, ``Aborted`` follows."""
        self._fail(WsaErrno.WSAECONNABORTED, now)

    # ------------------------------------------------------------------- private

    def _last_word(self, epoch: int) -> Extension:
        """What we say of the old connection."""
        self._said = (self._credits.sent & _MASK, self._credits.received & _MASK)
        return Extension(epoch, *self._said, self.connection_id)

    def _agrees(self, theirs: Extension | None) -> bool:
        """Whether the peer heard all that we said on the old connection, and we all that it said."""
        if theirs is None:
            return True
        return (theirs.last_received, theirs.last_sent, theirs.connection_id) == (*self._said, self.connection_id)

    def _begin_window(self) -> None:
        """Numbers of messages begin anew; what the application has not read still occupies its receives."""
        buffers = self.config.receive_buffers
        self._credits = Credits(buffers)
        self._credits.posted = max(min(RECEIVES_MIN, buffers), buffers - self._incoming.held)
        self._stalled = False
