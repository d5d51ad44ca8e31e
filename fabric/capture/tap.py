"""Taps: where frames leave the data path for whoever watches.

A node's driver owns one ``TapSet`` and calls it wherever a frame enters or leaves a link:

    if taps.active:
        taps.capture(now, link.name, OUT, frame)

``active`` is a plain attribute, so a node that nobody watches pays one attribute test per frame. Each subscriber has a
``Tap`` of its own with bounds in frames and bytes. A subscriber that reads too slowly loses frames, never the data
path's time: they are counted, and the next frame that fits says how many are missing before it.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from fabric.units import Instant

Direction: TypeAlias = Literal["in", "out"]
"""As the capturing node sees it, which is also how pcapng flags it."""
OUT: Final = "out"
"""The frame leaves the node: the entry side of a link. Frames that the link drops are captured here too."""
IN: Final = "in"
"""The frame reaches the node: the exit side of a link."""

DEFAULT_FRAMES = 20_000
DEFAULT_BYTES = 32 * 2**20


def side(direction: Direction) -> str:
    """``"out"`` -> ``"entry"``, ``"in"`` -> ``"exit"``: which end of the link that is."""
    return "entry" if direction == OUT else "exit"


class CapturedFrame(NamedTuple):
    """One frame as a tap saw it."""

    at: Instant
    """When it entered the link, or was due at its end."""
    link: str
    """Name of the link direction: ``client->s1``."""
    direction: Direction
    frame: bytes
    comment: str = ""
    number: int | None = None
    """The frame's number on its link direction, if known: the same on both sides."""
    missing: int = 0
    """How many frames the tap had to leave out since the one before."""


@dataclass(frozen=True, slots=True)
class TapStatistics:
    """Counters of one tap."""

    captured: int
    dropped: int
    queued_frames: int
    queued_bytes: int


class Tap:
    """One subscriber's queue. ``offer`` fills it, ``take`` empties it.

    ``links`` restricts it to these link directions (``None``: all). ``wake`` is called when the queue stops being
    empty. Raises ValueError for bounds below one frame or one byte.
    """

    def __init__(
        self,
        links: Collection[str] | None = None,
        *,
        max_frames: int = DEFAULT_FRAMES,
        max_bytes: int = DEFAULT_BYTES,
        wake: Callable[[], object] | None = None,
    ) -> None:
        if max_frames < 1 or max_bytes < 1:
            raise ValueError(f"a tap of {max_frames} frames and {max_bytes} bytes can hold nothing")
        self.links = None if links is None else frozenset(links)
        self._max_frames, self._max_bytes, self._wake = max_frames, max_bytes, wake
        self._queue: deque[CapturedFrame] = deque()
        self._queued_bytes = self._captured = self._dropped = self._missing = 0

    def offer(self, captured: CapturedFrame) -> bool:
        """Keep ``captured`` if its link is wanted and there is room. Says whether it was kept."""
        if self.links is not None and captured.link not in self.links:
            return False
        size = len(captured.frame)
        if len(self._queue) >= self._max_frames or self._queued_bytes + size > self._max_bytes:
            self._dropped += 1
            self._missing += 1
            return False
        if self._missing:
            captured = captured._replace(missing=self._missing)
            self._missing = 0
        was_empty = not self._queue
        self._queue.append(captured)
        self._queued_bytes += size
        self._captured += 1
        if was_empty and self._wake is not None:
            self._wake()
        return True

    def take(self, limit: int = 256) -> list[CapturedFrame]:
        """The oldest frames, at most ``limit``; empty if there are none."""
        count = min(limit, len(self._queue))
        taken = [self._queue.popleft() for _ in range(count)]
        self._queued_bytes -= sum(len(captured.frame) for captured in taken)
        return taken

    def statistics(self) -> TapStatistics:
        """A snapshot of the counters."""
        return TapStatistics(self._captured, self._dropped, len(self._queue), self._queued_bytes)


class TapSet:
    """All taps of a node."""

    def __init__(self) -> None:
        self.active = False
        """Whether anyone watches; ask before ``capture``."""
        self._taps: list[Tap] = []

    def subscribe(
        self,
        links: Collection[str] | None = None,
        *,
        max_frames: int = DEFAULT_FRAMES,
        max_bytes: int = DEFAULT_BYTES,
        wake: Callable[[], object] | None = None,
    ) -> Tap:
        """A new tap; see ``Tap`` for the arguments. End it with ``unsubscribe``."""
        tap = Tap(links, max_frames=max_frames, max_bytes=max_bytes, wake=wake)
        self._taps.append(tap)
        self.active = True
        return tap

    def unsubscribe(self, tap: Tap) -> None:
        """End ``tap``; what it holds can still be taken. Ending it twice is harmless."""
        if tap in self._taps:
            self._taps.remove(tap)
        self.active = bool(self._taps)

    def capture(
        self, at: Instant, link: str, direction: Direction, frame: bytes, comment: str = "", number: int | None = None
    ) -> None:
        """Offer a frame to every tap. Never raises and never waits."""
        if self._taps:
            captured = CapturedFrame(at, link, direction, frame, comment, number)
            for tap in self._taps:
                tap.offer(captured)

    def statistics(self) -> tuple[TapStatistics, ...]:
        """One snapshot per tap, oldest subscriber first."""
        return tuple(tap.statistics() for tap in self._taps)
