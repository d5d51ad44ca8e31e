"""The requester: segmentation, window, acknowledgements and ends of work. Rules of wire.md 8, numbers in the names."""

import pytest

from fabric.rc.requester import ACK_EVERY, WINDOW
from fabric.rc.work import CompletionStatus, SendWorkRequest
from tests.support.rc_sender import ACCESS, INVALID, OK, OPERATIONAL, SEQUENCE, Sender, nothing_left
from tests.support.rc_wire import FIRST, LAST, MIDDLE, ONLY


@pytest.mark.parametrize("mtu", [256, 512, 1024, 2048, 4096])
def test_segmentation_is_first_middle_last_or_only(mtu):
    """Table of lengths in wire.md 1.4: first and middle are full, the last has the rest."""
    for size, expected in [
        (1, [(ONLY, 1)]),
        (mtu, [(ONLY, mtu)]),
        (mtu + 1, [(FIRST, mtu), (LAST, 1)]),
        (2 * mtu, [(FIRST, mtu), (LAST, mtu)]),
        (3 * mtu + 5, [(FIRST, mtu), (MIDDLE, mtu), (MIDDLE, mtu), (LAST, 5)]),
    ]:
        sender = Sender(mtu=mtu)
        data = bytes(index % 251 for index in range(size))
        sender.requester.post(SendWorkRequest(1, data))
        packets = sender.sent()
        assert [(opcode, len(payload)) for _, opcode, payload, _, _ in packets] == expected
        assert b"".join(payload for _, _, payload, _, _ in packets) == data
        assert [psn for psn, *_ in packets] == list(range(100, 100 + len(expected)))


def test_rule_43_a_message_of_no_bytes_is_one_packet_with_one_psn():
    sender = Sender()
    sender.post(0, 0)
    assert [(psn, opcode, payload) for psn, opcode, payload, _, _ in sender.sent()] == [
        (100, ONLY, b""),
        (101, ONLY, b""),
    ]
    sender.answer(101)
    assert sender.finished() == [1, 2]
    assert nothing_left(sender)


def test_rule_02_the_psn_wraps_inside_a_message_and_acks_are_understood_across_the_wrap():
    sender = Sender(psn=0xFFFFFE)
    sender.post(4 * 256, 10)
    assert sender.psns() == [0xFFFFFE, 0xFFFFFF, 0, 1, 2]
    sender.answer(0xFFFFFF)
    assert sender.finished() == []
    sender.answer(1)
    assert sender.finished() == [1]
    sender.answer(0xFFFFFF)  # an old one, from before the wrap
    sender.answer(2)
    assert sender.finished() == [1, 2]
    assert nothing_left(sender)


def test_rule_02_going_back_across_the_wrap():
    sender = Sender(psn=0xFFFFFE)
    sender.post(4 * 256)
    sender.psns()
    sender.answer(0, SEQUENCE)
    assert sender.psns() == [0, 1]
    sender.answer(1)
    assert sender.finished() == [1]


def test_rule_24_solicited_is_asked_for_on_the_last_packet_of_a_message_that_wants_it():
    sender = Sender()
    sender.post(600, 10)
    sender.post(600, 10, solicited=True)
    marks = [solicited for *_, solicited in sender.sent()]
    assert marks == [False, False, False, False, False, False, True, True]


def test_rule_29_one_ack_completes_everything_before_it_in_order():
    sender = Sender()
    sender.post(10, 600, 10, 10)
    assert sender.psns() == [100, 101, 102, 103, 104, 105]
    sender.answer(102)  # inside the second message
    assert sender.finished() == [1]
    sender.answer(104)
    assert sender.finished() == [1, 2, 3]
    sender.answer(105)
    assert sender.finished() == [1, 2, 3, 4]
    assert nothing_left(sender)


