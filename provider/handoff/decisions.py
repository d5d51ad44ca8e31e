"""What the handoff registry says: its events, grants and counts."""

from dataclasses import dataclass
from typing import NewType, TypeAlias

from fabric.ids import ProcessInstance, SocketDescriptor

TransferId = NewType("TransferId", int)
CLOSED = "the controlling process closed its descriptor"
"""The reason of a ``ControlReturned`` after a close."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A descriptor of a process instance."""

    process: ProcessInstance
    descriptor: SocketDescriptor


@dataclass(frozen=True, slots=True)
class Grant:
    """A ticket that was checked and may be committed."""

    transfer: TransferId
    socket_id: int


@dataclass(frozen=True, slots=True)
class ControlMoved:
    """A commit: ``to`` controls the socket."""

    socket_id: int
    to: Holder
    epoch: int


@dataclass(frozen=True, slots=True)
class ControlReturned:
    """``to`` controls the socket again without having asked."""

    socket_id: int
    to: Holder
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class SocketAborted:
    """Nobody can have the socket."""

    socket_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class LastReferenceClosed:
    """No descriptor and no ticket refers to the socket."""

    socket_id: int


RegistryEvent: TypeAlias = ControlMoved | ControlReturned | SocketAborted | LastReferenceClosed


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """Exact counts, for leak checks."""

    sockets: int
    descriptors: int
    tickets: int
    commits: int
    returns: int
    aborts: int
    refused: int
    resuming: int
    """Committed, but not yet reported as resumed."""
