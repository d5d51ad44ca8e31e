"""Deadlines of many connections: one each, the earliest of all in O(1)."""

import heapq

from fabric.ids import CommId
from fabric.units import Instant


class Deadlines:
    """A heap with at most one live entry per connection. Outdated entries are skipped when they come to the top, and
    swept out when they outnumber the live ones, so that the heap's size is bounded by the number of connections."""

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, int, CommId]] = []
        self._live: dict[CommId, tuple[Instant, int, CommId]] = {}
        self._serial = 0

    def set(self, comm_id: CommId, at: Instant) -> None:
        """Replace the deadline of ``comm_id``. Equal deadlines fall due in the order in which they were set."""
        self._serial += 1
        entry = (at, self._serial, comm_id)
        self._live[comm_id] = entry
        heapq.heappush(self._heap, entry)
        self._tidy()

    def clear(self, comm_id: CommId) -> None:
        """``comm_id`` has no deadline any more."""
        if self._live.pop(comm_id, None) is not None:
            self._tidy()

    def first(self) -> Instant | None:
        """The earliest deadline."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: Instant) -> CommId | None:
        """Take out the earliest connection whose deadline is ``now`` or before."""
        if not self._heap or self._heap[0][0] > now:
            return None
        comm_id = self._heap[0][2]
        del self._live[comm_id]
        self._tidy()
        return comm_id

    def _tidy(self) -> None:
        """Keep a live entry on top."""
        heap, live = self._heap, self._live
        if len(heap) > 2 * len(live) + 64:
            heap[:] = sorted(live.values())
        while heap and live.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
