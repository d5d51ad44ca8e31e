"""A queue pair of the reliable connection service: requester and responder behind one state machine (``qp_state``)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fabric.errors import IllegalTransition
from fabric.ids import Qpn
from fabric.rc.events import CommunicationEstablished, Completion, FatalError, QpEvent
from fabric.rc.qp_state import QpState, check_transition
from fabric.rc.requester import Requester
from fabric.rc.responder import Responder
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest, WorkCompletion
from fabric.units import Instant
from fabric.wire.fast import FrameBuilder, Packet
from fabric.wire.headers import local_ack_timeout
from fabric.wire.opcodes import OPCODES, Opcode

__all__ = ["CommunicationEstablished", "Completion", "FatalError", "QueuePair", "QueuePairStatistics"]
_ACKNOWLEDGE = int(Opcode.RC_ACKNOWLEDGE)
_RESPONSES = frozenset(int(opcode) for opcode, info in OPCODES.items() if info.response)
_ANSWERING = (QpState.RTS, QpState.RTR, QpState.SQD)
RECEIVES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class QueuePairStatistics:
    """Counters of one queue pair since it was brought up."""

    state: str
    packets_sent: int = 0
    packets_retransmitted: int = 0
    timeouts: int = 0
    naks_received: int = 0
    rnr_received: int = 0
    naks_sent: int = 0
    rnr_sent: int = 0
    duplicates_received: int = 0
    acknowledges_sent: int = 0


class QueuePair:
    """See the module text; the adapter demultiplexes packets to it and carries its frames away."""

    def __init__(self, qpn: Qpn, on_change: Callable[["QueuePair"], None] = lambda queue_pair: None) -> None:
        self.qpn = qpn
        self._on_change = on_change
        self.state = QpState.RESET
        self.remote_ip = b""
        self._remote_qpn = 0
        self._builder: FrameBuilder | None = None
        self._requester: Requester | None = None
        self._responder: Responder | None = None
        self._receives: deque[ReceiveWorkRequest] = deque()
        self._answers: deque[tuple[int, int]] = deque()
        self._events: deque[QpEvent] = deque()
        self._path_mtu = 0
        self._established = False
        self._acknowledges = 0

    # ------------------------------------------------------------------ commands

    def modify(self, target: QpState, **attributes: Any) -> None:
        """Move to ``target`` with the attributes that ``QP_TRANSITIONS`` names. IllegalTransition, SanloomError.

        ``on_change`` is told: the move may have events, or let out what waited.
        """
        check_transition(self.state, target, attributes)
        if target is QpState.RTR:
            self._builder = attributes["builder"]
            self.remote_ip = attributes["remote_ip"]
            self._remote_qpn = attributes["remote_qpn"]
            self._path_mtu = attributes["path_mtu"]
            self._responder = Responder(
                path_mtu=self._path_mtu,
                expected_psn=attributes["rq_psn"],
                min_rnr_timer=attributes["min_rnr_timer"],
                answer=self._answer,
                complete=self._complete,
                receives=self._receives,
            )
        elif target is QpState.RTS and self._requester is None:
            self._requester = Requester(
                path_mtu=self._path_mtu,
                next_psn=attributes["sq_psn"],
                timeout=local_ack_timeout(attributes["timeout"]),
                retry_count=attributes["retry_count"],
                rnr_retry=attributes["rnr_retry"],
                complete=self._complete,
            )
        elif target is QpState.ERR:
            self._enter_error(CompletionStatus.FLUSHED)
        elif target is QpState.RESET:
            self._forget()
        self.state = target
        self._on_change(self)

    def post_send(self, request: SendWorkRequest, now: Instant) -> None:
        """Send a message; IllegalTransition unless in RTS, SQD or ERR (where it is flushed)."""
        if self.state is QpState.ERR:
            self._complete(WorkCompletion(request.wr_id, "send", CompletionStatus.FLUSHED))
            return
        if self._requester is None or self.state not in (QpState.RTS, QpState.SQD):
            raise IllegalTransition("queue pair", self.state.value, "post_send", "requester")
        self._requester.post(request)

    def post_receive(self, request: ReceiveWorkRequest, now: Instant) -> None:
        """Offer room for one message; IllegalTransition in RESET."""
        if self.state is QpState.RESET:
            raise IllegalTransition("queue pair", self.state.value, "post_receive", "responder")
        if self.state is QpState.ERR:
            self._complete(WorkCompletion(request.wr_id, "receive", CompletionStatus.FLUSHED))
            return
        assert len(self._receives) < RECEIVES_MAX, "the consumer posts receives without bound"
        self._receives.append(request)

    # --------------------------------------------------------------------- input

    def handle_packet(self, packet: Packet, now: Instant) -> None:
        """A packet for this queue pair; anything that does not fit its state is dropped."""
        opcode = packet.opcode
        fatal: CompletionStatus | None = None
        if opcode == _ACKNOWLEDGE:
            if self._requester is not None and self.state in (QpState.RTS, QpState.SQD):
                aeth = packet.extension
                fatal = self._requester.handle_acknowledge(packet.psn, aeth[0], now)
            if fatal is not None:
                self._fail(fatal, sends_end_with=fatal)
        elif opcode not in _RESPONSES and self._responder is not None and self.state in _ANSWERING:
            if not self._established:
                self._established = True
                self._events.append(CommunicationEstablished())
            fatal = self._responder.handle_request(packet)
            if fatal is not None:
                self._fail(fatal, sends_end_with=CompletionStatus.FLUSHED)

    def handle_timeout(self, now: Instant) -> None:
        """The retransmission timer or the end of an RNR wait."""
        requester = self._requester
        if requester is not None and self.state in (QpState.RTS, QpState.SQD):
            fatal = requester.handle_timeout(now)
            if fatal is not None:
                self._fail(fatal, sends_end_with=fatal)

    # -------------------------------------------------------------------- output

    def poll_transmit(self, now: Instant) -> bytes | None:
        """The next frame: acknowledgements first."""
        if self._answers:
            return self.poll_answer()
        state = self.state
        builder = self._builder
        if builder is None or self._requester is None or state not in (QpState.RTS, QpState.SQD):
            return None
        packet = self._requester.poll(now, draining=state is QpState.SQD)
        if packet is None:
            return None
        psn, opcode, payload, ask, solicited = packet
        return builder.build(
            opcode, psn, payload, destination_qpn=self._remote_qpn, ack_request=ask, solicited=solicited
        )

    def poll_answer(self) -> bytes | None:
        """The next acknowledgement, of any kind, that the peer is owed."""
        if not self._answers:
            return None
        assert self._builder is not None
        assert self._responder is not None
        psn, syndrome = self._answers.popleft()
        self._acknowledges += 1
        aeth = (syndrome << 24 | self._responder.msn).to_bytes(4, "big")
        return self._builder.build(_ACKNOWLEDGE, psn, destination_qpn=self._remote_qpn, extension=aeth)

    def poll_event(self) -> QpEvent | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> Instant | None:
        """When the retransmission timer runs out."""
        return self._requester.deadline if self._requester is not None else None

    def statistics(self) -> QueuePairStatistics:
        """A frozen snapshot."""
        requester, responder = self._requester, self._responder
        return QueuePairStatistics(
            state=self.state.value,
            packets_sent=requester.packets if requester else 0,
            packets_retransmitted=requester.retransmitted if requester else 0,
            timeouts=requester.timeouts if requester else 0,
            naks_received=requester.naks_received if requester else 0,
            rnr_received=requester.rnr_received if requester else 0,
            naks_sent=responder.naks if responder else 0,
            rnr_sent=responder.rnr_naks if responder else 0,
            duplicates_received=responder.duplicates if responder else 0,
            acknowledges_sent=self._acknowledges,
        )

    # ------------------------------------------------------------------- private

    def _forget(self) -> None:
        """Back to how a queue pair is born; work ends without completions, and a timer of it must not go on."""
        self.remote_ip = b""
        self._builder = self._requester = self._responder = None
        self._receives = deque()
        self._answers.clear()
        self._established = False

    def _answer(self, psn: int, syndrome: int) -> None:
        answers = self._answers
        if syndrome < 0x20 and answers and answers[-1][1] < 0x20:
            answers[-1] = (psn, syndrome)  # one ACK covers all before it
        else:
            answers.append((psn, syndrome))

    def _complete(self, completion: WorkCompletion) -> None:
        self._events.append(Completion(completion))

    def _fail(self, status: CompletionStatus, *, sends_end_with: CompletionStatus) -> None:
        self._enter_error(sends_end_with)
        self.state = QpState.ERR
        self._events.append(FatalError(status))

    def _enter_error(self, first: CompletionStatus) -> None:
        """Flush all work (rule 38); the oldest send ends with ``first``."""
        if self._requester is not None:
            self._requester.flush(first)
        while self._receives:
            self._complete(WorkCompletion(self._receives.popleft().wr_id, "receive", CompletionStatus.FLUSHED))
