"""The driver of a node: one loop around one engine, its outgoing links, its channels, and one timer.

A frame arrives with its due instant and waits in the due queue; the engine sees it with ``now`` = that instant, in
order of (due, link, sequence), so the time that Python and zmq take does not add up over hops. Instants given to the
engine never go back. What the engine sends passes its link's model at once and leaves, with a due instant of its own,
in one envelope per neighbour and turn. There is no task and no log line per frame.

Neighbours hear a heartbeat every HEARTBEAT_INTERVAL on every link. The node is ``ready`` when it has heard all of
its neighbours and knows how their clocks stand to its own (:mod:`fabric.live.clock_offset`); one that is not heard
for SILENT_AFTER is reported as silent, and one that comes back with another boot id as restarted: its envelopes count
from zero again.
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
from fabric.live.neighbour import AHEAD_MAX, Neighbour
from fabric.live.timer import Timer
from fabric.live.zmq_channel import NodeChannels
from fabric.units import MICROSECOND, MILLISECOND, SECOND, Duration, Instant

T = TypeVar("T")
FRAMES_PER_TURN = 512
LONGEST_TURN: Duration = 20 * MILLISECOND
"""Then what was sent leaves, acknowledgements above all: some frames cost milliseconds (connections begin and end)."""
BATCH_BYTES = envelope.ENVELOPE_MAX // 4
"""A batch of more bytes leaves at once: with the frames' headers and the last frame it stays within an envelope."""
HEARTBEAT_INTERVAL: Duration = SECOND
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
        machine: bytes = bytes(envelope.MACHINE_SIZE),
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
        self._machine = machine
        self._neighbours = {link.source: Neighbour(machine, link.settings.latency) for link in incoming}
        self._heartbeat_at: Instant = 0
        self._due: list[tuple[Instant, int, int, bytes]] = []
        self._sequence = 0
        self._now: Instant = 0
        self._draining = False
        self._wake = trio.Event()
        self._timer = Timer()

    # ------------------------------------------------------------------- commands

    def command(self, function: Callable[[Instant], T]) -> T:
        """Run ``function`` on the engine now, after everything that was due before, and carry its outputs away.

        Not for handlers of events: they are inside a turn already, and have the engine to themselves.
        """
        assert not self._draining, "an event handler began another turn"
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
        """Name -> what is known of the node at the other end."""
        now = time.monotonic_ns()
        return {name: neighbour.describe(now) for name, neighbour in self._neighbours.items()}

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
        probe_at = self._send_probes(now)
        if more or self.channels.has_input():
            return True
        head = self._due[0][0] if self._due else None
        deadline = self.engine.poll_timeout()
        instants = (head, deadline, probe_at, self._heartbeat_at)
        self._timer.arm(min(instant for instant in instants if instant is not None))
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
        neighbour = self._neighbours[peer]
        arrival = time.monotonic_ns()
        if neighbour.hear(found.boot_id, arrival):
            for each in self._incoming.values():
                if each.source == peer:
                    self._expected[each.index] = 0
            self._heartbeat_at = 0  # tell it at once that we are here
        self.lost += max(0, found.number - self._expected[found.link])
        if found.kind != envelope.FRAMES:
            self._expected[found.link] = max(self._expected[found.link], found.number)
            self._hear_of_clock(peer, neighbour, found, arrival)
            return
        self._expected[found.link] = found.number + 1
        frames = found.frames
        if not neighbour.clock.is_same:
            frames = neighbour.in_our_time(frames, found.sent, arrival)
        latest = arrival + AHEAD_MAX
        for due, frame in frames:
            self._sequence += 1
            heapq.heappush(self._due, (min(due, latest), found.link, self._sequence, frame))

    def _hear_of_clock(self, peer: str, neighbour: Neighbour, found: envelope.Envelope, arrival: Instant) -> None:
        """A heartbeat, a probe or an answer."""
        if found.kind == envelope.HEARTBEAT:
            neighbour.clock.handle_machine(found.body)
        elif found.kind == envelope.ANSWER:
            t1, t2 = envelope.decode_answer(found.body)
            neighbour.clock.handle_answer(t1, t2, found.sent, arrival)
        elif (out := self._link_to(peer)) is not None:
            data = envelope.encode_answer(
                out.link.index, self._boot_id, out.number, found.sent, arrival, time.monotonic_ns()
            )
            self.channels.send(peer, data)
        if all(each.is_ready for each in self._neighbours.values()):
            self.ready.set()

    def _send_probes(self, now: Instant) -> Instant | None:
        """Ask neighbours with other clocks for their time; returns when the next question is due."""
        earliest: Instant | None = None
        for peer, neighbour in self._neighbours.items():
            clock = neighbour.clock
            if clock.is_same:
                continue
            out = self._link_to(peer)
            if out is not None and (t1 := clock.poll_probe(now)) is not None:
                self.channels.send(peer, envelope.encode_probe(out.link.index, self._boot_id, out.number, t1))
            due = clock.poll_timeout()
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def _link_to(self, peer: str) -> _Outgoing | None:
        found = next((out for out in self._outgoing.values() if out.link.sink == peer), None)
        return found if found is not None and self.channels.can_reach(peer) else None

    def _send_heartbeats(self, now: Instant) -> None:
        self._heartbeat_at = now + HEARTBEAT_INTERVAL
        for out in self._outgoing.values():
            if self.channels.can_reach(out.link.sink):
                data = envelope.encode_heartbeat(out.link.index, self._boot_id, out.number, now, self._machine)
                self.channels.send(out.link.sink, data)

    def _process(self, until: Instant) -> bool:
        """Frames and timeouts due by ``until``, in order; true if work is left."""
        due, engine = self._due, self.engine
        stop = time.monotonic_ns() + LONGEST_TURN
        for _ in range(FRAMES_PER_TURN):
            if time.monotonic_ns() > stop:
                return True
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
        self._draining = True
        try:
            while True:
                transmit = engine.poll_transmit(now)
                if transmit is not None:
                    self._send(outgoing[transmit.port], transmit.frame, now)
                    continue
                event = engine.poll_event()
                if event is None:
                    return
                self._on_event(event, now)
        finally:
            self._draining = False

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
        data = envelope.encode(out.link.index, self._boot_id, out.number, time.monotonic_ns(), out.batch)
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
