"""What a session reports to its switch."""

from dataclasses import dataclass
from typing import TypeAlias

from fabric.units import Instant
from provider.errors import WsaErrno


@dataclass(frozen=True, slots=True)
class Established:
    """Hello and HelloAck have been exchanged."""


@dataclass(frozen=True, slots=True)
class Readable:
    """Bytes came."""


@dataclass(frozen=True, slots=True)
class Writable:
    """``send_space`` is above zero again."""


@dataclass(frozen=True, slots=True)
class PeerShutdown:
    """The peer sends no more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Both directions have ended."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session is over without a graceful end."""

    reason: WsaErrno


@dataclass(frozen=True, slots=True)
class Suspended:
    """The peer has answered our suspension."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SuspensionLost:
    """The peer's suspension crossed ours and wins."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PeerSuspended:
    """The peer hands its end over until ``deadline``."""

    epoch: int
    deadline: Instant


@dataclass(frozen=True, slots=True)
class PeerResumed:
    """The peer's end has its new owner."""

    epoch: int


SessionEvent: TypeAlias = (
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
)
