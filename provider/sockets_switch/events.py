"""What the agent half of the sockets switch asks of its driver. ``s`` is the switch's handle: the number the
application knows.

The driver of a live host answers with file descriptors and replies on AF_UNIX; the simulator's answers with byte
queues. Every descriptor has one *data channel*; "open" means that the process may move bytes through it.
"""

from dataclasses import dataclass
from typing import TypeAlias

from fabric.ids import SocketHandle
from provider.errors import WsaErrno


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """``s`` is connected: its process may write and read from now on."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """``s`` did not connect; SO_ERROR holds ``error``."""

    s: SocketHandle
    error: WsaErrno


@dataclass(frozen=True, slots=True)
class ConnectionWaiting:
    """One more connection waits to be accepted at the listener ``s``."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class Readable:
    """Bytes wait for the process: ``peek`` and ``consume`` them."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class Writable:
    """The session takes bytes of the process again: ``send_space`` is above zero."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class PeerFinished:
    """The peer sends no more; show the process the end of file once it has all bytes."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class ChannelReset:
    """The connection is gone: the process must hear ``error``."""

    s: SocketHandle
    error: WsaErrno


@dataclass(frozen=True, slots=True)
class RevokeChannel:
    """Cut the channel off and report with ``channel_revoked`` what the process got accepted and what it has not
    read.
    """

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class DescriptorGone:
    """``s`` was of a process that has ended; nothing will come for its channel any more."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class ControlReturned:
    """Control is back at ``s`` without the process's doing: give it a fresh channel when it asks."""

    s: SocketHandle


@dataclass(frozen=True, slots=True)
class DuplicateDone:
    """WSPDuplicateSocket, operation ``operation``, succeeded with the 628 bytes of ``info``."""

    operation: int
    info: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class DuplicateFailed:
    """WSPDuplicateSocket, operation ``operation``, failed; ``s`` is usable again when ``returned``."""

    operation: int
    error: WsaErrno
    text: str


SwitchEvent: TypeAlias = (
    ChannelOpened
    | ConnectFailed
    | ConnectionWaiting
    | Readable
    | Writable
    | PeerFinished
    | ChannelReset
    | RevokeChannel
    | DescriptorGone
    | ControlReturned
    | DuplicateDone
    | DuplicateFailed
)
