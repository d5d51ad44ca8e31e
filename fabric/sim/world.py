"""The virtual-time world: every node of a topology in one process, on a clock that jumps from event to event.

Frames wait in a heap ordered by (due, link, sequence), as in a live node's due queue, so the same seed and topology
give the same run, byte for byte, under any hash seed. Ties between a frame and a timeout go to the frame.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import TypeVar

from fabric.assembly import DirectedLink, Plan
from fabric.engine import Engine
from fabric.journal import Journal
from fabric.link.model import FrameDropped, LinkModel
from fabric.units import Instant

T = TypeVar("T")
STEPS_MAX = 50_000_000
"""Against livelock: a run of more steps is a bug of ours."""


class World:
    """Drive it with ``at``, ``command`` and ``run_until``; events of hosts go to ``on_event(node, event, now)``."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        hosts: Mapping[str, Engine],
        journal: Journal,
        *,
        on_event: Callable[[str, object, Instant], None] | None = None,
        frame_records: bool = False,
    ) -> None:
        self.now: Instant = 0
        self._journal = journal
        self._on_event = on_event
        self._frame_records = frame_records
        self._engines: dict[str, Engine] = dict(hosts)
        for name in plan.topology.network_switches:
            self._engines[name] = plan.network_switch(name)
        self._links: dict[tuple[str, int], tuple[DirectedLink, LinkModel]] = {
            (link.source, link.source_port): (link, plan.link_model(link, seed)) for link in plan.links
        }
        self._heap: list[tuple[Instant, int, int, DirectedLink, bytes]] = []
        self._calls: list[tuple[Instant, int, Callable[[], object]]] = []
        self._sequence = 0
        self.steps = 0

    def at(self, instant: Instant, call: Callable[[], object]) -> None:
        """Call ``call`` when the clock reaches ``instant``, before frames and timeouts of that instant."""
        self._sequence += 1
        heapq.heappush(self._calls, (instant, self._sequence, call))

    def command(self, node: str, function: Callable[[Instant], T]) -> T:
        """Run ``function(now)`` on a node and carry its outputs away."""
        try:
            return function(self.now)
        finally:
            settle = getattr(self._engines[node], "settle", None)
            if settle is not None:
                settle(self.now)
            self._drain(node)

    def run_until(self, instant: Instant) -> None:
        """Process everything up to and including ``instant``."""
        while self._step(instant):
            pass
        self.now = max(self.now, instant)

    def run_while(self, condition: Callable[[], bool], limit: Instant) -> bool:
        """Go on while ``condition()`` holds, at most until ``limit``; whether it ended in time."""
        while condition():
            if not self._step(limit):
                return False
        return True

    def link_models(self) -> dict[str, LinkModel]:
        """All links by name."""
        return {str(link.name): model for link, model in self._links.values()}

    # ------------------------------------------------------------------ private

    def _step(self, limit: Instant) -> bool:
        """The next thing that happens by ``limit``; false if there is none."""
        self.steps += 1
        assert self.steps < STEPS_MAX, "the simulation does not come to rest"
        timeout: tuple[Instant, str] | None = None
        for name, engine in self._engines.items():
            deadline = engine.poll_timeout()
            if deadline is not None and (timeout is None or deadline < timeout[0]):
                timeout = deadline, name
        candidates = [self._calls[0][0]] if self._calls else []
        candidates += [self._heap[0][0]] if self._heap else []
        candidates += [max(timeout[0], self.now)] if timeout is not None else []
        if not candidates or min(candidates) > limit:
            return False
        self.now = max(self.now, min(candidates))
        if self._calls and self._calls[0][0] <= self.now:
            heapq.heappop(self._calls)[2]()
        elif self._heap and self._heap[0][0] <= self.now:
            _, _, _, link, frame = heapq.heappop(self._heap)
            self._engines[link.sink].handle_frame(link.sink_port, frame, self.now)
            self._drain(link.sink)
        elif timeout is not None:
            self._engines[timeout[1]].handle_timeout(self.now)
            self._drain(timeout[1])
        return True

    def _drain(self, node: str) -> None:
        engine, now = self._engines[node], self.now
        while True:
            transmit = engine.poll_transmit(now)
            if transmit is not None:
                self._send(*self._links[node, transmit.port], transmit.frame)
                continue
            event = engine.poll_event()
            if event is None:
                return
            if self._on_event is not None:
                self._on_event(node, event, now)

    def _send(self, link: DirectedLink, model: LinkModel, frame: bytes) -> None:
        now = self.now
        model.handle_frame(0, frame, now)
        while (moved := model.poll_transmit(now)) is not None:
            self._sequence += 1
            heapq.heappush(self._heap, (moved.at, link.index, self._sequence, link, moved.frame))
            if self._frame_records:
                self._journal.record(now, link.source, "frame.sent", link=link.name, due=moved.at, size=len(frame))
        while (event := model.poll_event()) is not None:
            if isinstance(event, FrameDropped):
                self._journal.record(now, link.source, "frame.dropped", link=link.name, reason=event.reason)
