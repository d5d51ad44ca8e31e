"""The contract suite itself: it passes a good engine and catches each kind of bad one."""

import itertools
from dataclasses import dataclass

import pytest

from fabric.engine import Transmit
from tests.support.contract import check_engine


@dataclass(frozen=True)
class Counters:
    frames: int


class Echo:
    """Sends every frame back 5 us later, one per timeout."""

    instances = itertools.count()

    def __init__(self):
        self.waiting: list[tuple[int, bytes]] = []
        self.ready: list[bytes] = []
        self.events: list[object] = []
        self.frames = 0
        self.number = next(self.instances)

    def handle_frame(self, port, frame, now):
        self.frames += 1
        self.waiting.append((now + 5_000, frame))

    def handle_timeout(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            self.ready.append(self.waiting.pop(0)[1])
            self.events.append("echoed")

    def poll_transmit(self, now):
        return Transmit(0, self.ready.pop(0), now) if self.ready else None

    def poll_event(self):
        return self.events.pop(0) if self.events else None

    def poll_timeout(self):
        return self.waiting[0][0] if self.waiting else None

    def statistics(self):
        return Counters(self.frames)


class ActsEarly(Echo):
    def handle_timeout(self, now):
        super().handle_timeout(now + 5_000)


class WorksOffOneOnly(Echo):
    def handle_timeout(self, now):
        if self.waiting and self.waiting[0][0] <= now:
            self.ready.append(self.waiting.pop(0)[1])


class ImpureDeadline(Echo):
    asked = 0

    def poll_timeout(self):
        self.asked += 1
        return self.waiting[0][0] + self.asked if self.waiting else None


class NeverEnding(Echo):
    def poll_transmit(self, now):
        return Transmit(0, b"", now)


class Differs(Echo):
    def poll_transmit(self, now):
        return Transmit(0, b"%d" % self.number, now) if super().poll_transmit(now) else None


class Raises(Echo):
    def handle_frame(self, port, frame, now):
        frame[12]
        super().handle_frame(port, frame, now)


class LiveStatistics(Echo):
    def statistics(self):
        return {"frames": self.frames}


class LivingSnapshot(Echo):
    def __init__(self):
        super().__init__()
        self.snapshot = type("Snapshot", (), {"__repr__": lambda _: f"{self.frames} frames"})()

    def statistics(self):
        return self.snapshot


class OrderMatters(Echo):
    def poll_event(self):
        return super().poll_event() and f"echoed, {len(self.ready)} to go"


class InThePast(Echo):
    def poll_transmit(self, now):
        transmit = super().poll_transmit(now)
        return transmit and transmit._replace(at=now - 1)


class BusyLoop(Echo):
    def handle_timeout(self, now):
        pass


FRAMES = [bytes([number]) * 40 for number in range(20)]


def test_good_engine_passes():
    check_engine(Echo, FRAMES)
    check_engine(Echo, [(0, frame) for frame in FRAMES])
    check_engine(Echo, [lambda engine, now: engine.handle_frame(0, b"x" * 20, now)])
    check_engine(Echo, FRAMES, close=lambda engine, now: engine.waiting.clear())


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        (ActsEarly, "before the deadline"),
        (WorksOffOneOnly, "busy loop"),
        (BusyLoop, "busy loop"),
        (ImpureDeadline, "not pure"),
        (NeverEnding, "never ends"),
        (Differs, "different outputs"),
        (Raises, "raised IndexError"),
        (LivingSnapshot, "frozen snapshot"),
        (OrderMatters, "order of draining"),
        (InThePast, "is due before"),
    ],
)
def test_bad_engine_is_caught(engine, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_engine(engine, FRAMES)


def test_statistics_that_are_not_frozen_are_caught():
    with pytest.raises(TypeError, match="unhashable"):
        check_engine(LiveStatistics, FRAMES)


def test_engine_that_goes_on_after_its_end_is_caught():
    with pytest.raises(AssertionError, match="closed engine"):
        check_engine(Echo, FRAMES, close=lambda engine, now: None)
