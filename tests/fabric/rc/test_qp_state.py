"""The state table of a queue pair: every move that it names, and no other."""

import itertools

import pytest

from fabric.errors import IllegalTransition, SanloomError
from fabric.ids import Qpn
from fabric.rc.qp_state import QP_TRANSITIONS, QpState, check_transition
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest
from tests.support.rc_pair import RcPair


@pytest.mark.parametrize(("current", "target"), list(itertools.product(QpState, QpState)))
def test_every_move_of_the_table_needs_its_attributes_and_every_other_is_refused(current, target):
    needed = QP_TRANSITIONS.get((current, target))
    if needed is None:
        with pytest.raises(IllegalTransition, match=f"consumer.*modify to {target.value}.*{current.value}"):
            check_transition(current, target, {})
        return
    check_transition(current, target, dict.fromkeys(needed, 0))
    if needed:
        with pytest.raises(SanloomError, match=f"needs {needed[0]}"):
            check_transition(current, target, {})


def test_error_and_reset_can_be_reached_from_everywhere():
    for state in QpState:
        assert (state, QpState.ERR) in QP_TRANSITIONS
        assert (state, QpState.RESET) in QP_TRANSITIONS


def test_posting_follows_the_state():
    fresh = QueuePair(Qpn(5))
    with pytest.raises(IllegalTransition, match="post_receive"):
        fresh.post_receive(ReceiveWorkRequest(1, 10), 0)
    with pytest.raises(IllegalTransition, match="post_send"):
        fresh.post_send(SendWorkRequest(1, b""), 0)
    fresh.modify(QpState.INIT)
    fresh.post_receive(ReceiveWorkRequest(1, 10), 0)
    with pytest.raises(IllegalTransition, match=r"requester.*post_send.*INIT"):
        fresh.post_send(SendWorkRequest(1, b""), 0)


def test_rule_38_error_flushes_all_work_and_what_is_posted_later():
    pair = RcPair()
    pair.receive(pair.a, 2)
    pair.fate = lambda packet: []
    pair.send(pair.a, b"x", b"y")
    pair.a.qp.modify(QpState.ERR)
    pair.send(pair.a, b"z")
    pair.receive(pair.a)
    pair.drain()
    assert pair.a.qp.state is QpState.ERR
    assert [c.status for c in pair.a.of("send")] == [CompletionStatus.FLUSHED] * 3
    pair.send(pair.a)
    assert [c.status for c in pair.a.of("receive")] == [CompletionStatus.FLUSHED] * 3
    assert pair.a.adapter.poll_timeout() is None


def test_sqd_sends_no_more_but_goes_on_answering():
    pair = RcPair()
    pair.receive(pair.a)
    pair.a.qp.modify(QpState.SQD)
    pair.send(pair.a, b"held")
    pair.send(pair.b, b"heard")
    pair.run()
    assert pair.a.received == [b"heard"]
    assert pair.b.received == []
    pair.receive(pair.b)
    pair.a.qp.modify(QpState.RTS)
    pair.send(pair.a)
    pair.a.adapter._touch(pair.a.qp)
    pair.drain()
    pair.run()
    assert pair.b.received == [b"held"]
