"""How exact this machine's timers are: the floor under every configured latency."""

import os
import select
import time

from fabric.live.timer import Timer
from fabric.units import MILLISECOND, Duration


def timer_errors(rounds: int, wait: Duration) -> list[Duration]:
    """How late (ns) a timerfd rings that is armed ``wait`` ns ahead, ``rounds`` times. OSError if there is none."""
    timer = Timer()
    try:
        poller = select.poll()
        poller.register(timer.fd, select.POLLIN)
        late = []
        for _ in range(rounds):
            due = time.monotonic_ns() + wait
            timer.arm(due)
            poller.poll()
            late.append(time.monotonic_ns() - due)
            timer.acknowledge()
        return late
    finally:
        os.close(timer.fd)


def measure_timer(rounds: int, wait: Duration = MILLISECOND) -> tuple[Duration, Duration]:
    """(p50, p99) of ``timer_errors``."""
    late = sorted(timer_errors(rounds, wait))
    return late[len(late) // 2], late[min(len(late) - 1, len(late) * 99 // 100)]
