"""The driver of a node: one loop around one engine, its outgoing links, its channels, and one timer.

A frame arrives with its due instant and waits in the due queue; the engine sees it with ``now`` = that instant, in
order of (due, link, sequence), so the time that Python and zmq take does not add up over hops. Instants given to the
engine never go back. What the engine sends passes its link's model at once and leaves, with a due instant of its own,
in one envelope per neighbour and turn. There is no task and no log line per frame.

Neighbours hear a heartbeat every HEARTBEAT_INTERVAL on every link. The node is ``ready`` when it has heard all of
its neighbours; one that is not heard for SILENT_AFTER is reported as silent, and one that comes back with another boot
id as restarted: its envelopes count from zero again.
"""

import heapq
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from fabric.assembly import DirectedLink
from fabric.capture.tap import IN, OUT, TapSet
from fabric.engine import Engine
from fabric.link.model import FrameDropped, LinkModel
from fabric.live import envelope
from fabric.live.timer import Timer
from fabric.live.zmq_channel import NodeChannels
from fabric.units import MICROSECOND, SECOND, Duration, Instant

T = TypeVar("T")
FRAMES_PER_TURN = 512
BATCH_BYTES = envelope.ENVELOPE_MAX // 4
"""A batch of more bytes leaves at once: with the frames' headers and the last frame it stays within an envelope."""
AHEAD_MAX: Duration = 60 * SECOND
HEARTBEAT_INTERVAL: Duration = SECOND
SILENT_AFTER: Duration = 5 * SECOND
LATENESS_BOUNDS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 1_000_000_000)
"""Upper bounds of the lateness histogram, in microseconds."""


class _Outgoing:
    """A link that this node transmits on, and what waits to leave."""

    def __init__(self, link: DirectedLink, model: LinkModel) -> None:
        self.link, self.model = link, model
        self.batch: list[tuple[int, bytes]] = []
        self.size = 0
        """Bytes of the frames in ``batch``."""
        self.number = 0


class _Neighbour:
    """What is known of a node at the other end of a link."""

    def __init__(self) -> None:
        self.heard_at: Instant | None = None
        self.boot_id: int | None = None
        self.restarts = 0


class EventHandler(Protocol):
    """Takes the engine's events."""

    def __call__(self, event: object, now: Instant) -> None: ...


