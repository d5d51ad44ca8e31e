"""What either end does with RDMA packets that are made by hand: rules 6 to 9, 14, 15, 19, 39 of wire.md 8."""

import pytest

from fabric.rc.work import CompletionStatus
from fabric.wire.fast import parse
from fabric.wire.headers import Reth
from tests.support.rc_wire import A_IP, ACKNOWLEDGE, B_IP, FIRST, LAST, ONLY, builder
from tests.support.rdma_pair import (
    READ,
    READ_FIRST,
    READ_LAST,
    READ_MIDDLE,
    READ_ONLY,
    WRITE_FIRST,
    WRITE_LAST,
    WRITE_ONLY,
    RdmaPair,
    pattern,
)

FROM_A = builder()


def forged(pair, opcode, psn, *, at=0, size=0, payload=b"", rkey=None):
    """A frame of a, made by hand; what b answers."""
    extension = Reth.FORMAT.pack(pair.remote.address + at, pair.remote.rkey if rkey is None else rkey, size)
    extension = extension if opcode in (READ, WRITE_FIRST, WRITE_ONLY) else b""
    frame = FROM_A.build(opcode, psn, payload, destination_qpn=pair.b_qpn, extension=extension, ack_request=True)
    pair.b.adapter.handle_frame(0, frame, pair.wire.now)
    found = []
    while (transmit := pair.b.adapter.poll_transmit(pair.wire.now)) is not None:
        packet = parse(transmit.frame)
        found.append((packet.opcode, packet.psn, packet.payload))
    return found


def test_rule_09_a_duplicate_read_is_executed_again_on_the_memory_as_it_is_now():
    pair = RdmaPair()
    assert len(forged(pair, READ, 100, size=600)) == 3
    pair.there[512:515] = b"new"
    assert forged(pair, READ, 102, at=512, size=88) == [(READ_ONLY, 102, bytes(pair.there[512:600]))]
    again = forged(pair, READ, 101, at=256, size=344)
    assert [answer[:2] for answer in again] == [(READ_FIRST, 101), (READ_LAST, 102)]
    assert forged(pair, WRITE_ONLY, 103, size=1, payload=b"!") == [(ACKNOWLEDGE, 103, b"")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"psn": 101, "at": 0, "size": 344},
        {"psn": 101, "at": 256, "size": 345},
        {"psn": 101, "at": 256, "size": 344, "rkey": 1},
        {"psn": 99, "at": 0, "size": 600},
        {"psn": 100, "at": 0, "size": 601},
    ],
)
def test_rule_09_a_duplicate_that_asks_for_something_else_is_dropped(wrong):
    pair = RdmaPair()
    forged(pair, READ, 100, size=600)
    assert forged(pair, READ, **wrong) == []
    assert not pair.b.fatal


def test_rule_09_a_duplicate_of_a_read_long_past_or_of_lost_memory_is_dropped():
    pair = RdmaPair(resources=2)
    for psn in (100, 101, 102):
        forged(pair, READ, psn, size=10)
    assert [len(forged(pair, READ, psn, size=10)) for psn in (100, 101, 102)] == [0, 1, 1]
    pair.b.adapter.deregister_memory(pair.remote)
    assert forged(pair, READ, 102, size=10) == []
    pair.wire.drain()
    assert not pair.b.fatal


@pytest.mark.parametrize("begins", [0, 1, 3])
def test_rule_09_a_duplicate_of_a_read_whose_answer_is_on_its_way_turns_it_back(begins):
    pair = RdmaPair()
    adapter = pair.b.adapter
    adapter.handle_frame(0, read_frame(pair, 100, 0, 1000), 0)
    answers = [parse(adapter.poll_transmit(0).frame) for _ in range(2)]
    adapter.handle_frame(0, read_frame(pair, 100 + begins, 256 * begins, 1000 - 256 * begins), 0)
    while (transmit := adapter.poll_transmit(0)) is not None:
        answers.append(parse(transmit.frame))
    assert [p.psn for p in answers] == [100, 101, *range(100 + begins, 104)]
    assert b"".join(p.payload for p in answers[2:]) == pattern(8192, 100)[256 * begins : 1000]
    assert answers[2].opcode == (READ_ONLY if begins == 3 else READ_FIRST)


def read_frame(pair, psn, at, size):
    """A READ request of a, made by hand."""
    extension = Reth.FORMAT.pack(pair.remote.address + at, pair.remote.rkey, size)
    return FROM_A.build(READ, psn, destination_qpn=pair.b_qpn, extension=extension)


@pytest.mark.parametrize(
    ("opcode", "psn", "size"),
    [
        (READ_FIRST, 100, 255),
        (READ_FIRST, 100, 0),
        (READ_ONLY, 100, 256),
        (READ_LAST, 100, 256),
        (READ_LAST, 100, 88),
        (READ_MIDDLE, 101, 256),
        (READ_LAST, 102, 88),
        (READ_ONLY, 103, 1),
        (READ_ONLY, 99, 1),
    ],
)
def test_rule_39_a_response_that_fits_no_place_is_dropped(opcode, psn, size):
    pair = RdmaPair()
    pair.wire.fate = lambda *_: ()
    pair.read(0, 0, 600)
    pair.write(4000, 0, 1)
    pair.wire.drain()
    before = bytes(pair.here)
    extension = b"" if opcode == READ_MIDDLE else b"\x1f\0\0\1"
    frame = builder(B_IP, A_IP).build(opcode, psn, b"?" * size, destination_qpn=pair.a_qpn, extension=extension)
    pair.a.adapter.handle_frame(0, frame, 0)
    pair.wire.drain()
    assert (bytes(pair.here), pair.ended, pair.a.fatal) == (before, [], {})
    assert pair.a.adapter._queue_pairs[pair.a_qpn].statistics().responses_dropped == 1


