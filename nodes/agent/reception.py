"""Who may ask the agent, and how much: connections of application processes, from their first packet to their end.

A caller is a process instance by the kernel's word, twice over: the credentials of whoever connected, and those of
whoever sent each packet. A packet that another process sent (a forked child, say, on its parent's connection) is
dropped. The rules that keep one process from harming another:

* connections are bounded per process and per host; when the host's are used up, a process is let in at the expense of
  the one that has most, if that has more than it;
* of one process the agent carries out one request per turn of its loop, so a flood costs others one request's time;
* a request whose answer carries a descriptor is refused with WSAENOBUFS while the caller has not read the answers
  before it, since descriptors under way count against the limits of everybody with the same user;
* when a process ends, so do its connections, whoever else holds them.
"""

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import trio

from fabric.ids import ProcessInstance
from nodes.accepting import Acceptor
from nodes.agent.fault_actions import Dropped, Reply
from nodes.agent.limits import Limits
from provider import ipc
from provider.errors import WsaErrno, WsaError
from provider.process_identity import NoSuchProcess, Peer, identify

REFUSAL_SECONDS = 2.0
REFUSALS_MAX = 16
"""Callers that are told why they are refused, at one time; more are just hung up on."""
TEXT_MAX = 500
WATCH_SECONDS = 2.0
"""How often it is asked whether the end of a process still matters: it may have been no more than a ticket's target."""
_UCRED = struct.Struct("3i")

Operation: TypeAlias = Callable[[Peer, dict[str, Any]], Awaitable[Reply] | Reply]


class _Visitor:
    """A process that has connections."""

    def __init__(self) -> None:
        self.connections: dict[trio.CancelScope, None] = {}
        self.turn = trio.Lock()
        self.ended = False


