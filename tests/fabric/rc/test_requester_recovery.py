"""The requester when something is lost, late or refused: go-back-N, timers, RNR waits. Rules of wire.md 8, numbers in
the names.
"""

import pytest

from fabric.rc.work import CompletionStatus
from fabric.units import MICROSECOND, MILLISECOND, SECOND
from fabric.wire.headers import RNR_TIMER, local_ack_timeout
from fabric.wire.psn import psn_add
from tests.support.rc_sender import ACCESS, ACK, INVALID, OPERATIONAL, SEQUENCE, TIMEOUT, Sender, nothing_left
from tests.support.rc_wire import LAST, MIDDLE


def test_rule_31_a_sequence_nak_acknowledges_all_before_it_and_goes_back_to_it():
    sender = Sender()
    sender.post(10, 10, 600, 10)
    first = sender.sent()
    assert sender.answer(102, SEQUENCE) is None
    assert sender.finished() == [1, 2]
    again = sender.sent()
    assert [packet[:3] for packet in again] == [packet[:3] for packet in first[2:]]
    assert sender.requester.retransmitted == 4
    assert sender.requester.naks_received == 1
    sender.answer(105)
    assert sender.finished() == [1, 2, 3, 4]
    assert nothing_left(sender)


def test_rule_32_a_timeout_resends_from_the_oldest_unacknowledged_and_progress_refills_the_counter():
    sender = Sender(retries=2)
    sender.post(10, 10, 10)
    sender.psns()
    for _ in range(2):
        assert sender.time_out() is None
        assert sender.psns() == [100, 101, 102]
    sender.answer(100)
    for _ in range(2):
        assert sender.time_out() is None
        assert sender.psns() == [101, 102]
    assert sender.time_out() is CompletionStatus.RETRY_EXCEEDED
    assert sender.requester.timeouts == 5


@pytest.mark.parametrize("retries", [0, 1, 3, 7])
def test_rule_33_c_retries_mean_1_plus_c_transmissions(retries):
    """Seven is just seven, as the standard says."""
    sender = Sender(retries=retries)
    sender.post(10, 10)
    transmissions = 0
    while True:
        transmissions += sender.psns(sender.requester.deadline or 0).count(100)
        fatal = sender.time_out()
        if fatal is not None:
            break
    assert fatal is CompletionStatus.RETRY_EXCEEDED
    assert transmissions == 1 + retries


@pytest.mark.parametrize("code", [1, 8, 14, 20, 31])
def test_local_ack_timeout_is_4096_ns_times_2_to_the_code(code):
    """wire.md 1.7, and nothing is resent before."""
    timeout = 4096 * 2**code
    sender = Sender(timeout=local_ack_timeout(code))
    sender.post(10)
    sender.psns(now=SECOND)
    assert sender.requester.deadline == SECOND + timeout
    sender.requester.handle_timeout(SECOND + timeout - 1)
    assert sender.psns(SECOND + timeout - 1) == []
    sender.requester.handle_timeout(SECOND + timeout)
    assert sender.psns(SECOND + timeout) == [100]
    assert sender.requester.deadline == SECOND + 2 * timeout


def test_progress_starts_the_timer_anew():
    sender = Sender()
    sender.post(10, 10)
    sender.psns(now=0)
    sender.answer(100, now=TIMEOUT - 1)
    assert sender.requester.deadline == 2 * TIMEOUT - 1
    sender.answer(101, now=TIMEOUT)
    assert sender.requester.deadline is None


@pytest.mark.parametrize("code", range(32))
def test_rule_34_an_rnr_nak_waits_the_coded_time_and_no_timeout_fires_meanwhile(code):
    sender = Sender(timeout=4 * MICROSECOND)
    sender.post(10, 10)
    sender.psns(now=SECOND)
    assert sender.answer(100, 0x20 | code, now=SECOND) is None
    end = SECOND + RNR_TIMER[code]
    assert sender.requester.deadline == end
    sender.requester.handle_timeout(end - 1)
    assert sender.psns(end - 1) == []
    sender.requester.handle_timeout(end)
    assert sender.psns(end) == [100, 101]
    assert sender.requester.timeouts == 0
    assert sender.requester.rnr_received == 1


