"""The agent's service for application processes: requests on AF_UNIX, data channels, and the watch over their lives.

One :class:`ApplicationServer` per agent. It turns requests into commands on the host stack and the stack's events
into bytes, descriptors and replies. The operations are listed in ``docs/ipc.md``.
"""

import dataclasses
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import trio

from fabric.ids import ProcessInstance, SocketHandle
from fabric.journal import Journal
from fabric.units import SECOND, Instant
from nodes.agent.channels import Channels
from nodes.agent.description import describe
from nodes.agent.fault_actions import FaultActions, Reply
from nodes.agent.limits import Limits
from nodes.agent.reception import Operation, Reception
from nodes.agent.relatives import RelativesService
from provider import ipc
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import STEPS
from provider.handoff.registry import TICKETS_MAX
from provider.handoff.tickets import ticket_number
from provider.process_identity import NoSuchProcess, Peer, open_process
from provider.sockets_switch import events
from provider.sockets_switch.shared_socket import Descriptor, SocketPhase
from provider.stack import HostStack

T = TypeVar("T")
PAUSE_MAX = 0.1
CONNECTING_FREELY = 32
"""Connections of one process that are being set up; each one more waits for room, for CONNECT_DELAY seconds at most."""
CONNECT_DELAY = 0.25
DUPLICATE_TIMEOUT = 15.0
"""Seconds; the switch gives up on a peer earlier (its suspend deadline)."""


class Driver(Protocol):
    """What drives the host stack: runs a command at the present instant, then carries its outputs away."""

    def command(self, function: Callable[[Instant], T]) -> T: ...


