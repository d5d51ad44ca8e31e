"""Taps: bounds, counting, waking, and costing nothing when nobody watches."""

import pytest

from fabric.capture import IN, OUT, CapturedFrame, TapSet
from fabric.capture.tap import side


def test_nobody_watching_is_one_attribute():
    taps = TapSet()
    assert taps.active is False
    tap = taps.subscribe()
    assert taps.active is True
    taps.unsubscribe(tap)
    assert taps.active is False
    taps.unsubscribe(tap)
    taps.capture(1, "a->b", OUT, b"unseen")
    assert tap.take() == []


def test_every_tap_gets_every_frame_in_order():
    taps = TapSet()
    first, second = taps.subscribe(), taps.subscribe()
    for number in range(5):
        taps.capture(number, "a->b", IN, b"%d" % number, "comment", number)
    expected = [CapturedFrame(number, "a->b", IN, b"%d" % number, "comment", number) for number in range(5)]
    assert first.take() == expected
    assert [second.take(2), second.take(2), second.take(2), second.take(2)] == [
        expected[:2], expected[2:4], expected[4:], []
    ]  # fmt: skip


def test_tap_on_some_links_ignores_the_others_without_counting_them():
    taps = TapSet()
    tap = taps.subscribe(["a->b"])
    taps.capture(1, "a->b", OUT, b"yes")
    taps.capture(2, "b->a", IN, b"no")
    assert [captured.frame for captured in tap.take()] == [b"yes"]
    assert tap.statistics().dropped == 0


def test_full_tap_drops_the_newest_counts_them_and_says_where_they_are_missing():
    taps = TapSet()
    tap = taps.subscribe(max_frames=3)
    for number in range(5):
        taps.capture(number, "a->b", OUT, b"x")
    assert tap.statistics().dropped == 2
    assert [captured.at for captured in tap.take(1)] == [0]
    taps.capture(7, "a->b", OUT, b"x")
    taps.capture(8, "a->b", OUT, b"x")
    assert [(captured.at, captured.missing) for captured in tap.take()] == [(1, 0), (2, 0), (7, 2)]
    taps.capture(9, "a->b", OUT, b"x")
    assert [(captured.at, captured.missing) for captured in tap.take()] == [(9, 1)]
    assert (tap.statistics().captured, tap.statistics().dropped) == (5, 3)


def test_tap_is_bounded_in_bytes_too():
    taps = TapSet()
    tap = taps.subscribe(max_bytes=100)
    for size in (60, 41, 40, 1):
        taps.capture(size, "a->b", OUT, bytes(size))
    assert tap.statistics().queued_bytes == 100
    assert [captured.at for captured in tap.take()] == [60, 40]
    assert tap.statistics().queued_bytes == 0
    taps.capture(5, "a->b", OUT, bytes(100))
    assert len(tap.take()) == 1


def test_one_full_tap_takes_nothing_from_another():
    taps = TapSet()
    small, large = taps.subscribe(max_frames=1), taps.subscribe()
    for number in range(10):
        taps.capture(number, "a->b", OUT, b"x")
    assert [len(small.take()), len(large.take())] == [1, 10]
    assert [statistics.dropped for statistics in taps.statistics()] == [9, 0]


def test_reader_is_woken_when_its_queue_stops_being_empty():
    woken: list[int] = []
    taps = TapSet()
    tap = taps.subscribe(wake=lambda: woken.append(1))
    for number in range(3):
        taps.capture(number, "a->b", OUT, b"x")
    assert len(woken) == 1
    tap.take()
    taps.capture(4, "a->b", OUT, b"x")
    assert len(woken) == 2


def test_tap_that_could_hold_nothing_is_refused():
    with pytest.raises(ValueError, match="can hold nothing"):
        TapSet().subscribe(max_frames=0)


def test_sides_are_named_from_the_link_s_view():
    assert (side(OUT), side(IN)) == ("entry", "exit")