def test_rule_34_rnr_retries_are_counted_on_their_own_and_refilled_by_progress():
    sender = Sender(retries=0, rnr_retry=2)
    sender.post(10, 10)
    sender.psns()
    now = 0
    for waiting in ([100, 101], [101]):
        for _ in range(2):
            assert sender.answer(waiting[0], 0x21, now) is None
            now += RNR_TIMER[1]
            sender.requester.handle_timeout(now)
            assert sender.psns(now) == waiting
        if waiting[0] == 100:
            sender.answer(100, now=now)
    assert sender.answer(101, 0x21, now) is CompletionStatus.RNR_RETRY_EXCEEDED


def test_rule_34_seven_rnr_retries_mean_without_end():
    sender = Sender(rnr_retry=7)
    sender.post(10)
    now = 0
    for _ in range(100):
        assert sender.psns(now) == [100]
        assert sender.answer(100, 0x21, now) is None
        now += RNR_TIMER[1]
        sender.requester.handle_timeout(now)


def test_rule_34_a_copy_of_an_rnr_nak_costs_no_second_retry_and_no_longer_wait():
    sender = Sender(rnr_retry=1)
    sender.post(10)
    sender.psns()
    assert sender.answer(100, 0x21, now=0) is None
    assert sender.answer(100, 0x21, now=5) is None
    assert sender.answer(100, 0x21, now=6) is None
    sender.requester.handle_timeout(RNR_TIMER[1])
    assert sender.psns(RNR_TIMER[1]) == [100]


def test_rule_34_progress_ends_an_rnr_wait():
    """The NAK was old: a resent copy has been taken meanwhile. What comes next must not be stranded."""
    for timeout in (0, TIMEOUT):
        sender = Sender(timeout=timeout)
        sender.post(10)
        sender.psns()
        sender.answer(100, 0x20, now=0)  # code 0 is the longest wait, 655.36 ms
        sender.answer(100, now=MILLISECOND)
        assert sender.finished() == [1]
        sender.post(10)
        assert sender.psns(MILLISECOND) == [101]


def test_rule_35_an_ack_ahead_of_all_that_was_sent_is_a_ghost():
    sender = Sender()
    sender.post(10, 10)
    sender.psns()
    for syndrome in (ACK, SEQUENCE, INVALID, ACCESS, OPERATIONAL, 0x21):
        for ghost in (102, 103, 100 + 0x7FFFFF):
            assert sender.answer(ghost, syndrome) is None
    assert sender.done == []
    assert sender.psns() == []
    sender.answer(101)
    assert sender.finished() == [1, 2]


def test_rule_35_a_ghost_ack_for_what_is_queued_but_not_sent():
    sender = Sender()
    sender.post(10, 10, 10)
    assert sender.psns(limit=1) == [100]
    sender.answer(102)
    assert sender.finished() == []
    assert sender.psns() == [101, 102]


def test_rule_36_an_ack_or_nak_older_than_the_oldest_outstanding_is_ignored():
    sender = Sender()
    sender.post(10, 10, 10)
    sender.psns()
    sender.answer(100)
    deadline = sender.requester.deadline
    for syndrome in (ACK, SEQUENCE, INVALID, ACCESS, OPERATIONAL, 0x21):
        for old in (100, 99, psn_add(101, -0x800000)):
            assert sender.answer(old, syndrome, now=7) is None
    assert sender.finished() == [1]
    assert sender.psns(8) == []
    assert sender.requester.deadline == deadline


