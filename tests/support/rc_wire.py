"""Reliable connections for tests: one queue pair, or two hosts' channel adapters on a fake wire under a manual clock.

Who tests through ``RcWire`` says only what differs: the fate of a frame (``wire.fate``). Times are integer nanoseconds.
"""

import heapq
from collections.abc import Callable
from typing import Any

from fabric.ids import Qpn
from fabric.rc.adapter import ChannelAdapter, DatagramReceived, QueuePairEvent
from fabric.rc.events import Completion, FatalError
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest, WorkCompletion
from fabric.rng import stream
from fabric.units import MICROSECOND
from fabric.wire.fast import FrameBuilder, Packet, parse
from fabric.wire.headers import DEFAULT_PKEY
from fabric.wire.opcodes import EXTENSION_SIZE, Opcode

A_IP, B_IP = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MACS = {A_IP: b"\2\0\x0a\0\0\1", B_IP: b"\2\0\x0a\0\0\2"}
LATENCY = 10 * MICROSECOND
FIRST, MIDDLE, LAST, ONLY = 0, 1, 2, 4
ACKNOWLEDGE = int(Opcode.RC_ACKNOWLEDGE)


def builder(source: bytes = A_IP, destination: bytes = B_IP, port: int = 50_000) -> FrameBuilder:
    """Builds frames from one host to the other."""
    return FrameBuilder(
        source_mac=MACS.get(source, b"\2" * 6),
        destination_mac=MACS.get(destination, b"\4" * 6),
        source_ip=source,
        destination_ip=destination,
        udp_source_port=port,
    )


RTR: dict[str, Any] = {
    "builder": builder(),
    "remote_ip": B_IP,
    "remote_qpn": 0x200,
    "path_mtu": 256,
    "rq_psn": 500,
    "min_rnr_timer": 12,
}
RTS: dict[str, Any] = {"sq_psn": 100, "timeout": 14, "retry_count": 3, "rnr_retry": 3}


def queue_pair_in(state: QpState, **changes: Any) -> QueuePair:
    """A queue pair of the number 0x100, brought to ``state`` the shortest way."""
    queue_pair = QueuePair(Qpn(0x100))
    road = {
        QpState.RESET: (),
        QpState.INIT: (QpState.INIT,),
        QpState.RTR: (QpState.INIT, QpState.RTR),
        QpState.RTS: (QpState.INIT, QpState.RTR, QpState.RTS),
        QpState.SQD: (QpState.INIT, QpState.RTR, QpState.RTS, QpState.SQD),
        QpState.ERR: (QpState.ERR,),
    }
    for stage in road[state]:
        queue_pair.modify(stage, **(RTR | RTS | changes))
    return queue_pair


def packet(
    opcode: int, psn: int, payload: bytes = b"", *, ack_request: bool = False, aeth: int = -1, extension: bytes = b""
) -> Packet:
    """A packet as ``parse`` gives it, from host B to queue pair 0x100 of host A. Extension headers are zero unless
    given.
    """
    if not extension:
        extension = bytes(EXTENSION_SIZE.get(opcode, 0)) if aeth < 0 else aeth.to_bytes(4, "big")
    return Packet(B_IP, A_IP, opcode, False, DEFAULT_PKEY, 0x100, ack_request, psn, extension, payload, False)


def acknowledge(psn: int, syndrome: int = 0x1F, msn: int = 0) -> Packet:
    """An AETH from host B."""
    return packet(ACKNOWLEDGE, psn, aeth=syndrome << 24 | msn)


def transmitted(queue_pair: QueuePair, now: int) -> list[Packet]:
    """All that a queue pair has to send now."""
    return [parse(frame) for frame in iter(lambda: queue_pair.poll_transmit(now), None)]


def completions(queue_pair: QueuePair) -> list[WorkCompletion]:
    """The completions that a queue pair reports."""
    return [event.completion for event in iter(queue_pair.poll_event, None) if isinstance(event, Completion)]


class RcHost:
    """A channel adapter and what it reported."""

    def __init__(self, wire: "RcWire", name: str, ip: bytes) -> None:
        self.wire, self.name, self.ip = wire, name, ip
        self.adapter = ChannelAdapter(
            mac=MACS[ip], ip=ip, neighbours=MACS.get, rng=stream(wire.seed, f"rc/{name}"), guid=ip[3]
        )
        self.events: list[Any] = []
        self.received: dict[int, list[bytes]] = {}
        self.ended: dict[int, list[tuple[int, CompletionStatus]]] = {}
        """Completions of the send queue by queue pair: (work request id, status)."""
        self.fatal: dict[int, CompletionStatus] = {}
        self.datagrams: list[bytes] = []

    def note(self, event: Any) -> None:
        """Sort one event of the adapter."""
        self.events.append(event)
        if isinstance(event, DatagramReceived):
            self.datagrams.append(event.payload)
        elif isinstance(event, QueuePairEvent) and isinstance(event.event, Completion):
            done = event.event.completion
            if done.opcode != "receive":
                self.ended.setdefault(event.qpn, []).append((done.wr_id, done.status))
            elif done.status is CompletionStatus.SUCCESS:
                self.received.setdefault(event.qpn, []).append(done.data)
        elif isinstance(event, QueuePairEvent) and isinstance(event.event, FatalError):
            self.fatal[event.qpn] = event.event.status

    def receive(self, qpn: int, length: int, count: int = 1) -> None:
        """Post receives, now."""
        for number in range(count):
            self.adapter.post_receive(Qpn(qpn), ReceiveWorkRequest(number, length), self.wire.now)

    def send(self, qpn: int, payload: bytes, wr_id: int = 0) -> None:
        """Post a send, now."""
        self.adapter.post_send(Qpn(qpn), SendWorkRequest(wr_id, payload), self.wire.now)
        self.wire.drain()


