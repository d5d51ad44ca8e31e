"""Two adapters over a wire that loses, duplicates and reorders: every message once, in order; then silence."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.rc.qp_state import QpState
from fabric.units import MICROSECOND, MILLISECOND
from tests.support.rc_pair import LATENCY, RcPair

PSNS = st.sampled_from([0, 1, 0x7FFFF0, 0x800000, 0xFFFF80, 0xFFFFFE, 0xFFFFFF]) | st.integers(0, 0xFFFFFF)


def rough(rng: random.Random, loss: float, duplication: float, reordering: float):
    """A fate for ``RcPair``."""

    def fate(packet) -> list[int]:
        if rng.random() < loss:
            return []
        delays = [LATENCY + (rng.randrange(3 * MILLISECOND) if rng.random() < reordering else 0)]
        if rng.random() < duplication:
            delays.append(LATENCY + rng.randrange(20 * MILLISECOND))
        return delays

    return fate


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    seed=st.integers(0, 2**32),
    psn_a=PSNS,
    psn_b=PSNS,
    path_mtu=st.sampled_from([256, 1024, 4096]),
    loss=st.sampled_from([0, 0.01, 0.1, 0.3]),
    duplication=st.sampled_from([0, 0.1]),
    reordering=st.sampled_from([0, 0.05]),
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=40),
)
def test_every_message_arrives_once_and_in_order(seed, psn_a, psn_b, path_mtu, loss, duplication, reordering, sizes):
    rng = random.Random(seed)
    pair = RcPair(seed=seed, psn_a=psn_a, psn_b=psn_b, path_mtu=path_mtu, timeout=11, retry_count=7)
    for host in (pair.a, pair.b):  # a retry budget that no loss of this size uses up
        host.qp._requester._retry_count = host.qp._requester._retries_left = 10_000
    pair.fate = rough(rng, loss, duplication, reordering)
    messages = {host: [rng.randbytes(size) for size in sizes] for host in (pair.a, pair.b)}
    for host, other in ((pair.a, pair.b), (pair.b, pair.a)):
        pair.receive(other, rng.randrange(len(sizes) + 1), 10_000)
        pair.send(host, *messages[host])
    pair.run(limit=50 * MILLISECOND)
    for host in (pair.a, pair.b):  # the rest of the receives comes late: RNR
        pair.receive(host, len(sizes), 10_000)
    pair.run()
    assert pair.b.received == messages[pair.a], f"seed {seed}"
    assert pair.a.received == messages[pair.b], f"seed {seed}"
    for host in (pair.a, pair.b):
        assert len(host.of("send")) == len(sizes)
        assert host.failures == []
        assert host.qp.state is QpState.RTS
        assert host.adapter.poll_timeout() is None, f"seed {seed}: a timer is left"


@pytest.mark.parametrize("seed", range(5))
def test_a_long_stream_crosses_the_wrap_under_loss(seed):
    rng = random.Random(seed)
    pair = RcPair(seed=seed, psn_a=0xFFFFFF - 1500, timeout=11, retry_count=7)
    pair.fate = rough(rng, 0.02, 0.02, 0.02)
    messages = [rng.randbytes(rng.randrange(3000)) for _ in range(2000)]
    pair.receive(pair.b, len(messages))
    pair.send(pair.a, *messages)
    pair.run()
    assert pair.b.received == messages, f"seed {seed}"
    statistics = pair.a.adapter.statistics()
    assert statistics.packets_retransmitted > 0
    assert pair.b.adapter.statistics().duplicates_received >= 0


def test_same_seed_same_packets():
    def run() -> list[tuple[int, int]]:
        pair = RcPair(seed=9, timeout=11)
        pair.fate = rough(random.Random(9), 0.05, 0.05, 0.05)
        pair.receive(pair.b, 100)
        pair.send(pair.a, *[bytes(1500)] * 100)
        pair.run()
        return [(p.psn, p.opcode) for p in (*pair.a.sent, *pair.b.sent)]

    assert run() == run()


def test_a_clean_wire_retransmits_nothing_and_takes_one_round_trip_per_window():
    pair = RcPair()
    pair.receive(pair.b, 500)
    pair.send(pair.a, *[bytes(1024)] * 500)
    pair.run()
    assert pair.a.adapter.statistics().packets_retransmitted == 0
    assert pair.now <= 10 * LATENCY + MICROSECOND
