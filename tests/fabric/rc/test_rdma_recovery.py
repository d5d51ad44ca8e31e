"""RDMA on a wire that loses, doubles and reorders: rules 12, 13, 32, 33, 36, 40 of wire.md 8."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.ids import Qpn
from fabric.rc.adapter import ChannelAdapter
from fabric.rc.qp_state import QpState
from fabric.rc.work import CompletionStatus, ReadWorkRequest, ReceiveWorkRequest, WriteWorkRequest
from fabric.rng import stream
from fabric.units import MICROSECOND, MILLISECOND, SECOND
from fabric.wire.headers import Reth
from tests.support.contract import check_engine
from tests.support.rc_wire import A_IP, ACKNOWLEDGE, B_IP, LATENCY, MACS, RTS, builder
from tests.support.rdma_pair import (
    EVERYTHING,
    READ,
    READ_FIRST,
    READ_LAST,
    READ_MIDDLE,
    READ_ONLY,
    WRITE_FIRST,
    WRITE_LAST,
    RdmaPair,
    pattern,
)


def lose(pair, by, *numbers):
    """The frames of ``by`` with these numbers (the first is 0) are lost."""
    count = iter(range(1_000_000))
    pair.wire.fate = lambda sender, _: () if sender is by and next(count) in numbers else (LATENCY,)


@pytest.mark.parametrize(
    ("lost", "begins", "opcodes"),
    [
        (0, 0, [READ_FIRST, READ_MIDDLE, READ_MIDDLE, READ_LAST]),
        (1, 1, [READ_FIRST, READ_MIDDLE, READ_LAST]),
        (2, 2, [READ_FIRST, READ_LAST]),
        (3, 3, [READ_ONLY]),
    ],
)
def test_rule_13_only_what_is_missing_is_read_again(lost, begins, opcodes):
    pair = RdmaPair(a_psn=0xFFFFFE)
    lose(pair, pair.b, lost)
    pair.read(300, 10, 1000)
    pair.run()
    assert pair.all_good()
    assert pair.here[10:1010] == pattern(8192, 100)[300:1300]
    first, again = pair.requests()
    assert first == (0xFFFFFE, 300, 1000)
    assert again == ((0xFFFFFE + begins) & 0xFFFFFF, 300 + 256 * begins, 1000 - 256 * begins)
    assert [p.opcode for p in pair.responses()][4:] == opcodes
    assert [p.psn for p in pair.responses()][4:] == [(0xFFFFFE + n) & 0xFFFFFF for n in range(begins, 4)]


def test_rule_13_a_read_that_was_lost_as_a_whole_is_not_passed_over():
    pair = RdmaPair()
    lose(pair, pair.b, 0)
    pair.read(0, 0, 100)
    pair.read(100, 100, 100)
    pair.run()
    assert pair.all_good()
    assert pair.here[:200] == pattern(8192, 100)[:200]


def test_rule_12_an_acknowledgement_does_not_complete_a_read():
    pair = RdmaPair()
    lose(pair, pair.b, 0, 1, 2)
    pair.read(0, 0, 600)
    pair.write(1000, 0, 1)
    pair.run()
    assert pair.all_good()
    assert pair.here[:600] == pattern(8192, 100)[:600]
    assert [psn for psn, _, _ in pair.requests()] == [100, 100]
    asked = [at for at, name, packet in pair.wire.log if name == "a" and packet.opcode == READ]
    assert asked[1] - asked[0] < MILLISECOND, "it went back at once, not for a timeout"


def test_rule_12_a_response_acknowledges_what_came_before_it():
    pair = RdmaPair()
    lose(pair, pair.b, 0)
    pair.b.receive(pair.b_qpn, 10)
    pair.send(b"x")
    pair.run(0)
    pair.read(0, 0, 10)
    pair.run()
    assert pair.all_good()
    assert len(pair.wire.sent(pair.a)) == 2, "nothing was sent again"


def test_rule_40_responses_out_of_order_are_dropped_and_read_again():
    pair = RdmaPair()
    delays = iter((LATENCY, 5 * LATENCY, LATENCY))
    pair.wire.fate = lambda sender, _: (next(delays, LATENCY),) if sender is pair.b else (LATENCY,)
    pair.read(0, 0, 600)
    pair.run()
    assert pair.all_good()
    assert pair.here[:600] == pattern(8192, 100)[:600]
    assert pair.a.adapter._queue_pairs[pair.a_qpn].statistics().responses_dropped >= 1


def test_rules_32_and_33_an_unanswered_read_is_asked_for_as_often_as_the_retries_say():
    pair = RdmaPair(retry_count=3)
    pair.wire.fate = lambda sender, _: () if sender is pair.b else (LATENCY,)
    pair.read(0, 0, 600)
    pair.run(3600 * SECOND)
    assert pair.ended == [(1, CompletionStatus.RETRY_EXCEEDED)]
    assert pair.requests() == [(100, 0, 600)] * 4
    assert len(pair.responses()) == 12, "each was executed"


def rough(seed: int) -> RdmaPair:
    """Random work on a random wire, run to its end; the memory of either side is compared with a model of it."""
    rng = random.Random(seed)
    loss, double = rng.choice((0, 0.02, 0.1, 0.15)), rng.choice((0, 0.05, 0.2))
    jitter = rng.choice((0, 0, LATENCY // 2, 5 * LATENCY, 40 * LATENCY))
    mtu, depth = rng.choice((256, 1024)), rng.choice((1, 2, 4, 16))
    pair = RdmaPair(
        seed=seed,
        size=40_000,
        path_mtu=mtu,
        a_psn=rng.choice((100, 0xFFFFFF, 0xFFFFF0, 0x7FFFF8, rng.getrandbits(24))),
        timeout=rng.choice((6, 8)),  # 262 us and 1 ms; all retries together outlast the longest way there and back
        retry_count=7,
        rnr_retry=7,
        max_rd_atomic=depth,
        resources=depth,
    )

    def fate(_sender, _frame):
        if rng.random() < loss:
            return ()
        return tuple(LATENCY + rng.randint(0, jitter) for _ in range(2 if rng.random() < double else 1))

    pair.wire.fate = fate
    here, there, sent = bytearray(pair.here), bytearray(pair.there), []
    for _ in range(rng.choice((5, 40))):
        size = rng.choice((0, 1, mtu - 1, mtu, mtu + 1, rng.randint(0, 9 * mtu)))
        at, to = rng.randint(0, 20_000 - size), rng.randint(0, 20_000 - size)
        what = rng.choice(("write", "read", "send"))
        if what == "write":  # from lower half to lower half
            pair.write(at, to, size)
            there[at : at + size] = here[to : to + size]
        elif what == "read":  # from upper to upper: a read that is executed again sees what came after it
            pair.read(20_000 + at, 20_000 + to, size)
            here[20_000 + to : 20_000 + to + size] = there[20_000 + at : 20_000 + at + size]
        else:
            sent.append(rng.randbytes(size))
            pair.send(sent[-1])
            pair.b.receive(pair.b_qpn, 40_000)
        pair.run(rng.choice((0, 0, 5, 100, 3000)) * MICROSECOND)
    pair.run(120 * SECOND)
    assert pair.all_good(), (seed, pair.ended, pair.a.fatal, pair.b.fatal)
    assert pair.there == there, seed
    assert pair.here == here, seed
    assert pair.b.received.get(pair.b_qpn, []) == sent, seed
    assert pair.wire.quiet(), seed
    return pair


@pytest.mark.parametrize("seed", range(60))
def test_memory_is_as_if_the_wire_were_perfect(seed):
    rough(seed)


def test_the_same_seed_gives_the_same_frames():
    assert rough(7).wire.log == rough(7).wire.log


FATES = {"arrives": (LATENCY,), "lost": (), "twice": (LATENCY, 3 * LATENCY), "late": (30 * LATENCY,)}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(FATES)), max_size=40),
    st.lists(st.tuples(st.sampled_from(("write", "read")), st.integers(0, 1500)), min_size=1, max_size=8),
    st.sampled_from((1, 2, 4)),
)
def test_any_fate_of_the_first_frames_is_recovered_from(fates, work, depth):
    pair = RdmaPair(retry_count=7, max_rd_atomic=depth, resources=depth)
    destiny = iter(fates)
    pair.wire.fate = lambda *_: FATES[next(destiny, "arrives")]
    there, here = bytearray(pair.there), bytearray(pair.here)
    for number, (what, size) in enumerate(work):
        to, at = 100 * number, 4000 + 100 * number
        if what == "write":
            pair.write(to, to, size)
            there[to : to + size] = here[to : to + size]
        else:
            pair.read(at, at, size)
            here[at : at + size] = there[at : at + size]
    pair.run(60 * SECOND)
    assert pair.all_good()
    assert (pair.there, pair.here) == (there, here)


def engine() -> ChannelAdapter:
    """Host A's adapter with one queue pair in RTS towards 0x123 of host B, and memory."""
    adapter = ChannelAdapter(mac=MACS[A_IP], ip=A_IP, neighbours=MACS.get, rng=stream(1, "rc/a"), guid=1)
    queue_pair = adapter.create_queue_pair()
    queue_pair.modify(QpState.INIT)
    adapter.connect_queue_pair(
        queue_pair.qpn,
        remote_ip=B_IP,
        remote_qpn=0x123,
        path_mtu=256,
        rq_psn=500,
        min_rnr_timer=1,
        max_dest_rd_atomic=2,
    )
    queue_pair.modify(QpState.RTS, **RTS, max_rd_atomic=2)
    adapter.test_region = adapter.register_memory(queue_pair.qpn, bytearray(pattern(4096)), EVERYTHING)
    adapter.post_receive(queue_pair.qpn, ReceiveWorkRequest(1, 1000), 0)
    return adapter


