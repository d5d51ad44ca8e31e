"""The channel adapter of a host: its queue pairs, queue pair 1 for the connection manager, and the demultiplexing of
frames.

Whatever arrives and does not belong to a connection of this host is dropped in silence and counted by cause (rule 25).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from fabric.engine import Transmit
from fabric.errors import SanloomError
from fabric.ids import Qpn
from fabric.rc.events import QpEvent
from fabric.rc.memory import Access, Buffer, MemoryRegion, MemoryTable
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import ReceiveWorkRequest, SendQueueRequest
from fabric.rng import Stream
from fabric.units import Instant
from fabric.wire.cm import QKEY
from fabric.wire.fast import FrameBuilder, parse
from fabric.wire.headers import DEFAULT_PKEY, MalformedFrame
from fabric.wire.opcodes import Opcode

_UD_SEND_ONLY = int(Opcode.UD_SEND_ONLY)
_DETH = QKEY.to_bytes(4, "big") + (1).to_bytes(4, "big")
CAUSES = ("malformed", "not for this host", "partition key", "unknown queue pair", "wrong peer")


class QueuePairEvent(NamedTuple):
    """An event of one queue pair."""

    qpn: Qpn
    event: QpEvent


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A datagram for queue pair 1."""

    source_ip: bytes
    payload: bytes


AdapterEvent: TypeAlias = QueuePairEvent | DatagramReceived


@dataclass(frozen=True, slots=True)
class AdapterStatistics:
    """Counters of the adapter; ``dropped`` in the order of CAUSES."""

    frames_in: int
    frames_out: int
    dropped: tuple[int, ...]
    packets_retransmitted: int
    timeouts: int
    naks_sent: int
    rnr_sent: int
    duplicates_received: int
    queue_pairs: int


