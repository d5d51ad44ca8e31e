"""SAN sockets over fork: the child uses what it inherited as if the kernel shared it; docs/decisions/0010-fork.md.

At fork the child, before it goes on, asks the agent for descriptors of its own, and the parent waits for that: so what
the parent closes next does not end the connection. The child's descriptor numbers lead to the parent's channels, on
which it may wait; to use a socket it asks for control first, as the parent does when it finds that control has gone.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from provider.client.agent_connection import agent_at
from provider.client.channel_table import ChannelEntry, entries_of
from provider.errors import WsaErrno, WsaError

CHILD_SECONDS = 5.0
"""How long the parent waits at fork for a child that does not run."""


class Inheritable:
    """A part of ``SanSocket``: taking control from a relative."""

    _entry: ChannelEntry
    _call: Callable[..., dict[str, Any]]
    _wait: Callable[[int, float | None], None]
    gettimeout: Callable[[], float | None]

    def take_control(self) -> None:
        """Take control from a relative (over fork) now instead of at first use; nothing happens if it is here.

        The descriptor leads to another channel afterwards, under the same number. Do this before an event loop that
        keeps descriptors registered (asyncio, selectors) gets an inherited connection: epoll would stay with the old
        channel.
        """
        if self._entry.watching or self._call("status")["control"] == "relative":
            self._take(reading=False)

    def _take(self, reading: bool) -> bool:
        """Ask for control. False, only if ``reading``: nothing is there; the descriptor tells when to ask again."""
        result, descriptors = self._entry.agent.call_fds("take", s=self._entry.s, reading=reading)
        granted = bool(result["granted"])
        for fd in descriptors:
            self._entry.replace(fd, watching=not granted)
            os.close(fd)
        self._entry.watching = not granted
        return granted

    def _await_turn(self) -> None:
        """Take control as soon as there is something to read. TimeoutError, BlockingIOError by the socket's timeout."""
        timeout = self.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._take(reading=True):
            if timeout == 0:
                raise WsaError(WsaErrno.WSAEWOULDBLOCK, "nothing to read")
            self._wait(select.POLLIN, None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _call_controlled(self, operation: str, **members: Any) -> dict[str, Any]:
        """A request that only the controlling process may make; control is taken if a relative has it."""
        try:
            return self._call(operation, **members)
        except WsaError as error:
            if error.wsa is not WsaErrno.WSAEINVAL or self._call("status")["control"] != "relative":
                raise
        self._take(reading=False)
        return self._call(operation, **members)


_fork = threading.local()


def _before() -> None:
    _fork.pipe = None
    if entries_of(os.getpid()):
        with contextlib.suppress(OSError):
            _fork.pipe = os.pipe()


def _after_in_parent() -> None:
    pipe, _fork.pipe = _fork.pipe, None
    if pipe is not None:
        os.close(pipe[1])
        child_is_done = select.poll()
        child_is_done.register(pipe[0], select.POLLIN)
        child_is_done.poll(CHILD_SECONDS * 1000)
        os.close(pipe[0])


def _after_in_child() -> None:
    pipe, _fork.pipe = _fork.pipe, None
    if pipe is not None:
        os.close(pipe[0])
        try:
            _inherit()
        except OSError:
            pass  # without an agent they are dead, and say so at first use
        finally:
            os.write(pipe[1], b"!")  # closing it says nothing if another thread forks at the same time
            os.close(pipe[1])


def _inherit() -> None:
    inherited = entries_of(os.getppid())
    for path in {entry.agent.path for entry in inherited}:
        entries = [entry for entry in inherited if entry.agent.path == path]
        found = agent_at(path)
        numbers = found.inherit([entry.s for entry in entries])
        for entry in entries:
            if entry.s in numbers:
                entry.agent, entry.s, entry.pid, entry.watching = found, numbers[entry.s], os.getpid(), True


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
