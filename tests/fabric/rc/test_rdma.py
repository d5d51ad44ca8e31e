"""RDMA WRITE and READ between two adapters: rules 2, 11 to 13, 17, 19 to 23, 29, 38 of wire.md 8."""

import mmap

import pytest

from fabric.errors import SanloomError
from fabric.ids import Qpn
from fabric.rc.memory import Access, Segment
from fabric.rc.qp_state import QpState
from fabric.rc.work import CompletionStatus, ReadWorkRequest, WriteWorkRequest
from fabric.wire.headers import Reth
from tests.support.rc_wire import ACKNOWLEDGE, ONLY
from tests.support.rdma_pair import (
    OK,
    READ,
    READ_FIRST,
    READ_LAST,
    READ_MIDDLE,
    READ_ONLY,
    WRITE_FIRST,
    WRITE_LAST,
    WRITE_LAST_IMMEDIATE,
    WRITE_MIDDLE,
    WRITE_ONLY,
    WRITE_ONLY_IMMEDIATE,
    RdmaPair,
    pattern,
)

FLUSHED = CompletionStatus.FLUSHED


@pytest.mark.parametrize(
    ("size", "opcodes"),
    [
        (0, [WRITE_ONLY]),
        (1, [WRITE_ONLY]),
        (256, [WRITE_ONLY]),
        (257, [WRITE_FIRST, WRITE_LAST]),
        (512, [WRITE_FIRST, WRITE_LAST]),
        (1000, [WRITE_FIRST, WRITE_MIDDLE, WRITE_MIDDLE, WRITE_LAST]),
    ],
)
def test_a_write_lands_where_it_was_aimed(size, opcodes):
    pair = RdmaPair()
    pair.write(300, 10, size)
    pair.run()
    assert pair.all_good()
    expected = bytearray(pattern(8192, 100))
    expected[300 : 300 + size] = pair.here[10 : 10 + size]
    assert pair.there == expected
    packets = pair.wire.sent(pair.a)
    assert [p.opcode for p in packets] == opcodes
    assert Reth.FORMAT.unpack(packets[0].extension) == (pair.remote.address + 300, pair.remote.rkey, size)
    assert pair.b.events[1:] == [], "nothing but the first packet is heard of at the other end"


@pytest.mark.parametrize(
    ("size", "opcodes"),
    [
        (0, [READ_ONLY]),
        (1, [READ_ONLY]),
        (256, [READ_ONLY]),
        (257, [READ_FIRST, READ_LAST]),
        (1000, [READ_FIRST, READ_MIDDLE, READ_MIDDLE, READ_LAST]),
    ],
)
def test_rule_11_a_read_takes_the_psns_of_its_answer(size, opcodes):
    pair = RdmaPair(a_psn=0xFFFFFE)
    pair.read(300, 10, size)
    pair.write(0, 0, 1)
    pair.run()
    assert pair.all_good()
    expected = bytearray(pattern(8192, 1))
    expected[10 : 10 + size] = pattern(8192, 100)[300 : 300 + size]
    assert pair.here == expected
    assert [p.opcode for p in pair.responses()] == opcodes
    psns = [(0xFFFFFE + n) & 0xFFFFFF for n in range(len(opcodes))]
    assert [p.psn for p in pair.responses()] == psns
    assert [p.psn for p in pair.wire.sent(pair.a)] == [psns[0], (psns[-1] + 1) & 0xFFFFFF]


def test_rule_23_the_message_number_counts_reads_when_they_are_accepted_and_writes_at_their_end():
    pair = RdmaPair()
    for step in (lambda: pair.write(0, 0, 600), lambda: pair.read(0, 0, 600), lambda: pair.write(0, 0, 1)):
        step()
        pair.run()
    answers = [(p.opcode, int.from_bytes(p.extension[1:], "big")) for p in pair.wire.sent(pair.b) if p.extension]
    assert answers == [(ACKNOWLEDGE, 1), (READ_FIRST, 2), (READ_LAST, 2), (ACKNOWLEDGE, 3)]


def test_messages_of_all_kinds_keep_their_order():
    pair = RdmaPair(path_mtu=256)
    pair.b.receive(pair.b_qpn, 4096, 3)
    pair.write(0, 0, 1000)
    pair.send(b"one")
    pair.read(0, 4000, 1000)
    pair.send(b"two" * 200)
    pair.read(500, 5000, 2)
    pair.write(500, 7000, 2)
    pair.send(b"three")
    pair.run()
    assert pair.all_good()
    assert pair.b.received[pair.b_qpn] == [b"one", b"two" * 200, b"three"]
    assert pair.here[4000:5000] == pattern(1000, 1)
    assert pair.here[5000:5002] == pattern(1000, 1)[500:502], "the read came before the write"
    assert pair.there[500:502] == pair.here[7000:7002]


