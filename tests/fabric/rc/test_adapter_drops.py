"""The channel adapter: the engine contract, who gets a frame, and that nothing from outside upsets it."""

import random
import struct
import zlib

import pytest

from fabric.errors import IllegalTransition, SanloomError
from fabric.ids import Qpn
from fabric.rc.adapter import CAUSES, ChannelAdapter
from fabric.rc.qp_state import QpState
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest
from fabric.rng import stream
from fabric.units import MICROSECOND, MILLISECOND, SECOND
from fabric.wire import decode, encode
from fabric.wire.fast import parse
from fabric.wire.opcodes import OPCODES
from tests.support.contract import check_engine
from tests.support.rc_wire import A_IP, ACKNOWLEDGE, B_IP, FIRST, LAST, MACS, ONLY, RTS, RcWire, builder

UD_SEND_ONLY = 0x64
DETH = bytes.fromhex("8001000000000001")
PEER_QPN = 0x123


def adapter(seed: int = 1) -> tuple[ChannelAdapter, Qpn]:
    """Host A's adapter with one queue pair in RTS towards queue pair 0x123 of host B; it expects PSN 500."""
    engine = ChannelAdapter(mac=MACS[A_IP], ip=A_IP, neighbours=MACS.get, rng=stream(seed, "rc/a"), guid=1)
    queue_pair = engine.create_queue_pair()
    queue_pair.modify(QpState.INIT)
    engine.connect_queue_pair(
        queue_pair.qpn, remote_ip=B_IP, remote_qpn=PEER_QPN, path_mtu=256, rq_psn=500, min_rnr_timer=1
    )
    queue_pair.modify(QpState.RTS, **RTS)
    return engine, queue_pair.qpn


QPN = adapter()[1]
FROM_B = builder(B_IP, A_IP)


def from_b(opcode: int, psn: int, payload: bytes = b"", *, qpn: int = QPN, **changes) -> bytes:
    """A frame of host B."""
    return FROM_B.build(opcode, psn, payload, destination_qpn=qpn, **changes)


def ack(psn: int, syndrome: int = 0x1F) -> bytes:
    return from_b(ACKNOWLEDGE, psn, extension=bytes((syndrome, 0, 0, 0)))


def send(size: int):
    return lambda engine, now: engine.post_send(QPN, SendWorkRequest(1, b"s" * size), now)


def receive(count: int):
    def post(engine: ChannelAdapter, now: int) -> None:
        for number in range(count):
            engine.post_receive(QPN, ReceiveWorkRequest(number, 1000), now)

    return post


def datagram(engine: ChannelAdapter, now: int) -> None:
    engine.send_datagram(B_IP, b"mad" * 80, now)


def destroy(engine: ChannelAdapter, now: int) -> None:
    engine.destroy_queue_pair(QPN)


STIMULI = {
    "a conversation": [
        receive(3), from_b(ONLY, 500, b"hello", ack_request=True), send(700), ack(101), ack(102), datagram,
        from_b(UD_SEND_ONLY, 0, b"m" * 256, qpn=1, extension=DETH), from_b(FIRST, 501, b"f" * 256),
        from_b(LAST, 502, b"l", ack_request=True), send(0), ack(103),
    ],
    "losses": [
        receive(1), send(3000), ack(104, 0x60), from_b(ONLY, 502, b"gap"), from_b(ONLY, 501, b"gap"), ack(106, 0x21),
        from_b(ONLY, 500, b"one", ack_request=True), from_b(ONLY, 500, b"one"), from_b(ONLY, 501, b"two"),
    ],
    "never answered": [send(10), send(100_000), receive(2)],
    "refused": [receive(4), send(10), send(100_000), ack(100, 0x61), send(1), receive(1), from_b(ONLY, 500)],
    "a protocol fault": [receive(4), send(10), from_b(LAST, 500, b"?"), ack(100), from_b(ONLY, 500), send(1)],
    "destroyed": [receive(4), send(100_000), from_b(ONLY, 500, b"x", ack_request=True), destroy, from_b(ONLY, 501)],
}  # fmt: skip


