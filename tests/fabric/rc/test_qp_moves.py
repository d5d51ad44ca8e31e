"""The table of queue pair states: every move that it allows, every one that it does not, and what a state permits."""

import itertools

import pytest

from fabric.errors import IllegalTransition, SanloomError
from fabric.rc.events import Completion
from fabric.rc.qp_state import QP_TRANSITIONS, QpState, check_transition
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest
from tests.support.rc_wire import RTR, RTS, queue_pair_in

ALL = {**RTR, **RTS}
LEGAL = {
    ("RESET", "INIT"),
    ("INIT", "INIT"),
    ("INIT", "RTR"),
    ("RTR", "RTS"),
    ("RTS", "RTS"),
    ("RTS", "SQD"),
    ("SQD", "RTS"),
} | {(state.value, end) for state in QpState for end in ("ERR", "RESET")}
"""InfiniBand Architecture vol. 1, figure of 10.3.1, as far as reliable connection goes; wire.md 1.8."""


def test_the_table_is_the_standards():
    assert {(a.value, b.value) for a, b in QP_TRANSITIONS} == LEGAL


@pytest.mark.parametrize(("current", "target"), list(itertools.product(QpState, QpState)))
def test_a_move_is_made_or_raises_with_state_event_and_role(current, target):
    queue_pair = queue_pair_in(current)
    if (current.value, target.value) in LEGAL:
        queue_pair.modify(target, **ALL)
        assert queue_pair.state is target
        assert queue_pair.statistics().state == target.value
        return
    with pytest.raises(IllegalTransition) as caught:
        queue_pair.modify(target, **ALL)
    error = caught.value
    assert (error.state, error.event, error.role) == (current.value, f"modify to {target.value}", "consumer")
    assert current.value in str(error)
    assert target.value in str(error)
    assert queue_pair.state is current


@pytest.mark.parametrize(("current", "target", "wanted"), [("INIT", "RTR", RTR), ("RTR", "RTS", RTS)])
def test_a_missing_attribute_is_named(current, target, wanted):
    for name in wanted:
        queue_pair = queue_pair_in(QpState(current))
        with pytest.raises(SanloomError, match=rf"{current} -> {target} needs {name}$"):
            queue_pair.modify(QpState(target), **{key: value for key, value in wanted.items() if key != name})
        assert queue_pair.state is QpState(current)
    with pytest.raises(SanloomError, match=", ".join(wanted)):
        check_transition(QpState(current), QpState(target), {})


@pytest.mark.parametrize("state", QpState)
def test_who_may_post(state):
    queue_pair = queue_pair_in(state)
    if state in (QpState.RESET, QpState.INIT, QpState.RTR):
        with pytest.raises(IllegalTransition) as caught:
            queue_pair.post_send(SendWorkRequest(1, b""), 0)
        assert (caught.value.state, caught.value.event, caught.value.role) == (state.value, "post_send", "requester")
    else:
        queue_pair.post_send(SendWorkRequest(1, b""), 0)
    if state is QpState.RESET:
        with pytest.raises(IllegalTransition) as caught:
            queue_pair.post_receive(ReceiveWorkRequest(2, 10), 0)
        assert (caught.value.state, caught.value.event, caught.value.role) == ("RESET", "post_receive", "responder")
    else:
        queue_pair.post_receive(ReceiveWorkRequest(2, 10), 0)
    if state is QpState.ERR:
        flushed = [queue_pair.poll_event(), queue_pair.poll_event()]
        assert [
            (event.completion.wr_id, event.completion.opcode, event.completion.status)
            for event in flushed
            if isinstance(event, Completion)
        ] == [(1, "send", CompletionStatus.FLUSHED), (2, "receive", CompletionStatus.FLUSHED)]
    assert queue_pair.poll_event() is None


def test_error_flushes_all_work_in_order_and_nothing_twice():
    queue_pair = queue_pair_in(QpState.RTS)
    queue_pair.post_receive(ReceiveWorkRequest(1, 10), 0)
    for number in (2, 3, 4):
        queue_pair.post_send(SendWorkRequest(number, b"x" * 256 * 100), 0)
    for _ in range(150):  # the window ends inside the second message
        queue_pair.poll_transmit(0)
    queue_pair.modify(QpState.ERR)
    ended = [event.completion for event in iter(queue_pair.poll_event, None) if isinstance(event, Completion)]
    assert [(one.wr_id, one.opcode) for one in ended] == [(2, "send"), (3, "send"), (4, "send"), (1, "receive")]
    assert {one.status for one in ended} == {CompletionStatus.FLUSHED}
    assert queue_pair.poll_timeout() is None
    assert queue_pair.poll_transmit(1) is None


def test_reset_forgets_the_connection_and_the_queue_pair_can_be_brought_up_afresh():
    queue_pair = queue_pair_in(QpState.RTS)
    queue_pair.post_receive(ReceiveWorkRequest(1, 10), 0)
    queue_pair.post_send(SendWorkRequest(2, b"old"), 0)
    queue_pair.poll_transmit(0)
    assert queue_pair.poll_timeout() is not None
    queue_pair.modify(QpState.RESET)
    assert queue_pair.poll_timeout() is None, "a timer of the old life would never be served"
    assert queue_pair.poll_event() is None, "RESET drops work without completions"
    queue_pair.modify(QpState.INIT)
    queue_pair.modify(QpState.RTR, **RTR)
    queue_pair.modify(QpState.RTS, **{**RTS, "sq_psn": 0x777})
    assert queue_pair.poll_transmit(1) is None
    queue_pair.post_send(SendWorkRequest(3, b"new"), 1)
    frame = queue_pair.poll_transmit(1)
    assert frame is not None
    assert frame[51:54] == bytes.fromhex("000777")
