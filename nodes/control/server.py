"""The answering side: AF_UNIX SOCK_SEQPACKET, mode 0600, one JSON object per packet.

::

    -> {"id": 1, "op": "ps"}
    <- {"id": 1, "result": {...}}
    <- {"id": 1, "error": {"text": "..."}}

A connection may ask several times. Only processes of the node's own user, and root's, are answered; that is asked of
the kernel, not of the caller. Packets are bounded, a connection that says nothing for IDLE_SECONDS is closed, and when
there are CONNECTIONS_MAX the oldest makes room for the next. The node carries out one request per turn of its loop,
however many ask. A request whose caller has hung up is not carried out: it was told that the node does not answer.
Operations that give a stream (``capture``) are asynchronous and keep the connection until they end; there are at most
STREAMS_MAX of them, and none of these makes room for others.
"""

import contextlib
import errno
import json
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import trio

from fabric.errors import UsageError
from nodes.accepting import Acceptor

PACKET_MAX = 65_536
ANSWER_MAX = 1 << 20
IDLE_SECONDS = 30.0
CONNECTIONS_MAX = 64
STREAMS_MAX = 32
TEXT_MAX = 2000
TOO_LONG = "the answer is too long"
_UCRED = struct.Struct("3i")

Operation: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Request -> result; UsageError becomes the answer's error."""
StreamOperation: TypeAlias = Callable[[dict[str, Any], "Connection"], Awaitable[None]]
"""Answers with ``connection.answer`` itself and returns when its stream has ended."""


class Connection:
    """One caller."""

    def __init__(self, sock: trio.socket.SocketType, number: object) -> None:
        self._socket = sock
        self._number = number

    async def answer(self, result: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send the result, with descriptors beside it."""
        await self._send({"id": self._number, "result": result}, descriptors)

    async def refuse(self, text: str) -> None:
        """Send an error."""
        await self._send({"id": self._number, "error": {"text": text[:TEXT_MAX]}}, ())

    async def closed(self) -> None:
        """Return when the caller hangs up; anything that it says is ignored."""
        try:
            while await self._socket.recv(PACKET_MAX):
                pass
        except OSError:
            pass

    async def _send(self, reply: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        packet = json.dumps(reply, default=str).encode()
        if len(packet) > ANSWER_MAX:
            return await self.refuse(TOO_LONG)
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        try:
            await self._socket.sendmsg(
                [packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
            )
        except OSError as error:
            if error.errno != errno.EMSGSIZE or "error" in reply:  # the machine allows smaller buffers only
                raise
            await self.refuse(TOO_LONG)


class ControlServer:
    """See the module text. ``operations`` and ``streams`` are by name."""

    def __init__(self, path: Path, operations: dict[str, Operation], streams: dict[str, StreamOperation]) -> None:
        self._path = path
        self._operations = {"ping": lambda _: {}, **operations}
        self._streams = streams
        self.refused = 0
        """Connections closed for being somebody else's or one too many, and packets that were no request."""
        self._open: dict[trio.CancelScope, None] = {}
        self._under_way = 0
        """Streams."""
        self._turn = trio.Lock()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; the socket's file is removed at the end."""
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        previous = os.umask(0o177)
        try:
            await listener.bind(str(self._path))
        finally:
            os.umask(previous)
        try:
            listener.listen(128)
            acceptor = Acceptor(listener)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    connection = await acceptor.next()
                    if not _is_ours(connection):
                        self.refused += 1
                        connection.close()
                        continue
                    if len(self._open) + self._under_way >= CONNECTIONS_MAX:
                        self.refused += 1
                        oldest = next(iter(self._open))
                        del self._open[oldest]
                        oldest.cancel()
                    scope = trio.CancelScope()
                    self._open[scope] = None
                    nursery.start_soon(self._converse, connection, scope)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _converse(self, sock: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        try:
            with sock, scope, contextlib.suppress(OSError):  # the caller may go away at any time
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * ANSWER_MAX)
                while await self._one_request(sock, scope):
                    pass
        finally:
            self._open.pop(scope, None)

    async def _one_request(self, sock: trio.socket.SocketType, scope: trio.CancelScope) -> bool:
        with trio.move_on_after(IDLE_SECONDS) as idle:
            packet = await sock.recv(PACKET_MAX)
        if idle.cancelled_caught or not packet:
            return False
        try:
            request = json.loads(packet)
            number, name = request.get("id"), request.get("op")
            if not isinstance(number, int | str | None):
                raise ValueError("no id")
        except (ValueError, RecursionError, AttributeError):
            self.refused += 1
            await Connection(sock, None).refuse("a request is a JSON object with id and op")
            return False
        connection = Connection(sock, number)
        try:
            if isinstance(name, str) and name in self._streams:
                await self._one_stream(name, request, connection, scope)
                return False
            if not isinstance(name, str) or name not in self._operations:
                known = ", ".join([*self._operations, *self._streams])
                raise UsageError(f"unknown operation {name!r}; there are {known}")
            async with self._turn:
                if _has_hung_up(sock):  # while it waited
                    return False
                result = self._operations[name](request)
            await connection.answer(result)
        except UsageError as error:
            await connection.refuse(str(error))
        return True

    async def _one_stream(
        self, name: str, request: dict[str, Any], connection: Connection, scope: trio.CancelScope
    ) -> None:
        if self._under_way >= STREAMS_MAX or scope not in self._open:
            raise UsageError(f"{name}: there are {STREAMS_MAX} streams from this node already")
        del self._open[scope]
        self._under_way += 1
        try:
            await self._streams[name](request, connection)
        finally:
            self._under_way -= 1


def _has_hung_up(sock: trio.socket.SocketType) -> bool:
    poller = select.poll()
    poller.register(sock.fileno(), 0)  # POLLHUP is always told
    return bool(poller.poll(0))


def _is_ours(sock: trio.socket.SocketType) -> bool:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return uid in (0, os.getuid())
