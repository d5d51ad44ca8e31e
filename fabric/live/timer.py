"""One timerfd on the monotonic clock: exact to tens of microseconds, where an epoll timeout is rounded up to
milliseconds.
"""

import ctypes
import os

import trio

from fabric.units import SECOND, Instant

_CLOCK_MONOTONIC, _NONBLOCK, _CLOEXEC, _ABSOLUTE = 1, os.O_NONBLOCK, os.O_CLOEXEC, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """Arm it for an instant, wait for its ring."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._armed: Instant | None = None

    def arm(self, at: Instant | None) -> None:
        """Ring at ``at`` (monotonic nanoseconds); ``None`` disarms. Arming for the same instant again costs nothing."""
        if at == self._armed:
            return
        self._armed = at
        value = _Itimerspec()
        if at is not None:
            value.value = _Timespec(*divmod(max(1, at), SECOND))
        if _libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(value), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    async def wait(self) -> None:
        """Until it rings."""
        await trio.lowlevel.wait_readable(self.fd)

    def acknowledge(self) -> None:
        """It has rung."""
        try:
            os.read(self.fd, 8)
            self._armed = None
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give the descriptor back."""
        trio.lowlevel.notify_closing(self.fd)
        os.close(self.fd)
