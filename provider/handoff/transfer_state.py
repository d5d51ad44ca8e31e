"""The states of one transfer of control, as a table.

SUSPENDING: WSPDuplicateSocket has begun; the source may not use the socket, the peer is being told. DRAINED: the stream
stands still. TICKETED: the ticket is out, WSPDuplicateSocket has returned. COMMITTED: the target redeemed it; *this* is
the one commit record, the socket is the target's. Before it every failure ends in RETURNED (the source controls again)
or, when the source is gone, in ABORTED. DONE: the stream runs under its new owner.

What befalls a socket after the commit (its owner's death, say) is no longer a matter of the transfer.
"""

from enum import Enum

from fabric.errors import IllegalTransition


class TransferState(Enum):
    """See the module text."""

    SUSPENDING = "suspending"
    DRAINED = "drained"
    TICKETED = "ticketed"
    COMMITTED = "committed"
    DONE = "done"
    RETURNED = "returned"
    ABORTED = "aborted"


_OPEN = (TransferState.SUSPENDING, TransferState.DRAINED, TransferState.TICKETED)
TRANSITIONS: dict[tuple[TransferState, str], TransferState] = {
    (TransferState.SUSPENDING, "drained"): TransferState.DRAINED,
    (TransferState.DRAINED, "ticket recorded"): TransferState.TICKETED,
    (TransferState.TICKETED, "commit"): TransferState.COMMITTED,
    (TransferState.DRAINED, "taken"): TransferState.COMMITTED,  # by a relative, without a ticket
    (TransferState.COMMITTED, "resumed"): TransferState.DONE,
    **{(state, "return"): TransferState.RETURNED for state in _OPEN},
    **{(state, "abort"): TransferState.ABORTED for state in _OPEN},
}


def next_state(state: TransferState, event: str) -> TransferState:
    """The next state; IllegalTransition if the table has none."""
    found = TRANSITIONS.get((state, event))
    if found is None:
        raise IllegalTransition("transfer", state.value, event, "registry")
    return found
