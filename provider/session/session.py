"""One SDP session: a byte stream in both directions over the messages of one connection.

**Credits.** Every message takes one receive buffer at the peer. Each message says in ``bufs`` how many buffers its
author has posted beyond the message numbered ``mseqack``; so the peer may have ``bufs - (mseq sent - mseqack)`` more
messages under way. A data message needs more than RESERVE credits to be left; SuspComm, SuspCommAck, DisConn, Resume
and credit updates may use the reserve, so a stalled stream can still be ended or handed over. A credit update (a Data
message without payload) goes out only when the peer, by what we last told it, can send no more data, and at least
half the buffers, or all that it lacks, can be offered; it says something new every time, so two idle ends fall
silent. The receive buffer of an empty message is free at once.

**Deadlock freedom.** A peer that holds back data for want of credits is told of new ones as soon as the application
here reads; that update may use our reserve, and the peer frees its buffer at once, whatever its own application does.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from fabric.units import MILLISECOND, Instant
from fabric.wire import sdp
from fabric.wire.headers import MalformedFrame
from fabric.wire.sdp import Mid
from provider.errors import WsaErrno
from provider.session.buffers import ReceiveBuffer, SendBuffer
from provider.session.events import (
    Aborted,
    Closed,
    Established,
    PeerResumed,
    PeerShutdown,
    PeerSuspended,
    Readable,
    SessionEvent,
    Suspended,
    SuspensionLost,
    Writable,
)
from provider.session.states import Stream, Suspension, next_stream, next_suspension

__all__ = [
    "Aborted",
    "Closed",
    "Established",
    "PeerResumed",
    "PeerShutdown",
    "PeerSuspended",
    "Readable",
    "Role",
    "Session",
    "SessionConfig",
    "SessionEvent",
    "Suspended",
    "SuspensionLost",
    "Writable",
]
RESERVE = 2
_MASK = 0xFFFFFFFF


class Role(Enum):
    """Who made the connection."""

    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Sizes in bytes; ``receive_size`` counts the base header too.

    A message fits one packet of the largest path MTU: tshark takes the payload of *every* SEND packet for a message,
    so a message in several packets would be misread and shown as malformed.
    """

    receive_buffers: int = 512
    receive_size: int = 4_096
    send_buffer: int = 1 << 20


