"""Two channel adapters with a connected queue pair each, on a fake wire under a manual clock.

What differs from a perfect wire is said by ``pair.fate(packet) -> list of delays``: none drops the frame, two duplicate
it, a longer one lets others overtake it. Times are integer nanoseconds.
"""

import heapq
from collections.abc import Callable

from fabric.rc.adapter import ChannelAdapter, QueuePairEvent
from fabric.rc.events import Completion, FatalError
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest, WorkCompletion
from fabric.rng import stream
from fabric.units import MILLISECOND, SECOND
from fabric.wire.fast import Packet, parse

LATENCY = MILLISECOND
HOSTS = {bytes((10, 0, 0, n)): bytes((2, 0, 10, 0, 0, n)) for n in (1, 2)}


class RcHost:
    """One adapter and its queue pair."""

    def __init__(self, number: int, seed: int) -> None:
        self.ip = bytes((10, 0, 0, number))
        self.adapter = ChannelAdapter(
            mac=HOSTS[self.ip], ip=self.ip, neighbours=HOSTS.get, rng=stream(seed, f"rc/{number}"), guid=number
        )
        self.qp: QueuePair = self.adapter.create_queue_pair()
        self.completions: list[WorkCompletion] = []
        self.failures: list[CompletionStatus] = []
        self.events: list[object] = []
        self.sent: list[Packet] = []
        self._wr_id = 0

    def connect(self, other: "RcHost", *, rq_psn: int, sq_psn: int, settings: dict[str, int]) -> None:
        """RESET to RTS."""
        self.qp.modify(QpState.INIT)
        self.adapter.connect_queue_pair(
            self.qp.qpn,
            remote_ip=other.ip,
            remote_qpn=int(other.qp.qpn),
            path_mtu=settings["path_mtu"],
            rq_psn=rq_psn,
            min_rnr_timer=settings["min_rnr_timer"],
        )
        self.qp.modify(
            QpState.RTS,
            sq_psn=sq_psn,
            timeout=settings["timeout"],
            retry_count=settings["retry_count"],
            rnr_retry=settings["rnr_retry"],
        )

    def of(self, opcode: str) -> list[WorkCompletion]:
        """Completions of "send" or "receive"."""
        return [completion for completion in self.completions if completion.opcode == opcode]

    @property
    def received(self) -> list[bytes]:
        """The messages received, in order."""
        return [c.data for c in self.of("receive") if c.status is CompletionStatus.SUCCESS]


class RcPair:
    """``a`` and ``b``, in RTS towards each other; changes: path_mtu, timeout (code), retry_count, rnr_retry, ..."""

    def __init__(self, *, seed: int = 1, psn_a: int = 100, psn_b: int = 5000, **changes: int) -> None:
        settings = {"path_mtu": 1024, "timeout": 14, "retry_count": 3, "rnr_retry": 7, "min_rnr_timer": 1} | changes
        self.now = 0
        self.a, self.b = RcHost(1, seed), RcHost(2, seed)
        self.fate: Callable[[Packet], list[int]] = lambda packet: [LATENCY]
        self.a.connect(self.b, rq_psn=psn_b, sq_psn=psn_a, settings=settings)
        self.b.connect(self.a, rq_psn=psn_a, sq_psn=psn_b, settings=settings)
        self._wire: list[tuple[int, int, RcHost, bytes]] = []
        self._number = 0

    def send(self, host: RcHost, *messages: bytes) -> None:
        """Post messages and let them go."""
        for message in messages:
            host._wr_id += 1
            host.adapter.post_send(host.qp.qpn, SendWorkRequest(host._wr_id, message), self.now)
        self.drain()

    def receive(self, host: RcHost, count: int = 1, length: int = 65_536) -> None:
        """Post receives."""
        for _ in range(count):
            host._wr_id += 1
            host.adapter.post_receive(host.qp.qpn, ReceiveWorkRequest(host._wr_id, length), self.now)

    def inject(self, host: RcHost, frame: bytes) -> None:
        """A frame from elsewhere, now."""
        host.adapter.handle_frame(0, frame, self.now)
        self.drain()

    def drain(self) -> None:
        """Carry what the adapters give out onto the wire."""
        for host, other in ((self.a, self.b), (self.b, self.a)):
            while (transmit := host.adapter.poll_transmit(self.now)) is not None:
                packet = parse(transmit.frame)
                host.sent.append(packet)
                for delay in self.fate(packet):
                    self._number += 1
                    heapq.heappush(self._wire, (self.now + delay, self._number, other, transmit.frame))
            while (event := host.adapter.poll_event()) is not None:
                assert isinstance(event, QueuePairEvent)
                host.events.append(event.event)
                if isinstance(event.event, Completion):
                    host.completions.append(event.event.completion)
                elif isinstance(event.event, FatalError):
                    host.failures.append(event.event.status)

    def step(self) -> bool:
        """The next frame or timeout; false when there is none."""
        deadlines = [d for h in (self.a, self.b) if (d := h.adapter.poll_timeout()) is not None]
        instants = [*deadlines, *([self._wire[0][0]] if self._wire else [])]
        if not instants:
            return False
        self.now = max(self.now, min(instants))
        if self._wire and self._wire[0][0] <= self.now:
            _, _, host, frame = heapq.heappop(self._wire)
            host.adapter.handle_frame(0, frame, self.now)
        else:
            for host in (self.a, self.b):
                host.adapter.handle_timeout(self.now)
        self.drain()
        return True

    def run(self, limit: int = 1000 * SECOND) -> None:
        """Until nothing moves any more."""
        steps = 0
        while self.now < limit and self.step():
            steps += 1
            assert steps < 2_000_000, "the pair does not come to rest"
