"""The agent's service for application processes: requests on AF_UNIX, data channels, and the watch over their lives.

One :class:`ApplicationServer` per agent. It turns requests into commands on the host stack and the stack's events
into bytes, descriptors and replies. The operations are listed in ``docs/ipc.md``.
"""

import array
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from fabric.ids import ProcessInstance, SocketHandle
from fabric.journal import Journal
from fabric.units import Instant
from nodes.agent.channels import Channels
from nodes.agent.processes import NoSuchProcess, Peer, identify, open_process
from nodes.agent.relatives import RelativesService
from provider import ipc
from provider.errors import WsaErrno, WsaError
from provider.handoff.registry import TICKETS_MAX
from provider.handoff.tickets import ticket_number
from provider.sockets_switch import events
from provider.sockets_switch.shared_socket import Descriptor, SocketPhase
from provider.stack import HostStack

T = TypeVar("T")
CONNECTIONS_MAX = 1024
CONNECTIONS_PER_PROCESS = 256
REFUSAL_SECONDS = 2.0
DUPLICATE_TIMEOUT = 15.0
"""Seconds; the switch gives up on a peer earlier (its suspend deadline)."""


class Driver(Protocol):
    """What drives the host stack: runs a command at the present instant, then carries its outputs away."""

    def command(self, function: Callable[[Instant], T]) -> T: ...


Reply = tuple[dict[str, Any], list[int]]
"""A result and the file descriptors that go with it."""


