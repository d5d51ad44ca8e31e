"""All data channels of an agent: one reading task each, and a writing task only while a process is slow to read."""

import contextlib
import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, TypeVar

import trio

from fabric.ids import SocketHandle
from fabric.units import Instant
from nodes.agent.data_channel import DataChannel, Revoked
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch import events
from provider.sockets_switch.shared_socket import Descriptor
from provider.stack import HostStack

T = TypeVar("T")
GIVE_AT_ONCE = 1 << 17


class Driver(Protocol):
    """See :class:`nodes.agent.applications.Driver`."""

    def command(self, function: Callable[[Instant], T]) -> T: ...


class _Channel:
    """A data channel and what its tasks wait for."""

    def __init__(self, descriptor: Descriptor, pair: DataChannel) -> None:
        self.s = descriptor.s
        self.descriptor = descriptor
        self.watchers: set[SocketHandle] = set()
        """Relatives that have a duplicate of the process's end, to wait on."""
        self.pair = pair
        self.hang_up: select.epoll | None = None
        """Tells that the process has closed a detached end."""
        self.is_open = False
        self.space = trio.Event()
        self.writing = False
        self.finished = False
        """The process's sending direction has been read to its end."""


class Channels:
    """Commands of the application server and events of the stack, turned into bytes."""

    def __init__(self, stack: HostStack, driver: Driver) -> None:
        self._stack = stack
        self._half = stack.half
        self._driver = driver
        self._channels: dict[SocketHandle, _Channel] = {}
        self._returned: dict[SocketHandle, None] = {}
        self._change = trio.Event()
        self.nursery: trio.Nursery

    # ------------------------------------------------------- for the application server

    @contextlib.contextmanager
    def new_pair(self) -> Iterator[DataChannel]:
        """A pair for a descriptor that is about to be made, while there is nothing to undo; closed again if that
        fails. WSAENOBUFS when the agent has no file descriptor left.
        """
        try:
            pair = DataChannel()
        except OSError as error:
            raise WsaError(WsaErrno.WSAENOBUFS, f"the agent has no descriptor left ({error.strerror})") from None
        try:
            yield pair
        except BaseException:
            pair.close()
            raise

    def create(self, s: SocketHandle, pair: DataChannel) -> int:
        """The channel of ``s``, not yet writable; returns the process's end."""
        channel = self._channels[s] = _Channel(self._half.core.descriptors[s], pair)
        return channel.pair.process_end.fileno()

    def statistics(self) -> dict[str, int]:
        """Counters, for leak checks."""
        return {"channels": len(self._channels), "channels_returned": len(self._returned)}

    def offer(self, s: SocketHandle) -> None:
        """The channel of a descriptor that has taken a socket over: a connection's is opened, a listener's tells of
        what waits, another one waits for the connection to be made.
        """
        self._driver.command(partial(self._offer, s))

    def open(self, s: SocketHandle) -> None:
        """Bytes may move."""
        self._driver.command(partial(self._open, s))

    def _offer(self, s: SocketHandle, now: Instant) -> None:
        descriptor = self._half.core.descriptors[s]
        if descriptor.socket.session is not None:
            self._open(s, now)
        for _ in descriptor.socket.queue:
            self._channels[s].pair.signal_waiting()

    def _open(self, s: SocketHandle, now: Instant) -> None:
        channel = self._channels.get(s)
        if channel is None or channel.is_open:
            return
        descriptor = self._half.core.descriptors.get(s)
        if descriptor is None or not descriptor.has_channel:
            channel.pair.reset()
            return
        channel.is_open = True
        channel.pair.open()
        self.nursery.start_soon(self._read, channel)
        self._give(channel, now)

    def pass_on(self, s: SocketHandle, now: Instant) -> None:
        """What the process has written so far goes to the session at once: urgent data is about to follow it."""
        channel = self._channels.get(s)
        if channel is not None and channel.is_open and not channel.pair.closed and self._half.send_space(s):
            while data := channel.pair.take(GIVE_AT_ONCE):
                self._half.send(s, data, now)

    def finish_sending(self, s: SocketHandle) -> None:
        """The process shuts its sending direction down: the reading task finds the end after the last byte."""
        channel = self._channels.get(s)
        if channel is not None and channel.is_open and not channel.pair.closed:
            channel.pair.finish_sending()

    def detach(self, s: SocketHandle, close: Callable[[], object]) -> None:
        """The process's end is the process's alone: ``close`` is called when its last duplicate is closed."""
        channel = self._channels.get(s)
        if channel is not None and not channel.pair.closed and not channel.pair.detached:
            channel.pair.detach()
            try:
                channel.hang_up = select.epoll()  # in place of the descriptor that was just closed
            except OSError as error:
                raise WsaError(WsaErrno.WSAENOBUFS, f"the agent has no descriptor left ({error.strerror})") from None
            channel.hang_up.register(channel.pair.agent_end, 0)  # a hang-up is told in any case
            self.nursery.start_soon(self._watch_end, channel, close)

    def is_detached(self, s: SocketHandle) -> bool:
        """Whether ``detach`` was called."""
        channel = self._channels.get(s)
        return channel is not None and channel.pair.detached

    async def _watch_end(self, channel: _Channel, close: Callable[[], object]) -> None:
        try:
            if channel.hang_up is not None:
                await trio.lowlevel.wait_readable(channel.hang_up.fileno())
        except trio.ClosedResourceError:
            return
        if channel.hang_up is not None and self._channels.get(channel.s) is channel:
            with contextlib.suppress(WsaError):
                close()

    def has_returned(self, s: SocketHandle) -> bool:
        """Whether a fresh channel waits for the process to fetch it."""
        return s in self._returned and not self._channels[s].pair.closed

    async def changed(self) -> None:
        """Wait until control of some socket may have moved."""
        await self._change.wait()

    def tell_change(self) -> None:
        """Wake all who wait in ``changed``."""
        self._change.set()
        self._change = trio.Event()

    def take_returned(self, s: SocketHandle) -> int | None:
        """The fresh channel's process end, once."""
        if not self.has_returned(s):
            return None
        if s not in self._channels:
            with self.new_pair() as pair:
                self.create(s, pair)
            self.offer(s)
        del self._returned[s]
        self._half.claimed(s)
        return self._channels[s].pair.process_end.fileno()

    def watch(self, s: SocketHandle, watcher: SocketHandle) -> int | None:
        """The process's end of a live channel, for a relative that waits on it; ``None`` if there is none."""
        channel = self._channels.get(s)
        if channel is None or channel.pair.closed or channel.pair.detached:
            return None
        channel.watchers.add(watcher)
        return channel.pair.process_end.fileno()

    def inherit_watch(self, s: SocketHandle, parent: SocketHandle, child: SocketHandle) -> None:
        """What the parent has, its own channel or a duplicate of ``s``'s, its child has too."""
        channel = self._channels.get(s)
        if channel is not None and (parent == s or parent in channel.watchers):
            channel.watchers.add(child)

    def under_way(self, s: SocketHandle) -> tuple[int, int]:
        """Bytes in the channel that the process has not read, and that it wrote and the agent has not read."""
        channel = self._channels.get(s)
        return (0, 0) if channel is None or channel.pair.closed else channel.pair.under_way()

    def top_up(self, s: SocketHandle) -> None:
        """A listener's channel tells of as many connections as wait, also if one that took a sign died over it."""
        descriptor = self._half.core.descriptors.get(s)
        channel = self._channels.get(s)
        if descriptor is not None and channel is not None and not channel.pair.closed:
            for _ in range(len(descriptor.socket.queue) - channel.pair.under_way()[0]):
                channel.pair.signal_waiting()

    def discard(self, s: SocketHandle) -> None:
        """The descriptor is closed."""
        self._returned.pop(s, None)
        channel = self._channels.pop(s, None)
        if channel is not None and channel.pair.fileno() != -1:
            self._close(channel, channel.pair.close)

    async def _discard_soon(self, s: SocketHandle) -> None:
        self.discard(s)

    def close_all(self) -> None:
        """The agent ends."""
        for channel in self._channels.values():
            channel.pair.close()

    # ------------------------------------------------------------------ events of the stack

    def on_event(self, event: object, now: Instant) -> None:
        """One event that concerns a channel. We are inside a turn of the driver: nothing here may begin another, or
        many events at once would go deeper and deeper.
        """
        s: SocketHandle = event.s  # type: ignore[attr-defined]
        if isinstance(event, events.RevokeChannel):
            self._revoke(s, now)
            return
        if isinstance(event, events.DescriptorGone):
            self.nursery.start_soon(self._discard_soon, s)  # an heir may take the channel over within this turn
        elif isinstance(event, events.ControlReturned):
            self._revive(s, now)
        else:
            self._tell(event, s, now)
        self._stack.settle(now)

    def _tell(self, event: object, s: SocketHandle, now: Instant) -> None:
        channel = self._channels.get(s)
        if channel is None or channel.pair.closed:
            return
        if isinstance(event, events.Readable | events.PeerFinished):
            if channel.is_open:
                self._give(channel, now)
        elif isinstance(event, events.Writable):
            channel.space.set()
        elif isinstance(event, events.ChannelOpened):
            self._open(s, now)
        elif isinstance(event, events.ConnectionWaiting):
            channel.pair.signal_waiting()
        elif isinstance(event, events.ChannelReset):
            self._give(channel, now)
            self._close(channel, channel.pair.reset)
        elif isinstance(event, events.ConnectFailed):
            self._close(channel, channel.pair.reset)

    def _revoke(self, s: SocketHandle, now: Instant) -> None:
        self._returned.pop(s, None)  # handed on before the process fetched it
        channel = self._channels.get(s)
        if channel is None or channel.pair.closed or not channel.is_open:
            if channel is not None and not channel.pair.closed:
                self._close(channel, channel.pair.close)
            self._half.channel_revoked(s, b"", b"", False, now)
        else:
            found = Revoked(b"", b"", False)

            def revoke() -> None:
                nonlocal found
                found = channel.pair.revoke()

            self._close(channel, revoke)
            finished = found.finished and not channel.finished
            self._half.channel_revoked(s, found.accepted, found.unread, finished, now, overflow=found.overflow)
        descriptor = self._half.core.descriptors.get(s)
        if descriptor is None or descriptor.exited:
            self.discard(s)
        self._stack.settle(now)

    def _revive(self, s: SocketHandle, now: Instant) -> None:
        """Control returned: a fresh channel, which the process fetches with ``reattach``."""
        descriptor = self._half.core.descriptors[s]
        for old in self._channels.values():
            left = old.descriptor.socket is descriptor.socket and old.s not in self._half.core.descriptors
            if left and s in old.watchers and not old.pair.closed and not old.is_open:
                # A listener's: all relatives wait on this pair, in event loops perhaps. It goes on as the heir's.
                del self._channels[old.s]
                old.s, old.descriptor = s, descriptor
                self._channels[s] = old
                self.top_up(s)
                return
        self._returned[s] = None
        self._channels.pop(s, None)
        with contextlib.suppress(WsaError):  # without a descriptor left, when the process asks for it
            with self.new_pair() as pair:
                self.create(s, pair)
            self._offer(s, now)
        self.tell_change()

    # ---------------------------------------------------------------------------- moving bytes

    async def _read(self, channel: _Channel) -> None:
        """From the process to the session, as far as the session takes."""
        s, pair, half = channel.s, channel.pair, self._half
        while not pair.closed:
            space = half.send_space(s)
            if not space:
                channel.space = trio.Event()
                await channel.space.wait()
                continue
            data = pair.take(space)
            if data is None:
                try:
                    await trio.lowlevel.wait_readable(pair.agent_end)
                except trio.ClosedResourceError:
                    return
            elif data:
                self._driver.command(partial(half.send, s, data))
                await trio.lowlevel.checkpoint()
            else:
                channel.finished = True
                self._driver.command(lambda now: self._finish(channel, now))
                return

    def _finish(self, channel: _Channel, now: Instant) -> None:
        descriptor = self._half.core.descriptors.get(channel.s)
        if descriptor is None or not descriptor.has_channel:
            return
        try:
            self._half.shutdown_send(descriptor.owner.process, channel.s, now)
        except WsaError:
            return  # the connection went away in the meantime; the process hears that on its descriptor

    def _give(self, channel: _Channel, now: Instant) -> None:
        """From the session to the process, as much as its pair takes."""
        half, pair, s = self._half, channel.pair, channel.s
        while not pair.closed:
            data = half.peek(s, GIVE_AT_ONCE)
            if not data:
                break
            count = pair.give(data)
            if count:
                half.consume(s, count, now)
            if count < len(data):
                if not channel.writing:
                    channel.writing = True
                    self.nursery.start_soon(self._write, channel)
                return
        if s in half.core.descriptors and half.peer_finished(s):
            pair.show_end()

    async def _write(self, channel: _Channel) -> None:
        """Wait until a slow process has read, then go on."""
        try:
            if channel.pair.closed:  # it was revoked between the start of this task and its first step
                return
            await trio.lowlevel.wait_writable(channel.pair.agent_end)
        except trio.ClosedResourceError:
            return
        finally:
            channel.writing = False
        if not channel.pair.closed:
            self._driver.command(lambda now: self._give(channel, now))

    def _close(self, channel: _Channel, how: Callable[[], None]) -> None:
        trio.lowlevel.notify_closing(channel.pair.agent_end)
        how()
        hang_up = channel.hang_up
        if hang_up is not None and channel.pair.fileno() == -1:
            channel.hang_up = None
            trio.lowlevel.notify_closing(hang_up.fileno())
            hang_up.close()
        elif hang_up is not None:  # a reset: both directions are shut by us, and the next news is the process's closing
            hang_up.modify(channel.pair.agent_end, select.EPOLLET)
            hang_up.poll(0)
        channel.space.set()
