"""The contract suite: what every engine promises in ``fabric.engine``, checked by one call.

``check_engine(factory, stimuli)`` builds engines with ``factory()``, puts the same stimuli through several of them in
different ways and compares what came out. A stimulus is one of

- ``bytes``: a frame for port 0,
- ``(port, bytes)``: a frame for that port,
- a callable ``(engine, now)``: a command, or an input of an engine that takes something other than frames.

Otherwise only ``poll_timeout``, ``poll_event``, ``poll_transmit(now)``, ``handle_timeout(now)`` and ``statistics()``
are used, so engines over datagrams or messages pass the same suite (give ``fuzz`` to say how random bytes reach them).
Outputs are compared by ``repr``: an event whose text holds an address is not reproducible and fails.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from fabric.engine import Transmit
from fabric.units import MILLISECOND, SECOND

Stimulus: TypeAlias = bytes | tuple[int, bytes] | Callable[[Any, int], object]
Transcript: TypeAlias = list[tuple[object, ...]]

DRAIN_LIMIT = 100_000
"""More outputs than this at one instant count as never-ending."""
TIMEOUT_LIMIT = 2_000
"""Deadlines followed after the last stimulus; an engine with a periodic timer never runs dry, and need not."""
FUZZ_COUNT = 300


def check_engine(
    factory: Callable[[], Any],
    stimuli: Sequence[Stimulus],
    *,
    start: int = SECOND,
    spacing: int = MILLISECOND,
    ports: Sequence[int] = (0,),
    fuzz: Callable[[Any, bytes, int], object] | None = None,
    fuzz_seed: int = 1,
    close: Callable[[Any, int], object] | None = None,
    timeout_limit: int = TIMEOUT_LIMIT,
) -> None:
    """Check every rule of ``fabric.engine`` on the engines that ``factory`` makes.

    Times are integer nanoseconds: stimulus ``k`` comes at ``start + k * spacing``. ``fuzz(engine, data, now)`` hands
    random bytes to an engine (default: ``handle_frame`` on each of ``ports``). ``close(engine, now)``, if given, ends
    the engine, which must then be silent. Raises AssertionError with the rule that was broken.
    """
    run = _Run(factory, stimuli, start, timeout_limit)
    first = run.transcript(spacing)
    assert first == run.transcript(spacing), "same inputs, different outputs"
    assert _by_kind(first) == _by_kind(run.transcript(spacing, events_first=True)), "the order of draining matters"
    run.transcript(0)
    run.transcript(spacing, late_by=10 * SECOND)
    _check_statistics(factory, stimuli, start, spacing)
    _check_random_bytes(factory, stimuli, start, ports, fuzz, fuzz_seed)
    if close is not None:
        _check_silent_after_close(factory, stimuli, start, spacing, close)


def apply(engine: Any, stimulus: Stimulus, now: int) -> None:
    """Put one stimulus into ``engine`` at ``now``."""
    if isinstance(stimulus, bytes):
        engine.handle_frame(0, stimulus, now)
    elif isinstance(stimulus, tuple):
        engine.handle_frame(stimulus[0], stimulus[1], now)
    else:
        stimulus(engine, now)


def drain(engine: Any, now: int, *, events_first: bool = False) -> Transcript:
    """Everything that ``engine`` gives out at ``now``, as ``("transmit" or "event", now, repr)`` entries."""

    def transmits() -> int:
        count = 0
        while (transmit := engine.poll_transmit(now)) is not None:
            if isinstance(transmit, Transmit):
                assert transmit.at >= now, f"{transmit!r} is due before now={now}"
                assert type(transmit.frame) is bytes, f"a frame must be bytes, not {type(transmit.frame).__name__}"
            out.append(("transmit", now, repr(transmit)))
            count += 1
            assert len(out) < DRAIN_LIMIT, "poll_transmit never ends although time stands still"
        return count

    def events() -> int:
        count = 0
        while (event := engine.poll_event()) is not None:
            out.append(("event", now, repr(event)))
            count += 1
            assert len(out) < DRAIN_LIMIT, "poll_event never ends although time stands still"
        return count

    out: Transcript = []
    order = (events, transmits) if events_first else (transmits, events)
    while sum([step() for step in order]):
        pass
    return out


class _Run:
    """One engine's life under the stimuli, with the timer rules checked at every instant."""

    def __init__(self, factory: Callable[[], Any], stimuli: Sequence[Stimulus], start: int, timeout_limit: int) -> None:
        self._factory, self._stimuli, self._start, self._timeout_limit = factory, stimuli, start, timeout_limit

    def transcript(self, spacing: int, *, events_first: bool = False, late_by: int = 0) -> Transcript:
        """All outputs in order. ``late_by`` lets every timeout come that much too late."""
        engine, now = self._factory(), self._start
        out = drain(engine, now, events_first=events_first)
        _check_early_timeout(engine, now)
        for number, stimulus in enumerate(self._stimuli):
            arrival = max(now, self._start + number * spacing)
            while (deadline := engine.poll_timeout()) is not None and deadline + late_by <= arrival:
                now = self._fire(engine, max(now, deadline + late_by), out, events_first)
            now = arrival
            apply(engine, stimulus, now)
            out += drain(engine, now, events_first=events_first)
            _check_early_timeout(engine, now)
        for _ in range(self._timeout_limit):
            if (deadline := engine.poll_timeout()) is None:
                break
            now = self._fire(engine, max(now, deadline + late_by), out, events_first)
        return out

    def _fire(self, engine: Any, now: int, out: Transcript, events_first: bool) -> int:
        engine.handle_timeout(now)
        out += drain(engine, now, events_first=events_first)
        after = engine.poll_timeout()
        assert after is None or after > now, f"busy loop: after handle_timeout({now}) the next deadline is {after}"
        _check_early_timeout(engine, now)
        return now


