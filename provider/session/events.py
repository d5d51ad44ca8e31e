"""What a session tells its owner, and its figures."""

from dataclasses import dataclass

from fabric.units import Instant
from provider.errors import WsaErrno


@dataclass(frozen=True, slots=True)
class Established:
    """The Hellos have been exchanged."""


@dataclass(frozen=True, slots=True)
class Readable:
    """Bytes arrived."""


@dataclass(frozen=True, slots=True)
class Writable:
    """After a send that filled the buffer: at least half of it is free again."""


@dataclass(frozen=True, slots=True)
class PeerShutdown:
    """End of the peer's direction, and every byte before it has been consumed."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Both directions have ended; the initiator's side should disconnect now."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The connection is over: the peer reset it, broke the protocol, or missed a deadline."""

    reason: WsaErrno


@dataclass(frozen=True, slots=True)
class Suspended:
    """The peer holds still (or both directions had ended, so that nothing can move)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SuspensionLost:
    """Our suspension crossed the initiator's; PeerSuspended follows."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PeerSuspended:
    """The peer hands its end over; past ``deadline`` the session aborts.

    With a ``service_id`` it is going to make the connection anew there (``Session.handle_remake``).
    """

    epoch: int
    deadline: Instant
    service_id: int = 0


@dataclass(frozen=True, slots=True)
class PeerResumed:
    """The peer goes on under this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Remade:
    """Our request for a new connection has been answered, and the streams go on."""


SessionEvent = (
    Established
    | Readable
    | Writable
    | PeerShutdown
    | Closed
    | Aborted
    | Suspended
    | SuspensionLost
    | PeerSuspended
    | PeerResumed
    | Remade
)


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A snapshot. Messages are ``(name, count)`` pairs in the order of their identifiers."""

    bytes_sent: int
    bytes_received: int
    messages_sent: tuple[tuple[str, int], ...]
    messages_received: tuple[tuple[str, int], ...]
    credits_left: int
    receives_outstanding: int
    stalls: int
    """Times that bytes began to wait for credits."""
    stream: str
    suspension: str