@pytest.mark.parametrize("name", STIMULI)
def test_it_keeps_the_engine_contract(name):
    check_engine(lambda: adapter()[0], STIMULI[name], close=destroy)


def drops(engine: ChannelAdapter) -> dict[str, int]:
    return {cause: count for cause, count in zip(CAUSES, engine.statistics().dropped, strict=True) if count}


def mended(frame: bytes, **changes) -> bytes:
    """``frame`` with fields of its base transport header changed and the ICRC made right again."""
    decoded = decode(frame)
    bth = decoded.bth
    values = {name: changes.pop(name, getattr(bth, name)) for name in type(bth).__dataclass_fields__}
    assert not changes
    return encode(type(decoded)(decoded.ethernet, decoded.ip, decoded.udp, type(bth)(**values), (), decoded.payload))


GOOD = from_b(ONLY, 500, b"good", ack_request=True)
STRANGER = builder(bytes((10, 0, 0, 9)), A_IP).build(ONLY, 500, b"good", destination_qpn=QPN)
ASTRAY = builder(B_IP, bytes((10, 0, 0, 9))).build(ONLY, 500, b"good", destination_qpn=QPN)
SIX = builder(bytes(15) + b"\2", bytes(15) + b"\1").build(ONLY, 500, b"good", destination_qpn=QPN)


@pytest.mark.parametrize(
    ("cause", "frame"),
    [
        ("malformed", b""),
        ("malformed", GOOD[:-1]),
        ("malformed", GOOD[:-1] + bytes([GOOD[-1] ^ 1])),
        ("malformed", mended(GOOD, transport_version=1)),
        ("malformed", mended(from_b(ONLY, 500), pad_count=1)),
        ("malformed", from_b(ONLY, 500, b"good", qpn=QPN).replace(b"\x12\xb7", b"\x12\xb8")),
        ("not for this host", ASTRAY),
        ("not for this host", SIX),
        ("partition key", mended(GOOD, pkey=0x8001)),
        ("partition key", mended(GOOD, pkey=0x0001)),
        ("partition key", from_b(UD_SEND_ONLY, 0, b"m" * 256, qpn=1, extension=DETH, pkey=0x9234)),
        ("unknown queue pair", mended(GOOD, destination_qpn=QPN ^ 1)),
        ("unknown queue pair", mended(GOOD, destination_qpn=0)),
        ("unknown queue pair", mended(GOOD, destination_qpn=1)),
        ("unknown queue pair", from_b(UD_SEND_ONLY, 500, b"good", extension=DETH)),
        ("unknown queue pair", from_b(UD_SEND_ONLY, 0, b"m" * 256, qpn=1, extension=b"\x11\x11" + DETH[2:])),
        ("wrong peer", STRANGER),
    ],
)
def test_rule_25_what_is_not_for_a_connection_is_dropped_in_silence_and_counted(cause, frame):
    engine, qpn = adapter()
    engine.post_receive(qpn, ReceiveWorkRequest(1, 100), 0)
    engine.handle_frame(0, frame, 0)
    assert drops(engine) == {cause: 1}
    assert engine.poll_event() is None
    assert engine.poll_transmit(0) is None
    engine.handle_frame(0, GOOD, 0)
    transmit = engine.poll_transmit(0)
    assert transmit is not None
    assert parse(transmit.frame).extension == bytes.fromhex("1f000001")
    assert engine.statistics().frames_in == 2
    assert engine.statistics().frames_out == 1


def test_rule_25_a_limited_member_of_the_partition_is_heard():
    engine, qpn = adapter()
    engine.post_receive(qpn, ReceiveWorkRequest(1, 100), 0)
    engine.handle_frame(0, mended(GOOD, pkey=0x7FFF), 0)
    assert drops(engine) == {}
    assert engine.poll_transmit(0) is not None