class RcWire:
    """Hosts ``a`` and ``b``, and what travels between them.

    ``fate(sender, frame)`` gives the delays at which copies of a frame arrive: ``()`` loses it.
    ``log`` has ``(now, sender name, packet)`` for every frame sent.
    """

    def __init__(self, seed: int = 1) -> None:
        self.seed, self.now = seed, 0
        self.fate: Callable[[RcHost, bytes], tuple[int, ...]] = lambda sender, frame: (LATENCY,)
        self.log: list[tuple[int, str, Packet]] = []
        self.a, self.b = RcHost(self, "a", A_IP), RcHost(self, "b", B_IP)
        self._under_way: list[tuple[int, int, RcHost, bytes]] = []
        self._serial = 0

    def connected(
        self,
        *,
        path_mtu: int = 256,
        a_psn: int = 100,
        b_psn: int = 500,
        min_rnr_timer: int = 1,
        resources: int = 0,
        **rts: Any,
    ) -> tuple[int, int]:
        """A connection between the hosts, both in RTS: (a's, b's queue pair number). ``a_psn`` is what a sends from;
        ``resources`` is the responder resources of both for RDMA READ, ``max_rd_atomic`` their initiator depth.
        """
        pairs = [host.adapter.create_queue_pair() for host in (self.a, self.b)]
        psns = [(b_psn, a_psn), (a_psn, b_psn)]
        for host, local, remote, other, (rq_psn, sq_psn) in zip(
            (self.a, self.b), pairs, pairs[::-1], (self.b, self.a), psns, strict=True
        ):
            local.modify(QpState.INIT)
            host.adapter.connect_queue_pair(
                local.qpn,
                remote_ip=other.ip,
                remote_qpn=remote.qpn,
                path_mtu=path_mtu,
                rq_psn=rq_psn,
                min_rnr_timer=min_rnr_timer,
                max_dest_rd_atomic=resources,
            )
            local.modify(QpState.RTS, **(RTS | rts | {"sq_psn": sq_psn}))
        return pairs[0].qpn, pairs[1].qpn

    def drain(self) -> None:
        """Events to the hosts and frames onto the wire until nothing moves."""
        moved = True
        while moved:
            moved = False
            for host in (self.a, self.b):
                while (event := host.adapter.poll_event()) is not None:
                    host.note(event)
                    moved = True
                while (transmit := host.adapter.poll_transmit(self.now)) is not None:
                    self._send(host, transmit.frame)
                    moved = True

    def step(self, until: int) -> bool:
        """The next arrival or timeout up to ``until``; False if there is none (then it is ``until``)."""
        deadlines = [host.adapter.poll_timeout() for host in (self.a, self.b)]
        instants = [at for at in deadlines if at is not None] + [entry[0] for entry in self._under_way[:1]]
        if not instants or min(instants) > until:
            self.now = max(self.now, until)
            return False
        self.now = max(self.now, min(instants))
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, target, frame = heapq.heappop(self._under_way)
            target.adapter.handle_frame(0, frame, self.now)
            self.drain()
        for host in (self.a, self.b):
            host.adapter.handle_timeout(self.now)
        self.drain()
        for host in (self.a, self.b):
            deadline = host.adapter.poll_timeout()
            assert deadline is None or deadline > self.now, "a timeout that is due again at once"
        return True

    def run(self, duration: int) -> None:
        """Let time pass."""
        self.drain()
        until = self.now + duration
        while self.step(until):
            pass

    def quiet(self) -> bool:
        """Whether nothing is under way and no timer runs."""
        return not self._under_way and all(host.adapter.poll_timeout() is None for host in (self.a, self.b))

    def sent(self, by: RcHost, *opcodes: int) -> list[Packet]:
        """What a host sent so far, all of it or certain opcodes."""
        return [p for _, name, p in self.log if name == by.name and (not opcodes or p.opcode in opcodes)]

    def _send(self, sender: RcHost, frame: bytes) -> None:
        self.log.append((self.now, sender.name, parse(frame)))
        target = self.b if sender is self.a else self.a
        for delay in self.fate(sender, frame):
            self._serial += 1
            heapq.heappush(self._under_way, (self.now + delay, self._serial, target, frame))