def test_a_read_scatters_and_a_write_gathers():
    pair = RdmaPair()
    parts = tuple(pair.local.segment(at, size) for at, size in ((0, 100), (1000, 400), (2000, 1), (3000, 99)))
    pair.post(ReadWorkRequest(1, parts, pair.remote.address, pair.remote.rkey))
    pair.posted += 1
    pair.run()
    source = pattern(8192, 100)
    expected = source[:100], source[100:500], source[500:501], source[501:600]
    assert tuple(bytes(pair.here[s.address - pair.local.address :][: s.length]) for s in parts) == expected
    pair.post(WriteWorkRequest(2, parts, pair.remote.address + 4000, pair.remote.rkey))
    pair.posted += 1
    pair.run()
    assert pair.all_good()
    assert pair.there[4000:4600] == source[:600]


@pytest.mark.parametrize(
    ("size", "opcode"), [(0, WRITE_ONLY_IMMEDIATE), (9, WRITE_ONLY_IMMEDIATE), (600, WRITE_LAST_IMMEDIATE)]
)
def test_rule_22_immediate_data_takes_a_receive_at_the_last_packet(size, opcode):
    pair = RdmaPair(rnr_retry=7)
    pair.write(0, 0, size, immediate=0xDEADBEEF)
    pair.run(1_000_000)  # the receiver is not ready yet
    assert pair.ended == []
    assert pair.wire.sent(pair.b)[-1].extension[0] >> 5 == 1
    pair.b.receive(pair.b_qpn, 0)
    pair.run()
    assert pair.all_good()
    assert pair.wire.sent(pair.a)[-1].opcode == opcode
    (done,) = [e.event.completion for e in pair.b.events if hasattr(e.event, "completion")]
    assert (done.opcode, done.status, done.data, done.immediate) == ("receive", OK, b"", 0xDEADBEEF)
    assert pair.there[:size] == pair.here[:size]


REACHES = {
    "before it": (-1, 4),
    "past its end": (8190, 3),
    "far away": (1 << 40, 1),
    "around the end of the address space": (-(0x1000_0000) - 4, 8),
}


@pytest.mark.parametrize("what", ["write", "read"])
@pytest.mark.parametrize("where", REACHES)
def test_rule_17_what_leaves_the_region_is_refused(what, where):
    pair = RdmaPair()
    at, size = REACHES[where]
    remote = (pair.remote.address + at) % (1 << 64)
    kind = WriteWorkRequest if what == "write" else ReadWorkRequest
    pair.post(kind(1, (pair.local.segment(0, size),), remote, pair.remote.rkey))
    pair.write(0, 0, 1)
    refused(pair)
    assert pair.ended == [(1, CompletionStatus.REMOTE_ACCESS_ERROR), (1, FLUSHED)]


def refused(pair):
    """The peer answered with NAK 0x62, both queue pairs ended, no byte moved."""
    before = bytes(pair.here), bytes(pair.there)
    pair.b.receive(pair.b_qpn, 100)
    pair.run()
    assert [p.extension[0] for p in pair.wire.sent(pair.b)] == [0x62]
    assert pair.a.fatal == {pair.a_qpn: CompletionStatus.REMOTE_ACCESS_ERROR}
    assert pair.b.fatal == {pair.b_qpn: CompletionStatus.LOCAL_ACCESS_ERROR}
    assert (bytes(pair.here), bytes(pair.there)) == before


@pytest.mark.parametrize(
    ("what", "access"),
    [
        ("write", Access.REMOTE_READ | Access.LOCAL_WRITE),
        ("read", Access.REMOTE_WRITE | Access.LOCAL_WRITE),
        ("write", Access(0)),
        ("read", Access.LOCAL_WRITE),
    ],
)
def test_rule_17_what_the_access_flags_do_not_say_is_refused(what, access):
    pair = RdmaPair(access=access)
    getattr(pair, what)(0, 0, 10)
    refused(pair)


@pytest.mark.parametrize("what", ["write", "read"])
def test_rule_17_a_key_that_is_wrong_or_another_queue_pair_s_is_refused(what):
    pair = RdmaPair()
    getattr(pair, what)(0, 0, 10, rkey=pair.remote.rkey ^ 1)
    refused(pair)
    pair = RdmaPair()
    _, other = pair.wire.connected()
    foreign = pair.register(pair.b, other, pair.there)
    getattr(pair, what)(foreign.address - pair.remote.address, 0, 10, rkey=foreign.rkey)
    refused(pair)


