"""Packets per second of the reliable connection alone: two channel adapters wired to each other, without links, clocks
or processes; against the least that any implementation in Python would do for a packet.

That least is: join headers and payload to a frame with its checksum, and on the other side verify the checksum and cut
the payload out again. A message is one packet, as in a session.
"""

import time
import zlib

from fabric.rc.adapter import ChannelAdapter, QueuePairEvent
from fabric.rc.events import Completion
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import ReceiveWorkRequest, SendWorkRequest
from fabric.rng import stream
from nodes.bench.figures import Figure, from_rounds

SIZES = (1024, 4096)
BATCH = 64
_HOSTS = {bytes((10, 0, 0, n)): bytes((2, 0, 10, 0, 0, n)) for n in (1, 2)}
_HEADERS = 54
"""Bytes before the payload."""


def measure(*, packets: int, rounds: int) -> list[Figure]:
    """``packets`` packets per size and round."""
    figures = []
    for size in SIZES:
        pairs = [(_engines(size, packets), _least(size, packets)) for _ in range(rounds)]
        ours, least = zip(*pairs, strict=True)
        figures.append(from_rounds(f"reliable connection, {size} B", "packets/s", ours, least, "bare frames"))
    return figures


def _engines(size: int, packets: int) -> float:
    a, b = (_adapter(n) for n in (1, 2))
    pair_a, pair_b = a.create_queue_pair(), b.create_queue_pair()
    qpn_a, qpn_b = pair_a.qpn, pair_b.qpn
    _connect(a, pair_a, b.ip, qpn_b)
    _connect(b, pair_b, a.ip, qpn_a)
    payload = bytes(size)
    sent = received = completed = 0
    began = time.perf_counter()
    while completed < packets:
        while sent < packets and sent - completed < BATCH:
            b.post_receive(qpn_b, ReceiveWorkRequest(sent, size), 0)
            a.post_send(qpn_a, SendWorkRequest(sent, payload), 0)
            sent += 1
        while (transmit := a.poll_transmit(0)) is not None:
            b.handle_frame(0, transmit.frame, 0)
        received += _completions(b)
        while (transmit := b.poll_transmit(0)) is not None:
            a.handle_frame(0, transmit.frame, 0)
        completed += _completions(a)
    took = time.perf_counter() - began
    assert received == packets
    assert a.statistics().packets_retransmitted == 0
    return packets / took


def _adapter(number: int) -> ChannelAdapter:
    ip = bytes((10, 0, 0, number))
    return ChannelAdapter(mac=_HOSTS[ip], ip=ip, neighbours=_HOSTS.get, rng=stream(1, f"bench/{number}"), guid=number)


def _connect(adapter: ChannelAdapter, pair: QueuePair, remote_ip: bytes, remote_qpn: int) -> None:
    pair.modify(QpState.INIT)
    adapter.connect_queue_pair(
        pair.qpn, remote_ip=remote_ip, remote_qpn=remote_qpn, path_mtu=4096, rq_psn=0, min_rnr_timer=1
    )
    pair.modify(QpState.RTS, sq_psn=0, timeout=14, retry_count=7, rnr_retry=7)


def _completions(adapter: ChannelAdapter) -> int:
    count = 0
    while (event := adapter.poll_event()) is not None:
        count += isinstance(event, QueuePairEvent) and isinstance(event.event, Completion)
    return count


def _least(size: int, packets: int) -> float:
    headers, payload = bytes(_HEADERS), bytes(size)
    began = time.perf_counter()
    for _ in range(packets):
        crc = zlib.crc32(payload, zlib.crc32(headers))
        frame = b"".join((headers, payload, crc.to_bytes(4, "little")))
        assert zlib.crc32(memoryview(frame)[:-4]) == int.from_bytes(frame[-4:], "little")
        payload = frame[_HEADERS:-4]
    return packets / (time.perf_counter() - began)