def work(kind, size, **more):
    def post(adapter, now):
        region = adapter.test_region
        adapter.post_send(Qpn(region.domain), kind(1, (region.segment(0, size),), 4096, 77, **more), now)

    return post


def from_b(opcode, psn, payload=b"", *, reth=None, aeth=None):
    adapter = engine()
    region = adapter.test_region
    extension = b"" if aeth is None else aeth.to_bytes(4, "big")
    if reth is not None:
        extension = Reth.FORMAT.pack(region.address + reth[0], region.rkey, reth[1])
    return builder(B_IP, A_IP).build(
        opcode, psn, payload, destination_qpn=region.domain, extension=extension, ack_request=True
    )


CONVERSATION = [
    work(ReadWorkRequest, 600),
    work(WriteWorkRequest, 300, immediate=5),
    from_b(READ, 500, reth=(0, 600)),
    from_b(READ_FIRST, 100, b"r" * 256, aeth=0x1F000001),
    from_b(READ_LAST, 102, b"r" * 88, aeth=0x1F000001),
    work(ReadWorkRequest, 10),
    from_b(READ, 501, reth=(256, 344)),
    from_b(WRITE_FIRST, 503, b"w" * 256, reth=(0, 300)),
    from_b(WRITE_LAST, 504, b"w" * 44),
    from_b(READ_FIRST, 101, b"r" * 256, aeth=0x1F000001),
    from_b(READ_LAST, 102, b"r" * 88, aeth=0x1F000001),
    from_b(ACKNOWLEDGE, 104, aeth=0x1F000002),
    from_b(READ_ONLY, 105, b"r" * 10, aeth=0x1F000003),
    from_b(READ, 505, reth=(4000, 97)),
]


def test_it_keeps_the_engine_contract():
    check_engine(engine, CONVERSATION, close=lambda adapter, _: adapter.destroy_queue_pair(adapter.test_region.domain))