class Session:
    """See the module text. Peer behaviour never raises: a protocol error aborts the session."""

    def __init__(self, role: Role, config: SessionConfig, local: tuple[str, int], remote: tuple[str, int]) -> None:
        self.role, self.config, self.local, self.remote = role, config, local, remote
        self._stream = Stream.CONNECTING
        self._suspension = Suspension.RUNNING
        self._send, self._receive = SendBuffer(), ReceiveBuffer()
        self._control: deque[tuple[int, bytes]] = deque()
        self._events: deque[SessionEvent] = deque()
        self._posted = 0
        self._advertised = 0
        """Messages that the peer may still send, by what we last told it."""
        self._mseq = self._mseqack = 0
        self._credits_until = 0
        """The highest message number that the peer has a buffer for."""
        self._peer_size = config.receive_size
        self._want_finish = self._finish_queued = False
        self._blocked = False
        self._resume_owed: int | None = None
        self._epoch = 0
        self._peer_deadline: Instant | None = None
        self._closing = False
        self.peer_extended = False
        self.messages_sent = self.messages_received = self.bytes_sent = self.bytes_received = 0

    # ------------------------------------------------------------------- set-up

    def hello(self, now: Instant) -> bytes:
        """The Hello for the connection request."""
        self._advertised = self._posted
        extension = sdp.Extension()
        port, source, destination = self.local[1], _ip(self.local[0]), _ip(self.remote[0])
        return sdp.encode_hello(sdp.Hello(self._posted, self.config.receive_size, port, source, destination, extension))

    def handle_hello(self, private: bytes, now: Instant) -> bool:
        """The peer's Hello; false if it is none that we can talk to."""
        try:
            hello = sdp.decode_hello(private)
        except MalformedFrame:
            return False
        if hello.bufs <= RESERVE or hello.receive_size <= sdp.BSDH_SIZE or len(hello.source) != 4:
            return False
        self.remote = (".".join(map(str, hello.source)), hello.port)
        self._learn(hello.bufs, hello.receive_size, hello.extension is not None)
        return True

    def hello_ack(self, now: Instant) -> bytes:
        """The HelloAck for the connection reply."""
        self._advertised = self._posted
        self._establish()
        return sdp.encode_hello_ack(sdp.HelloAck(self._posted, self.config.receive_size, sdp.Extension()))

    def handle_hello_ack(self, private: bytes, now: Instant) -> bool:
        """The peer's HelloAck; false if it is none."""
        try:
            ack = sdp.decode_hello_ack(private)
        except MalformedFrame:
            return False
        if ack.bufs <= RESERVE or ack.receive_size <= sdp.BSDH_SIZE:
            return False
        self._learn(ack.bufs, ack.receive_size, ack.extension is not None)
        self._establish()
        return True

    # -------------------------------------------------------------------- input

    def handle_message(self, data: bytes, now: Instant) -> None:
        """One message of the peer, out of one receive buffer."""
        self._posted -= 1
        if self.is_over:
            return
        try:
            header = sdp.decode_header(data)
            self._accept(header, data, now)
        except MalformedFrame:
            self._abort(WsaErrno.WSAECONNABORTED, tell=True)

    def handle_timeout(self, now: Instant) -> None:
        """A peer that suspended us and did not come back."""
        if self._peer_deadline is not None and now >= self._peer_deadline and not self.is_over:
            self._abort(WsaErrno.WSAECONNABORTED, tell=True)

    # ----------------------------------------------------------------- commands

    def send(self, data: bytes, now: Instant, *, beyond_limit: bool = False) -> int:
        """Take bytes of the application; returns how many. Nothing is taken after ``shutdown_send`` or the end."""
        if self.is_over or self._want_finish:
            return 0
        room = len(data) if beyond_limit else self.send_space
        if room < len(data):
            data = data[:room]
            self._blocked = True
        self._send.add(data)
        if not self.send_space:
            self._blocked = True
        return len(data)

    def peek(self, limit: int) -> bytes:
        """Bytes for the application, left in place."""
        return self._receive.peek(limit)

    def consume(self, count: int, now: Instant) -> None:
        """The application has the first ``count`` bytes."""
        self._receive.consume(count)

    def receive(self, limit: int, now: Instant) -> bytes:
        """``peek`` and ``consume`` in one."""
        data = self._receive.peek(limit)
        self._receive.consume(len(data))
        return data

    def push_front(self, data: bytes) -> None:
        """Unread bytes taken back from a process: they come first again."""
        self._receive.push_front(data)

    def posted(self, count: int) -> None:
        """The switch has posted receive buffers."""
        self._posted += count

    def shutdown_send(self, now: Instant) -> None:
        """No more bytes from the application; DisConn follows what was accepted."""
        self._want_finish = True

    def close(self, now: Instant) -> None:
        """The application is gone: finish what was accepted; bytes that still come have no reader."""
        self._want_finish = True
        self._closing = True

    def abort(self, now: Instant) -> None:
        """End at once and tell the peer."""
        if not self.is_over:
            self._abort(WsaErrno.WSAECONNABORTED, tell=True, report=False)

    def suspend(self, epoch: int, deadline_ms: int, now: Instant) -> None:
        """Begin to hand our end over. IllegalTransition unless running."""
        self._suspension = next_suspension(self._suspension, "suspend", self.role.value)
        self._epoch = epoch
        self._control.append((Mid.SUSPEND, sdp.encode_suspend(sdp.Suspend(0, epoch, deadline_ms))))

    def resume(self, epoch: int, now: Instant) -> None:
        """Our end has its owner; also gives a suspension up. IllegalTransition unless suspending or suspended."""
        self._suspension = next_suspension(self._suspension, "resume", self.role.value)
        self._epoch = epoch
        for entry in list(self._control):
            if entry[0] == Mid.SUSPEND:
                self._control.remove(entry)  # it never left
                return
        self._resume_owed = epoch

    # ------------------------------------------------------------------- output

    def poll_transmit(self, now: Instant) -> bytes | None:
        """The next message to send, or ``None``."""
        stream = self._stream
        if stream is Stream.CONNECTING:
            return None
        if self._control and self._control[0][0] == Mid.ABORT:
            return self._emit(*self._control.popleft()) if self._credits() > 0 else None
        if self.is_over:
            return None
        available = self._credits()
        if available <= 0:
            return None
        if self._resume_owed is not None:
            epoch, self._resume_owed = self._resume_owed, None
            return self._emit(Mid.RESUME, sdp.encode_resume(sdp.Resume(epoch, self._mseq, self._mseqack)))
        if self._control:
            return self._emit(*self._control.popleft())
        if self._suspension is not Suspension.RUNNING:
            return None
        if self._send.size:
            if available > RESERVE:
                limit = min(self._peer_size, self.config.receive_size) - sdp.BSDH_SIZE
                message = self._emit(Mid.DATA, self._send.take(limit))
                if self._blocked and self.send_space > self.config.send_buffer // 4:
                    self._blocked = False
                    self._events.append(Writable())
                return message
        elif self._want_finish and not self._finish_queued:
            self._finish_queued = True
            self._stream = next_stream(stream, "DisConn sent", self.role.value)
            message = self._emit(Mid.DISCONNECT, b"")
            if self._stream is Stream.CLOSED:
                self._events.append(Closed())
            return message
        if self._update_is_due():
            return self._emit(Mid.DATA, b"")
        return None

    def receives_wanted(self) -> int:
        """Receive buffers to post now; answer with ``posted``."""
        if self.is_over:
            return 0
        freed, self._receive.freed = self._receive.freed, 0
        return freed

    def poll_event(self) -> SessionEvent | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> Instant | None:
        """Until when the peer must resume."""
        return None if self.is_over else self._peer_deadline

    # ------------------------------------------------------------------ getters

    @property
    def is_over(self) -> bool:
        """Closed or aborted: no message and no deadline any more."""
        return self._stream in (Stream.CLOSED, Stream.ABORTED)

    @property
    def is_closed(self) -> bool:
        """Both directions ended gracefully."""
        return self._stream is Stream.CLOSED

    @property
    def is_suspended(self) -> bool:
        """We have suspended, or are about to."""
        return self._suspension in (Suspension.SUSPENDING, Suspension.SUSPENDED)

    @property
    def is_peer_suspended(self) -> bool:
        """The peer has suspended us."""
        return self._suspension is Suspension.PEER_SUSPENDED

    @property
    def peer_finished(self) -> bool:
        """The peer sends no more."""
        return self._stream in (Stream.RECEIVE_FINISHED, Stream.CLOSED)

    @property
    def unread(self) -> int:
        """Bytes received and not consumed."""
        return self._receive.size

    @property
    def send_space(self) -> int:
        """Bytes that ``send`` takes now."""
        if self.is_over or self._want_finish:
            return 0
        return max(0, self.config.send_buffer - self._send.size)

    # ------------------------------------------------------------------ private

    def _learn(self, bufs: int, size: int, extended: bool) -> None:
        self._credits_until = bufs
        self._peer_size = size
        self.peer_extended = extended

    def _establish(self) -> None:
        self._stream = next_stream(self._stream, "hello exchanged", self.role.value)
        self._events.append(Established())

    def _credits(self) -> int:
        return ((self._credits_until - self._mseq + 0x80000000) & _MASK) - 0x80000000

    def _emit(self, mid: int, body: bytes) -> bytes:
        self._mseq = (self._mseq + 1) & _MASK
        self._advertised = self._posted
        self.messages_sent += 1
        self.bytes_sent += len(body) if mid == Mid.DATA else 0
        return sdp.encode_message(
            mid, bufs=min(self._posted, 0xFFFF), mseq=self._mseq, mseqack=self._mseqack, body=body
        )

    def _update_is_due(self) -> bool:
        """Whether the peer has run out of data credits and enough new ones can be offered."""
        if self.peer_finished or self._advertised > RESERVE:
            return False
        return self._posted - self._advertised >= self.config.receive_buffers // 2

    def _accept(self, header: sdp.Bsdh, data: bytes, now: Instant) -> None:
        if header.mseq != (self._mseqack + 1) & _MASK:
            raise MalformedFrame(f"message {header.mseq} after {self._mseqack}")
        if self._advertised <= 0:
            raise MalformedFrame("a message without credit")
        self._mseqack = header.mseq
        self._advertised -= 1
        self.messages_received += 1
        until = (header.mseqack + header.bufs) & _MASK
        if ((until - self._credits_until + 0x80000000) & _MASK) > 0x80000000:
            self._credits_until = until
        mid = header.mid
        if mid == Mid.DATA:
            self._on_data(data)
            return
        self._receive.freed += 1
        body = data[sdp.BSDH_SIZE :]
        if mid == Mid.DISCONNECT:
            self._on_disconnect()
        elif mid == Mid.ABORT:
            self._abort(WsaErrno.WSAECONNRESET, tell=False)
        elif mid == Mid.SUSPEND:
            self._on_suspend(sdp.decode_suspend(body), now)
        elif mid == Mid.SUSPEND_ACK:
            if self._suspension is Suspension.SUSPENDING:
                self._suspension = next_suspension(self._suspension, "SuspCommAck received", self.role.value)
                self._events.append(Suspended(self._epoch))
        elif mid == Mid.RESUME:
            self._on_resume(sdp.decode_resume(body), header)
        else:
            raise MalformedFrame(f"unexpected message {mid:#04x}")

    def _on_data(self, data: bytes) -> None:
        if self.peer_finished:
            raise MalformedFrame("data after DisConn")
        size = len(data) - sdp.BSDH_SIZE
        if not size:
            self._receive.freed += 1
            return
        self.bytes_received += size
        self._receive.add(memoryview(data)[sdp.BSDH_SIZE :])
        self._events.append(Readable())

    def _on_disconnect(self) -> None:
        if self.peer_finished:
            raise MalformedFrame("a second DisConn")
        self._stream = next_stream(self._stream, "DisConn received", self.role.value)
        self._events.append(PeerShutdown())
        if self._stream is Stream.CLOSED:
            self._events.append(Closed())

    def _on_suspend(self, suspend: sdp.Suspend, now: Instant) -> None:
        if suspend.service_id or not self.peer_extended:
            raise MalformedFrame("a suspension that re-makes the connection was not negotiated")
        if self._suspension is Suspension.SUSPENDING:
            if self.role is Role.INITIATOR:
                return
            self._suspension = next_suspension(self._suspension, "tie lost", self.role.value)
            self._events.append(SuspensionLost(self._epoch))
        elif self._suspension is Suspension.RUNNING:
            self._suspension = next_suspension(self._suspension, "SuspComm received", self.role.value)
        elif self._suspension is Suspension.SUSPENDED:
            raise MalformedFrame("a suspension by a suspended peer")
        self._peer_deadline = now + suspend.deadline_ms * MILLISECOND
        self._events.append(PeerSuspended(suspend.epoch, self._peer_deadline))
        self._control.append((Mid.SUSPEND_ACK, b""))

    def _on_resume(self, resume: sdp.Resume, header: sdp.Bsdh) -> None:
        if self._suspension is not Suspension.PEER_SUSPENDED:
            return  # the tie winner hears the loser give up
        if resume.last_sent != (header.mseq - 1) & _MASK or resume.last_received > self._mseq:
            raise MalformedFrame("the sequence numbers of Resume show a gap")
        self._suspension = next_suspension(self._suspension, "Resume received", self.role.value)
        self._peer_deadline = None
        self._events.append(PeerResumed(resume.epoch))

    def _abort(self, reason: WsaErrno, *, tell: bool, report: bool = True) -> None:
        self._stream = next_stream(self._stream, "abort", self.role.value)
        self._send.clear()
        self._control.clear()
        self._resume_owed = None
        if tell:
            self._control.append((Mid.ABORT, b""))
        if report:
            self._events.append(Aborted(reason))


def _ip(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))
