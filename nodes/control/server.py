"""The answering side: AF_UNIX SOCK_SEQPACKET, mode 0600, one JSON object per packet.

::

    -> {"id": 1, "op": "ps"}
    <- {"id": 1, "result": {...}}
    <- {"id": 1, "error": {"text": "..."}}

A connection may ask several times. Only processes of the node's own user, and root's, are answered; that is asked of
the kernel, not of the caller. Packets are bounded, and a connection that says nothing for IDLE_SECONDS is closed. A
request whose caller has hung up is not carried out: it was told that the node does not answer.
Operations that give a stream (``capture``) are asynchronous and keep the connection until they end.
"""

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

PACKET_MAX = 65_536
ANSWER_MAX = 1 << 20
IDLE_SECONDS = 30.0
CONNECTIONS_MAX = 64
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
        await self._send({"id": self._number, "error": {"text": text}}, ())

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
            packet = json.dumps({"id": self._number, "error": {"text": "the answer is too long"}}).encode()
        await self._socket.sendmsg(
            [packet],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
            if descriptors
            else [],
        )


class ControlServer:
    """See the module text. ``operations`` and ``streams`` are by name."""

    def __init__(self, path: Path, operations: dict[str, Operation], streams: dict[str, StreamOperation]) -> None:
        self._path = path
        self._operations = {"ping": lambda _: {}, **operations}
        self._streams = streams
        self.refused = 0
        """Connections closed for being somebody else's or one too many, and packets that were no request."""
        self._open = 0

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; the socket's file is removed at the end."""
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        previous = os.umask(0o177)
        try:
            await listener.bind(str(self._path))
        finally:
            os.umask(previous)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * ANSWER_MAX)
            listener.listen(16)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    connection, _ = await listener.accept()
                    if self._open >= CONNECTIONS_MAX or not _is_ours(connection):
                        self.refused += 1
                        connection.close()
                        continue
                    self._open += 1
                    nursery.start_soon(self._converse, connection)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _converse(self, sock: trio.socket.SocketType) -> None:
        try:
            with sock:
                while await self._one_request(sock):
                    pass
        except OSError:
            pass  # the caller went away
        finally:
            self._open -= 1

    async def _one_request(self, sock: trio.socket.SocketType) -> bool:
        with trio.move_on_after(IDLE_SECONDS) as idle:
            packet = await sock.recv(PACKET_MAX)
        if idle.cancelled_caught or not packet or _has_hung_up(sock):
            return False
        try:
            request = json.loads(packet)
            number, name = request.get("id"), request.get("op")
        except (ValueError, RecursionError, AttributeError):
            self.refused += 1
            await Connection(sock, None).refuse("a request is a JSON object with id and op")
            return False
        connection = Connection(sock, number)
        try:
            if isinstance(name, str) and name in self._streams:
                await self._streams[name](request, connection)
                return False
            if not isinstance(name, str) or name not in self._operations:
                known = ", ".join([*self._operations, *self._streams])
                raise UsageError(f"unknown operation {name!r}; there are {known}")
            await connection.answer(self._operations[name](request))
        except UsageError as error:
            await connection.refuse(str(error))
        return True


def _has_hung_up(sock: trio.socket.SocketType) -> bool:
    poller = select.poll()
    poller.register(sock.fileno(), 0)  # POLLHUP is always told
    return bool(poller.poll(0))


def _is_ours(sock: trio.socket.SocketType) -> bool:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return uid in (0, os.getuid())
