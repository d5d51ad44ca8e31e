"""Clock offsets: the truth is within the bound, whatever the way does; steps are noticed; nonsense has no effect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.live.clock_offset import DRIFT_PPM, PROBES_MAX, SAMPLES_WANTED, ClockOffset
from fabric.live.neighbour import AHEAD_MAX, Neighbour
from fabric.units import MICROSECOND, MILLISECOND, SECOND

HERE, THERE = b"h" * 16, b"t" * 16
DELAYS = st.integers(0, 50 * MILLISECOND)


class Clocks:
    """Two clocks: ours is the truth, the neighbour's is ``offset`` ahead and drifts."""

    def __init__(self, offset, drift_ppm=0):
        self.now, self.offset, self.drift_ppm = 10 * SECOND, offset, drift_ppm
        self.clock = ClockOffset(HERE)
        self.clock.handle_machine(THERE)

    def theirs(self, instant):
        return instant + self.true_offset(instant)

    def true_offset(self, instant):
        return self.offset + (instant - 10 * SECOND) * self.drift_ppm // 1_000_000

    def exchange(self, there=0, back=0, thinking=0):
        due = self.clock.poll_timeout()
        assert due is not None
        self.now = t1 = max(self.now, due)
        assert self.clock.poll_probe(t1) == t1
        t2 = self.theirs(t1 + there)
        t3 = self.theirs(t1 + there + thinking)
        self.now = t1 + there + thinking + back
        return self.clock.handle_answer(t1, t2, t3, self.now)


def test_the_same_machine_needs_no_measuring():
    clock = ClockOffset(HERE)
    assert (clock.is_judged, clock.poll_probe(0), clock.describe(0, 0)) == (False, None, {"clock": "unknown"})
    clock.handle_machine(HERE)
    assert clock.is_judged
    assert clock.poll_probe(0) is None
    assert clock.poll_timeout() is None
    assert clock.offset(0, 0) == 0
    assert clock.describe(0, 0) == {"clock": "same"}


def test_a_quick_exact_way_gives_the_offset():
    clocks = Clocks(1_000 * SECOND)
    for number in range(SAMPLES_WANTED):
        assert clocks.clock.is_judged is False, number
        assert clocks.clock.offset(clocks.now, SECOND) is None
        assert clocks.exchange(100, 100, 5000)
    assert clocks.clock.offset(clocks.now, 0) == 1_000 * SECOND
    shown = clocks.clock.describe(clocks.now, 0)
    assert shown == {"clock": "timestamps", "offset_us": 10**9, "error_us": 0}


@given(
    st.integers(-(2**60), 2**60),
    st.integers(-DRIFT_PPM, DRIFT_PPM),
    st.lists(st.tuples(DELAYS, DELAYS, st.integers(0, MILLISECOND)), min_size=SAMPLES_WANTED, max_size=40),
    st.integers(0, 100 * SECOND),
)
def test_the_truth_is_within_the_bound(offset, drift_ppm, ways, later):
    clocks = Clocks(offset, drift_ppm)
    for there, back, thinking in ways:
        assert clocks.exchange(there, back, thinking)
        best = clocks.clock._best(clocks.now)
        assert abs(best.offset - clocks.true_offset(clocks.now)) <= best.bound(clocks.now)
    now = clocks.now + later
    best = clocks.clock._best(now)
    assert abs(best.offset - clocks.true_offset(now)) <= best.bound(now)


def test_a_slow_way_is_too_inexact_for_a_short_link_and_not_for_a_long_one():
    clocks = Clocks(SECOND)
    for _ in range(SAMPLES_WANTED):
        clocks.exchange(2 * MILLISECOND, 0)
    assert clocks.clock.offset(clocks.now, MILLISECOND) is None
    assert clocks.clock.describe(clocks.now, MILLISECOND)["clock"] == "arrival"
    assert clocks.clock.offset(clocks.now, 20 * MILLISECOND) == SECOND + MILLISECOND
    assert clocks.clock.describe(clocks.now, 20 * MILLISECOND)["clock"] == "timestamps"


def test_a_step_of_a_clock_is_believed_when_it_is_told_thrice():
    clocks = Clocks(SECOND)
    for _ in range(8):
        clocks.exchange(1000, 1000)
    clocks.offset += 5 * SECOND
    assert [clocks.exchange(1000, 1000) for _ in range(3)] == [False, False, True]
    for _ in range(SAMPLES_WANTED):
        clocks.exchange(1000, 1000)
    assert clocks.clock.offset(clocks.now, 0) == 6 * SECOND


