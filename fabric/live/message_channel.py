"""Messages between one served place and whoever holds one other key: CURVE over tcp://, awaited with trio.

Frames do not go here (:mod:`fabric.live.zmq_channel` has those): this is for requests that come from outside the
fabric, such as commands for a node. A message is one part of at most MESSAGE_MAX bytes. Who sends is known by the
allow-list; each connection of a client has a route of its own, so answers go to the very client that asked.
"""

from collections.abc import Callable
from typing import TypeVar

import trio
import zmq

from fabric.errors import EnvironmentLacks
from fabric.live.curve import DOMAIN, AllowList, Credentials

T = TypeVar("T")
MESSAGE_MAX = 1 << 20
QUEUED_MAX = 1_000
HANDSHAKE_MS = 5_000


class _MessageSocket:
    """A zmq socket. Its file descriptor is edge-triggered and any call may consume the edge, so it is drained before it
    is waited for, and what sends looks whether it has consumed one.
    """

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._came = trio.Event()
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, QUEUED_MAX),
            (zmq.RCVHWM, QUEUED_MAX),
            (zmq.MAXMSGSIZE, MESSAGE_MAX),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 5000),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        ):
            self._socket.setsockopt(option, value)

    async def _receive(self, before: Callable[[], None] = lambda: None) -> list[bytes]:
        while True:
            before()
            try:
                return self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await self._wait()

    async def _wait(self) -> None:
        """Until the file descriptor says so, or ``_send`` found that something has come."""
        self._came = trio.Event()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await trio.lowlevel.wait_readable(int(self._socket.getsockopt(zmq.FD)))
                self._came.set()

            nursery.start_soon(watch)
            await self._came.wait()
            nursery.cancel_scope.cancel()

    def _send(self, parts: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        finally:
            if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._came.set()
        return True

    def close(self) -> None:
        """Close; what was not sent is lost."""
        self._socket.close(0)
        self._context.term()


class MessageServer(_MessageSocket):
    """The served place. Only the peers of ``credentials`` are let in. EnvironmentLacks if it cannot bind."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        super().__init__(zmq.ROUTER)
        self._allow_list = AllowList(self._context, credentials.peers)
        self.refused = 0
        """Messages of a wrong shape."""
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, credentials.keys.secret.encode())
        self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise EnvironmentLacks(f"cannot bind {address}: {error.strerror}") from None

    @property
    def address(self) -> str:
        """What is bound, with the port that a wildcard became."""
        bound = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        return bound.rstrip(b"\0").decode()

    @property
    def handshakes_refused(self) -> int:
        """Clients with unknown keys."""
        return self._allow_list.refused

    async def admit(self) -> None:
        """Answer handshakes until cancelled; nobody gets in unless this runs."""
        fd = int(self._allow_list.socket.getsockopt(zmq.FD))
        while True:
            self._allow_list.serve()
            await trio.lowlevel.wait_readable(fd)

    async def receive(self) -> tuple[bytes, bytes]:
        """The next message as (route, message)."""
        while True:
            parts = await self._receive(self._allow_list.serve)
            if len(parts) == 2:
                return parts[0], parts[1]
            self.refused += 1

    def send(self, route: bytes, message: bytes) -> bool:
        """False if the client has gone or takes nothing."""
        return self._send([route, message])

    def close(self) -> None:
        """Close the socket and the allow-list's."""
        self._allow_list.close()
        super().close()


class MessageClient(_MessageSocket):
    """One connection to a served place; ``credentials`` hold our keys and the server's public key by ``server``."""

    def __init__(self, address: str, credentials: Credentials, server: str) -> None:
        super().__init__(zmq.DEALER)
        self._socket.setsockopt(zmq.CURVE_SERVERKEY, credentials.peers[server].encode())
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, credentials.keys.public.encode())
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, credentials.keys.secret.encode())
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._socket.connect(address)

    async def receive(self) -> bytes:
        """The next message."""
        return b"".join(await self._receive())

    def send(self, message: bytes) -> bool:
        """Also before the connection stands: then it goes when it does. False if too many wait."""
        return self._send([message])