def test_rule_07_a_read_of_long_ago_does_not_hold_acknowledgements_back():
    """Its PSN would look newer than theirs once half of all PSNs have passed."""
    pair = RdmaPair()
    forged(pair, READ, 100, size=10)
    responder = pair.b.adapter._queue_pairs[pair.b_qpn]._responder
    for psn in (0x400000, 0x800000, 0xC00000, 90):
        responder.expected_psn = psn  # as if all before it had come
        forged(pair, WRITE_ONLY, psn, size=1, payload=b"!")
        assert forged(pair, WRITE_ONLY, psn, size=1, payload=b"!") == [(ACKNOWLEDGE, psn, b"")]


def test_rule_19_answers_that_are_repeated_take_no_resources():
    pair = RdmaPair(resources=2)
    for psn in (100, 104):
        assert len(forged(pair, READ, psn, size=1000)) == 4
    for psn in (100, 104, 108, 112):  # two again, then two new ones, before an answer can leave
        pair.b.adapter.handle_frame(0, read_frame(pair, psn, 0, 1000), 0)
    pair.wire.drain()
    assert [p.psn for p in pair.responses()] == list(range(100, 116))
    assert not pair.b.fatal


def test_rule_08_a_duplicate_read_leaves_a_message_under_way_alone():
    pair = RdmaPair()
    pair.b.receive(pair.b_qpn, 1000)
    forged(pair, READ, 100, size=10)
    forged(pair, WRITE_FIRST, 101, size=300, payload=b"w" * 256)
    assert len(forged(pair, READ, 100, size=10)) == 1
    assert forged(pair, WRITE_LAST, 102, payload=b"v" * 44) == [(ACKNOWLEDGE, 102, b"")]
    forged(pair, FIRST, 103, payload=b"s" * 256)
    assert len(forged(pair, READ, 100, size=10)) == 1
    assert forged(pair, LAST, 104, payload=b"t") == [(ACKNOWLEDGE, 104, b"")]
    assert pair.there[:300] == b"w" * 256 + b"v" * 44


def test_rules_06_and_07_a_duplicate_write_is_acknowledged_and_not_executed():
    pair = RdmaPair()
    forged(pair, WRITE_ONLY, 100, size=4, payload=b"once")
    pair.there[:4] = b"mine"
    forged(pair, READ, 101, size=600)
    assert forged(pair, WRITE_ONLY, 100, size=4, payload=b"once") == [(ACKNOWLEDGE, 100, b"")]
    forged(pair, WRITE_ONLY, 104, at=10, size=1, payload=b"?")
    assert forged(pair, WRITE_ONLY, 100, size=4, payload=b"once") == [(ACKNOWLEDGE, 100, b"")], "short of the read"
    assert forged(pair, WRITE_ONLY, 104, at=10, size=1, payload=b"!") == [(ACKNOWLEDGE, 104, b"")]
    assert pair.there[:4] == b"mine"
    assert pair.there[10:11] == b"?"


BAD_LENGTHS = {
    "only, shorter than announced": [(WRITE_ONLY, 5, 4)],
    "only, longer than announced": [(WRITE_ONLY, 4, 5)],
    "only, longer than the path": [(WRITE_ONLY, 257, 257)],
    "first, not a whole packet": [(WRITE_FIRST, 300, 255)],
    "first, nothing left": [(WRITE_FIRST, 256, 256)],
    "too long for any message": [(WRITE_FIRST, (1 << 31) + 1, 256)],
    "last, too short": [(WRITE_FIRST, 300, 256), (WRITE_LAST, 0, 43)],
    "last, too long": [(WRITE_FIRST, 300, 256), (WRITE_LAST, 0, 45)],
    "last, empty": [(WRITE_FIRST, 512, 256), (7, 0, 256)],
    "middle without first": [(7, 0, 256)],
    "last without first": [(WRITE_LAST, 0, 1)],
    "first in a message": [(WRITE_FIRST, 300, 256), (WRITE_FIRST, 300, 256)],
    "a send in a message": [(WRITE_FIRST, 300, 256), (ONLY, 0, 3)],
    "a read in a message": [(WRITE_FIRST, 300, 256), (READ, 3, 0)],
    "a read with payload": [(READ, 8, 4)],
    "a read too long for any message": [(READ, (1 << 31) + 1, 0)],
}


@pytest.mark.parametrize("name", BAD_LENGTHS)
def test_rules_14_and_15_order_and_lengths(name):
    pair = RdmaPair()
    pair.b.receive(pair.b_qpn, 1000)
    for psn, (opcode, announced, size) in enumerate(BAD_LENGTHS[name], 100):
        answers = forged(pair, opcode, psn, size=announced, payload=bytes(size))
    pair.wire.drain()
    assert [answer[:2] for answer in answers] == [(ACKNOWLEDGE, 99 + len(BAD_LENGTHS[name]))]
    assert pair.b.fatal == {pair.b_qpn: CompletionStatus.LOCAL_LENGTH_ERROR}
