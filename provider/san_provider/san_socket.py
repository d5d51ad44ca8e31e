"""What the SAN provider keeps per descriptor.

A descriptor moves CREATED -> BOUND -> CONNECTING | LISTENING -> CONNECTED, and from there to DUPLICATED (control is
elsewhere; only ``close_socket`` and ``reclaim`` are meaningful) or DISCONNECTED. Its number stays taken until
``close_socket``, whatever happened to its resources (statement 115).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from fabric.ids import SocketDescriptor, SocketHandle
from fabric.units import Instant
from provider.errors import WsaErrno
from provider.san_provider.endpoint import Endpoint
from provider.san_provider.listener import Listener
from provider.san_provider.memory import SocketMemory
from provider.spi import Address, NetworkEvent, Overlapped

if TYPE_CHECKING:
    from provider.san_provider.service_provider import SanServiceProvider

_NO_EVENTS = NetworkEvent(0)


class SocketState(Enum):
    """See the module text."""

    CREATED = "created"
    BOUND = "bound"
    CONNECTING = "connecting"
    LISTENING = "listening"
    CONNECTED = "connected"
    DUPLICATED = "duplicated"
    DISCONNECTED = "disconnected"


@dataclass(slots=True, eq=False)
class SanSocket:
    """What the provider keeps per descriptor; also the owner of an endpoint while it controls it."""

    provider: "SanServiceProvider"
    descriptor: SocketDescriptor
    handle: SocketHandle
    state: SocketState = SocketState.CREATED
    local: Address | None = None
    remote: Address | None = None
    options: dict[int, int] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    listener: Listener | None = None
    selected: NetworkEvent = _NO_EVENTS
    recorded: dict[NetworkEvent, int] = field(default_factory=dict)
    callee_data: bytes = b""
    memory: SocketMemory | None = None
    """What this process has registered for the connection; ``None`` before the first registration."""
    expected: Listener | None = None
    """Where the peer is going to make the connection anew."""
    expected_mark: bytes = b""
    """How its DREQ begins if it is not the end of the connection."""

    def release_memory(self) -> bool:
        """Give up all that was registered for the connection, which goes away or to another process."""
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.release()
        return memory is not None

    def connect_again(self) -> None:
        """Its connection is being made anew."""
        self.state = SocketState.CONNECTING

    def on_connected(self, callee_data: bytes, now: Instant) -> None:
        """The proxy driver: the connection is up."""
        if self.state is SocketState.CONNECTING:
            self.state = SocketState.CONNECTED
            self.callee_data = callee_data
            self.record(NetworkEvent.FD_CONNECT, 0)

    def on_connect_failed(self, error: WsaErrno, now: Instant) -> None:
        """The proxy driver: it never came up."""
        self.state = SocketState.DISCONNECTED
        self.endpoint = None
        self.record(NetworkEvent.FD_CONNECT, int(error))

    def on_complete(self, overlapped: Overlapped, error: WsaErrno | None, transferred: int, now: Instant) -> None:
        """The proxy driver: an operation has ended."""
        overlapped.done, overlapped.error, overlapped.transferred = True, int(error or 0), transferred
        if overlapped.notify:
            self.provider.upcalls.WPUCompleteOverlappedRequest(self.handle, overlapped, overlapped.error, transferred)

    def on_connection_lost(self, error: WsaErrno, now: Instant) -> None:
        """The proxy driver: the connection is gone; receives fail, the descriptor stays until it is closed."""
        endpoint = self.endpoint
        goodbye = None if endpoint is None else endpoint.farewell
        comes_back = self.expected is not None and (goodbye is None or goodbye.startswith(self.expected_mark))
        if comes_back and endpoint is not None:
            self.provider.take_back(endpoint, now)  # the peer makes it anew; nothing is lost yet
            return
        self.state = SocketState.DISCONNECTED
        if endpoint is None:
            return
        failed = list(endpoint.waiting) or [Overlapped()]  # at least one completion, so that the loss is heard
        endpoint.waiting.clear()
        for overlapped in failed:
            self.on_complete(overlapped, error, 0, now)

    def record(self, event: NetworkEvent, error: int) -> None:
        """Keep a network event for WSPEnumNetworkEvents and signal it."""
        if event & self.selected:
            self.recorded[event] = error
            self.provider.upcalls.WPUSetEvent(self.handle)
