"""The table of states itself."""

import pytest

from fabric.cm.states import TRANSITIONS, Move, Role, State, commanded, following
from fabric.errors import IllegalTransition


def test_every_state_is_in_the_table_and_reachable():
    assert list(TRANSITIONS) == list(State)
    seen = [State.REQ_SENT, State.REQ_RCVD]
    for state in seen:
        seen.extend(target for target in TRANSITIONS[state].values() if target not in seen)
    assert sorted(state.value for state in seen) == sorted(state.value for state in State)


def test_timewait_is_the_only_way_out():
    for state, moves in TRANSITIONS.items():
        assert (State.CLOSED in moves.values()) == (state is State.TIMEWAIT)


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_every_state_can_be_disconnected_and_leads_to_the_end(state: State):
    assert Move.DISCONNECT in TRANSITIONS[state]
    reached = [state]
    for here in reached:
        reached.extend(target for target in TRANSITIONS[here].values() if target not in reached)
    assert State.CLOSED in reached


@pytest.mark.parametrize("state", [s for s in State if s not in (State.ESTABLISHED, State.CLOSED)])
def test_every_state_that_waits_has_a_timer_that_ends_it(state: State):
    timers = (Move.RETRIES_EXHAUSTED, Move.ANSWER_OVERDUE, Move.TIMEWAIT_OVER)
    assert sum(timer in TRANSITIONS[state] for timer in timers) == 1


def test_illegal_command_names_state_and_role():
    with pytest.raises(IllegalTransition, match=r"connection \(active\): accept is not allowed in state REQ_SENT"):
        commanded(State.REQ_SENT, Move.ACCEPT, Role.ACTIVE)
    assert following(State.REQ_SENT, Move.RTU_ARRIVED) is None
