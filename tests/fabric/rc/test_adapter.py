"""The channel adapter: the contract of engines, any bytes at all, and who gets which frame."""

import random

import pytest

from fabric.rc.adapter import ChannelAdapter, DatagramReceived
from fabric.rc.qp_state import QpState
from fabric.rc.work import ReceiveWorkRequest, SendWorkRequest
from fabric.rng import stream
from fabric.units import MILLISECOND
from fabric.wire.fast import FrameBuilder
from tests.support.contract import check_engine
from tests.support.rc_pair import HOSTS, RcPair

A, B = HOSTS


def connected() -> ChannelAdapter:
    """An adapter of ``B`` with one queue pair, number 7's successor by seed, towards ``A``."""
    adapter = ChannelAdapter(mac=HOSTS[B], ip=B, neighbours=HOSTS.get, rng=stream(1, "x"), guid=2)
    qp = adapter.create_queue_pair()
    qp.modify(QpState.INIT)
    adapter.connect_queue_pair(qp.qpn, remote_ip=A, remote_qpn=9, path_mtu=1024, rq_psn=0, min_rnr_timer=1)
    qp.modify(QpState.RTS, sq_psn=0, timeout=10, retry_count=3, rnr_retry=3)
    for number in range(20):
        adapter.post_receive(qp.qpn, ReceiveWorkRequest(number, 4096), 0)
    return adapter


def stimuli() -> list:
    qpn = int(next(iter(connected()._queue_pairs)))
    builder = FrameBuilder(
        source_mac=HOSTS[A], destination_mac=HOSTS[B], source_ip=A, destination_ip=B, udp_source_port=49152
    )
    frames = [builder.build(4, psn, bytes(100), destination_qpn=qpn, ack_request=True) for psn in (0, 1, 3, 2, 0)]
    acks = [builder.build(17, psn, destination_qpn=qpn, extension=b"\x1f\0\0\1") for psn in (0, 5, 1)]
    sends = [lambda engine, now, n=n: engine.post_send(qpn, SendWorkRequest(n, bytes(n)), now) for n in (1, 3000, 0)]
    datagram = builder.build(0x64, 0, bytes(256), destination_qpn=1, extension=b"\x80\x01\0\0\0\0\0\1")
    return [*frames[:3], *sends, *acks, *frames[3:], datagram]


def test_the_contract_of_engines():
    check_engine(connected, stimuli())


def test_any_bytes_are_dropped_and_counted_and_the_connection_goes_on():
    rng = random.Random(5)
    pair = RcPair()
    pair.receive(pair.b, 50)
    frames: list[bytes] = []
    handle = pair.b.adapter.handle_frame
    pair.b.adapter.handle_frame = lambda port, frame, now: (frames.append(frame), handle(port, frame, now))
    pair.send(pair.a, *[rng.randbytes(rng.randrange(2000)) for _ in range(10)])
    pair.run()
    assert len(pair.b.received) == 10
    before = pair.b.adapter.statistics()
    count = 0
    for _ in range(2000):
        data = bytearray(rng.choice(frames))
        kind = rng.randrange(5)
        if kind == 0:
            data = bytearray(rng.randbytes(rng.randrange(200)))
        elif kind == 1:
            del data[rng.randrange(len(data)) :]
        elif kind == 2:
            data[rng.randrange(42, len(data))] ^= 1 << rng.randrange(8)
            if data in frames or data[46:47] != frames[0][46:47]:
                continue
        elif kind == 3:
            data = bytearray(rng.randbytes(9_500))
        else:
            data[-4:] = rng.randbytes(4)
        handle(0, bytes(data), pair.now)
        count += 1
    after = pair.b.adapter.statistics()
    assert sum(after.dropped) - sum(before.dropped) == count
    pair.drain()
    pair.send(pair.a, b"still here")
    pair.run()
    assert pair.b.received[-1] == b"still here"


def test_queue_pair_one_takes_datagrams_with_its_key_only():
    adapter = connected()
    builder = FrameBuilder(
        source_mac=HOSTS[A], destination_mac=HOSTS[B], source_ip=A, destination_ip=B, udp_source_port=49152
    )
    for key, expected in ((b"\x80\x01\0\0", True), (b"\0\0\0\1", False)):
        frame = builder.build(0x64, 0, bytes(256), destination_qpn=1, extension=key + b"\0\0\0\1")
        adapter.handle_frame(0, frame, 0)
        assert (adapter.poll_event() == DatagramReceived(A, bytes(256))) is expected


def test_destroyed_queue_pairs_keep_no_timer_and_their_counts_remain():
    pair = RcPair()
    pair.fate = lambda packet: []
    pair.send(pair.a, b"lost")
    pair.step()
    assert pair.a.adapter.statistics().packets_retransmitted == 1
    pair.a.adapter.destroy_queue_pair(pair.a.qp.qpn)
    assert pair.a.adapter.poll_timeout() is None
    statistics = pair.a.adapter.statistics()
    assert (statistics.packets_retransmitted, statistics.timeouts, statistics.queue_pairs) == (1, 1, 0)


def test_queue_pairs_take_turns():
    adapter = ChannelAdapter(mac=HOSTS[A], ip=A, neighbours=HOSTS.get, rng=stream(1, "y"), guid=1)
    for remote in (5, 6, 7):
        qp = adapter.create_queue_pair()
        qp.modify(QpState.INIT)
        adapter.connect_queue_pair(qp.qpn, remote_ip=B, remote_qpn=remote, path_mtu=1024, rq_psn=0, min_rnr_timer=1)
        qp.modify(QpState.RTS, sq_psn=0, timeout=10, retry_count=3, rnr_retry=3)
        adapter.post_send(qp.qpn, SendWorkRequest(1, bytes(4096)), 0)
    targets = []
    while (transmit := adapter.poll_transmit(0)) is not None:
        targets.append(int.from_bytes(transmit.frame[47:50], "big"))
    assert sorted(targets) == [5] * 4 + [6] * 4 + [7] * 4
    assert len(set(targets[:3])) == 3


def test_numbers_are_never_0_or_1_and_do_not_repeat():
    adapter = ChannelAdapter(mac=HOSTS[A], ip=A, neighbours=HOSTS.get, rng=stream(1, "z"), guid=1)
    numbers = [int(adapter.create_queue_pair().qpn) for _ in range(2000)]
    assert len(set(numbers)) == 2000
    assert min(numbers) > 1


def test_an_address_off_the_fabric_is_not_reached():
    adapter = connected()
    assert adapter.reaches(A)
    assert not adapter.reaches(b"\x08\x08\x08\x08")
    adapter.send_datagram(b"\x08\x08\x08\x08", bytes(256), MILLISECOND)
    assert adapter.poll_transmit(MILLISECOND) is None


@pytest.mark.parametrize("port", [0])
def test_another_hosts_frame_is_counted(port):
    adapter = connected()
    builder = FrameBuilder(
        source_mac=HOSTS[A], destination_mac=HOSTS[B], source_ip=A, destination_ip=A, udp_source_port=49152
    )
    adapter.handle_frame(port, builder.build(4, 0, b"x", destination_qpn=9), 0)
    assert adapter.statistics().dropped[1] == 1