def test_rule_26_udp_source_port_and_what_changes_en_route_are_no_identity():
    engine, qpn = adapter()
    for number, frame in enumerate([builder(B_IP, A_IP, 1).build(ONLY, 500, b"a", destination_qpn=qpn), GOOD]):
        changed = bytearray(frame)
        changed[15], changed[22], changed[24:26] = 3, 7, b"\0\0"  # ECN mark, time to live, checksum
        changed[46] = 0xC0  # FECN and BECN
        engine.post_receive(qpn, ReceiveWorkRequest(number, 100), 0)
        engine.handle_frame(0, bytes(changed), 0)
    assert drops(engine) == {}
    assert engine.statistics().duplicates_received == 1


def test_queue_pair_numbers_are_not_reused_soon_and_never_while_alive():
    class Narrow:
        """A generator that knows few numbers."""

        def __init__(self) -> None:
            self.rng = random.Random(1)

        def randrange(self, low: int, high: int) -> int:
            assert (low, high) == (2, 1 << 24)
            return self.rng.randrange(2, 70_002)

    engine = ChannelAdapter(mac=MACS[A_IP], ip=A_IP, neighbours=MACS.get, rng=Narrow(), guid=1)  # type: ignore[arg-type]
    living = [engine.create_queue_pair().qpn for _ in range(3000)]
    recent: list[int] = []
    for _ in range(80_000):
        qpn = engine.create_queue_pair().qpn
        engine.destroy_queue_pair(qpn)
        recent.append(qpn)
    assert engine.statistics().queue_pairs == len(living) == len(set(living))
    assert not set(living) & set(recent)
    assert len(set(recent[-10_000:])) == 10_000


def test_commands_on_a_queue_pair_that_does_not_exist_are_the_callers_mistake():
    engine, _ = adapter()
    for command in (
        lambda: engine.post_send(Qpn(77), SendWorkRequest(1, b""), 0),
        lambda: engine.post_receive(Qpn(77), ReceiveWorkRequest(1, 1), 0),
        lambda: engine.connect_queue_pair(
            Qpn(77), remote_ip=B_IP, remote_qpn=1, path_mtu=256, rq_psn=0, min_rnr_timer=0
        ),
    ):
        with pytest.raises(SanloomError, match="77"):
            command()
    engine.destroy_queue_pair(Qpn(77))  # as often as you like


def test_a_destroyed_queue_pair_sends_its_answers_but_no_request_and_keeps_its_counters():
    engine, qpn = adapter()
    engine.post_send(qpn, SendWorkRequest(1, b"never"), 0)
    for psn in (501, 499):
        engine.handle_frame(0, from_b(ONLY, psn), 0)
    held = engine._queue_pairs[qpn]
    engine.destroy_queue_pair(qpn)
    with pytest.raises(IllegalTransition):
        held.post_send(SendWorkRequest(2, b"never"), 0)
    out = [parse(transmit.frame) for transmit in iter(lambda: engine.poll_transmit(0), None)]
    assert [(one.opcode, one.psn, one.extension[0]) for one in out] == [
        (ACKNOWLEDGE, 500, 0x60),
        (ACKNOWLEDGE, 499, 0x1F),
    ]
    assert engine.poll_timeout() is None
    statistics = engine.statistics()
    assert (statistics.queue_pairs, statistics.naks_sent, statistics.duplicates_received) == (0, 1, 1)


def test_what_the_consumer_does_to_a_queue_pair_reaches_the_adapter():
    engine, qpn = adapter()
    queue_pair = engine._queue_pairs[qpn]
    queue_pair.modify(QpState.SQD)
    engine.post_send(qpn, SendWorkRequest(1, b"later"), 0)
    assert engine.poll_transmit(0) is None
    queue_pair.modify(QpState.RTS)
    assert engine.poll_transmit(0) is not None, "back in RTS, what waited goes out"
    assert engine.poll_transmit(0) is None
    assert engine.poll_timeout() is not None
    queue_pair.modify(QpState.ERR)
    assert engine.poll_event() is not None, "flushed work is reported"
    assert engine.poll_transmit(0) is None
    assert engine.poll_timeout() is None
    engine.post_receive(qpn, ReceiveWorkRequest(2, 1), 0)
    assert engine.poll_event() is not None