def test_rule_30_the_window_closes_at_128_packets_and_its_last_packet_asks_for_an_ack():
    sender = Sender()
    sender.post(300 * 256)
    burst = sender.sent()
    assert len(burst) == WINDOW == 128
    assert burst[-1][3]
    assert {psn for psn, _, _, ask, _ in burst if ask} >= {p for p, *_ in burst if p % ACK_EVERY == 0}
    sender.answer(100)
    assert sender.psns() == [228]
    sender.answer(100 + 99)
    assert sender.psns() == list(range(229, 229 + 99))
    assert sender.psns() == []


def test_rule_30_whatever_is_sent_last_asks_for_an_ack():
    for count in range(1, 2 * WINDOW):
        sender = Sender(psn=count)
        sender.post(*[1] * count)
        burst = sender.sent()
        assert burst[-1][3], f"{count} messages end without an acknowledge request"
    lone = Sender(psn=101)
    for _ in range(3):
        lone.post(1)
        assert [ask for _, _, _, ask, _ in lone.sent()] == [True]


@pytest.mark.parametrize(
    ("syndrome", "status"),
    [
        (INVALID, CompletionStatus.REMOTE_INVALID_REQUEST),
        (ACCESS, CompletionStatus.REMOTE_ACCESS_ERROR),
        (OPERATIONAL, CompletionStatus.REMOTE_OPERATIONAL_ERROR),
    ],
)
def test_rule_38_a_fatal_nak_ends_its_message_with_its_error_and_flushes_the_rest(syndrome, status):
    sender = Sender()
    sender.post(10, 600, 10)
    sender.post(300 * 256)
    sender.psns()
    assert sender.answer(102, syndrome) is status
    sender.requester.flush(status)
    flushed = CompletionStatus.FLUSHED
    assert [(one.wr_id, one.status) for one in sender.done] == [(1, OK), (2, status), (3, flushed), (4, flushed)]
    assert nothing_left(sender)


def test_rule_38_a_message_of_which_only_a_part_was_sent_ends_once():
    sender = Sender()
    sender.post(300 * 256, 10)
    assert len(sender.psns()) == WINDOW
    sender.requester.flush(CompletionStatus.RETRY_EXCEEDED)
    assert [(one.wr_id, one.status) for one in sender.done] == [
        (1, CompletionStatus.RETRY_EXCEEDED),
        (2, CompletionStatus.FLUSHED),
    ]


@pytest.mark.parametrize("syndrome", [0x40, 0x5F, 0x64, 0x65, 0x7F, 0x80, 0x9F, 0xA0, 0xE0, 0xFF])
def test_a_reserved_syndrome_does_nothing(syndrome):
    """wire.md 1.3: bit 7 and type 10 are reserved; NAK codes above 3 do not concern reliable connection."""
    sender = Sender()
    sender.post(10, 10)
    sender.psns()
    assert sender.answer(101, syndrome) is None
    assert sender.done == []
    assert sender.psns() == []


@pytest.mark.parametrize("credit", [0, 1, 15, 30, 31])
def test_rule_42_any_credit_code_is_an_ack(credit):
    """Credits are not negotiated, so their codes carry nothing."""
    sender = Sender()
    sender.post(10, 10)
    sender.psns()
    sender.answer(101, credit)
    assert sender.finished() == [1, 2]


def test_a_draining_queue_resends_and_ends_the_message_begun_but_begins_none():
    """SQD of wire.md 1.8."""
    sender = Sender()
    sender.post(3 * 256, 10)
    assert sender.psns(limit=1) == [100]
    rest = [sender.requester.poll(0, draining=True) for _ in range(3)]
    assert [one and (one[0], one[3]) for one in rest] == [(101, False), (102, True), None]
    sender.answer(101, SEQUENCE)
    assert [one and one[0] for one in [sender.requester.poll(0, draining=True) for _ in range(3)]] == [101, 102, None]
    sender.answer(102)
    assert sender.finished() == [1]
    assert sender.requester.deadline is None
    assert sender.psns() == [103]