class ApplicationServer:
    """See the module text."""

    _GIVING: ClassVar[tuple[str, ...]] = ("WSPSocket", "WSPAccept", "reattach", "take")
    """Operations whose answer carries a descriptor."""

    def __init__(
        self,
        stack: HostStack,
        driver: Driver,
        journal: Journal,
        node: str,
        path: Path,
        clock: Callable[[], Instant],
        limits: Limits,
    ) -> None:
        self._stack = stack
        self._half = stack.half
        self._driver = driver
        self._journal = journal
        self._node = node
        self._clock = clock
        self._limits = limits
        self.channels = Channels(stack, driver)
        self._relatives = RelativesService(stack, driver, self.channels, clock)
        self._more = trio.Event()
        self._pause = 0.0
        """Seconds that the last command took while there was more to do."""
        self._going_back: dict[int, None] = {}
        """Numbers of tickets that lead back to a former owner: redeeming one is step 14, not 8."""
        self._duplicates: dict[int, tuple[trio.Event, list[events.SwitchEvent]]] = {}
        operations: dict[str, Operation] = {
            "attach": self._attach,
            "WSPSocket": self._socket,
            "WSPBind": self._bind,
            "WSPListen": self._listen,
            "WSPConnect": self._connect,
            "WSPAccept": self._accept,
            "WSPSend": self._send_urgent,
            "WSPRecv": self._receive_urgent,
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
        self._reception = Reception(
            path, limits, operations, self._GIVING, self._on_end, self._relatives.connection_ended, self._is_needed
        )
        self.faults = FaultActions(stack.core.faults, self._reception.pidfd_of)

    # ------------------------------------------------------------------ serving

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self.channels.nursery = nursery
                nursery.start_soon(self._do_the_rest)
                await self._reception.serve(nursery, task_status)
        finally:
            self.channels.close_all()

    def statistics(self) -> dict[str, Any]:
        """Counters, for leak checks."""
        stack = self._stack.statistics()
        return {
            **{key: getattr(stack, key) for key in ("processes", "sockets", "descriptors", "endpoints", "parked")},
            "lingering": len(self._half.core.lingering),
            **self._reception.statistics(),
            **self.channels.statistics(),
            "hand_overs_awaited": len(self._duplicates),
            "limits": dataclasses.asdict(self._limits),
        }

    def _on_end(self, process: ProcessInstance) -> None:
        """Release what the process held as soon as it has ended."""
        self._command(lambda now: self._half.detach(process, now))
        self.channels.tell_change()
        self._relatives.on_process_exit()

    async def _do_the_rest(self) -> None:
        """End what dead processes and closed listeners leave, in no more than half of our time."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._half.has_more_to_do:
                await trio.sleep(self._pause)
                self._command(self._half.do_some)

    def _is_needed(self, process: ProcessInstance) -> bool:
        """Whether its end matters to somebody."""
        return process in self._half.core.processes or self._half.core.registry.expects(process)

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
        name = "".join(c if c.isprintable() else "?" for c in ipc.member(request, "name", str, "")[:64])
        config = self._stack.config
        self._driver.command(lambda now: self._half.attach(peer.process, name, now))
        return {
            "host": config.name,
            "ip": config.ip,
            "pid": peer.process.pid,
            "names": config.names,
            "default_mode": config.default_mode,
        }, []

    def _socket(self, peer: Peer, request: dict[str, Any]) -> Awaitable[Reply] | Reply:
        if "info" in request:
            info = ipc.from_text(request["info"])
            step = 14 if ticket_number(info) in self._going_back else 8
            return self._step(step, peer, partial(self._redeem, peer, info, step))
        family, kind = ipc.member(request, "af", int), ipc.member(request, "type", int)
        protocol = ipc.member(request, "protocol", int, 0)
        with self.channels.new_pair() as pair:
            descriptor = self._command(lambda now: self._half.socket(peer.process, family, kind, protocol, now))
            return {"s": descriptor.s}, [self.channels.create(descriptor.s, pair)]

    def _step(self, step: int, peer: Peer, act: Callable[[], Awaitable[Reply] | Reply]) -> Awaitable[Reply] | Reply:
        """A step of the SAN scenario that is a call to us, with the faults that are planned for it."""
        return self.faults.carry_out(f"handoff.san.{step}", peer.process, act) if self.faults.armed else act()

    def _redeem(self, peer: Peer, info: bytes, step: int) -> Reply:
        self._record(f"handoff.san.{step}.before", peer, {})
        with self.channels.new_pair() as pair:
            descriptor = self._command(lambda now: self._half.redeem(peer.process, info, now))
            fd = self.channels.create(descriptor.s, pair)
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

    def _connect(self, peer: Peer, request: dict[str, Any]) -> Awaitable[Reply] | Reply:
        if self._connecting(peer) >= CONNECTING_FREELY:
            return self._connect_later(peer, request)
        return self._connect_now(peer, request)

    def _connecting(self, peer: Peer) -> int:
        attached = self._half.core.processes.get(peer.process)
        descriptors = () if attached is None else attached.descriptors.values()
        return sum(descriptor.socket.phase is SocketPhase.CONNECTING for descriptor in descriptors)

    async def _connect_later(self, peer: Peer, request: dict[str, Any]) -> Reply:
        """A set-up costs both hosts milliseconds; a crowd of them would hold others' acknowledgements up too long."""
        for _ in range(50):
            if self._connecting(peer) < CONNECTING_FREELY:
                break
            await trio.sleep(CONNECT_DELAY / 50)
        return self._connect_now(peer, request)

    def _connect_now(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, name = self._s(request), ipc.address(request)
        self._command(lambda now: self._half.connect(peer.process, s, name, now))
        return self._describe(self._half.core.descriptor(peer.process, s)), []

    def _accept(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        with self.channels.new_pair() as pair:
            descriptor = self._command(lambda now: self._half.accept(peer.process, s, now))
            fd = self.channels.create(descriptor.s, pair)
        self.channels.open(descriptor.s)
        return {**self._describe(descriptor), "s": descriptor.s}, [fd]

    def _send_urgent(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, byte = self._s(request), ipc.member(request, "urgent", int)
        if not 0 <= byte <= 0xFF:
            raise ipc.BadPacket("urgent data is one byte")
        self._half.core.descriptor(peer.process, s)
        self._command(lambda now: self.channels.pass_on(s, now))
        self._command(lambda now: self._half.send_urgent(peer.process, s, bytes([byte]), now))
        return {}, []

    def _receive_urgent(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s, peek = self._s(request), ipc.member(request, "peek", bool, False)
        return {"urgent": self._command(lambda now: self._half.receive_urgent(peer.process, s, peek, now))}, []

    def _shutdown(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        self._half.require_control(peer.process, s)
        self.channels.finish_sending(s)
        return {}, []

    def _close(self, peer: Peer, request: dict[str, Any]) -> Reply:
        s = self._s(request)
        self._command(lambda now: self._half.close(peer.process, s, now))
        self.channels.discard(s)
        return {}, []

    def _duplicate(self, peer: Peer, request: dict[str, Any]) -> Awaitable[Reply] | Reply:
        step = 10 if ipc.member(request, "back", bool, False) else 5
        return self._step(step, peer, partial(self._duplicate_now, peer, request, step))

    def _duplicate_now(self, peer: Peer, request: dict[str, Any], step: int) -> Awaitable[Reply]:
        s, pid, mode = self._s(request), ipc.member(request, "pid", int), ipc.member(request, "mode", str, None)
        self._half.core.descriptor(peer.process, s)  # WSAENOTSOCK comes first
        if self.channels.is_detached(s):
            raise WsaError(WsaErrno.WSAEINVAL, "a descriptor that was detached cannot be handed over")
        try:
            target, pidfd = open_process(pid)
        except NoSuchProcess as error:
            raise WsaError(WsaErrno.WSAEINVAL, str(error)) from None
        except OSError as error:
            raise WsaError(WsaErrno.WSAENOBUFS, f"the agent has no descriptor left ({error.strerror})") from None
        waiting: tuple[trio.Event, list[events.SwitchEvent]] = (trio.Event(), [])

        def begin(now: Instant) -> int:
            operation = self._half.duplicate(peer.process, s, target, mode, now)
            self._duplicates[operation] = waiting
            return operation

        try:
            self._reception.require_room(target)
            self._record(f"handoff.san.{step}.before", peer, {"target": pid})
            operation = self._command(begin)
        except WsaError:
            os.close(pidfd)
            raise
        self._reception.watch(target, pidfd)  # its death before the commit gives the socket back at once
        return self._outcome(peer, operation, waiting, step, pid)

    async def _outcome(
        self,
        peer: Peer,
        operation: int,
        waiting: tuple[trio.Event, list[events.SwitchEvent]],
        step: int,
        pid: int,
    ) -> Reply:
        """What became of a hand-over."""
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

    async def _mark(self, peer: Peer, request: dict[str, Any]) -> Reply:
        scenario = ipc.member(request, "scenario", str)
        step, moment = ipc.member(request, "step", int), ipc.member(request, "moment", str)
        if scenario not in ("san", "generic") or not 1 <= step <= 17 or moment not in ("before", "after"):
            raise ipc.BadPacket("a mark names scenario san or generic, step 1..17, moment before or after")
        if step > STEPS[scenario]:
            raise ipc.BadPacket(f"the scenario {scenario} has {STEPS[scenario]} steps")
        self._record(f"handoff.{scenario}.{step}.{moment}", peer, {})
        return {"copies": await self.faults.reach(f"handoff.{scenario}.{step}.{moment}", peer.process)}, []

    # ------------------------------------------------------------------------ helpers

    def _command(self, function: Callable[[Instant], T]) -> T:
        begun = self._clock()
        try:
            return self._driver.command(function)
        finally:
            if self._half.has_more_to_do:
                self._pause = min((self._clock() - begun) / SECOND, PAUSE_MAX)
                self._more.set()

    def _record(self, event: str, peer: Peer, members: dict[str, Any]) -> None:
        self._journal.record(self._clock(), self._node, event, pid=peer.process.pid, **members)

    @staticmethod
    def _s(request: dict[str, Any]) -> SocketHandle:
        return SocketHandle(ipc.member(request, "s", int))

    def _describe(self, descriptor: Descriptor) -> dict[str, Any]:
        return describe(self._half, descriptor, returned=self.channels.has_returned(descriptor.s))