def _check_early_timeout(engine: Any, now: int) -> None:
    deadline = engine.poll_timeout()
    assert deadline == engine.poll_timeout(), "poll_timeout is not pure"
    if deadline is not None and deadline <= now:
        return
    before = repr(engine.statistics())
    engine.handle_timeout(now)
    assert drain(engine, now) == [], f"handle_timeout({now}) before the deadline {deadline} gave something out"
    assert engine.poll_timeout() == deadline, f"handle_timeout({now}) before the deadline {deadline} moved the deadline"
    assert repr(engine.statistics()) == before, "an early handle_timeout changed the statistics"


def _check_statistics(factory: Callable[[], Any], stimuli: Sequence[Stimulus], start: int, spacing: int) -> None:
    engine = factory()
    drain(engine, start)
    first = engine.statistics()
    hash(first)
    text = repr(first)
    for number, stimulus in enumerate(stimuli):
        now = start + number * spacing
        engine.handle_timeout(now)
        apply(engine, stimulus, now)
        drain(engine, now)
    hash(engine.statistics())
    assert repr(first) == text, "statistics() is not a frozen snapshot"


def _check_random_bytes(
    factory: Callable[[], Any],
    stimuli: Sequence[Stimulus],
    start: int,
    ports: Sequence[int],
    fuzz: Callable[[Any, bytes, int], object] | None,
    seed: int,
) -> None:
    def to_every_port(engine: Any, data: bytes, now: int) -> None:
        for port in ports:
            engine.handle_frame(port, data, now)

    deliver = fuzz or to_every_port
    engine, rng, now = factory(), random.Random(seed), start
    drain(engine, now)
    inputs = [stimulus[1] if isinstance(stimulus, tuple) else stimulus for stimulus in stimuli]
    templates = [data for data in inputs if isinstance(data, bytes)]
    for number in range(FUZZ_COUNT):
        data = rng.randbytes(rng.choice((0, 1, 13, 14, 33, 34, 41, 42, 53, 54, 58, 62, 80, 200, 1500)))
        if templates and number % 2:
            data = _damaged(rng.choice(templates), rng)
        try:
            deliver(engine, data, now)
            drain(engine, now)
        except Exception as error:
            raise AssertionError(f"bytes {data.hex()} (seed {seed}, number {number}) raised {error!r}") from error
        now += rng.choice((0, 1, MILLISECOND))
        engine.handle_timeout(now)
        drain(engine, now)


def _damaged(template: bytes, rng: random.Random) -> bytes:
    data = bytearray(template)
    for _ in range(rng.randint(1, 4)):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    cut = rng.choice((len(data), rng.randint(0, len(data))))
    return bytes(data[:cut])


def _check_silent_after_close(
    factory: Callable[[], Any],
    stimuli: Sequence[Stimulus],
    start: int,
    spacing: int,
    close: Callable[[Any, int], object],
) -> None:
    engine, now = factory(), start
    drain(engine, now)
    for number, stimulus in enumerate(stimuli):
        now = start + number * spacing
        engine.handle_timeout(now)
        apply(engine, stimulus, now)
        drain(engine, now)
    close(engine, now)
    drain(engine, now)
    assert engine.poll_timeout() is None, "a closed engine still wants a timeout"
    engine.handle_timeout(now + SECOND)
    assert engine.poll_transmit(now + SECOND) is None, "a closed engine still transmits"


def _by_kind(transcript: Transcript) -> tuple[Transcript, Transcript]:
    return (
        [entry for entry in transcript if entry[0] == "transmit"],
        [entry for entry in transcript if entry[0] == "event"],
    )
