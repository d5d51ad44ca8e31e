"""The two state machines of a session, as tables.

*Stream*: each direction ends on its own. ESTABLISHED -> SEND_FINISHED when our DisConn has gone out, ->
RECEIVE_FINISHED when the peer's came, both -> CLOSED. AbortConn, sent or received, ends everything: ABORTED. Nothing
leaves CLOSED or ABORTED.

*Suspension*: RUNNING -> SUSPENDING when our SuspComm has gone out, -> SUSPENDED when the peer's SuspCommAck came. The
peer's side: RUNNING -> PEER_SUSPENDED on its SuspComm. Resume leads back to RUNNING. When both suspend at once, the
initiator of the connection wins: its session stays SUSPENDING and ignores the other's SuspComm; the loser moves to
PEER_SUSPENDED, acknowledges, and tells its switch that the suspension is lost. While suspended by us we send nothing
but Resume and AbortConn; while suspended by the peer nothing but SuspCommAck and AbortConn. What the application
sends meanwhile stays buffered.
"""

from enum import Enum

from fabric.errors import IllegalTransition


class Stream(Enum):
    """See the module text."""

    CONNECTING = "connecting"
    ESTABLISHED = "established"
    SEND_FINISHED = "send finished"
    RECEIVE_FINISHED = "receive finished"
    CLOSED = "closed"
    ABORTED = "aborted"


class Suspension(Enum):
    """See the module text."""

    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    PEER_SUSPENDED = "suspended by the peer"


STREAM_TRANSITIONS: dict[tuple[Stream, str], Stream] = {
    (Stream.CONNECTING, "hello exchanged"): Stream.ESTABLISHED,
    (Stream.ESTABLISHED, "DisConn sent"): Stream.SEND_FINISHED,
    (Stream.ESTABLISHED, "DisConn received"): Stream.RECEIVE_FINISHED,
    (Stream.SEND_FINISHED, "DisConn received"): Stream.CLOSED,
    (Stream.RECEIVE_FINISHED, "DisConn sent"): Stream.CLOSED,
    **{
        (state, "abort"): Stream.ABORTED
        for state in (Stream.CONNECTING, Stream.ESTABLISHED, Stream.SEND_FINISHED, Stream.RECEIVE_FINISHED)
    },
}
SUSPENSION_TRANSITIONS: dict[tuple[Suspension, str], Suspension] = {
    (Suspension.RUNNING, "suspend"): Suspension.SUSPENDING,
    (Suspension.SUSPENDING, "SuspCommAck received"): Suspension.SUSPENDED,
    (Suspension.SUSPENDING, "tie lost"): Suspension.PEER_SUSPENDED,
    (Suspension.SUSPENDING, "resume"): Suspension.RUNNING,
    (Suspension.SUSPENDED, "resume"): Suspension.RUNNING,
    (Suspension.RUNNING, "SuspComm received"): Suspension.PEER_SUSPENDED,
    (Suspension.PEER_SUSPENDED, "Resume received"): Suspension.RUNNING,
}


def next_stream(state: Stream, event: str, role: str) -> Stream:
    """The next state; IllegalTransition if the table has none."""
    found = STREAM_TRANSITIONS.get((state, event))
    if found is None:
        raise IllegalTransition("session stream", state.value, event, role)
    return found


def next_suspension(state: Suspension, event: str, role: str) -> Suspension:
    """The next state; IllegalTransition if the table has none."""
    found = SUSPENSION_TRANSITIONS.get((state, event))
    if found is None:
        raise IllegalTransition("session suspension", state.value, event, role)
    return found
