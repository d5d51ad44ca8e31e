"""The two state machines of a session, as tables.

**The stream** has two directions that end on their own. DisConn means *I send no more*. A direction that was shut
down first drains what was accepted (DRAINING), then says DisConn, once. When both ends have said it the session is
CLOSED, and nothing is sent ever after. AbortConn, a violation of the protocol, or a missed deadline lead to ABORTED
from everywhere.

================  ==============================  ==============================
state             our direction                   the peer's direction
================  ==============================  ==============================
OPENING           Hello under way; send() buffers  -
OPEN              open                            open
DRAINING          shut down, bytes or DisConn due  open
FINISHED          DisConn sent                    open
PEER_FINISHED     open                            DisConn received
LAST_DRAINING     shut down, bytes or DisConn due  DisConn received
CLOSED, ABORTED   ended                           ended
================  ==============================  ==============================

**The suspension** lets control of the socket move while the peer holds still. Whoever said SuspComm says nothing
after it but Resume (or AbortConn); whoever answered SuspCommAck says nothing after that until it has Resume. So
between the answer and Resume nothing is under way, and Resume can name the last message of either direction: a
difference is a lost or repeated message, and aborts. Bytes that applications send meanwhile, and a DisConn that falls
due, wait in the session.

A suspension that is given up before the answer is CANCELLING: SuspComm cannot be unsaid, so Resume follows the answer.

A SuspComm that names a service asks for another end of it: the connection goes down and is made anew at that service
of the peer's (REMAKING at the end that asked, from its request to the reply). Then the Hellos of the new connection
name the last messages of the old one instead of Resume. Until the old connection goes down Resume ends this too.

Both ends may say SuspComm at once. The connection's initiator wins: it ignores the other's SuspComm; the other end
loses its own suspension when the winner's arrives, and answers that. Because messages keep their order, the loser's
SuspComm always arrives before its answer, so the winner can tell this crossing from everything else: a SuspComm in
SUSPENDED is a violation.
"""

from collections.abc import Mapping
from enum import Enum

from fabric.errors import IllegalTransition


class Role(Enum):
    """Who made the connection. The initiator wins crossing suspensions."""

    INITIATOR = "initiator"
    ACCEPTOR = "acceptor"


class StreamState(Enum):
    """See the module text."""

    OPENING = "OPENING"
    OPEN = "OPEN"
    DRAINING = "DRAINING"
    FINISHED = "FINISHED"
    PEER_FINISHED = "PEER_FINISHED"
    LAST_DRAINING = "LAST_DRAINING"
    CLOSED = "CLOSED"
    ABORTED = "ABORTED"


class StreamEvent(Enum):
    """What moves the stream."""

    ESTABLISHED = "established"
    SHUTDOWN = "shutdown"
    DISCONNECT_SENT = "DisConn sent"
    DISCONNECT_RECEIVED = "DisConn received"
    ABORT = "abort"


class SuspensionState(Enum):
    """See the module text."""

    RUNNING = "RUNNING"
    SUSPENDING = "SUSPENDING"
    CANCELLING = "CANCELLING"
    SUSPENDED = "SUSPENDED"
    PEER_SUSPENDED = "PEER_SUSPENDED"
    REMAKING = "REMAKING"


class SuspensionEvent(Enum):
    """What moves the suspension."""

    SUSPEND = "suspend"
    RESUME = "resume"
    ANSWERED = "SuspCommAck received"
    PEER_SUSPENDS = "SuspComm received"
    """... and not ignored: we are running, or we lost the crossing."""
    PEER_RESUMES = "Resume received"
    REMAKE = "remake"
    REMADE = "Hello or HelloAck of the new connection received"


S, E = StreamState, StreamEvent
STREAM: Mapping[tuple[StreamState, StreamEvent], StreamState] = {
    (S.OPENING, E.ESTABLISHED): S.OPEN,
    (S.OPEN, E.SHUTDOWN): S.DRAINING,
    (S.PEER_FINISHED, E.SHUTDOWN): S.LAST_DRAINING,
    (S.DRAINING, E.DISCONNECT_SENT): S.FINISHED,
    (S.LAST_DRAINING, E.DISCONNECT_SENT): S.CLOSED,
    (S.OPEN, E.DISCONNECT_RECEIVED): S.PEER_FINISHED,
    (S.DRAINING, E.DISCONNECT_RECEIVED): S.LAST_DRAINING,
    (S.FINISHED, E.DISCONNECT_RECEIVED): S.CLOSED,
    **{(state, E.ABORT): S.ABORTED for state in StreamState if state not in (S.CLOSED, S.ABORTED)},
}

P, Q = SuspensionState, SuspensionEvent
SUSPENSION: Mapping[tuple[SuspensionState, SuspensionEvent], SuspensionState] = {
    (P.RUNNING, Q.SUSPEND): P.SUSPENDING,
    (P.SUSPENDING, Q.ANSWERED): P.SUSPENDED,
    (P.SUSPENDING, Q.RESUME): P.CANCELLING,
    (P.SUSPENDING, Q.PEER_SUSPENDS): P.PEER_SUSPENDED,
    (P.CANCELLING, Q.ANSWERED): P.RUNNING,
    (P.CANCELLING, Q.PEER_SUSPENDS): P.PEER_SUSPENDED,
    (P.SUSPENDED, Q.RESUME): P.RUNNING,
    (P.RUNNING, Q.PEER_SUSPENDS): P.PEER_SUSPENDED,
    (P.PEER_SUSPENDED, Q.PEER_RESUMES): P.RUNNING,
    (P.SUSPENDED, Q.REMAKE): P.REMAKING,
    (P.REMAKING, Q.REMADE): P.RUNNING,
    (P.PEER_SUSPENDED, Q.REMADE): P.RUNNING,
}


def next_stream(state: StreamState, event: StreamEvent, role: Role) -> StreamState:
    """The table's answer; IllegalTransition if it has none."""
    following = STREAM.get((state, event))
    if following is None:
        raise IllegalTransition("session stream", state.value, event.value, role.value)
    return following


def next_suspension(state: SuspensionState, event: SuspensionEvent, role: Role) -> SuspensionState:
    """The table's answer; IllegalTransition if it has none."""
    following = SUSPENSION.get((state, event))
    if following is None:
        raise IllegalTransition("session suspension", state.value, event.value, role.value)
    return following
