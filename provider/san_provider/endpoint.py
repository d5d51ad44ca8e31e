"""One connection as the proxy driver knows it: a queue pair, its communication id, and the receives between the two
worlds.

The provider instance that controls the socket posts receives and is told of completions. When control moves, the
instance's receives are taken back (they complete with success and zero bytes, winsock-direct.md 1.10) but the queue
pair's stay posted: whatever the peer still sends lands in ``arrived`` and goes to the next controller's receives one
to one, in order. So a change of control never makes the adapter answer "receiver not ready", and no message can fall
between two processes.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from fabric.ids import CommId
from fabric.rc.queue_pair import QueuePair
from fabric.units import Instant
from provider.errors import WsaErrno
from provider.san_provider.config import ProxyConfig
from provider.spi import Overlapped

_NO_COMM_ID = CommId(0)


class EndpointState(Enum):
    """Where an endpoint stands; moves only forward."""

    CONNECTING = "connecting"
    ACCEPTING = "accepting"
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"
    GONE = "gone"


class EndpointOwner(Protocol):
    """The provider instance's socket that controls an endpoint now."""

    def on_connected(self, callee_data: bytes, now: Instant) -> None:
        """The connection is up (FD_CONNECT without error)."""
        ...

    def on_connect_failed(self, error: WsaErrno, now: Instant) -> None:
        """The connection never came up."""
        ...

    def on_complete(self, overlapped: Overlapped, error: WsaErrno | None, transferred: int, now: Instant) -> None:
        """A send or receive has ended."""
        ...

    def on_connection_lost(self, error: WsaErrno, now: Instant) -> None:
        """The connection ended without our asking."""
        ...


@dataclass(slots=True, eq=False)
class Endpoint:
    """State of one connection; the proxy driver is the only one that changes it."""

    number: int
    queue_pair: QueuePair
    remote_ip: bytes
    owner: EndpointOwner | None
    state: EndpointState
    expected_psn: int
    """The PSN that we expect first; what our REQ or REP calls starting PSN."""
    comm_id: CommId = _NO_COMM_ID
    path_mtu: int = 0
    responder_resources: int = 0
    """RDMA READs of the peer that we take at a time, as agreed at set-up."""
    read_depth: int = 0
    """RDMA READs of ours that may be under way, as agreed at set-up."""
    callee_data: bytes = b""
    sends: deque[Overlapped] = field(default_factory=deque)
    """Sends and RDMA under way, oldest first: reliable connections complete in order."""
    completed: deque[tuple[Overlapped, WsaErrno | None]] = field(default_factory=deque)
    """Sends that ended while nobody owned the endpoint; whoever adopts it hears of them."""
    waiting: deque[Overlapped] = field(default_factory=deque)
    """Receives of the controlling instance that have no message yet."""
    arrived: deque[bytes] = field(default_factory=deque)
    """Messages that came while nobody had a receive waiting."""
    posted: int = 0
    """Receives outstanding on the queue pair."""
    farewell: bytes | None = None
    """The private data of the peer's DREQ, if that is what ended the connection."""
    lost: WsaErrno | None = None
    """Why the connection ended, for the owner that comes later."""

    def agree_on_reads(self, config: ProxyConfig, peers_resources: int, peers_depth: int) -> None:
        """Neither side reads more at a time than the other takes (vol. 1, 12.7.29, 12.7.30)."""
        self.responder_resources = min(config.responder_resources, peers_depth)
        self.read_depth = min(config.initiator_depth, peers_resources)