class NodeDriver:
    """See the module text."""

    def __init__(
        self,
        engine: Engine,
        outgoing: list[tuple[DirectedLink, LinkModel]],
        incoming: list[DirectedLink],
        channels: NodeChannels,
        on_event: EventHandler,
        boot_id: int = 0,
    ) -> None:
        self.engine = engine
        self.ready = trio.Event()
        """Set once every neighbour has been heard."""
        self.channels = channels
        self.taps = TapSet()
        self.lateness = [0] * len(LATENESS_BOUNDS)
        self.lost = 0
        """Frames lost outside the model: gaps between envelopes, full pipes, and what was no envelope."""
        self._outgoing = {link.source_port: _Outgoing(link, model) for link, model in outgoing}
        self._incoming = {link.index: link for link in incoming}
        self._expected = {link.index: 0 for link in incoming}
        self._on_event = on_event
        self._boot_id = boot_id
        self._neighbours = {link.source: _Neighbour() for link in incoming}
        self._heartbeat_at: Instant = 0
        self._due: list[tuple[Instant, int, int, bytes]] = []
        self._sequence = 0
        self._now: Instant = 0
        self._wake = trio.Event()
        self._timer = Timer()

    # ------------------------------------------------------------------- commands

    def command(self, function: Callable[[Instant], T]) -> T:
        """Run ``function`` on the engine now, after everything that was due before, and carry its outputs away."""
        self._process(time.monotonic_ns())
        self._now = max(self._now, time.monotonic_ns())
        try:
            return function(self._now)
        finally:
            settle = getattr(self.engine, "settle", None)
            if settle is not None:
                settle(self._now)
            self._drain()
            self._wake.set()

    def wake(self) -> None:
        """Something changed: take another turn."""
        self._wake.set()

    def links(self) -> dict[str, LinkModel]:
        """The outgoing links by name."""
        return {str(out.link.name): out.model for out in self._outgoing.values()}

    def neighbours(self) -> dict[str, dict[str, object]]:
        """Name -> state (``unheard``, ``up``, ``silent``) and how often it was restarted."""
        now = time.monotonic_ns()
        return {
            name: {"state": _state(neighbour, now), "restarts": neighbour.restarts}
            for name, neighbour in self._neighbours.items()
        }

    async def run(self) -> None:
        """Until cancelled."""
        if not self._neighbours:
            self.ready.set()
        async with trio.open_nursery() as nursery:
            for fd in self.channels.file_descriptors():
                nursery.start_soon(self._watch, fd)
            nursery.start_soon(self._watch_timer)
            try:
                while True:
                    self._wake = trio.Event()
                    if not self._turn():
                        await self._wake.wait()
                    else:
                        await trio.lowlevel.checkpoint()
            finally:
                nursery.cancel_scope.cancel()
                self._timer.close()

    # --------------------------------------------------------------------- private

    async def _watch(self, fd: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(fd)
            self._wake.set()
            await trio.lowlevel.checkpoint()

    async def _watch_timer(self) -> None:
        while True:
            await self._timer.wait()
            self._timer.acknowledge()
            # Frames that are due go first of all: the way over the loop and the channels would double their lateness.
            # Timeouts wait for the turn, since an acknowledgement in the channels may hold them off.
            now, deadline = time.monotonic_ns(), self.engine.poll_timeout()
            self._process(now if deadline is None else min(now, deadline - 1))
            self._flush()
            self._wake.set()

    def _turn(self) -> bool:
        """Receive, process, flush; true if there is more to do at once."""
        arrived, more = self.channels.drain()
        for peer, data in arrived:
            self._receive(peer, data)
        now = time.monotonic_ns()
        more = self._process(now) or more
        self._flush()
        if now >= self._heartbeat_at:
            self._send_heartbeats(now)
        if more or self.channels.has_input():
            return True
        head = self._due[0][0] if self._due else None
        deadline = self.engine.poll_timeout()
        self._timer.arm(min(instant for instant in (head, deadline, self._heartbeat_at) if instant is not None))
        return False

    def _receive(self, peer: str, data: bytes) -> None:
        try:
            found = envelope.decode(data)
        except envelope.MalformedEnvelope:
            self.lost += 1
            return
        link = self._incoming.get(found.link)
        if link is None or link.source != peer:
            self.lost += 1
            return
        self._hear(peer, found.boot_id)
        self.lost += max(0, found.number - self._expected[found.link])
        if found.kind == envelope.HEARTBEAT:
            self._expected[found.link] = max(self._expected[found.link], found.number)
            return
        self._expected[found.link] = found.number + 1
        latest = time.monotonic_ns() + AHEAD_MAX
        for due, frame in found.frames:
            self._sequence += 1
            heapq.heappush(self._due, (min(due, latest), found.link, self._sequence, frame))

    def _hear(self, peer: str, boot_id: int) -> None:
        """The neighbour is there; if it was not before, tell it that we are."""
        neighbour = self._neighbours[peer]
        neighbour.heard_at = time.monotonic_ns()
        if neighbour.boot_id == boot_id:
            return
        if neighbour.boot_id is not None:
            neighbour.restarts += 1
        neighbour.boot_id = boot_id
        for link in self._incoming.values():
            if link.source == peer:
                self._expected[link.index] = 0
        self._heartbeat_at = 0
        if all(each.boot_id is not None for each in self._neighbours.values()):
            self.ready.set()

    def _send_heartbeats(self, now: Instant) -> None:
        self._heartbeat_at = now + HEARTBEAT_INTERVAL
        for out in self._outgoing.values():
            if self.channels.can_reach(out.link.sink):
                data = envelope.encode_heartbeat(out.link.index, self._boot_id, out.number)
                self.channels.send(out.link.sink, data)

    def _process(self, until: Instant) -> bool:
        """Frames and timeouts due by ``until``, in order; true if work is left."""
        due, engine = self._due, self.engine
        for _ in range(FRAMES_PER_TURN):
            deadline = engine.poll_timeout()
            if due and due[0][0] <= until and (deadline is None or due[0][0] <= deadline):
                instant, index, _, frame = heapq.heappop(due)
                link = self._incoming[index]
                self._note_lateness(instant)
                self._now = max(self._now, instant)
                if self.taps.active:
                    self.taps.capture(self._now, link.name, IN, frame)
                engine.handle_frame(link.sink_port, frame, self._now)
            elif deadline is not None and deadline <= until:
                self._now = max(self._now, deadline)
                engine.handle_timeout(self._now)
            else:
                return False
            self._drain()
        return True

    def _drain(self) -> None:
        """Carry the engine's frames and events away until it has none."""
        engine, now, outgoing = self.engine, self._now, self._outgoing
        while True:
            transmit = engine.poll_transmit(now)
            if transmit is not None:
                self._send(outgoing[transmit.port], transmit.frame, now)
                continue
            event = engine.poll_event()
            if event is None:
                return
            self._on_event(event, now)

    def _send(self, out: _Outgoing, frame: bytes, now: Instant) -> None:
        model = out.model
        model.handle_frame(0, frame, now)
        comment = ""
        while (moved := model.poll_transmit(now)) is not None:
            out.batch.append((moved.at, moved.frame))
            out.size += len(moved.frame)
        if out.size >= BATCH_BYTES:
            self._flush_link(out)
        while (event := model.poll_event()) is not None:
            if isinstance(event, FrameDropped):
                comment = event.comment
        if self.taps.active:
            self.taps.capture(now, out.link.name, OUT, frame, comment)

    def _flush(self) -> None:
        for out in self._outgoing.values():
            if out.batch:
                self._flush_link(out)

    def _flush_link(self, out: _Outgoing) -> None:
        data = envelope.encode(out.link.index, self._boot_id, out.number, out.batch)
        out.number += 1
        if not self.channels.send(out.link.sink, data):
            self.lost += len(out.batch)
        out.batch, out.size = [], 0

    def _note_lateness(self, due: Instant) -> None:
        late = (time.monotonic_ns() - due) // MICROSECOND
        for index, bound in enumerate(LATENESS_BOUNDS):
            if late <= bound:
                self.lateness[index] += 1
                return


def _state(neighbour: _Neighbour, now: Instant) -> str:
    if neighbour.heard_at is None:
        return "unheard"
    return "up" if now - neighbour.heard_at < SILENT_AFTER else "silent"
