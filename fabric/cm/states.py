"""The states of one connection, as one side sees them, and every way from one to the next.

A connection is set up with three datagrams and taken down with two, each of which the network may lose, double or delay
(InfiniBand Architecture volume 1, 12.9; the state names are those of its figures)::

    active                passive           either side                 the other
    REQ_SENT   --REQ-->   REQ_RCVD          ESTABLISHED  --DREQ-->      ESTABLISHED
    REP_RCVD   <--REP--   REP_SENT          DREQ_SENT                   DREQ_RCVD
    ESTABLISHED --RTU-->  ESTABLISHED       TIMEWAIT     <--DREP--      TIMEWAIT

The side that waits repeats its message: REQ, REP and DREQ are sent again until answered, a bounded number of times.
RTU, DREP and REJ are never repeated by a timer; they are given again whenever the message that they answer comes again.
So a state has to remember its answer for as long as the other side may ask, and that is what TIMEWAIT is for. MRA ("got
it, deciding") only stretches the other side's patience; it leads into a state of its own so that a repeated message
is answered by a repeated MRA.

Rules that the table encodes:

- **One exit.** Whatever ends a connection leads to TIMEWAIT, and only its timer leads out, to CLOSED. The record, its
  communication id and what it last said live exactly until then. A message about a CLOSED connection is one about an
  unknown connection.
- **The consumer decides.** ``accept``, ``ready``, ``reject`` and the answer to a DREQ are commands. A consumer
  that does not decide is overruled by ANSWER_OVERDUE, because nothing a stranger starts may live for ever.
- **Passive in doubt.** In REP_SENT the active side may be established already (its RTU was lost). So a passive side
  that gives up, by command or because its REP found no answer, sends DREQ, which is repeated, and not REJ, which is
  not: a lost REJ would leave the other side with half a connection. Data that arrives proves the RTU (DATA_ARRIVED).
- **Crossing.** DREQ against DREQ: each side answers the other's and is done. REJ against REP: the REP comes again and
  is answered by the REJ again. RTU behind data or behind DREQ: it changes nothing any more and is ignored.

A command that the table does not list is the caller's mistake (``IllegalTransition``). A message that it does not list
is the network's doing and is counted and ignored. ``disconnect`` is allowed at any time; where nothing is left to
be done (DREQ_SENT, TIMEWAIT) it stays where it is.
"""

from enum import Enum

from fabric.errors import IllegalTransition


class Role(Enum):
    """Which side of the set-up we are."""

    ACTIVE = "active"
    PASSIVE = "passive"


class State(Enum):
    """Where a connection stands."""

    REQ_SENT = "REQ_SENT"
    MRA_REQ_RCVD = "MRA_REQ_RCVD"
    REP_RCVD = "REP_RCVD"
    MRA_REP_SENT = "MRA_REP_SENT"
    REQ_RCVD = "REQ_RCVD"
    MRA_REQ_SENT = "MRA_REQ_SENT"
    REP_SENT = "REP_SENT"
    MRA_REP_RCVD = "MRA_REP_RCVD"
    ESTABLISHED = "ESTABLISHED"
    DREQ_SENT = "DREQ_SENT"
    DREQ_RCVD = "DREQ_RCVD"
    TIMEWAIT = "TIMEWAIT"
    CLOSED = "CLOSED"


class Move(Enum):
    """What can happen to a connection: the consumer's commands, the peer's messages, our own timers."""

    # commands
    ACCEPT = "accept"
    REJECT = "reject"
    READY = "ready"
    MRA = "mra"
    DISCONNECT = "disconnect"
    # messages and the queue pair's hint
    MRA_ARRIVED = "MRA"
    REP_ARRIVED = "REP"
    REP_REFUSED = "unusable REP"
    RTU_ARRIVED = "RTU"
    REJ_ARRIVED = "REJ"
    DREQ_ARRIVED = "DREQ"
    DREP_ARRIVED = "DREP"
    DATA_ARRIVED = "communication established"
    STALE = "new REQ from the same queue pair"
    # timers
    RETRIES_EXHAUSTED = "retries exhausted"
    ANSWER_OVERDUE = "answer overdue"
    TIMEWAIT_OVER = "timewait over"


