"""What the connection manager tells its consumer, what it gives out, and its counters."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from fabric.ids import CommId
from fabric.wire.cm import ConnectReply, ConnectRequest


class Datagram(NamedTuple):
    """A management datagram (256 bytes) for queue pair 1 of ``remote_ip`` (4 or 16 bytes)."""

    remote_ip: bytes
    mad: bytes


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer wants a connection to a service of ours: answer with ``accept``, ``reject`` or, to gain time, ``mra``."""

    comm_id: CommId
    remote_ip: bytes
    service_id: int
    path_mtu: int
    """In bytes, as against the code in ``request``."""
    request: ConnectRequest


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The peer accepted: answer with ``ready`` (once the queue pair is up), ``reject`` or ``mra``."""

    comm_id: CommId
    reply: ConnectReply


@dataclass(frozen=True, slots=True)
class Established:
    """Passive side only: the peer is ready (its RTU came, or data that proves it)."""

    comm_id: CommId


@dataclass(frozen=True, slots=True)
class Rejected:
    """The set-up ended with a REJ of the peer; ``reason`` is a ``RejectReason`` or a number without a name."""

    comm_id: CommId
    reason: int
    private_data: bytes
    additional: bytes = b""
    """The additional rejection information, for example the MTU code that the peer would take."""


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The set-up ended without an answer: of the peer, or (passive side) of our own consumer."""

    comm_id: CommId
    reason: str = "timeout"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection ended.

    ``by_peer``: the peer asked for it; answer with ``disconnect``, which is harmless if it was answered already.
    Otherwise our own ``disconnect`` is done, answered or not.
    """

    comm_id: CommId
    by_peer: bool
    private_data: bytes


@dataclass(frozen=True, slots=True)
class TimewaitEnded:
    """The last word on a connection: its communication id means nothing from now on."""

    comm_id: CommId


CmEvent: TypeAlias = (
    RequestReceived | ReplyReceived | Established | Rejected | ConnectFailed | Disconnected | TimewaitEnded
)


@dataclass(frozen=True, slots=True)
class CmStatistics:
    """Counters since the beginning and current numbers, as a snapshot."""

    connections: int
    """Records now held, those in timewait included."""
    half_open: int
    """Of these, begun by a peer and never established."""
    timewait: int
    listeners: int
    received: tuple[tuple[str, int], ...]
    """Well-formed messages by kind (class name)."""
    sent: tuple[tuple[str, int], ...]
    retransmitted: int
    """Of the sent ones, those repeated by a timer."""
    refused: tuple[tuple[str, int], ...]
    """Messages that we answered with a REJ on our own account, by reason."""
    dropped: tuple[tuple[str, int], ...]
    """Messages that changed nothing, by cause: malformed, duplicate, unknown, out of turn, wrong queue pair, too many
    MRAs; and those of our own that found the outbox full (overflow)."""
