"""What a node knows of the node at the other end of a link: whether it is there, and how its clock stands to ours."""

from fabric.live.clock_offset import ClockOffset
from fabric.units import SECOND, Duration, Instant

SILENT_AFTER: Duration = 5 * SECOND
AHEAD_MAX: Duration = 60 * SECOND
"""No frame is held longer than this."""


class Neighbour:
    """One neighbour. ``latency`` (ns) is that of the link from it: clocks are judged by it."""

    def __init__(self, own_machine: bytes, latency: Duration) -> None:
        self.heard_at: Instant | None = None
        self.boot_id: int | None = None
        self.restarts = 0
        self.clock = ClockOffset(own_machine)
        self.latency = latency
        self.last_due: Instant = 0
        """Of the frames from another clock, whose instants shift when the measured offset does; order is kept."""

    @property
    def is_ready(self) -> bool:
        """Whether it was heard and its frames can be timed."""
        return self.boot_id is not None and self.clock.is_judged

    def hear(self, boot_id: int, now: Instant) -> bool:
        """Something came from it; true if that is news: it was not there before, or has been restarted."""
        self.heard_at = now
        if self.boot_id == boot_id:
            return False
        if self.boot_id is not None:
            self.restarts += 1
        self.boot_id = boot_id
        self.last_due = 0  # what the one before has sent says nothing of this one's frames
        return True

    def in_our_time(self, frames: list[tuple[int, bytes]], sent: Instant, now: Instant) -> list[tuple[int, bytes]]:
        """Frames of another clock with their due instants in ours: shifted by the offset where it is known well enough,
        else counted from now, as if the way that they really took were none.

        No frame arrives before it was sent, so the second is the latest that is possible: an offset by which frames
        would be later is wrong (a machine slept), and waits of its making would outlast its correction.
        """
        offset = self.clock.offset(now, self.latency)
        shift = now - sent if offset is None else min(now - sent, -offset)
        latest = now + AHEAD_MAX
        shifted = []
        last = self.last_due
        for due, frame in frames:
            last = max(last, min(due + shift, latest))
            shifted.append((last, frame))
        self.last_due = last
        return shifted

    def describe(self, now: Instant) -> dict[str, object]:
        """State (``unheard``, ``up``, ``silent``), restarts, and the clock."""
        if self.heard_at is None:
            state = "unheard"
        else:
            state = "up" if now - self.heard_at < SILENT_AFTER else "silent"
        return {"state": state, "restarts": self.restarts, **self.clock.describe(now, self.latency)}