_REQUESTING = {
    Move.REP_ARRIVED: State.REP_RCVD,
    Move.REP_REFUSED: State.TIMEWAIT,
    Move.REJ_ARRIVED: State.TIMEWAIT,
    Move.MRA_ARRIVED: State.MRA_REQ_RCVD,
    Move.DISCONNECT: State.TIMEWAIT,  # a REJ with reason "timeout" takes the REQ back
    Move.RETRIES_EXHAUSTED: State.TIMEWAIT,  # the same
}
_DECIDING_ON_REPLY = {
    Move.READY: State.ESTABLISHED,
    Move.MRA: State.MRA_REP_SENT,
    Move.REJECT: State.TIMEWAIT,
    Move.DISCONNECT: State.TIMEWAIT,  # the same as reject
    Move.REJ_ARRIVED: State.TIMEWAIT,
    Move.DREQ_ARRIVED: State.DREQ_RCVD,
    Move.ANSWER_OVERDUE: State.TIMEWAIT,
}
_DECIDING_ON_REQUEST = {
    Move.ACCEPT: State.REP_SENT,
    Move.MRA: State.MRA_REQ_SENT,
    Move.REJECT: State.TIMEWAIT,
    Move.DISCONNECT: State.TIMEWAIT,  # the same as reject
    Move.REJ_ARRIVED: State.TIMEWAIT,  # the peer took its REQ back
    Move.ANSWER_OVERDUE: State.TIMEWAIT,
}
_REPLYING = {
    Move.RTU_ARRIVED: State.ESTABLISHED,
    Move.DATA_ARRIVED: State.ESTABLISHED,
    Move.MRA_ARRIVED: State.MRA_REP_RCVD,
    Move.REJ_ARRIVED: State.TIMEWAIT,
    Move.DREQ_ARRIVED: State.DREQ_RCVD,
    Move.DISCONNECT: State.DREQ_SENT,
    Move.RETRIES_EXHAUSTED: State.DREQ_SENT,
}

TRANSITIONS: dict[State, dict[Move, State]] = {
    State.REQ_SENT: _REQUESTING,
    State.MRA_REQ_RCVD: _REQUESTING,
    State.REP_RCVD: _DECIDING_ON_REPLY,
    State.MRA_REP_SENT: _DECIDING_ON_REPLY,
    State.REQ_RCVD: _DECIDING_ON_REQUEST,
    State.MRA_REQ_SENT: _DECIDING_ON_REQUEST,
    State.REP_SENT: _REPLYING,
    State.MRA_REP_RCVD: _REPLYING,
    State.ESTABLISHED: {
        Move.DISCONNECT: State.DREQ_SENT,
        Move.STALE: State.DREQ_SENT,
        Move.DREQ_ARRIVED: State.DREQ_RCVD,
        Move.REJ_ARRIVED: State.TIMEWAIT,
    },
    State.DREQ_SENT: {
        Move.DISCONNECT: State.DREQ_SENT,
        Move.DREP_ARRIVED: State.TIMEWAIT,
        Move.DREQ_ARRIVED: State.TIMEWAIT,
        Move.RETRIES_EXHAUSTED: State.TIMEWAIT,
    },
    State.DREQ_RCVD: {
        Move.DISCONNECT: State.TIMEWAIT,
        Move.ANSWER_OVERDUE: State.TIMEWAIT,
    },
    State.TIMEWAIT: {
        Move.DISCONNECT: State.TIMEWAIT,
        Move.TIMEWAIT_OVER: State.CLOSED,
    },
    State.CLOSED: {},
}

RELEASED_PAIRS = (State.TIMEWAIT, State.CLOSED)
"""States in which the peer may use its queue pair number for something new (12.9.8.3.1; Linux does the same)."""


def following(state: State, move: Move) -> State | None:
    """The state that ``move`` leads to, or ``None`` where the table does not list it (messages: ignore)."""
    return TRANSITIONS[state].get(move)


def commanded(state: State, move: Move, role: Role) -> State:
    """As :func:`following`, for commands: IllegalTransition where the table does not list the move."""
    target = TRANSITIONS[state].get(move)
    if target is None:
        raise IllegalTransition("connection", state.value, move.value, role.value)
    return target
