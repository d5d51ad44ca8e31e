"""The agent's service for what processes inherit over fork: descriptors for the child, and control for who uses one.

A relative that wants to read and finds nothing to read gets, instead of control, a duplicate of the channel's end that
the controlling process has: select and poll on it tell when to ask again. One that is given control keeps it until it
has moved a byte, or TENURE has passed, so that two who want the same byte do not take it from each other for ever;
who asks meanwhile waits in line.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from fabric.ids import SocketHandle
from fabric.units import MILLISECOND, Instant
from nodes.agent.channels import Channels
from provider import ipc
from provider.errors import WsaErrno, WsaError
from provider.process_identity import NoSuchProcess, Peer, parent_of
from provider.sockets_switch.shared_socket import Descriptor, SharedSocket, SocketPhase
from provider.stack import HostStack

T = TypeVar("T")
TENURE = 50 * MILLISECOND
_STEP = 0.001
"""Seconds between two looks whether a relative has moved its byte; the kernel tells nobody that a process has read."""
Reply = tuple[dict[str, Any], list[int]]


class Driver(Protocol):
    """See :class:`nodes.agent.applications.Driver`."""

    def command(self, function: Callable[[Instant], T]) -> T: ...


class RelativesService:
    """See the module text."""

    def __init__(self, stack: HostStack, driver: Driver, channels: Channels, clock: Callable[[], Instant]) -> None:
        self._half = stack.half
        self._driver = driver
        self._channels = channels
        self._clock = clock
        self._turns: dict[SharedSocket, trio.Lock] = {}
        self._taken_at: dict[SocketHandle, Instant] = {}
        self._leases: dict[int, list[SocketHandle]] = {}
        """Connection of a child (its ``Peer``'s id) -> what it inherited. It closes at exec, and so do descriptors."""

    def inherit(self, peer: Peer, request: dict[str, Any]) -> Reply:
        """The child's numbers for its parent's descriptors, without those that are not to be had.

        WSAEINVAL if the parent, by the kernel's word, has ended.
        """
        wanted = ipc.member(request, "descriptors", list)
        try:
            parent = parent_of(peer.process)
        except NoSuchProcess as error:
            raise WsaError(WsaErrno.WSAEINVAL, f"nothing can be inherited: {error}") from None
        made: list[list[int]] = []
        lease = self._leases.setdefault(id(peer), [])
        for s in wanted:
            if not isinstance(s, int) or self._channels.is_detached(SocketHandle(s)):
                continue
            with contextlib.suppress(WsaError):
                one = partial(self._half.relatives.inherit, parent, SocketHandle(s), peer.process)
                descriptor = self._driver.command(one)
                holder = self._half.core.controlling(descriptor.socket)
                if holder is not None:
                    self._channels.inherit_watch(holder.s, SocketHandle(s), descriptor.s)
                made.append([s, descriptor.s])
                lease.append(descriptor.s)
        return {"descriptors": made}, []

    def connection_ended(self, peer: Peer) -> None:
        """A connection of a process is closed. If it was the one that inherited, the process has ended, or runs another
        program now, which knows nothing of what it inherited: what it has not used and does not control is closed.
        """
        core = self._half.core
        for s in self._leases.pop(id(peer), []):
            descriptor = core.descriptors.get(s)
            if descriptor is None or descriptor.closing or descriptor.exited:
                continue
            if descriptor.closed_before or core.controlling(descriptor.socket) is not descriptor:
                self._driver.command(partial(self._half.close, peer.process, s))
                self._channels.discard(s)

    async def take(self, peer: Peer, request: dict[str, Any]) -> Reply:
        """Control for a relative of who has it, or, if it is to read and nothing is there, a channel to wait on."""
        s, reading = SocketHandle(ipc.member(request, "s", int)), ipc.member(request, "reading", bool)
        socket = self._half.core.descriptor(peer.process, s).socket
        turn = self._turns.setdefault(socket, trio.Lock())
        try:
            async with turn:
                return await self._take(peer, s, reading)
        finally:
            if not turn.statistics().tasks_waiting and not turn.locked():
                self._turns.pop(socket, None)

    def on_process_exit(self) -> None:
        """A process that had read the sign of a waiting connection may have died before it accepted it."""
        core = self._half.core
        self._taken_at = {s: at for s, at in self._taken_at.items() if s in core.descriptors}
        for socket in core.sockets.values():
            if socket.phase is SocketPhase.LISTENING and (holder := core.controlling(socket)) is not None:
                self._channels.top_up(holder.s)

    # ------------------------------------------------------------------ private

    async def _take(self, peer: Peer, s: SocketHandle, reading: bool) -> Reply:
        core = self._half.core
        while True:
            descriptor = core.descriptor(peer.process, s)
            socket = descriptor.socket
            holder = core.controlling(socket)
            if holder is descriptor:
                fd = self._channels.take_returned(s)
                return {"granted": True}, [] if fd is None else [fd]
            if socket.ended:
                raise WsaError(socket.error or WsaErrno.WSAECONNABORTED, "the connection is gone")
            if holder is None or not descriptor.is_relative(holder):
                raise WsaError(WsaErrno.WSAEINVAL, "a process that is no relative controls the socket")
            if self._channels.is_detached(holder.s):
                raise WsaError(WsaErrno.WSAEINVAL, "a descriptor that was detached cannot be handed over")
            if reading and not self._something_to_read(holder):
                end = self._channels.watch(holder.s, s)
                if end is not None:
                    return {"granted": False}, [end]
            if not self._is_tenured(holder):
                break
            await trio.sleep(_STEP)
        with self._channels.new_pair() as pair:
            self._driver.command(lambda now: self._half.relatives.take(descriptor, now))
            if core.controlling(socket) is not descriptor:
                raise WsaError(WsaErrno.WSAENOBUFS, "control could not be taken; try again")
            self._taken_at[s] = self._clock()
            fd = self._channels.create(s, pair)
        self._channels.offer(s)
        return {"granted": True}, [fd]

    def _something_to_read(self, holder: Descriptor) -> bool:
        socket = holder.socket
        if socket.phase is SocketPhase.LISTENING:
            return False  # relatives accept side by side
        if socket.session is None:
            return True  # there never will be, and the caller shall hear why
        return bool(self._channels.under_way(holder.s)[0] or socket.session.unread or socket.session.peer_finished)

    def _is_tenured(self, holder: Descriptor) -> bool:
        since = self._taken_at.get(holder.s)
        if since is None:
            return False
        unread, written = self._channels.under_way(holder.s)
        moved = not self._half.core.registry.is_untouched(holder.socket.number) or written or unread < holder.given
        if moved or self._clock() - since >= TENURE:
            del self._taken_at[holder.s]
            return False
        return True