class ApplicationServer:
    """See the module text."""

    def __init__(
        self, stack: HostStack, driver: Driver, journal: Journal, node: str, path: Path, clock: Callable[[], Instant]
    ) -> None:
        self._stack = stack
        self._half = stack.half
        self._driver = driver
        self._journal = journal
        self._node = node
        self._path = path
        self._clock = clock
        self.channels = Channels(stack, driver)
        self._relatives = RelativesService(stack, driver, self.channels, clock)
        self._watched: dict[ProcessInstance, int] = {}
        self._connections: dict[ProcessInstance, int] = {}
        self._going_back: dict[int, None] = {}
        """Numbers of tickets that lead back to a former owner: redeeming one is step 14, not 8."""
        self._duplicates: dict[int, tuple[trio.Event, list[events.SwitchEvent]]] = {}
        self.refused = 0
        """Connections and packets that were turned away."""
        self._operations: dict[str, Callable[[Peer, dict[str, Any]], Awaitable[Reply] | Reply]] = {
            "attach": self._attach,
            "WSPSocket": self._socket,
            "WSPBind": self._bind,
            "WSPListen": self._listen,
            "WSPConnect": self._connect,
            "WSPAccept": self._accept,
            "WSPShutdown": self._shutdown,
            "WSPCloseSocket": self._close,
            "WSPDuplicateSocket": self._duplicate,
            "WSPGetSockOpt": self._get_option,
            "WSPSetSockOpt": self._set_option,
            "status": self._status,
            "reattach": self._reattach,
            "detach": self._detach,
            "inherit": self._relatives.inherit,
            "take": self._relatives.take,
            "mark": self._mark,
        }

    # ------------------------------------------------------------------ serving

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; the socket file is removed at the end."""
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            await listener.bind(str(self._path))
            self._path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            listener.listen(128)
            async with trio.open_nursery() as nursery:
                self.channels.nursery = nursery
                task_status.started()
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._serve_connection, connection)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)
            self.channels.close_all()
            for pidfd in self._watched.values():
                os.close(pidfd)

    async def _serve_connection(self, connection: trio.socket.SocketType) -> None:
        with connection:
            try:
                peer = identify(connection)  # type: ignore[arg-type]
            except NoSuchProcess as error:
                self.refused += 1
                with contextlib.suppress(OSError), trio.move_on_after(REFUSAL_SECONDS):
                    await connection.recv(ipc.PACKET_MAX)  # closing over an unread request would reset our answer
                    await connection.send(ipc.encode({"id": 0, "error": _invisible(error)}))
                return
            count = self._connections.get(peer.process, 0)
            allowed = peer.uid in (0, os.getuid()) and count < CONNECTIONS_PER_PROCESS
            if not allowed or sum(self._connections.values()) >= CONNECTIONS_MAX:
                self.refused += 1
                os.close(peer.pidfd)
                return
            self._connections[peer.process] = count + 1
            self._watch_process(peer.process, peer.pidfd)
            try:
                await self._serve_requests(peer, connection)
            finally:
                self._relatives.connection_ended(peer)
                self._connections[peer.process] -= 1
                if not self._connections[peer.process]:
                    del self._connections[peer.process]

    async def _serve_requests(self, peer: Peer, connection: trio.socket.SocketType) -> None:
        while True:
            try:
                packet = await connection.recv(ipc.PACKET_MAX + 1)
            except OSError:
                return
            if not packet:
                return
            try:
                request = ipc.decode(packet)
                number = ipc.member(request, "id", int)
                operation = self._operations.get(ipc.member(request, "op", str))
                if operation is None:
                    raise ipc.BadPacket("unknown operation")
            except ipc.BadPacket:
                self.refused += 1
                return
            descriptors: list[int] = []
            try:
                answer = operation(peer, request)
                result, descriptors = await answer if isinstance(answer, Awaitable) else answer
                reply: dict[str, Any] = {"id": number, "result": result}
            except WsaError as error:
                reply = {"id": number, "error": {"wsa": int(error.wsa), "text": error.text}}
            except ipc.BadPacket as error:
                self.refused += 1
                reply = {"id": number, "error": {"wsa": int(WsaErrno.WSAEINVAL), "text": str(error)}}
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            try:
                await connection.sendmsg([ipc.encode(reply)], rights)
            except OSError:
                return

    def _watch_process(self, process: ProcessInstance, pidfd: int) -> None:
        """Be told of its end; the pidfd is ours from here on."""
        if process in self._watched:
            os.close(pidfd)
        else:
            self._watched[process] = pidfd
            self.channels.nursery.start_soon(self._watch, process, pidfd)

    async def _watch(self, process: ProcessInstance, pidfd: int) -> None:
        """Release what the process held as soon as it has ended."""
        await trio.lowlevel.wait_readable(pidfd)
        self._watched.pop(process, None)
        os.close(pidfd)
        attached = self._half.core.processes.get(process)
        held = [] if attached is None else list(attached.descriptors)
        self._driver.command(lambda now: self._half.detach(process, now))
        self.channels.discard_gone(held)
        self.channels.tell_change()
        self._relatives.on_process_exit()

    # ------------------------------------------------------------ events of the stack

    def on_event(self, event: object, now: Instant) -> None:
        """Called by the driver for every event, in order."""
        if isinstance(event, events.DuplicateDone | events.DuplicateFailed):
            waiting = self._duplicates.get(event.operation)
            if waiting is not None:
                waiting[1].append(event)
                waiting[0].set()
            return
        self.channels.on_event(event, now)

    # --------------------------------------------------------------------- operations

    def _attach(self, peer: Peer, request: dict[str, Any]) -> Reply:
        if ipc.member(request, "version", int) != ipc.VERSION:
            raise WsaError(WsaErrno.WSAVERNOTSUPPORTED, f"this agent speaks version {ipc.VERSION}")
        name = ipc.member(request, "name", str, "")[:64]
        config = self._stack.config
        self._driver.command(lambda now: self._half.attach(peer.process, name, now))
        return {
            "host": config.name,
            "ip": config.ip,
            "pid": peer.process.pid,
            "names": config.names,
            "default_mode": config.default_mode,
        }, []

    def _socket(self, peer: Peer, request: dict[str, Any]) -> Reply:
        if "info" in request:
            return self._redeem(peer, ipc.from_text(request["info"]))
        family, kind = ipc.member(request, "af", int), ipc.member(request, "type", int)
        protocol = ipc.member(request, "protocol", int, 0)
        descriptor = self._command(lambda now: self._half.socket(peer.process, family, kind, protocol, now))
        return {"s": descriptor.s}, [self.channels.create(descriptor.s)]

    def _redeem(self, peer: Peer, info: bytes) -> Reply:
        step = 14 if ticket_number(info) in self._going_back else 8
        self._record(f"handoff.san.{step}.before", peer, {})
        descriptor = self._command(lambda now: self._half.redeem(peer.process, info, now))
        fd = self.channels.create(descriptor.s)
        self.channels.offer(descriptor.s)
        self._going_back.pop(ticket_number(info), None)
        self._record(f"handoff.san.{step}.after", peer, {})
        return {**self._describe(descriptor), "s": descriptor.s}, [fd]

    def _bind(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, name = self._s(request), ipc.address(request)
        return {"local": self._command(lambda now: self._half.bind(peer.process, s, name, now))}, []

    def _listen(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, backlog = self._s(request), ipc.member(request, "backlog", int, 128)
        self._command(lambda now: self._half.listen(peer.process, s, backlog, now))
        return self._describe(self._half.core.descriptor(peer.process, s)), []

    def _connect(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, name = self._s(request), ipc.address(request)
        self._command(lambda now: self._half.connect(peer.process, s, name, now))
        return self._describe(self._half.core.descriptor(peer.process, s)), []

    def _accept(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        descriptor = self._command(lambda now: self._half.accept(peer.process, s, now))
        fd = self.channels.create(descriptor.s)
        self.channels.open(descriptor.s)
        return {**self._describe(descriptor), "s": descriptor.s}, [fd]

    def _shutdown(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        self._half.core.descriptor(peer.process, s)
        self.channels.finish_sending(s)
        return {}, []

    def _close(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        self._command(lambda now: self._half.close(peer.process, s, now))
        self.channels.discard(s)
        return {}, []

    async def _duplicate(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, pid = self._s(request), ipc.member(request, "pid", int)
        if self.channels.is_detached(s):
            raise WsaError(WsaErrno.WSAEINVAL, "a descriptor that was detached cannot be handed over")
        mode = ipc.member(request, "mode", str, None)
        try:
            target, pidfd = open_process(pid)
        except NoSuchProcess as error:
            self._half.core.descriptor(peer.process, s)  # WSAENOTSOCK comes first
            raise WsaError(WsaErrno.WSAEINVAL, str(error)) from None
        self._watch_process(target, pidfd)  # its death before the commit gives the socket back at once
        step = 10 if ipc.member(request, "back", bool, False) else 5
        self._record(f"handoff.san.{step}.before", peer, {"target": pid})
        waiting: tuple[trio.Event, list[events.SwitchEvent]] = (trio.Event(), [])

        def begin(now: Instant) -> int:
            operation = self._half.duplicate(peer.process, s, target, mode, now)
            self._duplicates[operation] = waiting
            return operation

        operation = self._command(begin)
        try:
            with trio.move_on_after(DUPLICATE_TIMEOUT):
                await waiting[0].wait()
        finally:
            self._duplicates.pop(operation, None)
        outcome = waiting[1][0] if waiting[1] else None
        if isinstance(outcome, events.DuplicateDone):
            self._record(f"handoff.san.{step}.after", peer, {"target": pid})
            if step == 10:
                self._going_back[ticket_number(outcome.info)] = None
                if len(self._going_back) > TICKETS_MAX:  # tickets that nobody redeemed
                    del self._going_back[next(iter(self._going_back))]
            return {"info": ipc.to_text(outcome.info), "epoch": outcome.epoch}, []
        if isinstance(outcome, events.DuplicateFailed):
            raise WsaError(outcome.error, outcome.text)
        raise WsaError(WsaErrno.WSAENETDOWN, "the peer did not answer in time")

    def _get_option(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, level, name = self._s(request), ipc.member(request, "level", int), ipc.member(request, "name", int)
        return {"value": self._command(lambda now: self._half.get_option(peer.process, s, level, name, now))}, []

    def _set_option(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, level, name = self._s(request), ipc.member(request, "level", int), ipc.member(request, "name", int)
        value = ipc.member(request, "value", int)
        self._command(lambda now: self._half.set_option(peer.process, s, level, name, value, now))
        return {}, []

    def _status(self, peer: Peer, request: dict[str, Any]) -> Reply:
        return self._describe(self._half.core.descriptor(peer.process, self._s(request))), []

    async def _reattach(self, peer: Peer, request: dict[str, Any]) -> Reply:
        """The fresh channel of a descriptor that control has returned to, or returns to within ``wait`` ms; no channel
        if it controlled the socket all the time.
        """
        wait = min(max(ipc.member(request, "wait", int, 0), 0) / 1000, DUPLICATE_TIMEOUT)
        s = self._s(request)
        core = self._half.core
        with trio.move_on_after(wait):
            while not self.channels.has_returned(s):
                descriptor = core.descriptor(peer.process, s)
                if descriptor.socket.ended or core.controlling(descriptor.socket) is descriptor:
                    break
                await self.channels.changed()
        descriptor = core.descriptor(peer.process, s)
        fd = self.channels.take_returned(s)
        if fd is not None:
            return self._describe(descriptor), [fd]
        if descriptor.socket.ended:
            raise WsaError(descriptor.socket.error or WsaErrno.WSAECONNABORTED, "the connection is gone")
        if core.controlling(descriptor.socket) is not descriptor:
            raise WsaError(WsaErrno.WSAEINVAL, "control of the socket has not returned to this descriptor")
        return self._describe(descriptor), []

    def _detach(self, peer: Peer, request: dict[str, Any]) -> Reply:
        """The process's end is its own from now on: when it is closed, so is the descriptor."""
        descriptor = self._half.core.descriptor(peer.process, self._s(request))
        self.channels.detach(descriptor.s, partial(self._close, peer, request))
        return {}, []

    def _mark(self, peer: Peer, request: dict[str, Any]) -> Reply:
        scenario = ipc.member(request, "scenario", str)
        step, moment = ipc.member(request, "step", int), ipc.member(request, "moment", str)
        if scenario not in ("san", "generic") or not 1 <= step <= 17 or moment not in ("before", "after"):
            raise ipc.BadPacket("a mark names scenario san or generic, step 1..17, moment before or after")
        self._record(f"handoff.{scenario}.{step}.{moment}", peer, {})
        return {}, []

    # ------------------------------------------------------------------------ helpers

    def _command(self, function: Callable[[Instant], T]) -> T:
        return self._driver.command(function)

    def _record(self, event: str, peer: Peer, members: dict[str, Any]) -> None:
        self._journal.record(self._clock(), self._node, event, pid=peer.process.pid, **members)

    @staticmethod
    def _s(request: dict[str, Any]) -> SocketHandle:
        return SocketHandle(ipc.member(request, "s", int))

    def _describe(self, descriptor: Descriptor) -> dict[str, Any]:
        socket_ = descriptor.socket
        controlling = self._half.core.controlling(socket_)
        if socket_.ended and socket_.phase is not SocketPhase.CONNECTING:
            control = "aborted"
        elif self._half.is_in_transfer(socket_):
            control = "transfer"
        else:
            relative = descriptor.is_relative(controlling)
            control = "yours" if controlling is descriptor else "relative" if relative else "other"
        return {
            "state": socket_.phase.value,
            "local": socket_.local,
            "peer": socket_.remote,
            "error": int(socket_.error or 0),
            "control": control,
            "controller": controlling.owner.process.pid if controlling is not None else 0,
            "returned": self.channels.has_returned(descriptor.s),
            "epoch": self._half.core.registry.epoch(socket_.number),
        }


def _invisible(error: NoSuchProcess) -> dict[str, Any]:
    """What a process is told that the kernel cannot name to us: it runs in another pid namespace, or has ended."""
    text = (
        f"the agent cannot see your process ({error}); in containers, share the pid namespace of the host's container"
    )
    return {"wsa": int(WsaErrno.WSAENETDOWN), "text": text}
