"""How far a neighbour's monotonic clock is from ours, measured as NTP does (RFC 5905, section 8).

A probe carries our instant ``t1``; the answer brings back ``t1``, when the neighbour received it (``t2``, its clock)
and when it answered (``t3``); ``t4`` is when we have it. Then::

    offset = ((t2 - t1) + (t3 - t4)) / 2     what to take from an instant of the neighbour's to have it in ours
    delay  = (t4 - t1) - (t3 - t2)           the true offset is within delay / 2 of that, however unequal the ways are

Clocks drift, so a sample's bound grows with its age; the sample with the smallest bound speaks. Samples that
contradict the one that speaks, CONTRADICTIONS_MAX times in a row, mean that a clock has stepped (a machine slept):
then the old ones are forgotten. Neighbours that name the same machine have the same clock, and nothing is measured.

No clock is read here: all instants are given.
"""

from collections import deque
from dataclasses import dataclass

from fabric.units import MICROSECOND, MILLISECOND, SECOND, Duration, Instant

DRIFT_PPM = 200
"""How far two clocks may run apart, in millionths: a crystal is within 100 of the truth."""
SAMPLES_MAX = 16
SAMPLES_WANTED = 4
"""So many make a judgement."""
PROBES_MAX = 32
CONTRADICTIONS_MAX = 3
QUICK_INTERVAL: Duration = 20 * MILLISECOND
SLOW_INTERVAL: Duration = SECOND // 4
"""The drift allowed for within it must stay well below ERROR_MIN, or short links change their rule at each probe."""
ERROR_MIN: Duration = 200 * MICROSECOND
"""An error up to this, or up to a tenth of a link's latency, is small."""
INSTANT_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class _Sample:
    offset: Duration
    half_delay: Duration
    at: Instant

    def bound(self, now: Instant) -> Duration:
        """The most by which ``offset`` may be wrong at ``now``, rounding included."""
        return self.half_delay + 1 + (now - self.at) * DRIFT_PPM // 1_000_000 + 1


class ClockOffset:
    """What is known of one neighbour's clock. ``own_machine`` and ``machine`` are opaque; equal ones share a clock."""

    def __init__(self, own_machine: bytes) -> None:
        self._own_machine = own_machine
        self._machine: bytes | None = None
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_MAX)
        self._probes: deque[Instant] = deque(maxlen=PROBES_MAX)
        self._next_probe: Instant = 0
        self._contradictions = 0

    # ------------------------------------------------------------------- input

    def handle_machine(self, machine: bytes) -> None:
        """The neighbour says where it is; another place than before is another clock."""
        if machine != self._machine:
            self._machine = machine
            self._samples.clear()
            self._probes.clear()
            self._next_probe = 0

    def handle_answer(self, t1: Instant, t2: Instant, t3: Instant, t4: Instant) -> bool:
        """An answer to a probe; false, and without effect, for what can be none."""
        if t1 not in self._probes:
            return False
        self._probes.remove(t1)
        delay = (t4 - t1) - (t3 - t2)
        slack = (t4 - t1) * DRIFT_PPM // 1_000_000 + 1  # the two clocks measure the neighbour's thinking differently
        if delay < -slack or t3 < t2 or t4 < t1 or max(abs(t2), abs(t3)) > INSTANT_MAX:
            return False
        sample = _Sample(((t2 - t1) + (t3 - t4)) // 2, (max(delay, 0) + 1) // 2 + slack, t4)
        best = self._best(t4)
        if best is not None and abs(sample.offset - best.offset) > sample.bound(t4) + best.bound(t4):
            self._contradictions += 1
            if self._contradictions < CONTRADICTIONS_MAX:
                self._next_probe = min(self._next_probe, t4 + QUICK_INTERVAL)  # frames are timed wrongly meanwhile
                return False
            self._samples.clear()
        self._contradictions = 0
        self._samples.append(sample)
        return True

    # ------------------------------------------------------------------ output

    def poll_probe(self, now: Instant) -> Instant | None:
        """``t1`` of a probe that shall leave now; ``None`` if it is not yet time, or nothing is to be measured."""
        if self.is_same or self._machine is None or now < self._next_probe:
            return None
        self._probes.append(now)
        self._next_probe = now + (SLOW_INTERVAL if self.is_judged else QUICK_INTERVAL)
        return now

    def poll_timeout(self) -> Instant | None:
        """When the next probe is due."""
        return None if self.is_same or self._machine is None else self._next_probe

    # ----------------------------------------------------------------- getters

    @property
    def is_same(self) -> bool:
        """Whether the neighbour has our very clock."""
        return self._machine == self._own_machine

    @property
    def is_judged(self) -> bool:
        """Whether enough is known to decide how its frames are timed."""
        return self.is_same or len(self._samples) >= SAMPLES_WANTED

    def offset(self, now: Instant, latency: Duration) -> Duration | None:
        """What to take from the neighbour's instants, if that is known well enough for a link of this latency."""
        if self.is_same:
            return 0
        best = self._best(now)
        if best is None or not self.is_judged or best.bound(now) > max(ERROR_MIN, latency // 10):
            return None
        return best.offset

    def describe(self, now: Instant, latency: Duration) -> dict[str, object]:
        """``clock``: ``same``, ``timestamps``, ``arrival`` or ``unknown``; offset and error in microseconds."""
        if self.is_same:
            return {"clock": "same"}
        best = self._best(now)
        if best is None:
            return {"clock": "unknown"}
        used = self.offset(now, latency) is not None
        return {
            "clock": "timestamps" if used else "arrival",
            "offset_us": best.offset // MICROSECOND,
            "error_us": best.bound(now) // MICROSECOND,
        }

    def _best(self, now: Instant) -> _Sample | None:
        return min(self._samples, key=lambda sample: sample.bound(now), default=None)
