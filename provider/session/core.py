"""The session without its ear: commands of the application and of the hand-over, what is said next, and the getters.

``session.py`` adds what a received message does.
"""

from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address

from fabric.units import Instant
from fabric.wire.headers import MalformedFrame
from fabric.wire.sdp import (
    BSDH_SIZE,
    Extension,
    Hello,
    HelloAck,
    Mid,
    Suspend,
    decode_hello,
    decode_hello_ack,
    encode_hello,
    encode_hello_ack,
    encode_message,
)
from provider.errors import WsaErrno, WsaError
from provider.session.buffers import ReceiveBuffer, SendBuffer
from provider.session.credits import Credits
from provider.session.events import (
    Aborted,
    Closed,
    Established,
    PeerShutdown,
    Readable,
    SessionEvent,
    SessionStatistics,
    Suspended,
    Writable,
)
from provider.session.states import Role, StreamEvent, StreamState, next_stream
from provider.session.suspension import Suspension
from provider.session.urgent import Urgent

_ENDED = (StreamState.CLOSED, StreamState.ABORTED)
_MAY_SEND = (StreamState.OPENING, StreamState.OPEN, StreamState.PEER_FINISHED)
_DRAINING = (StreamState.DRAINING, StreamState.LAST_DRAINING)
_PEER_DONE = (StreamState.PEER_FINISHED, StreamState.LAST_DRAINING, StreamState.CLOSED)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """``receive_buffers`` messages of at most ``receive_size`` bytes (header included); ``send_buffer`` bytes."""

    receive_buffers: int = 512
    receive_size: int = 4_096
    send_buffer: int = 1 << 20

    def __post_init__(self) -> None:
        if not (4 <= self.receive_buffers <= 0xFFFF and self.receive_size >= 64 and self.send_buffer > 0):
            raise ValueError("a session needs 4 to 65535 receives of 64 bytes or more, and a send buffer")


