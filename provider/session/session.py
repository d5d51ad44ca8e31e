"""One socket's session: the engine that turns a byte stream into SDP messages and back.

The owner posts receives and sends (see ``credits.py`` and ``states.py`` for the rules); the session never sees queue
pairs. Commands raise only for the caller's mistakes; what a peer says wrong ends in ``Aborted`` and one AbortConn.
"""

from fabric.units import Instant
from fabric.wire.headers import MalformedFrame
from fabric.wire.sdp import BSDH_SIZE, Bsdh, Mid, decode_header, decode_resume, decode_suspend
from provider.errors import WsaErrno
from provider.session.core import SessionConfig
from provider.session.events import (
    Aborted,
    Closed,
    Established,
    PeerResumed,
    PeerShutdown,
    PeerSuspended,
    Readable,
    Remade,
    SessionEvent,
    SessionStatistics,
    Suspended,
    SuspensionLost,
    Writable,
)
from provider.session.remaking import RemakingSession
from provider.session.states import Role, StreamEvent, StreamState, SuspensionState, next_stream
from provider.session.urgent import OOB_PENDING, OOB_PRESENT

__all__ = [
    "Aborted",
    "Closed",
    "Established",
    "PeerResumed",
    "PeerShutdown",
    "PeerSuspended",
    "Readable",
    "Remade",
    "Role",
    "Session",
    "SessionConfig",
    "SessionEvent",
    "SessionStatistics",
    "Suspended",
    "SuspensionLost",
    "Writable",
]


class Session(RemakingSession):
    """One end of a connection; see :class:`provider.session.core.SessionCore` for its commands."""

    def send_urgent(self, data: bytes, now: Instant) -> None:
        """Accept bytes, all of them, the last of which is urgent. Errors are those of ``send``."""
        if self.send(data, now, beyond_limit=True):
            self.urgent.mark(self._bytes_sent + self._outgoing.size)

    def handle_message(self, data: bytes, now: Instant) -> None:
        """One completed receive. Never raises for what the peer does; after the end everything is ignored."""
        try:
            header = decode_header(data)
        except MalformedFrame:
            self._violation(now)
            return
        if self._stream is StreamState.ABORTED:
            if self._abort_due:  # it may wait for a credit
                self._credits.hear(header.bufs, header.mseqack)
            return
        if self._stream is StreamState.CLOSED:
            return
        heard = self._credits.arrive(header.mseq) and self._credits.hear(header.bufs, header.mseqack)
        mid = header.mid
        if not heard or not _may_have(header.flags, mid, data) or self._stream is StreamState.OPENING:
            self._violation(now)
            return
        if mid in (Mid.DATA, Mid.DISCONNECT, Mid.CREDITS):
            fits = self._suspension.may_hear and self._on_stream(header, data, now)
        elif mid == Mid.ABORT:
            fits = len(data) == BSDH_SIZE
            if fits:
                self._on_abort(now)
        else:
            fits = self._on_suspension(mid, data[BSDH_SIZE:], now)
        if mid in Mid._value2member_map_:
            self._received[mid] = self._received.get(mid, 0) + 1
        if not fits:
            self._violation(now)

    def _on_stream(self, header: Bsdh, data: bytes, now: Instant) -> bool:
        """Data and DisConn; false if it breaks the protocol."""
        mid, size = header.mid, len(data) - BSDH_SIZE
        if mid == Mid.DISCONNECT:
            if size or self.peer_finished:
                return False
            self._stream = next_stream(self._stream, StreamEvent.DISCONNECT_RECEIVED, self.role)
            self._tell_end()
            if self._stream is StreamState.CLOSED:
                self._on_closed()
            return True
        if size == 0 or mid == Mid.CREDITS:
            return size == 0  # an update of credits
        if self.peer_finished or len(data) > self.config.receive_size:
            return False
        if self._app_closed:
            self._fail(WsaErrno.WSAECONNRESET, now)  # data for nobody, as TCP answers with RST
            return True
        payload = self.urgent.hear(header.flags, memoryview(data)[BSDH_SIZE:])
        self._bytes_received += size
        if not payload:
            return True  # nothing but an urgent byte
        self._incoming.append(payload)
        if not self._readable_told:
            self._readable_told = True
            self._events.append(Readable())
        return True

    def _on_abort(self, now: Instant) -> None:
        self.abort(now)
        self._abort_due = False  # the peer has ended; it needs no answer
        self._events.append(Aborted(WsaErrno.WSAECONNRESET))

    def _on_suspension(self, mid: int, body: bytes, now: Instant) -> bool:
        """SuspComm, SuspCommAck, Resume; false for anything else, or if it breaks the protocol."""
        suspension = self._suspension
        try:
            if mid == Mid.SUSPEND and suspension.may_hear:
                wish = decode_suspend(body)
                if not wish.service_id and not self.supports_suspension:
                    return False
                counts, beaten = suspension.on_suspend(wish, now)
                if beaten is not None:
                    self._events.append(SuspensionLost(beaten))
                if counts:
                    assert suspension.deadline is not None
                    self._events.append(PeerSuspended(wish.epoch, suspension.deadline, wish.service_id))
                return True
            if mid == Mid.SUSPEND_ACK and not body and suspension.answer_may_come:
                epoch = suspension.on_answer()
                if epoch is not None:
                    self._events.append(Suspended(epoch))
                return True
            if mid == Mid.RESUME and suspension.state is SuspensionState.PEER_SUSPENDED:
                resume = decode_resume(body)
                if suspension.on_resume(resume):
                    self._events.append(PeerResumed(resume.epoch))
                    return True
        except MalformedFrame:
            return False
        return False

    def _violation(self, now: Instant) -> None:
        """The peer broke the protocol."""
        if not self.is_closed:
            self._fail(WsaErrno.WSAECONNABORTED, now)


def _may_have(flags: int, mid: int, data: bytes) -> bool:
    """Flags belong to Data; an urgent byte must be there."""
    present = flags & OOB_PRESENT and len(data) == BSDH_SIZE
    return not flags or (mid == Mid.DATA and not present and not flags & ~(OOB_PRESENT | OOB_PENDING))