@pytest.mark.parametrize("what", ["write", "read"])
def test_rule_17_nothing_is_checked_when_nothing_moves(what):
    pair = RdmaPair(access=Access(0))
    getattr(pair, what)(-5, 0, 0, rkey=12345)
    pair.run()
    assert pair.all_good()


@pytest.mark.parametrize("what", ["write", "read"])
def test_a_deregistered_region_is_refused_from_then_on(what):
    pair = RdmaPair()
    getattr(pair, what)(0, 0, 10)
    pair.run()
    assert pair.all_good()
    pair.b.adapter.deregister_memory(pair.remote)
    getattr(pair, what)(0, 20, 10)
    pair.run()
    assert pair.ended[1] == (2, CompletionStatus.REMOTE_ACCESS_ERROR)
    with pytest.raises(SanloomError, match="not registered"):
        pair.b.adapter.deregister_memory(pair.remote)


def test_a_mapping_can_be_closed_when_it_is_registered_no_more():
    pair = RdmaPair()
    with mmap.mmap(-1, 8192) as mapping:
        pair.remote = pair.register(pair.b, pair.b_qpn, mapping)
        pair.write(100, 0, 600)
        pair.read(100, 1000, 600)
        pair.run()
        assert pair.all_good()
        assert mapping[100:700] == pair.here[1000:1600] == pair.here[:600]
        with pytest.raises(BufferError):
            mapping.close()
        pair.b.adapter.deregister_memory(pair.remote)


def test_a_region_that_is_deregistered_in_the_middle_of_a_write_takes_no_more():
    pair = RdmaPair()
    before = bytes(pair.there)
    delays = iter((10_000, 1_000_000, 1_000_000))
    pair.wire.fate = lambda sender, _: (next(delays),) if sender is pair.a else (10_000,)
    pair.write(0, 0, 700)
    pair.wire.run(20_000)
    assert pair.there[:256] == pair.here[:256]
    pair.b.adapter.deregister_memory(pair.remote)
    pair.run()
    assert pair.ended == [(1, CompletionStatus.REMOTE_ACCESS_ERROR)]
    assert pair.there[256:] == before[256:]


def test_a_region_that_is_deregistered_in_the_middle_of_an_answer_ends_it_with_a_refusal():
    pair = RdmaPair()
    pair.read(0, 0, 1000)
    adapter = pair.b.adapter
    request = pair.a.adapter.poll_transmit(0).frame
    adapter.handle_frame(0, request, 0)
    answers = [adapter.poll_transmit(0).frame]
    adapter.deregister_memory(pair.remote)
    pair.there[:] = bytes(8192)
    while (transmit := adapter.poll_transmit(0)) is not None:
        answers.append(transmit.frame)
    for frame in answers:
        pair.a.adapter.handle_frame(0, frame, 0)
    pair.wire.drain()
    assert len(answers) == 2
    assert pair.here[:257] == pattern(8192, 100)[:256] + pattern(8192, 1)[256:257]
    assert pair.ended == [(1, CompletionStatus.REMOTE_ACCESS_ERROR)]
    assert pair.b.fatal == {pair.b_qpn: CompletionStatus.LOCAL_ACCESS_ERROR}


def test_a_buffer_that_its_owner_released_is_a_remote_operational_error():
    pair = RdmaPair()
    pair.remote.view.release()
    pair.remote.view = type("Gone", (), {"__len__": lambda _: 8192, "__getitem__": _gone})()
    pair.write(0, 0, 5)
    pair.run()
    assert pair.ended == [(1, CompletionStatus.REMOTE_OPERATIONAL_ERROR)]
    assert pair.b.fatal == {pair.b_qpn: CompletionStatus.LOCAL_OPERATION_ERROR}


def _gone(_, __):
    raise ValueError("operation forbidden on released memoryview object")


@pytest.mark.parametrize(("depth", "size"), [(1, 1000), (2, 100), (4, 5000)])
def test_rule_19_no_more_reads_are_unanswered_than_the_depth_allows(depth, size):
    pair = RdmaPair(max_rd_atomic=depth, resources=depth)
    for number in range(6):
        pair.read(0, number, size)
    pair.write(0, 0, 1)
    pair.run()
    assert pair.all_good()
    unanswered = most = 0
    for _, name, packet in pair.wire.log:
        unanswered += (packet.opcode == READ) - (name == "b" and packet.opcode in (READ_LAST, READ_ONLY))
        most = max(most, unanswered)
    assert most == depth