def test_rule_37_a_second_nak_starts_no_second_go_back_but_a_timeout_does():
    sender = Sender()
    sender.post(*[10] * 5)
    sender.psns()
    sender.answer(101, SEQUENCE)
    assert sender.psns(limit=2) == [101, 102]
    sender.answer(101, SEQUENCE)
    assert sender.psns() == [103, 104]
    sender.answer(101, SEQUENCE)
    assert sender.psns() == []
    sender.time_out()
    assert sender.psns(limit=2) == [101, 102]
    sender.answer(101, SEQUENCE)
    assert sender.psns() == [103, 104]
    sender.answer(103, SEQUENCE)  # progress: this one is a new go-back
    assert sender.psns() == [103, 104]


def test_rule_41_an_rnr_nak_in_the_middle_of_a_message_restarts_from_that_packet():
    sender = Sender()
    sender.post(10, 4 * 256)
    sender.psns()
    sender.answer(102, 0x21, now=0)
    assert sender.finished() == [1]
    sender.requester.handle_timeout(RNR_TIMER[1])
    packets = sender.sent(RNR_TIMER[1])
    assert [packet[:2] for packet in packets] == [(102, MIDDLE), (103, MIDDLE), (104, LAST)]


def test_rule_21_a_sequence_nak_after_an_rnr_nak_is_accepted_and_does_not_shorten_the_wait():
    """rxe sends one where the standard is silent."""
    sender = Sender()
    sender.post(10, 10)
    sender.psns()
    sender.answer(100, 0x21, now=0)
    sender.answer(100, SEQUENCE, now=1)
    assert sender.psns(RNR_TIMER[1] - 1) == []
    sender.requester.handle_timeout(RNR_TIMER[1])
    assert sender.psns(RNR_TIMER[1]) == [100, 101]
    sender.answer(101)
    assert nothing_left(sender)


def test_rule_44_timeout_0_never_retransmits():
    assert local_ack_timeout(0) == 0
    sender = Sender(timeout=0)
    sender.post(10)
    sender.psns()
    assert sender.requester.deadline is None
    assert sender.requester.handle_timeout(3600 * SECOND) is None
    assert sender.psns(3600 * SECOND) == []
    assert sender.requester.has_work()


def test_a_late_ack_during_a_go_back_skips_what_it_covers():
    sender = Sender()
    sender.post(*[10] * 6)
    sender.psns()
    sender.time_out()
    assert sender.psns(limit=2) == [100, 101]
    sender.answer(103)
    assert sender.finished() == [1, 2, 3, 4]
    assert sender.psns() == [104, 105]


def test_a_message_posted_during_a_go_back_comes_after_it():
    sender = Sender()
    sender.post(10, 10)
    sender.psns()
    sender.answer(100, SEQUENCE)
    assert sender.psns(limit=1) == [100]
    sender.post(10)
    assert sender.psns() == [101, 102]
    sender.answer(102)
    assert sender.finished() == [1, 2, 3]


def test_rule_34_a_driver_that_polls_at_the_end_of_the_wait_costs_no_retry():
    """``poll_transmit`` may come before ``handle_timeout`` at the same instant."""
    sender = Sender(retries=0)
    sender.post(10)
    sender.psns()
    sender.answer(100, 0x21, now=0)
    assert sender.psns(RNR_TIMER[1]) == [100]
    assert sender.requester.handle_timeout(RNR_TIMER[1]) is None
    assert sender.psns(RNR_TIMER[1]) == []
    assert sender.requester.deadline == RNR_TIMER[1] + TIMEOUT


def test_rule_34_an_rnr_nak_refills_the_retry_counter():
    """A receiver may be unready for long; what the network loses meanwhile must not add up to a dead peer."""
    sender = Sender(retries=1, rnr_retry=7)
    sender.post(10)
    for _ in range(5):
        sender.psns(sender.requester.deadline or 0)
        assert sender.time_out() is None
        now = sender.requester.deadline or 0
        sender.psns(now)
        assert sender.answer(100, 0x21, now) is None
        assert sender.time_out() is None
    assert sender.requester.timeouts == 5