class ChannelAdapter:
    """See the module text. One port, number 0."""

    def __init__(
        self, *, mac: bytes, ip: bytes, neighbours: Callable[[bytes], bytes | None], rng: Stream, guid: int
    ) -> None:
        self.mac = mac
        self.ip = ip
        self.guid = guid
        self._neighbours = neighbours
        self._rng = rng
        self.memory = MemoryTable(rng)
        self._queue_pairs: dict[int, QueuePair] = {}
        self._used: dict[int, None] = {}
        self._ready: deque[QueuePair] = deque()
        self._timed: dict[int, QueuePair] = {}
        self._builders: dict[bytes, FrameBuilder] = {}
        self._outgoing: deque[bytes] = deque()
        """Datagrams, and the last answers of queue pairs that are gone."""
        self._events: deque[AdapterEvent] = deque()
        self._dropped = [0] * len(CAUSES)
        self._frames_in = self._frames_out = 0
        self._past = [0, 0, 0, 0, 0]

    # ------------------------------------------------------------------ commands

    def reaches(self, ip: bytes) -> bool:
        """Whether ``ip`` is a host of this fabric."""
        return self._neighbours(ip) is not None

    def create_queue_pair(self) -> QueuePair:
        """A queue pair in RESET with a number that this adapter has not used before."""
        qpn = self._rng.randrange(2, 1 << 24)
        while qpn in self._used or qpn in self._queue_pairs:
            qpn = self._rng.randrange(2, 1 << 24)
        self._used[qpn] = None
        if len(self._used) > 1 << 16:  # numbers of queue pairs long gone may come again
            self._used.pop(next(iter(self._used)))
        queue_pair = self._queue_pairs[qpn] = QueuePair(Qpn(qpn), self._touch, self.memory)
        return queue_pair

    def connect_queue_pair(
        self,
        qpn: Qpn,
        *,
        remote_ip: bytes,
        remote_qpn: int,
        path_mtu: int,
        rq_psn: int,
        min_rnr_timer: int,
        max_dest_rd_atomic: int = 0,
    ) -> None:
        """INIT -> RTR towards a host of the fabric. SanloomError if there is no such queue pair."""
        self._queue_pair(qpn).modify(
            QpState.RTR,
            builder=self._builder(remote_ip, 0xC000 | qpn & 0x3FFF),
            remote_ip=remote_ip,
            remote_qpn=remote_qpn,
            path_mtu=path_mtu,
            rq_psn=rq_psn,
            min_rnr_timer=min_rnr_timer,
            max_dest_rd_atomic=max_dest_rd_atomic,
        )

    def destroy_queue_pair(self, qpn: Qpn) -> None:
        """Forget a queue pair; its work ends without completions. Answers that it already owes its peer still leave:
        the peer would otherwise take a refusal for silence. Its memory is deregistered, and answers to reads stop.
        """
        queue_pair = self._queue_pairs.pop(qpn, None)
        self._timed.pop(qpn, None)
        if queue_pair is not None:
            stats = queue_pair.statistics()
            for index, value in enumerate(
                (
                    stats.packets_retransmitted,
                    stats.timeouts,
                    stats.naks_sent,
                    stats.rnr_sent,
                    stats.duplicates_received,
                )
            ):
                self._past[index] += value
            queue_pair.drop_read_answers()
            for region in self.memory.of_domain(qpn):
                self.memory.deregister(region)
            while (answer := queue_pair.poll_answer()) is not None:
                self._outgoing.append(answer)
            queue_pair.modify(QpState.RESET)  # who still holds it can do no harm with it
            self._ready.remove(queue_pair)

    def register_memory(self, qpn: Qpn, buffer: Buffer, access: Access) -> MemoryRegion:
        """Register memory for a queue pair. SanloomError if there is no such queue pair, or as ``MemoryTable`` says."""
        self._queue_pair(qpn)
        return self.memory.register(buffer, access, domain=qpn)

    def deregister_memory(self, region: MemoryRegion) -> None:
        """The region is the queue pair's no more; an answer that the peer was being given out of it ends in a refusal.
        Local requests that were posted keep the bytes that they were given. SanloomError if it is not registered.
        """
        self.memory.deregister(region)
        queue_pair = self._queue_pairs.get(region.domain)
        if queue_pair is not None:
            queue_pair.revoke(region)
            self._touch(queue_pair)

    def post_send(self, qpn: Qpn, request: SendQueueRequest, now: Instant) -> None:
        """Send, write or read on a queue pair. SanloomError if there is no such queue pair or the request names memory
        that it may not, IllegalTransition as its state says.
        """
        queue_pair = self._queue_pair(qpn)
        queue_pair.post_send(request, now)
        self._touch(queue_pair)

    def post_receive(self, qpn: Qpn, request: ReceiveWorkRequest, now: Instant) -> None:
        """Post a receive on a queue pair. SanloomError if there is no such queue pair, IllegalTransition in RESET."""
        queue_pair = self._queue_pair(qpn)
        queue_pair.post_receive(request, now)
        if queue_pair.state is QpState.ERR:
            self._touch(queue_pair)  # it was flushed at once

    def send_datagram(self, remote_ip: bytes, payload: bytes, now: Instant) -> None:
        """A management datagram from queue pair 1 to queue pair 1; silently dropped for an address off the fabric."""
        if self._neighbours(remote_ip) is None:
            return
        builder = self._builders.get(remote_ip)
        if builder is None:
            builder = self._builders[remote_ip] = self._builder(remote_ip, 0xC001)
        self._outgoing.append(builder.build(_UD_SEND_ONLY, 0, payload, destination_qpn=1, extension=_DETH))

    # --------------------------------------------------------------------- input

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """A frame from the fabric."""
        self._frames_in += 1
        try:
            packet = parse(frame)
        except MalformedFrame:
            self._dropped[0] += 1
            return
        if packet.destination_ip != self.ip:
            self._dropped[1] += 1
            return
        if packet.pkey & 0x7FFF != DEFAULT_PKEY & 0x7FFF:
            self._dropped[2] += 1
            return
        qpn = packet.destination_qpn
        if qpn == 1 and packet.opcode == _UD_SEND_ONLY:
            if packet.extension[:4] == _DETH[:4]:
                self._events.append(DatagramReceived(packet.source_ip, packet.payload))
            else:
                self._dropped[3] += 1
            return
        queue_pair = self._queue_pairs.get(qpn)
        if queue_pair is None or packet.opcode >= 0x20:
            self._dropped[3] += 1
            return
        if packet.source_ip != queue_pair.remote_ip:
            self._dropped[4] += 1
            return
        queue_pair.handle_packet(packet, now)
        self._touch(queue_pair)

    def handle_timeout(self, now: Instant) -> None:
        """Retransmission timers that have run out."""
        for queue_pair in list(self._timed.values()):
            deadline = queue_pair.poll_timeout()
            if deadline is not None and now >= deadline:
                queue_pair.handle_timeout(now)
                self._touch(queue_pair)

    # -------------------------------------------------------------------- output

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next frame: datagrams first, then the queue pairs in turn."""
        if self._outgoing:
            self._frames_out += 1
            return Transmit(0, self._outgoing.popleft(), now)
        ready = self._ready
        while ready:
            queue_pair = ready[0]
            frame = queue_pair.poll_transmit(now)
            if frame is not None:
                self._frames_out += 1
                if len(ready) > 1:
                    ready.rotate(-1)
                return Transmit(0, frame, now)
            ready.popleft()
            if queue_pair.poll_timeout() is not None and queue_pair.qpn in self._queue_pairs:
                self._timed[queue_pair.qpn] = queue_pair
            else:
                self._timed.pop(queue_pair.qpn, None)
        return None

    def poll_event(self) -> AdapterEvent | None:
        """The next event."""
        events = self._events
        return events.popleft() if events else None

    def poll_timeout(self) -> Instant | None:
        """The earliest retransmission timer."""
        earliest: Instant | None = None
        for queue_pair in self._timed.values():
            deadline = queue_pair.poll_timeout()
            if deadline is not None and (earliest is None or deadline < earliest):
                earliest = deadline
        return earliest

    def statistics(self) -> AdapterStatistics:
        """A frozen snapshot."""
        totals = list(self._past)
        for queue_pair in self._queue_pairs.values():
            stats = queue_pair.statistics()
            totals[0] += stats.packets_retransmitted
            totals[1] += stats.timeouts
            totals[2] += stats.naks_sent
            totals[3] += stats.rnr_sent
            totals[4] += stats.duplicates_received
        retransmitted, timeouts, naks, rnr, duplicates = totals
        return AdapterStatistics(
            frames_in=self._frames_in,
            frames_out=self._frames_out,
            dropped=tuple(self._dropped),
            packets_retransmitted=retransmitted,
            timeouts=timeouts,
            naks_sent=naks,
            rnr_sent=rnr,
            duplicates_received=duplicates,
            queue_pairs=len(self._queue_pairs),
        )

    # ------------------------------------------------------------------- private

    def _queue_pair(self, qpn: Qpn) -> QueuePair:
        queue_pair = self._queue_pairs.get(qpn)
        if queue_pair is None:
            raise SanloomError(f"channel adapter: there is no queue pair {qpn}")
        return queue_pair

    def _touch(self, queue_pair: QueuePair) -> None:
        """It may have something to send, and has perhaps events."""
        if queue_pair not in self._ready:
            self._ready.append(queue_pair)
        while (event := queue_pair.poll_event()) is not None:
            self._events.append(QueuePairEvent(queue_pair.qpn, event))

    def _builder(self, remote_ip: bytes, udp_source_port: int) -> FrameBuilder:
        destination = self._neighbours(remote_ip)
        assert destination is not None, "the caller checks that the fabric has this address"
        return FrameBuilder(
            source_mac=self.mac,
            destination_mac=destination,
            source_ip=self.ip,
            destination_ip=remote_ip,
            udp_source_port=udp_source_port,
        )
