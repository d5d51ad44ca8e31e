"""The table of a transfer: exactly its moves, and no other."""

import pytest

from fabric.errors import IllegalTransition
from provider.handoff.transfer_state import TRANSITIONS, TransferState, next_state

EVENTS = ("drained", "ticket recorded", "commit", "resumed", "return", "abort")


@pytest.mark.parametrize("state", TransferState)
@pytest.mark.parametrize("event", EVENTS)
def test_a_move_is_in_the_table_or_illegal(state: TransferState, event: str) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, event)


def test_only_a_ticket_commits_and_nothing_returns_after_the_commit() -> None:
    assert [state for state, event in TRANSITIONS if event == "commit"] == [TransferState.TICKETED]
    after = (TransferState.COMMITTED, TransferState.DONE, TransferState.RETURNED, TransferState.ABORTED)
    assert not [(s, e) for s, e in TRANSITIONS if s in after and e in ("return", "abort", "commit")]


def test_the_way_through() -> None:
    state = TransferState.SUSPENDING
    for event in ("drained", "ticket recorded", "commit", "resumed"):
        state = next_state(state, event)
    assert state is TransferState.DONE