def test_lost_doubled_late_and_false_answers():
    clocks = Clocks(SECOND)
    clock = clocks.clock
    assert clock.handle_answer(5, 6, 7, 8) is False  # never asked
    t1 = clock.poll_probe(clocks.now)
    assert clock.handle_answer(t1, t1 + SECOND, t1 + SECOND - 1, t1 + 10) is False  # answered before it was asked
    assert clock.handle_answer(t1, t1 + SECOND, t1 + SECOND, t1 + 10) is False  # a second answer
    t1 = clock.poll_probe(clocks.now + SECOND)
    assert clock.handle_answer(t1, 2**63 - 1, 2**63 - 1, t1 + 10) is False
    for number in range(3 * PROBES_MAX):  # all lost
        assert clock.poll_probe(clocks.now + (2 + number) * SECOND) is not None
    assert clock.handle_answer(clocks.now + 2 * SECOND, 0, 0, clocks.now + 200 * SECOND) is False  # too long ago


def test_another_machine_of_the_same_neighbour_is_another_clock():
    clocks = Clocks(SECOND)
    for _ in range(SAMPLES_WANTED):
        clocks.exchange()
    clocks.clock.handle_machine(b"n" * 16)
    assert clocks.clock.is_judged is False
    clocks.clock.handle_machine(HERE)
    assert clocks.clock.offset(0, 0) == 0


@pytest.mark.parametrize("known", [True, False])
def test_frames_of_another_clock_come_in_our_time_and_in_order(known):
    neighbour = Neighbour(HERE, latency=MILLISECOND)
    clocks = Clocks(SECOND)
    neighbour.clock = clocks.clock
    for _ in range(SAMPLES_WANTED if known else 0):
        clocks.exchange(100, 100)
    now = clocks.now + 50 * MICROSECOND
    sent = clocks.theirs(clocks.now)
    frames = [(sent + MILLISECOND, b"a"), (sent + 2 * MILLISECOND, b"b")]
    start = clocks.now if known else now
    expected = [(start + MILLISECOND, b"a"), (start + 2 * MILLISECOND, b"b")]
    assert neighbour.in_our_time(frames, sent, now) == expected
    earlier = [(sent, b"c")]  # the offset was found to be another meanwhile
    assert neighbour.in_our_time(earlier, sent, now) == [(start + 2 * MILLISECOND, b"c")]


def neighbour_with_known_clock(latency=MILLISECOND):
    neighbour, clocks = Neighbour(HERE, latency), Clocks(SECOND)
    neighbour.clock = clocks.clock
    for _ in range(SAMPLES_WANTED):
        clocks.exchange(50 * MICROSECOND, 50 * MICROSECOND)
    return neighbour, clocks


def test_a_short_link_keeps_its_rule_between_two_probes():
    neighbour, clocks = neighbour_with_known_clock()
    for _ in range(20):
        clocks.exchange(50 * MICROSECOND, 50 * MICROSECOND)
        assert clocks.clock.offset(clocks.clock.poll_timeout() + MILLISECOND, neighbour.latency) is not None


def test_frames_are_not_held_when_our_machine_has_slept():
    neighbour, clocks = neighbour_with_known_clock()
    clocks.offset += 3600 * SECOND
    for step in range(100):
        sent = clocks.theirs(clocks.now - 50 * MICROSECOND)
        ((due, _),) = neighbour.in_our_time([(sent + MILLISECOND, b"x")], sent, clocks.now)
        assert due - clocks.now <= MILLISECOND, step
        if step % 10 == 0:
            clocks.exchange(50 * MICROSECOND, 50 * MICROSECOND)
        clocks.now += MILLISECOND
    assert neighbour.clock.offset(clocks.now, neighbour.latency) == 3601 * SECOND


def test_a_step_is_asked_about_quickly():
    _, clocks = neighbour_with_known_clock()
    clocks.offset -= 5 * SECOND
    clocks.exchange(1000, 1000)
    noticed = clocks.now
    assert [clocks.exchange(1000, 1000) for _ in range(2)] == [False, True]
    assert clocks.now - noticed < 50 * MILLISECOND


def test_a_frame_far_ahead_holds_up_neither_for_ever_nor_beyond_a_restart():
    neighbour, clocks = neighbour_with_known_clock()
    neighbour.hear(1, clocks.now)
    now, sent = clocks.now, clocks.theirs(clocks.now)
    assert neighbour.in_our_time([(sent + 10**6 * SECOND, b"x")], sent, now) == [(now + AHEAD_MAX, b"x")]
    neighbour.hear(2, now)
    assert neighbour.in_our_time([(sent + MILLISECOND, b"y")], sent, now) == [(now + MILLISECOND, b"y")]
