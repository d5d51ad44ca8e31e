"""The timer rings at its instant, not before; arming again moves it; None silences it."""

import time

import trio

from fabric.live.precision import measure_timer
from fabric.live.timer import Timer
from fabric.units import MILLISECOND, SECOND


def test_it_rings_not_before_its_instant():
    async def main():
        timer = Timer()
        try:
            for ahead in (0, MILLISECOND, 3 * MILLISECOND):
                due = time.monotonic_ns() + ahead
                timer.arm(due)
                with trio.fail_after(10):
                    await timer.wait()
                assert time.monotonic_ns() >= due
                timer.acknowledge()
        finally:
            timer.close()

    trio.run(main)


def test_arming_again_moves_it_and_none_silences_it():
    async def main():
        timer = Timer()
        try:
            timer.arm(time.monotonic_ns() + 3600 * SECOND)
            timer.arm(time.monotonic_ns())
            with trio.fail_after(10):
                await timer.wait()
            timer.acknowledge()
            timer.arm(time.monotonic_ns() + 1)
            timer.arm(None)
            with trio.move_on_after(0.02) as waited:
                await timer.wait()
            # it may have rung between the two calls; silenced, it does not ring afterwards
            timer.acknowledge()
            timer.arm(None)
            with trio.move_on_after(0.02) as waited:
                await timer.wait()
            assert waited.cancelled_caught
        finally:
            timer.close()

    trio.run(main)


def test_precision_is_measured():
    median, high = measure_timer(20)
    assert 0 <= median <= high < SECOND
