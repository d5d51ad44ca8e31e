"""The virtual-time world: all engines of a topology in one process.

Order at one instant: frames by (link index, sequence), then scheduled calls in the order of ``at``, then engine
timeouts by node in the order of the file. Nothing else decides, so the same seed gives the same journal, byte by byte.
"""

import heapq
from collections.abc import Callable
from itertools import count

from fabric.assembly import Plan
from fabric.engine import Engine
from fabric.ids import NodeName
from fabric.journal import Journal
from fabric.link import FrameDropped, LinkModel
from fabric.topology.spec import Topology
from fabric.units import Instant

_FRAME, _CALL, _TIMEOUT = range(3)
LIVELOCK_STEPS = 1_000_000


class Livelock(AssertionError):
    """Engines kept each other busy without time moving on: a bug of an engine."""


class World:
    """Runs a topology. ``hosts`` makes each host's engine; ``on_event`` sees every event of a node."""

    def __init__(
        self,
        topology: Topology,
        seed: int,
        hosts: Callable[[NodeName, Plan], Engine],
        journal: Journal,
        *,
        on_event: Callable[[NodeName, object, Instant], None] | None = None,
        frame_records: bool = False,
    ) -> None:
        self.plan = Plan(topology)
        self.now: Instant = 0
        self._journal, self._on_event, self._frame_records = journal, on_event, frame_records
        self.engines: dict[NodeName, Engine] = {name: hosts(name, self.plan) for name in topology.hosts}
        self.engines |= {name: self.plan.network_switch(name) for name in topology.network_switches}
        self._order = {name: index for index, name in enumerate(self.engines)}
        links = self.plan.directed_links
        self.links: dict[str, LinkModel] = {link.name: self.plan.link_model(link, seed) for link in links}
        self._out = {(link.source, link.source_port): link for link in links}
        self._heap: list[tuple[Instant, int, int, int, Callable[[], None]]] = []
        self._sequence = count()
        self._wanted: dict[NodeName, Instant | None] = {}
        self._steps_at_now = 0
        for name in self.engines:
            self.service(name)

    def at(self, instant: Instant, call: Callable[[], None]) -> None:
        """Call at ``instant`` (not before now); a call that commands an engine must ``service`` its node after."""
        if instant < self.now:
            raise ValueError(f"{instant} is before now, {self.now}")
        self._push(instant, _CALL, 0, call)

    def service(self, node: NodeName) -> None:
        """Carry out what the node's engine asks for; needed after commands from outside."""
        engine = self.engines[node]
        while True:
            busy = False
            while (sent := engine.poll_transmit(self.now)) is not None:
                busy = True
                self._transmit(node, sent.port, sent.frame)
            while (event := engine.poll_event()) is not None:
                busy = True
                if self._on_event is not None:
                    self._on_event(node, event, self.now)
            if not busy:
                break
        wanted = engine.poll_timeout()
        if wanted is not None and wanted != self._wanted.get(node):
            self._push(max(wanted, self.now), _TIMEOUT, self._order[node], lambda: self._timeout(node, wanted))
        self._wanted[node] = wanted

    def run_until(self, instant: Instant) -> None:
        """Do all that is due up to and including ``instant``; then it is ``instant``."""
        while self._heap and self._heap[0][0] <= instant:
            self._step()
        self.now = max(self.now, instant)

    def run_until_idle(self) -> None:
        """Run until nothing is due any more."""
        self.run_while(lambda: True)

    def run_while(self, predicate: Callable[[], bool]) -> None:
        """Run while ``predicate()`` holds and something is due."""
        while self._heap and predicate():
            self._step()

    def _push(self, due: Instant, kind: int, key: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (due, kind, key, next(self._sequence), call))

    def _step(self) -> None:
        due, _, _, _, call = heapq.heappop(self._heap)
        self._steps_at_now = self._steps_at_now + 1 if due == self.now else 0
        if self._steps_at_now > LIVELOCK_STEPS:
            raise Livelock(f"{LIVELOCK_STEPS} steps at {due} ns")
        self.now = due
        call()

    def _timeout(self, node: NodeName, wanted: Instant) -> None:
        if self._wanted.get(node) == wanted:
            self._wanted[node] = None
            self.engines[node].handle_timeout(self.now)
            self.service(node)

    def _transmit(self, node: NodeName, port: int, frame: bytes) -> None:
        link = self._out[node, port]
        model = self.links[link.name]
        model.handle_frame(0, frame, self.now)
        while (sent := model.poll_transmit(self.now)) is not None:
            data, at = sent.frame, sent.at
            if self._frame_records:
                self._journal.record(self.now, node, "frame.sent", link=link.name, size=len(data), due=at)

            def arrive(data: bytes = data) -> None:
                self.engines[link.sink].handle_frame(link.sink_port, data, self.now)
                self.service(link.sink)

            self._push(at, _FRAME, link.index, arrive)
        while (event := model.poll_event()) is not None:
            if isinstance(event, FrameDropped):
                self._journal.record(
                    self.now, node, "link.drop", link=link.name, reason=event.reason, frame=event.number
                )
