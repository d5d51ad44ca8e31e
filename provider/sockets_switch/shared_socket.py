"""What the switch knows: shared sockets, the descriptors that refer to them, and the processes that hold those.

A *shared socket* is the thing with a stream position, options and a peer. A *descriptor* is one process's number for
it; all state is common to all descriptors of a socket (S-SAN, statement 110). The descriptor that controls the socket
is the handoff registry's to say.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from fabric.ids import ProcessInstance, SocketDescriptor, SocketHandle
from fabric.units import Instant
from provider.errors import WsaErrno
from provider.san_provider.service_provider import SanServiceProvider
from provider.session.session import Session
from provider.sockets_switch.session_pump import SessionPump
from provider.spi import Address, CallLog, ProcTable


class SocketPhase(Enum):
    """The life of a shared socket, seen by applications."""

    CREATED = "created"
    BOUND = "bound"
    LISTENING = "listening"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    """It never connected, or the connection is gone."""
    CLOSING = "closing"
    """No descriptor is left; what was accepted is still being delivered."""


@dataclass(slots=True, eq=False)
class SharedSocket:
    """The underlying socket of one or more descriptors."""

    number: int
    phase: SocketPhase = SocketPhase.CREATED
    local: Address | None = None
    remote: Address | None = None
    options: dict[tuple[int, int], int] = field(default_factory=dict)
    error: WsaErrno | None = None
    """Pending SO_ERROR; reading clears it."""
    session: Session | None = None
    pump: SessionPump | None = None
    descriptors: list["Descriptor"] = field(default_factory=list)
    queue: deque["SharedSocket"] = field(default_factory=deque)
    """Connections of a listener that no process has accepted yet."""
    backlog: int = 0
    listening: "tuple[AttachedProcess, SocketDescriptor] | None" = None
    """The provider instance whose SAN socket accepts for a listener. It outlives the descriptor of its process while a
    ticket for the listener is out, so that no request is refused meanwhile.
    """
    ended: bool = False
    """The driver has been told that the connection is gone."""
    linger_until: Instant | None = None
    """When a closing connection is torn down although the peer has not finished."""


@dataclass(slots=True, eq=False)
class AttachedProcess:
    """One process instance with its instance of the provider."""

    process: ProcessInstance
    provider: SanServiceProvider
    table: ProcTable
    log: CallLog
    name: str = ""
    descriptors: dict[SocketHandle, "Descriptor"] = field(default_factory=dict)
    waiting: int = 0
    """Connections that wait at its listeners; they count as its sockets."""
    exited: bool = False
    """The process is gone; its provider instance stays until what it had accepted is delivered."""


@dataclass(slots=True, eq=False)
class Descriptor:
    """One process's number ``s`` for a shared socket."""

    s: SocketHandle
    owner: AttachedProcess
    socket: SharedSocket
    san: SocketDescriptor | None = None
    """The provider's descriptor, once there is one (the companion socket)."""
    given: int = 0
    """Bytes that went into its channel; the process has read those that do not come back when it is revoked."""
    has_channel: bool = False
    """The process can move bytes; false before the connection, in transfer, and for dormant descriptors."""
    closing: bool = False
    """WSPCloseSocket has begun; its channel is being accounted for."""
    exited: bool = False
    """The process is gone; its channel is being accounted for."""
    closed_before: bool = False
    """Control fell to it because the process that had it closed its descriptor, and its own process has not asked for
    it yet: if it never does, the connection ends as that one left it, gracefully."""
    family: int = 0
    """Descriptors of one socket that share this number, not zero, are relatives: one was inherited from the other over
    fork, and either may take control from the other."""

    def is_relative(self, other: "Descriptor | None") -> bool:
        """Whether control may go from ``other`` to this one at any use."""
        return other is not None and other is not self and self.family != 0 and other.family == self.family