class SessionCore:
    """One end of a connection. ``local`` and ``remote`` are ``(ip, port)``."""

    def __init__(
        self,
        role: Role,
        config: SessionConfig,
        local: tuple[str, int],
        remote: tuple[str, int],
        connection_id: int = 0,
    ) -> None:
        self.role, self.config, self.local, self.remote = role, config, local, remote
        self.connection_id = connection_id
        """64 bits that the initiator chose; 0 with an initiator that knows no extension."""
        self._stream = StreamState.OPENING
        self._credits = Credits(config.receive_buffers)
        self._suspension = Suspension(role, self._credits)
        self._outgoing, self._incoming, self.urgent = SendBuffer(), ReceiveBuffer(), Urgent()
        self._events: deque[SessionEvent] = deque()
        self._payload_limit = config.receive_size - BSDH_SIZE
        self._peer_extension: Extension | None = None
        self._abort_due = False
        self._app_closed = False
        self._full = False  # a send filled the buffer; Writable is owed
        self._readable_told = self._end_told = self._stalled = False
        self._bytes_sent = self._bytes_received = self._stalls = 0
        self._sent: dict[int, int] = {}
        self._received: dict[int, int] = {}

    # ----------------------------------------------------------------- getters

    @property
    def send_space(self) -> int:
        """Bytes that ``send`` takes now."""
        if self._stream not in _MAY_SEND or self._app_closed:
            return 0
        return max(0, self.config.send_buffer - self._outgoing.size)

    @property
    def unread(self) -> int:
        """Bytes that ``receive`` could give now."""
        return self._incoming.size

    @property
    def unsent(self) -> int:
        """Accepted bytes that no message has taken yet."""
        return self._outgoing.size

    @property
    def peer_finished(self) -> bool:
        """The peer said DisConn."""
        return self._stream in _PEER_DONE

    @property
    def is_closed(self) -> bool:
        """Both directions have ended, in grace or not."""
        return self._stream in _ENDED

    @property
    def is_suspended(self) -> bool:
        """``suspend`` was called and ``resume`` is still to come."""
        return self._suspension.is_ours and not self.is_closed

    @property
    def is_peer_suspended(self) -> bool:
        """The peer hands its end over now."""
        return self._suspension.is_peers and not self.is_closed

    @property
    def is_suspension_given_up(self) -> bool:
        """An earlier suspension was given up before its answer, which is still to come and must be waited for."""
        return self._suspension.is_given_up and not self.is_closed

    @property
    def supports_suspension(self) -> bool:
        """The peer's Hello announced the extension."""
        return self._peer_extension is not None

    # ------------------------------------------------------------------ opening

    def hello(self, now: Instant) -> bytes:
        """The initiator's private data of the connection request. The first receives must be ``posted`` before."""
        return self._hello(Extension(connection_id=self.connection_id))

    def _hello(self, extension: Extension) -> bytes:
        source, destination = ip_address(self.local[0]).packed, ip_address(self.remote[0]).packed
        bufs = self._credits.told = self._credits.outstanding
        return encode_hello(Hello(bufs, self.config.receive_size, self.local[1], source, destination, extension))

    def handle_hello(self, private: bytes, now: Instant) -> bool:
        """The acceptor's side of it; false if this is no Hello (reject the request then)."""
        try:
            hello = decode_hello(private)
        except MalformedFrame:
            return False
        self.remote = (self.remote[0], hello.port)
        self.connection_id = hello.extension.connection_id if hello.extension is not None else 0
        return self._open(hello.bufs, hello.receive_size, hello.extension)

    def hello_ack(self, now: Instant) -> bytes:
        """The acceptor's private data of the reply; the session is established with it."""
        self._stream = next_stream(self._stream, StreamEvent.ESTABLISHED, self.role)
        self._events.append(Established())
        return self._hello_ack(Extension(connection_id=self.connection_id))

    def _hello_ack(self, extension: Extension) -> bytes:
        bufs = self._credits.told = self._credits.outstanding
        return encode_hello_ack(HelloAck(bufs, self.config.receive_size, extension))

    def handle_hello_ack(self, private: bytes, now: Instant) -> bool:
        """The initiator's end of the opening; false if this is no HelloAck."""
        if self._stream is not StreamState.OPENING:
            return False
        try:
            ack = decode_hello_ack(private)
        except MalformedFrame:
            return False
        if not self._open(ack.bufs, ack.receive_size, ack.extension):
            return False
        self._stream = next_stream(self._stream, StreamEvent.ESTABLISHED, self.role)
        self._events.append(Established())
        return True

    def _open(self, bufs: int, receive_size: int, extension: Extension | None) -> bool:
        return self._stream is StreamState.OPENING and self._reach(bufs, receive_size, extension)

    def _reach(self, bufs: int, receive_size: int, extension: Extension | None) -> bool:
        """What the peer's Hello or HelloAck says of its receives; false if nobody could talk through them."""
        if receive_size <= BSDH_SIZE or bufs < 2:
            return False
        self._payload_limit = min(receive_size, self.config.receive_size) - BSDH_SIZE
        self._peer_extension = extension
        self._credits.open(bufs)
        return True

    # ----------------------------------------------------------- the application

    def send(self, data: bytes | bytearray | memoryview, now: Instant, *, beyond_limit: bool = False) -> int:
        """Accept bytes, all of them if ``beyond_limit``; returns how many. WSAESHUTDOWN after ``shutdown_send``."""
        if self._stream not in _MAY_SEND:
            if self._stream is StreamState.ABORTED:
                raise WsaError(WsaErrno.WSAECONNABORTED, "the connection was aborted")
            raise WsaError(WsaErrno.WSAESHUTDOWN, "the sending direction was shut down")
        space = self.send_space
        if not beyond_limit and len(data) > space:
            self._full = True
            data = memoryview(data)[:space]
        self._outgoing.append(data)
        if self._outgoing.size >= self.config.send_buffer:
            self._full = True
        return len(data)

    def peek(self, limit: int) -> bytes:
        """Up to ``limit`` unread bytes, which stay unread."""
        return self._incoming.peek(limit)

    def consume(self, count: int, now: Instant) -> None:
        """The application has ``count`` more bytes (which ``peek`` showed)."""
        self._incoming.consume(count)
        self._tell_end()

    def receive(self, limit: int, now: Instant) -> bytes:
        """``peek`` and ``consume`` in one."""
        data = self._incoming.peek(limit)
        self.consume(len(data), now)
        return data

    def push_front(self, data: bytes) -> None:
        """Bytes taken back from a process: they are unread again, before all others."""
        self._incoming.push_front(data)
        if data:
            self._end_told = False

    def shutdown_send(self, now: Instant) -> None:
        """The application sends no more; DisConn follows what was accepted. Repeating it changes nothing."""
        if self._stream in (StreamState.OPEN, StreamState.PEER_FINISHED):
            self._stream = next_stream(self._stream, StreamEvent.SHUTDOWN, self.role)

    def close(self, now: Instant) -> None:
        """No application is left: deliver what was accepted, then DisConn; unread bytes make it an abort (RFC 1122)."""
        self._app_closed = True
        if self.unread or self._stream is StreamState.OPENING:
            self.abort(now)
        else:
            self.shutdown_send(now)

    def abort(self, now: Instant) -> None:
        """End at once, with an AbortConn if the peer can get one. No event follows: the caller knows."""
        if self.is_closed:
            return
        self._abort_due = self._stream is not StreamState.OPENING
        self._stream = next_stream(self._stream, StreamEvent.ABORT, self.role)
        self._outgoing.clear()
        self._suspension.drop()

    # --------------------------------------------------------------- suspension

    def suspend(self, epoch: int, deadline_ms: int, now: Instant, *, service_id: int = 0) -> None:
        """Ask the peer to hold still; ``Suspended`` or ``SuspensionLost`` follows.

        With a ``service_id`` of 64 bits the connection is going to be made anew at that service of the peer's (the
        standard's way); without, the peer must have announced the extension, else WSAEOPNOTSUPP. IllegalTransition
        unless running (see ``is_suspension_given_up``).
        """
        if self._stream is StreamState.CLOSED:
            self._events.append(Suspended(epoch))  # nothing can move any more
            return
        if not service_id and not self.supports_suspension:
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, "the peer does not know how to hold still")
        self._suspension.suspend(Suspend(service_id, epoch, deadline_ms), now)

    def resume(self, epoch: int, now: Instant) -> None:
        """Go on under ``epoch``. IllegalTransition unless suspended; nothing after the end.

        A peer that knows no Resume is waited for: ``Suspended`` comes, and the connection must be made anew.
        """
        if not self.is_closed and self.supports_suspension:
            self._suspension.resume(epoch)

    def cancel_suspension(self, epoch: int, now: Instant) -> None:
        """Give a suspension up, answered or not."""
        self.resume(epoch, now)

    # --------------------------------------------------------------------- input

    def posted(self, count: int) -> None:
        """``count`` more receives are posted."""
        self._credits.posted += count

    def receives_wanted(self) -> int:
        """Receives to post now; messages that the application has not read to their end occupy theirs."""
        if self._stream is StreamState.CLOSED or (self._stream is StreamState.ABORTED and not self._abort_due):
            return 0
        if self._suspension.is_remaking:
            return 0
        window = self._credits
        free = self.config.receive_buffers - (window.posted - window.received) - self._incoming.held
        return max(0, free)

    def handle_timeout(self, now: Instant) -> None:
        """A peer that stays suspended, or a suspension that stays unanswered, past its deadline ends the connection."""
        deadline = self.poll_timeout()
        if deadline is not None and now >= deadline:
            self._fail(WsaErrno.WSAETIMEDOUT if self._suspension.is_ours else WsaErrno.WSAECONNABORTED, now)

    # -------------------------------------------------------------------- output

    def poll_timeout(self) -> Instant | None:
        """The deadline of a suspension, if one is waited for."""
        return None if self.is_closed else self._suspension.deadline

    def poll_event(self) -> SessionEvent | None:
        """The next event."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Readable):
            self._readable_told = False
        return event

    def poll_transmit(self, now: Instant) -> bytes | None:
        """The next message to send, if there is one and the peer has a receive for it."""
        window, left = self._credits, self._credits.left
        if left <= 0 or self._stream is StreamState.OPENING or self._stream is StreamState.CLOSED:
            return None
        if self._stream is StreamState.ABORTED:
            if not self._abort_due:
                return None
            self._abort_due = False
            return self._message(Mid.ABORT)
        control = self._suspension.next_control()
        if control is not None:
            return self._message(*control)
        if not self._suspension.may_speak:
            return None
        outgoing = self._outgoing
        if outgoing.size:
            if left > window.reserve:
                self._stalled = False
                body = outgoing.take(self.urgent.cut(self._bytes_sent, self._payload_limit))
                self._bytes_sent += len(body)
                if self._full and outgoing.size <= self.config.send_buffer // 2:
                    self._full = False
                    if self._stream in _MAY_SEND:
                        self._events.append(Writable())
                return self._message(Mid.DATA, body, self.urgent.flags(self._bytes_sent))
            if not self._stalled:
                self._stalled = True
                self._stalls += 1
        elif self._stream in _DRAINING:
            self._stream = next_stream(self._stream, StreamEvent.DISCONNECT_SENT, self.role)
            message = self._message(Mid.DISCONNECT)
            if self._stream is StreamState.CLOSED:
                self._on_closed()
            return message
        if left > window.floor and window.wants_update:
            return self._message(Mid.CREDITS if self.supports_suspension else Mid.DATA)
        return None

    def statistics(self) -> SessionStatistics:
        """A frozen snapshot."""
        return SessionStatistics(
            self._bytes_sent,
            self._bytes_received,
            _named(self._sent),
            _named(self._received),
            self._credits.left,
            self._credits.outstanding,
            self._stalls,
            self._stream.value,
            self._suspension.state.value,
        )

    # ------------------------------------------------------------------- private

    def _message(self, mid: Mid, body: bytes | memoryview = b"", flags: int = 0) -> bytes:
        bufs, mseq, mseqack = self._credits.tell()
        self._sent[mid] = self._sent.get(mid, 0) + 1
        return encode_message(mid, bufs=bufs, mseq=mseq, mseqack=mseqack, body=body, flags=flags)

    def _fail(self, reason: WsaErrno, now: Instant) -> None:
        self.abort(now)
        self._events.append(Aborted(reason))

    def _tell_end(self) -> None:
        if self.peer_finished and not self._end_told and not self._incoming.size:
            self._end_told = True
            self._events.append(PeerShutdown())

    def _on_closed(self) -> None:
        self._events.append(Closed())
        epoch = self._suspension.drop()
        if epoch is not None:
            self._events.append(Suspended(epoch))


def _named(counts: dict[int, int]) -> tuple[tuple[str, int], ...]:
    return tuple((Mid(mid).name, counts[mid]) for mid in sorted(counts))
