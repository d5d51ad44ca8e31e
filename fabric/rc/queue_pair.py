"""A queue pair of the reliable connection service: requester and responder behind one state machine (``qp_state``).

RDMA takes two more attributes, both 0 unless given: ``max_dest_rd_atomic`` with the move to RTR (how many RDMA READs
of the peer may wait for their answer: responder resources), ``max_rd_atomic`` with the move to RTS (how many of ours
may be unanswered: initiator depth). A queue pair names only memory that was registered for it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fabric.errors import IllegalTransition, SanloomError
from fabric.ids import Qpn
from fabric.rc.events import CommunicationEstablished, Completion, FatalError, QpEvent
from fabric.rc.memory import MESSAGE_MAX, Access, MemoryRegion, MemoryTable
from fabric.rc.qp_state import QpState, check_transition
from fabric.rc.remote_access import RemoteAccess
from fabric.rc.requester import READ_PACKETS_MAX, Requester, read_packets
from fabric.rc.responder import READ_ANSWER, Responder
from fabric.rc.work import (
    CompletionStatus,
    ReadWorkRequest,
    ReceiveWorkRequest,
    SendQueueRequest,
    WorkCompletion,
    WriteWorkRequest,
)
from fabric.rng import stream
from fabric.units import Instant
from fabric.wire.fast import FrameBuilder, Packet
from fabric.wire.headers import ack_syndrome, local_ack_timeout
from fabric.wire.opcodes import OPCODES, Opcode

__all__ = ["CommunicationEstablished", "Completion", "FatalError", "QueuePair", "QueuePairStatistics"]
_ACKNOWLEDGE = int(Opcode.RC_ACKNOWLEDGE)
_READ_RESPONSES = frozenset(
    (
        int(Opcode.RC_READ_RESPONSE_FIRST),
        int(Opcode.RC_READ_RESPONSE_MIDDLE),
        int(Opcode.RC_READ_RESPONSE_LAST),
        int(Opcode.RC_READ_RESPONSE_ONLY),
    )
)
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
    responses_sent: int = 0
    """Packets of answers to the peer's RDMA READs."""
    responses_dropped: int = 0
    """Packets of answers to ours that were not the next one expected."""


class QueuePair:
    """See the module text; the adapter demultiplexes packets to it and carries its frames away."""

    def __init__(
        self,
        qpn: Qpn,
        on_change: Callable[["QueuePair"], None] = lambda queue_pair: None,
        memory: MemoryTable | None = None,
    ) -> None:
        self.qpn = qpn
        self._memory = MemoryTable(stream(0, "no memory")) if memory is None else memory
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
        self._responses = 0

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
                remote_access=RemoteAccess(
                    self._memory,
                    domain=self.qpn,
                    path_mtu=self._path_mtu,
                    resources=attributes.get("max_dest_rd_atomic", 0),
                ),
            )
        elif target is QpState.RTS and self._requester is None:
            self._requester = Requester(
                path_mtu=self._path_mtu,
                next_psn=attributes["sq_psn"],
                timeout=local_ack_timeout(attributes["timeout"]),
                retry_count=attributes["retry_count"],
                rnr_retry=attributes["rnr_retry"],
                read_depth=attributes.get("max_rd_atomic", 0),
                complete=self._complete,
            )
        elif target is QpState.ERR:
            self._enter_error(CompletionStatus.FLUSHED)
        elif target is QpState.RESET:
            self._forget()
        self.state = target
        self._on_change(self)

    def post_send(self, request: SendQueueRequest, now: Instant) -> None:
        """Send a message, write to the peer's memory or read it; IllegalTransition unless in RTS, SQD or ERR (where it
        is flushed). SanloomError for local memory that the request may not use, and for a read without initiator depth.
        """
        if self.state is QpState.ERR:
            self._complete(WorkCompletion(request.wr_id, request.kind, CompletionStatus.FLUSHED))
            return
        if self._requester is None or self.state not in (QpState.RTS, QpState.SQD):
            raise IllegalTransition("queue pair", self.state.value, "post_send", "requester")
        if isinstance(request, WriteWorkRequest):
            parts = tuple(self._memory.gather(request.segments, Access(0), domain=self.qpn))
            request.payload = parts[0] if len(parts) == 1 else b"".join(parts)
            if len(request.payload) > MESSAGE_MAX:
                raise SanloomError(f"work request: {len(request.payload)} bytes are too many for one RDMA WRITE")
        elif isinstance(request, ReadWorkRequest):
            request.targets = tuple(self._memory.gather(request.segments, Access.LOCAL_WRITE, domain=self.qpn))
            request.size = sum(map(len, request.targets))
            if request.size > MESSAGE_MAX or read_packets(request.size, self._path_mtu) > READ_PACKETS_MAX:
                raise SanloomError(f"work request: {request.size} bytes are too many for one RDMA READ")
            if not self._requester.read_depth:
                raise SanloomError("work request: the queue pair was given no initiator depth for RDMA READ")
        self._requester.post(request)

    def revoke(self, region: MemoryRegion) -> None:
        """``region`` of this queue pair is not registered any more; see :meth:`Responder.revoke`."""
        responder = self._responder
        if responder is None or responder.remote_access.begun_in(region) is None:
            return
        self.drop_read_answers()
        if self.state in _ANSWERING:
            self._fail(responder.revoke(region), sends_end_with=CompletionStatus.FLUSHED)

    def drop_read_answers(self) -> None:
        """Answers to reads that are not yet sent never will be; acknowledgements and refusals stay."""
        self._answers = deque(answer for answer in self._answers if answer[1] != READ_ANSWER)

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
        elif opcode in _READ_RESPONSES:
            if self._requester is not None and self.state in (QpState.RTS, QpState.SQD):
                fatal = self._requester.handle_read_response(packet.psn, opcode, packet.payload, now)
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
        psn, opcode, payload, ask, solicited, extension = packet
        return builder.build(
            opcode,
            psn,
            payload,
            destination_qpn=self._remote_qpn,
            extension=extension,
            ack_request=ask,
            solicited=solicited,
        )

    def poll_answer(self) -> bytes | None:
        """The next acknowledgement, of any kind, that the peer is owed, or the next packet of the answer to a read."""
        if not self._answers:
            return None
        assert self._builder is not None
        assert self._responder is not None
        psn, syndrome = self._answers[0]
        if syndrome == READ_ANSWER:
            return self._poll_read_response(self._builder, self._responder)
        self._answers.popleft()
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
            responses_sent=self._responses,
            responses_dropped=requester.responses_dropped if requester else 0,
        )

    # ------------------------------------------------------------------- private

    def _poll_read_response(self, builder: FrameBuilder, responder: Responder) -> bytes:
        psn, opcode, payload, with_aeth, ends = responder.remote_access.next_response()
        if ends:
            self._answers.popleft()
        self._responses += 1
        aeth = (ack_syndrome() << 24 | responder.msn).to_bytes(4, "big") if with_aeth else b""
        return builder.build(opcode, psn, payload, destination_qpn=self._remote_qpn, extension=aeth)

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