def test_rule_19_a_responder_without_resources_refuses():
    pair = RdmaPair(resources=0)
    pair.read(0, 0, 10)
    pair.run()
    assert pair.ended == [(1, CompletionStatus.REMOTE_INVALID_REQUEST)]
    assert pair.wire.sent(pair.b, ACKNOWLEDGE)[0].extension[0] == 0x61


def test_rule_19_more_reads_than_resources_are_an_invalid_request():
    pair = RdmaPair(resources=2, max_rd_atomic=3)
    for _ in range(3):
        pair.read(0, 0, 1000)
    for frame in [pair.a.adapter.poll_transmit(0).frame for _ in range(3)]:
        pair.b.adapter.handle_frame(0, frame, 0)  # all come before an answer can leave
    pair.run()
    assert pair.ended == [(1, OK), (2, OK), (3, CompletionStatus.REMOTE_INVALID_REQUEST)]


def test_a_refused_request_does_not_take_the_blame_of_a_read_before_it():
    pair = RdmaPair()
    pair.wire.fate = lambda sender, frame: () if sender is pair.b and len(frame) > 100 else (10_000,)
    pair.write(0, 0, 1)
    pair.read(0, 0, 1000)
    pair.write(9000, 0, 1)
    pair.send(b"never sent")
    pair.run()
    access = CompletionStatus.REMOTE_ACCESS_ERROR
    assert pair.ended == [(1, OK), (2, FLUSHED), (3, access), (4, FLUSHED)]


def test_an_error_flushes_reads_and_writes_of_all_stages():
    pair = RdmaPair()
    pair.wire.fate = lambda *_: ()
    for number in range(6):
        pair.read(0, number, 600)
        pair.write(0, 0, 600)
    pair.wire.drain()
    pair.a.adapter._queue_pairs[pair.a_qpn].modify(QpState.ERR)
    pair.write(0, 0, 1)
    pair.wire.drain()
    kinds = [e.event.completion.opcode for e in pair.a.events]
    assert kinds == ["read", "write"] * 6 + ["write"]
    assert {status for _, status in pair.ended} == {FLUSHED}
    assert len(pair.ended) == 13


def test_destroying_a_queue_pair_ends_the_access_of_its_peer_and_its_answers():
    pair = RdmaPair()
    pair.read(0, 0, 1000)
    pair.b.adapter.handle_frame(0, pair.a.adapter.poll_transmit(0).frame, 0)
    pair.b.adapter.destroy_queue_pair(Qpn(pair.b_qpn))
    assert pair.b.adapter.poll_transmit(0) is None
    assert len(pair.b.adapter.memory) == 0


def test_a_drained_queue_pair_finishes_what_it_has_begun_and_reads_no_more():
    pair = RdmaPair(max_rd_atomic=1)
    pair.read(0, 0, 1000)
    pair.read(0, 1000, 1000)
    pair.wire.drain()
    queue_pair = pair.a.adapter._queue_pairs[pair.a_qpn]
    queue_pair.modify(QpState.SQD)
    pair.run()
    assert pair.ended == [(1, OK)]
    queue_pair.modify(QpState.RTS)
    pair.run()
    assert pair.all_good()


def test_the_caller_hears_of_its_own_mistakes():
    pair = RdmaPair(max_rd_atomic=0)
    good, remote = pair.local.segment(0, 4), (pair.remote.address, pair.remote.rkey)
    read_only = pair.register(pair.a, pair.a_qpn, pair.here, Access(0))
    wrong = [
        (WriteWorkRequest(1, (Segment(good.lkey ^ 1, good.address, 4),), *remote), "names no memory"),
        (WriteWorkRequest(1, (Segment(good.lkey, good.address + 8190, 4),), *remote), "leave their region"),
        (WriteWorkRequest(1, (Segment(good.lkey, good.address, -1),), *remote), "leave their region"),
        (ReadWorkRequest(1, (read_only.segment(),), *remote), "local writing"),
        (ReadWorkRequest(1, (good,), *remote), "initiator depth"),
    ]
    for request, text in wrong:
        with pytest.raises(SanloomError, match=text):
            pair.post(request)
    for buffer, access, text in (
        (b"bytes", Access.LOCAL_WRITE, "read-only"),
        (bytearray(5), Access.REMOTE_WRITE, "needs local write"),
        (bytearray(), Access(0), "0 bytes"),
    ):
        with pytest.raises(SanloomError, match=text):
            pair.register(pair.a, pair.a_qpn, buffer, access)
    pair.run()
    assert pair.wire.sent(pair.a) == []
    pair.post(WriteWorkRequest(1, (read_only.segment(0, 4),), *remote))
    pair.run()
    assert pair.ended == [(1, OK)]
    assert ONLY not in [p.opcode for p in pair.wire.sent(pair.a)]
