"""Two adapters on a wire that loses, doubles, delays and reorders: every message arrives once and in order, or the
connection says that it failed. A failure names its seed.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.rc.requester import WINDOW
from fabric.rc.work import CompletionStatus
from fabric.units import MICROSECOND, MILLISECOND, SECOND
from fabric.wire.headers import local_ack_timeout
from tests.support.rc_wire import ACKNOWLEDGE, FIRST, LATENCY, MIDDLE, ONLY, RcHost, RcWire

OK = CompletionStatus.SUCCESS
NEAR_THE_WRAP = (0, 1, 0xFFFFFF, 0xFFFFFE, 0xFFFFC0, 0x7FFFFF, 0x800000)


class Flow:
    """One direction of a connection: messages posted at one end, receives at the other."""

    def __init__(self, source: RcHost, source_qpn: int, target: RcHost, target_qpn: int) -> None:
        self.source, self.source_qpn = source, source_qpn
        self.target, self.target_qpn = target, target_qpn
        self.messages: list[bytes] = []
        self.receives = 0

    def send(self, message: bytes) -> None:
        self.messages.append(message)
        self.source.send(self.source_qpn, message, len(self.messages))

    def offer(self, count: int, length: int) -> None:
        self.target.receive(self.target_qpn, length, count)
        self.receives += count

    @property
    def received(self) -> list[bytes]:
        return self.target.received.get(self.target_qpn, [])

    def check_complete(self, hint: str) -> None:
        assert self.received == self.messages, hint
        ended = self.source.ended.get(self.source_qpn, [])
        assert ended == [(number + 1, OK) for number in range(len(self.messages))], hint


def flows(wire: RcWire, **arguments: int) -> tuple[Flow, Flow]:
    a, b = wire.connected(**arguments)
    return Flow(wire.a, a, wire.b, b), Flow(wire.b, b, wire.a, a)


def check_quiet(wire: RcWire, hint: str) -> None:
    """Both engines at rest: nothing under way, no timer, and spurious timeouts wake nothing."""
    assert wire.quiet(), hint
    before = len(wire.log)
    for host in (wire.a, wire.b):
        host.adapter.handle_timeout(wire.now + 3600 * SECOND)
    wire.drain()
    assert len(wire.log) == before, hint


@pytest.mark.parametrize("seed", range(80))
def test_messages_arrive_exactly_once_and_in_order(seed):
    rng = random.Random(seed)
    hint = f"seed {seed}"
    loss, double = rng.choice((0, 0.02, 0.1, 0.2)), rng.choice((0, 0.05, 0.2))
    jitter = rng.choice((0, 0, LATENCY // 2, 5 * LATENCY, 40 * LATENCY))
    mtu = rng.choice((256, 512, 1024, 2048, 4096))

    def fate(sender: RcHost, frame: bytes) -> tuple[int, ...]:
        if rng.random() < loss:
            return ()
        copies = 2 if rng.random() < double else 1
        return tuple(LATENCY + rng.randint(0, jitter) for _ in range(copies))

    wire = RcWire(seed)
    wire.fate = fate
    both = flows(
        wire,
        path_mtu=mtu,
        a_psn=rng.choice((*NEAR_THE_WRAP, rng.getrandbits(24))),
        b_psn=rng.choice((*NEAR_THE_WRAP, rng.getrandbits(24))),
        timeout=rng.choice((4, 6, 8)),  # 66 us to 1 ms; the shorter ones run out before an ACK can be back
        retry_count=7,
        rnr_retry=7,
        min_rnr_timer=rng.choice((1, 3, 14)),
    )
    largest = 6 * mtu
    counts = [rng.choice((0, 1, 5, 30)), rng.choice((1, 5, 60))]
    while any(counts):
        for index, flow in enumerate(both):
            burst = min(counts[index], rng.choice((0, 1, 4, 40)))
            counts[index] -= burst
            for _ in range(burst):
                flow.send(rng.randbytes(rng.choice((0, 1, mtu - 1, mtu, mtu + 1, rng.randint(0, largest)))))
            flow.offer(rng.randint(0, burst), largest)  # the rest of the receives come late: RNR
        wire.run(rng.choice((0, 5, 100, 3000)) * MICROSECOND)
    for flow in both:
        flow.offer(len(flow.messages) - flow.receives, largest)
    wire.run(60 * SECOND)
    for flow in both:
        assert not flow.source.fatal, f"{hint}: {flow.source.fatal}"
        flow.check_complete(hint)
    check_quiet(wire, hint)


FATES = {"arrives": (LATENCY,), "lost": (), "twice": (LATENCY, 3 * LATENCY), "late": (30 * LATENCY,)}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 1100), min_size=1, max_size=8),
    frames=st.lists(st.sampled_from(list(FATES)), max_size=60),
    psn=st.sampled_from((100, 0xFFFFFE)),
    offered=st.integers(0, 8),
)
def test_every_message_arrives_once_or_the_connection_says_that_it_failed(sizes, frames, psn, offered):
    wire = RcWire()
    script = iter(frames)
    wire.fate = lambda sender, frame: FATES[next(script, "arrives")]
    flow, back = flows(wire, a_psn=psn, timeout=6, retry_count=1, rnr_retry=7)
    flow.offer(min(offered, len(sizes)), 1100)
    for number, size in enumerate(sizes):
        flow.send(bytes([number]) * size)
    wire.run(5 * MILLISECOND)
    flow.offer(len(sizes) - flow.receives, 1100)
    wire.run(SECOND)
    if flow.source_qpn in wire.a.fatal:
        assert wire.a.fatal[flow.source_qpn] is CompletionStatus.RETRY_EXCEEDED
        assert flow.received == flow.messages[: len(flow.received)]
        ended = wire.a.ended[flow.source_qpn]
        assert [number for number, _ in ended] == list(range(1, len(sizes) + 1))
        assert sum(status is OK for _, status in ended) <= len(flow.received)
    else:
        flow.check_complete("")
    assert back.messages == back.received == []
    check_quiet(wire, "")


@pytest.mark.parametrize("psn", [100, 0xFFFFC0])
def test_a_burst_of_many_windows_without_loss_needs_no_retransmission(psn):
    wire = RcWire()
    flow, _ = flows(wire, a_psn=psn)
    flow.offer(3, 256 * 5 * WINDOW)
    for number in range(3):
        flow.send(bytes([number]) * (256 * 5 * WINDOW))
    wire.run(SECOND)
    flow.check_complete("")
    check_quiet(wire, "")
    assert wire.a.adapter.statistics().packets_retransmitted == 0
    assert wire.b.adapter.statistics().duplicates_received == 0
    assert len(wire.sent(wire.b)) < len(wire.sent(wire.a)) / 8, "ACKs are coalesced"


def test_one_lost_packet_costs_one_go_back_and_no_timeout():
    wire = RcWire()
    lost = iter([False, False, True])
    wire.fate = lambda sender, frame: () if sender is wire.a and next(lost, False) else (LATENCY,)
    flow, _ = flows(wire)
    flow.offer(1, 3000)
    flow.send(b"x" * 2560)
    wire.run(SECOND)
    flow.check_complete("")
    check_quiet(wire, "")
    statistics = wire.a.adapter.statistics()
    assert (statistics.packets_retransmitted, statistics.timeouts) == (8, 0)
    assert wire.b.adapter.statistics().naks_sent == 1
    assert [one.psn for one in wire.sent(wire.a, FIRST)] == [100]
    assert [one.psn for one in wire.sent(wire.a, MIDDLE)].count(102) == 2


@pytest.mark.parametrize("retries", [0, 1, 3, 7])
def test_rule_33_a_peer_that_is_gone_is_noticed_after_1_plus_c_transmissions_and_that_time(retries):
    wire = RcWire()
    wire.fate = lambda sender, frame: ()
    flow, _ = flows(wire, timeout=10, retry_count=retries)
    flow.send(b"hello")
    flow.send(b"again")
    wire.run(SECOND)
    assert [one.psn for one in wire.sent(wire.a, ONLY)] == [100, 101] * (1 + retries)
    assert {at for at, _, _ in wire.log} == {k * local_ack_timeout(10) for k in range(1 + retries)}
    assert wire.a.fatal == {flow.source_qpn: CompletionStatus.RETRY_EXCEEDED}
    assert wire.a.ended[flow.source_qpn] == [
        (1, CompletionStatus.RETRY_EXCEEDED),
        (2, CompletionStatus.FLUSHED),
    ]
    check_quiet(wire, "")


def test_lost_acks_alone_deliver_once_and_are_repaired_by_a_timeout():
    wire = RcWire()
    wire.fate = lambda sender, frame: () if sender is wire.b and wire.now < MILLISECOND else (LATENCY,)
    flow, _ = flows(wire, timeout=8)
    flow.offer(2, 600)
    flow.send(b"x" * 600)
    flow.send(b"")
    wire.run(SECOND)
    flow.check_complete("")
    assert wire.b.adapter.statistics().duplicates_received == 4
    check_quiet(wire, "")


def test_rnr_is_repaired_as_soon_as_a_receive_is_there_and_exhausted_when_none_comes():
    wire = RcWire()
    flow, _ = flows(wire, rnr_retry=2, min_rnr_timer=14)  # 1.28 ms
    flow.send(b"one")
    wire.run(2 * MILLISECOND)
    flow.offer(1, 10)
    wire.run(2 * MILLISECOND)
    flow.check_complete("")
    flow.send(b"two")
    wire.run(SECOND)
    assert wire.a.fatal == {flow.source_qpn: CompletionStatus.RNR_RETRY_EXCEEDED}
    assert len(wire.sent(wire.a, ONLY)) == 3 + 3
    assert wire.b.adapter.statistics().rnr_sent == 2 + 3
    assert wire.a.adapter.statistics().timeouts == 0
    check_quiet(wire, "")


def test_a_refusal_reaches_the_peer_though_the_queue_pair_is_destroyed_at_once():
    wire = RcWire()
    flow, _ = flows(wire)
    flow.offer(1, 10)
    note = wire.b.note

    def destroy_on_error(event: object) -> None:
        note(event)
        if wire.b.fatal:
            wire.b.adapter.destroy_queue_pair(flow.target_qpn)

    wire.b.note = destroy_on_error  # type: ignore[method-assign]
    flow.send(b"too long for ten bytes")
    wire.run(MILLISECOND)
    assert wire.b.fatal == {flow.target_qpn: CompletionStatus.LOCAL_LENGTH_ERROR}
    assert wire.a.fatal == {flow.source_qpn: CompletionStatus.REMOTE_INVALID_REQUEST}
    assert [one.extension[0] for one in wire.sent(wire.b, ACKNOWLEDGE)] == [0x61]
    check_quiet(wire, "")