class _Watch:
    """A process whose end is waited for."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd


class Reception:
    """See the module text. ``operations`` by name; those in ``giving`` answer with a descriptor. ``on_end`` hears of
    the end of every process that was watched, ``on_hang_up`` of the end of every connection.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        operations: dict[str, Operation],
        giving: tuple[str, ...],
        on_end: Callable[[ProcessInstance], object],
        on_hang_up: Callable[[Peer], object],
        is_needed: Callable[[ProcessInstance], bool],
    ) -> None:
        self._path = path
        self._limits = limits
        self._operations = operations
        self._giving = giving
        self._on_end = on_end
        self._on_hang_up = on_hang_up
        self._is_needed = is_needed
        self._visitors: dict[ProcessInstance, _Visitor] = {}
        self._watched: dict[ProcessInstance, _Watch] = {}
        self._refusals = self._short = 0
        self._acceptor: Acceptor
        self._nursery: trio.Nursery
        self.refused = 0
        """Connections and packets that were turned away."""

    def statistics(self) -> dict[str, int]:
        """Counters, for leak checks."""
        return {
            "connections": sum(len(visitor.connections) for visitor in self._visitors.values()),
            "watched": len(self._watched),
            "refused": self.refused,
            "short_of_files": self._short + self._acceptor.short,
        }

    async def serve(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        """Listen until cancelled; the socket file is removed at the end."""
        self._nursery = nursery
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            previous = os.umask(0o177)
            try:
                await listener.bind(str(self._path))
            finally:
                os.umask(previous)
            listener.listen(1024)
            self._acceptor = Acceptor(listener)
            task_status.started()
            while True:
                connection = await self._acceptor.next()
                self._admit(connection)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)
            for watch in self._watched.values():
                os.close(watch.pidfd)

    # ---------------------------------------------------------------- processes

    def pidfd_of(self, process: ProcessInstance) -> int | None:
        """The watched process's pidfd, which stays ours."""
        watch = self._watched.get(process)
        return None if watch is None else watch.pidfd

    def require_room(self, process: ProcessInstance) -> None:
        """WSAENOBUFS if ``process`` is one too many to watch."""
        if process not in self._watched and len(self._watched) >= self._limits.processes:
            raise WsaError(WsaErrno.WSAENOBUFS, f"{self._limits.processes} processes use this host already")

    def watch(self, process: ProcessInstance, pidfd: int) -> None:
        """Be told of its end; the pidfd is ours from here on. ``require_room`` comes first."""
        if process in self._watched:
            os.close(pidfd)
        else:
            watch = self._watched[process] = _Watch(pidfd)
            self._nursery.start_soon(self._watch, process, watch)

    async def _watch(self, process: ProcessInstance, watch: "_Watch") -> None:
        """Hang up on a process that has ended, and tell of it."""
        while True:
            if self._watched.get(process) is not watch:
                return
            with trio.move_on_after(WATCH_SECONDS) as pause:
                try:
                    await trio.lowlevel.wait_readable(watch.pidfd)
                except trio.ClosedResourceError:
                    return
            if not pause.cancelled_caught:
                break
            if process not in self._visitors and not self._is_needed(process):
                self._unwatch(process)
                return
        self._unwatch(process)
        visitor = self._visitors.pop(process, None)
        if visitor is not None:
            visitor.ended = True
            for scope in list(visitor.connections):
                scope.cancel()
        self._on_end(process)

    def _unwatch(self, process: ProcessInstance) -> None:
        watch = self._watched.pop(process)
        trio.lowlevel.notify_closing(watch.pidfd)
        os.close(watch.pidfd)

    # -------------------------------------------------------------- connections

    def _admit(self, connection: trio.socket.SocketType) -> None:
        try:
            peer = identify(connection)  # type: ignore[arg-type]
        except NoSuchProcess as error:
            self._turn_away(
                connection,
                f"the agent cannot see your process ({error}); in containers, share the pid "
                "namespace of the host's container",
            )
            return
        except OSError:  # no descriptor left to look at it
            self._short += 1
            self._turn_away(connection, "")
            return
        try:
            if peer.uid not in (0, os.getuid()):
                raise WsaError(WsaErrno.WSAEACCES, "")
            self._make_room(peer.process)
            self.require_room(peer.process)
        except WsaError as error:
            os.close(peer.pidfd)
            self._turn_away(connection, error.text)
            return
        self.watch(peer.process, peer.pidfd)
        visitor = self._visitors.setdefault(peer.process, _Visitor())
        scope = trio.CancelScope()
        visitor.connections[scope] = None
        self._nursery.start_soon(self._serve_connection, connection, peer, visitor, scope)

    def _make_room(self, process: ProcessInstance) -> None:
        """WSAENOBUFS without room for one more connection of ``process``."""
        limits = self._limits
        own = self._visitors.get(process)
        count = 0 if own is None else len(own.connections)
        if count >= limits.connections_per_process:
            raise WsaError(WsaErrno.WSAENOBUFS, f"a process has at most {count} connections to its agent")
        if sum(len(visitor.connections) for visitor in self._visitors.values()) < limits.connections:
            return
        greediest = max(self._visitors.values(), key=lambda visitor: len(visitor.connections))
        if len(greediest.connections) <= count + 1:
            raise WsaError(WsaErrno.WSAENOBUFS, f"the agent has {limits.connections} connections already")
        self.refused += 1
        oldest = next(iter(greediest.connections))
        del greediest.connections[oldest]
        oldest.cancel()

    def _turn_away(self, connection: trio.socket.SocketType, text: str) -> None:
        self.refused += 1
        if not text or self._refusals >= REFUSALS_MAX:
            connection.close()
            return
        self._refusals += 1
        self._nursery.start_soon(self._tell_refusal, connection, text)

    async def _tell_refusal(self, connection: trio.socket.SocketType, text: str) -> None:
        try:
            with connection, contextlib.suppress(OSError), trio.move_on_after(REFUSAL_SECONDS):
                await connection.recv(ipc.PACKET_MAX)  # closing over an unread request would reset our answer
                await connection.send(_error(0, WsaErrno.WSAENETDOWN, text))
        finally:
            self._refusals -= 1

    async def _serve_connection(
        self, connection: trio.socket.SocketType, peer: Peer, visitor: _Visitor, scope: trio.CancelScope
    ) -> None:
        try:
            with connection, scope, contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                await self._serve_requests(connection, peer, visitor)
        finally:
            self._on_hang_up(peer)
            visitor.connections.pop(scope, None)
            if not visitor.connections and self._visitors.get(peer.process) is visitor:
                del self._visitors[peer.process]

    async def _serve_requests(self, connection: trio.socket.SocketType, peer: Peer, visitor: _Visitor) -> None:
        room = socket.CMSG_SPACE(_UCRED.size)  # none for descriptors: the kernel closes those that a packet brings
        while True:
            packet, ancillary, _flags, _ = await connection.recvmsg(ipc.PACKET_MAX + 1, room)
            if not packet:
                return
            if _sender(ancillary) != peer.process.pid:
                self.refused += 1
                continue
            try:
                request = ipc.decode(packet)
                number = ipc.member(request, "id", int)
                name = ipc.member(request, "op", str)
                operation = self._operations.get(name)
                if operation is None:
                    raise ipc.BadPacket("unknown operation")
            except ipc.BadPacket:
                self.refused += 1
                return
            descriptors: list[int] = []
            try:
                try:
                    visitor.turn.acquire_nowait()
                except trio.WouldBlock:
                    await visitor.turn.acquire()
                try:
                    if visitor.ended:
                        return
                    if name in self._giving and _unread(connection):
                        raise WsaError(WsaErrno.WSAENOBUFS, "read the answers to your earlier requests first")
                    outcome = operation(peer, request)
                finally:
                    visitor.turn.release()
                result, descriptors = await outcome if isinstance(outcome, Awaitable) else outcome
                reply = ipc.encode({"id": number, "result": result})
            except Dropped:
                continue
            except WsaError as error:
                reply = _error(number, error.wsa, error.text)
            except ipc.BadPacket as error:
                self.refused += 1
                reply = _error(number, WsaErrno.WSAEINVAL, str(error))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            await connection.sendmsg([reply], rights)


def _error(number: int, error: WsaErrno, text: str) -> bytes:
    """What went wrong, with a text that always fits: parts of it may be the caller's own."""
    return ipc.encode({"id": number, "error": {"wsa": int(error), "text": text[:TEXT_MAX]}})


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The pid of whoever sent a packet, by the kernel's word."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _UCRED.size:
            pid: int = _UCRED.unpack(data)[0]
            return pid
    return None


def _unread(connection: trio.socket.SocketType) -> int:
    """Bytes of answers that the caller has not read, with the kernel's overhead."""
    waiting = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0]
