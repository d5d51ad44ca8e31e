"""The link model: one direction of a link, from the transmitting node's port to the receiving node's.

A frame goes through three places:

1. **Queue.** If the serialiser is busy the frame waits; if ``queue`` frames wait already, it is dropped (drop-tail).
2. **Serialiser.** Frames leave one after the other, each taking its size divided by ``rate``.
3. **Wire.** The impairments judge the frame: it is lost, or it travels for ``latency`` plus what the verdicts add. A
   frame that is lost on the wire has used the serialiser like any other. Nothing overtakes: due times never decrease.

All of this is decided by arithmetic at the moment the frame enters, so the model has no timers. ``poll_transmit`` gives
the frame out at once, with ``Transmit.at`` in the future; the receiving side holds it until then. Hence a change of
settings never touches frames that have entered already: they keep their place, their fate and their due time. Later
frames queue behind them.

The queue is known from the instants at which accepted frames begin their serialisation: those that begin after ``now``
wait.
"""

from collections import deque
from dataclasses import dataclass

from fabric.engine import Transmit
from fabric.ids import LinkName
from fabric.link.impairments import Drop, Impairment, active_impairments
from fabric.link.settings import LinkSettings
from fabric.units import SECOND, Duration, Instant

__all__ = ["FrameDropped", "LinkModel", "LinkSettings", "LinkStatistics"]

_BIT_NANOSECONDS_PER_BYTE = 8 * SECOND


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """The link lost a frame."""

    link: LinkName
    number: int
    """Which frame of this direction, counted from 1."""
    reason: str
    """``loss``, ``queue`` (it was full), ``partition``, or another impairment's word."""
    frame: bytes
    at: Instant
    """When the frame entered the link."""

    @property
    def comment(self) -> str:
        """For the capture on the entry side: ``dropped by loss on client->s1 (frame 17)``."""
        return f"dropped by {self.reason} on {self.link} (frame {self.number})"


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counters since the link was made. ``frames_in == frames_out + sum of dropped``."""

    frames_in: int
    bytes_in: int
    frames_out: int
    """Frames given out; their due time may still be ahead."""
    bytes_out: int
    dropped: tuple[tuple[str, int], ...]
    """(reason, frames), in order of first occurrence."""
    queue_high_water: int
    """The most frames that ever waited at once."""

    @property
    def frames_dropped(self) -> int:
        """All drops together."""
        return sum(count for _, count in self.dropped)

    def dropped_by(self, reason: str) -> int:
        """Frames dropped for ``reason``."""
        return dict(self.dropped).get(reason, 0)


class LinkModel:
    """One direction of a link as an engine: takes frames in on port 0, gives them out on port 1.

    Input ``handle_frame``; commands ``configure`` and ``cut``; output ``poll_transmit``, ``poll_event``; getters
    ``name``, ``settings``, ``statistics``. There are no timeouts.
    """

    def __init__(self, name: LinkName, settings: LinkSettings, seed: int) -> None:
        self.name = name
        self.cut = False
        """A partition: whatever enters is dropped. Draws go on by frame numbers, so it changes no later fate."""
        self._seed = seed
        self._adopt(settings)
        self._busy_until: Instant = 0
        self._last_due: Instant = 0
        self._waiting: deque[Instant] = deque()
        self._transmits: deque[Transmit] = deque()
        self._drops: deque[FrameDropped] = deque()
        self._frames_in = self._bytes_in = self._frames_out = self._bytes_out = self._queue_high_water = 0
        self._dropped: dict[str, int] = {}

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """A frame enters at ``now``; its fate is sealed when this returns. ``port`` must be 0."""
        assert port == 0
        size = len(frame)
        number = self._frames_in = self._frames_in + 1
        self._bytes_in += size
        if self.cut:
            self._drop(number, "partition", frame, now)
            return

        departure = self._busy_until
        if departure > now:
            waiting = self._waiting
            while waiting and waiting[0] <= now:
                waiting.popleft()
            if len(waiting) >= self._queue:
                self._drop(number, "queue", frame, now)
                return
            waiting.append(departure)
            if len(waiting) > self._queue_high_water:
                self._queue_high_water = len(waiting)
        else:
            departure = now
        if self._rate is not None:
            departure -= -size * _BIT_NANOSECONDS_PER_BYTE // self._rate  # transmission_time(), inline
            self._busy_until = departure

        propagation = self._latency
        for impairment in self._impairments:
            verdict = impairment.verdict(number, frame)
            if isinstance(verdict, Drop):
                self._drop(number, verdict.reason, frame, now)
                return
            propagation += verdict

        due = departure + propagation if propagation > 0 else departure
        if due < self._last_due:
            due = self._last_due
        self._last_due = due
        self._frames_out += 1
        self._bytes_out += size
        self._transmits.append(Transmit(1, frame, due))

    def handle_timeout(self, now: Instant) -> None:
        """Nothing to do: a link decides everything when a frame enters."""

    def configure(self, settings: LinkSettings, now: Instant) -> None:
        """Use ``settings`` for every frame that enters from now on; frames that entered before keep their due time.

        Frame numbers and draws go on as if nothing had happened. With a new rate, frames that wait keep the departure
        times computed with the old one.
        """
        self._adopt(settings)

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next frame with its due time, at once; due times never decrease."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> FrameDropped | None:
        """The next lost frame."""
        return self._drops.popleft() if self._drops else None

    def poll_timeout(self) -> Instant | None:
        """Always ``None``."""
        return None

    def statistics(self) -> LinkStatistics:
        """A snapshot of the counters."""
        return LinkStatistics(
            frames_in=self._frames_in,
            bytes_in=self._bytes_in,
            frames_out=self._frames_out,
            bytes_out=self._bytes_out,
            dropped=tuple(self._dropped.items()),
            queue_high_water=self._queue_high_water,
        )

    @property
    def settings(self) -> LinkSettings:
        """What the next frame will meet."""
        return self._settings

    def _adopt(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._latency: Duration = settings.latency
        self._rate = settings.rate
        self._queue = settings.queue
        self._impairments: tuple[Impairment, ...] = active_impairments(settings, self.name, self._seed)

    def _drop(self, number: int, reason: str, frame: bytes, now: Instant) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1
        self._drops.append(FrameDropped(self.name, number, reason, frame, now))