def test_queue_pairs_take_turns():
    wire = RcWire()
    pairs = [wire.connected(timeout=20) for _ in range(3)]
    for mine, _ in pairs:
        wire.a.adapter.post_send(Qpn(mine), SendWorkRequest(1, b"x" * 256 * 10), 0)
    first = [parse(wire.a.adapter.poll_transmit(0).frame).destination_qpn for _ in range(30)]
    theirs = [other for _, other in pairs]
    assert all(sorted(first[k : k + 3]) == sorted(theirs) for k in range(0, 30, 3))


def corrupt(rng: random.Random, frame: bytes) -> bytes:
    """One of the ways in which a frame can be wrong; some of them are harmless by design (see rule 26)."""
    data = bytearray(frame)
    way = rng.randrange(7)
    if way == 0:
        return rng.randbytes(rng.choice((0, 1, 14, 33, 34, 53, 54, 58, 61, 62, 78, 200, 1500, 9000)))
    if way == 1:
        return frame[: rng.randrange(len(frame))]
    if way == 2:
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(42, len(data))] ^= 1 << rng.randrange(8)
    elif way == 3:
        data[-1 - rng.randrange(4)] ^= rng.randint(1, 255)
    elif way == 4:
        return frame + rng.randbytes(rng.randint(1, 9000))  # Ethernet padding: ignored
    elif way == 5:  # a header of chance under an ICRC that holds
        data[42:54] = bytes([rng.choice([*map(int, OPCODES), rng.randrange(256)])]) + rng.randbytes(11)
        sealed = bytearray(data[14:-4])
        for position in (1, 8, 10, 11, 26, 27, 32):
            sealed[position] = 0xFF
        data[-4:] = struct.pack("<I", zlib.crc32(b"\xff" * 8 + bytes(sealed)))
    else:
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_no_bytes_upset_it_and_a_valid_connection_goes_on(seed):
    """Garbage between the frames of a conversation: never raises, is counted, and every message arrives once."""
    rng = random.Random(seed)
    wire = RcWire(seed)
    a, b = wire.connected(timeout=8, retry_count=7, rnr_retry=7)
    messages = [rng.randbytes(rng.choice((0, 1, 255, 256, 257, 2000))) for _ in range(40)]
    wire.b.receive(b, 2000, len(messages))
    injected = 0
    for message in messages:
        before = len(wire.log)
        wire.a.send(a, message)
        for _, name, packet in list(wire.log[before:]):
            source, target = (wire.a, wire.b) if name == "a" else (wire.b, wire.a)
            frame = builder(source.ip, target.ip).build(
                packet.opcode,
                packet.psn,
                packet.payload,
                destination_qpn=packet.destination_qpn,
                extension=packet.extension,
            )
            for _ in range(6):
                wrong = corrupt(rng, frame)
                target.adapter.handle_frame(0, wrong, wire.now)
                wire.drain()
                injected += 1
        wire.run(30 * MICROSECOND)
    wire.run(SECOND)
    assert wire.b.received.get(b, []) == messages, f"seed {seed}"
    assert [status for _, status in wire.a.ended[a]] == [CompletionStatus.SUCCESS] * len(messages), f"seed {seed}"
    assert wire.quiet()
    statistics = wire.b.adapter.statistics()
    assert sum(statistics.dropped) > injected // 4, f"seed {seed}"
    assert statistics.dropped[0] > statistics.dropped[1]


def test_a_datagram_reaches_queue_pair_1_and_none_leaves_for_an_address_off_the_fabric():
    wire = RcWire()
    wire.a.adapter.send_datagram(B_IP, b"m" * 256, 0)
    wire.a.adapter.send_datagram(bytes((10, 0, 0, 9)), b"m" * 256, 0)
    wire.run(MILLISECOND)
    assert wire.b.datagrams == [b"m" * 256]
    assert len(wire.log) == 1
    assert wire.a.adapter.reaches(B_IP)
    assert not wire.a.adapter.reaches(bytes((10, 0, 0, 9)))
