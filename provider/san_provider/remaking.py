"""Connections that go down and are made anew while their sockets stay: the provider's part of mode ``rehome``.

The end that hands over calls ``remake`` on the descriptor that adopted the connection; FD_CONNECT tells the outcome, as
after WSPConnect. The other end calls ``expect_remake`` before it answers the SuspComm: from then on the loss of the
connection is no loss. The request may come before the old connection's DREQ or after (datagrams may be lost or pass
each other); either way the old connection is given up when the new one is accepted. These calls are our extension of
the SPI, whose text only says that a provider may make the connection anew (winsock-direct.md 1.10, statement 101).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from fabric.ids import SocketDescriptor
from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.san_provider.endpoint import Endpoint
from provider.san_provider.listener import Request

if TYPE_CHECKING:
    from provider.san_provider.proxy_driver import ProxyDriver
    from provider.san_provider.san_socket import SanSocket

REQUESTS_MAX = 4
COMES_BACK = b"SNLMremake"
"""How the private data of a DREQ begins whose author makes the connection anew. From a peer that knows our extensions
any other DREQ is the end; standard ones say nothing, so that every DREQ may be followed by a request.
"""


class RemakingProvider(ABC):
    """Mixed into :class:`provider.san_provider.service_provider.SanServiceProvider`."""

    _proxy: "ProxyDriver"

    @abstractmethod
    def _socket(self, s: SocketDescriptor) -> "SanSocket": ...

    def remake(self, s: SocketDescriptor, service_id: int, caller_data: bytes, now: Instant) -> None:
        """Take the connection of ``s`` down and ask for a new one at ``service_id`` of the peer's; FD_CONNECT follows.

        WSAECONNRESET if the connection has ended meanwhile.
        """
        san = self._socket(s)
        old = san.endpoint
        if old is None or old.lost is not None:
            raise WsaError(WsaErrno.WSAECONNRESET, "the connection has ended")
        old.waiting.clear()
        san.release_memory()
        self._proxy.disconnect(old, now, COMES_BACK)
        san.connect_again()
        san.endpoint = self._proxy.connect(old.remote_ip, service_id, san, caller_data, now)

    def expect_remake(
        self,
        s: SocketDescriptor,
        service_id: int,
        on_request: Callable[[Instant], None],
        now: Instant,
        *,
        says_so: bool,
    ) -> None:
        """The peer will make the connection of ``s`` anew at ``service_id``; ``on_request`` is called when it asks.

        ``says_so``: it marks the DREQ of the old connection with COMES_BACK.

        WSAEADDRINUSE if the service has a listener already.
        """
        san = self._socket(s)
        self.stop_expecting(s, now)
        san.expected = self._proxy.listen(service_id, REQUESTS_MAX, on_request)
        san.expected_mark = COMES_BACK if says_so else b""

    def next_remake(self, s: SocketDescriptor) -> Request | None:
        """The oldest request that waits, from whomever; ``accept_remake`` or ``refuse_remake`` it."""
        expected = self._socket(s).expected
        return expected.requests.popleft() if expected is not None and expected.requests else None

    def accept_remake(self, s: SocketDescriptor, request: Request, callee_data: bytes, now: Instant) -> None:
        """``s`` goes on with the new connection; post its receives within the same command."""
        san = self._socket(s)
        old = san.endpoint
        assert old is not None, "only a connected socket expects one"
        old.waiting.clear()
        san.release_memory()
        self._proxy.disconnect(old, now)
        san.endpoint = self._proxy.accept(request, san, callee_data, now)
        self.stop_expecting(s, now)

    def refuse_remake(self, request: Request, now: Instant) -> None:
        """Turn a request down that is not the peer's."""
        self._proxy.refuse(request, now)

    def stop_expecting(self, s: SocketDescriptor, now: Instant) -> None:
        """Nothing is made anew any more; harmless if nothing was expected."""
        san = self._socket(s)
        expected, san.expected = san.expected, None
        if expected is not None:
            self._proxy.unlisten(expected, now)

    def take_back(self, endpoint: Endpoint, now: Instant) -> None:
        """Complete the receives that wait with success and zero bytes."""
        self._proxy.take_back_receives(endpoint, now)
