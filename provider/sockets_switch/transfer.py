"""One hand-over under way, as the agent half keeps it; what happens to it stands in ``transfers``."""

from dataclasses import dataclass

from fabric.ids import ProcessInstance
from fabric.units import Instant
from provider.handoff import registry as handoff
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.sockets_switch.shared_socket import Descriptor, SharedSocket, SocketPhase

MODES = ("suspend", "local", "rehome")
WAITING = ("remaking", "suspending", "draining")
UNTICKETED = ("revoking", *WAITING)
WITHOUT_PEER = (SocketPhase.CREATED, SocketPhase.BOUND, SocketPhase.LISTENING)
"""Phases in which there is no stream and nobody to hold still: any mode does, and control is all that moves."""


@dataclass(slots=True, eq=False)
class Transfer:
    """One hand-over under way."""

    operation: int
    socket: SharedSocket
    source: Descriptor
    target: ProcessInstance
    number: handoff.TransferId
    mode: str
    epoch: int
    """The epoch that the target will have."""
    deadline: Instant
    service_id: int = 0
    """Mode ``rehome``: where the peer expects the new connection."""
    stage: str = "revoking"
    taker: Descriptor | None = None
    """A relative of the source that takes control itself, without a ticket and at one instant (``relatives``)."""
    template: WSAPROTOCOL_INFOW | None = None
    """What the provider's WSPDuplicateSocket gave; the ticket is made of it."""
