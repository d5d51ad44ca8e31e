"""What the faults of a plan do to live processes: signals by pidfd, delays, requests and replies that get lost.

The plan comes over the node's control socket::

    -> {"op": "fault-points", "plan": [{"point": "handoff.san.5.after", "action": "kill"}]}
    -> {"op": "fault-points"}
    <- {"fired": [...], "pending": [...]}
"""

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from fabric.ids import ProcessInstance
from fabric.units import SECOND
from provider.errors import WsaError
from provider.handoff.fault_points import Fault, FaultPoints, Parties, parse_plan

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


Reply = tuple[dict[str, Any], list[int]]
"""A result and the file descriptors that go with it."""


class Dropped(Exception):
    """The plan has a request or its reply lost: nothing is answered."""


class FaultActions:
    """``pidfd_of``: of every process that the agent watches."""

    def __init__(self, points: FaultPoints, pidfd_of: Callable[[ProcessInstance], int | None]) -> None:
        self._points = points
        self._pidfd_of = pidfd_of
        points.act = self._act

    @property
    def armed(self) -> bool:
        """Whether faults are still to come."""
        return self._points.armed

    def operation(self, request: dict[str, Any]) -> dict[str, Any]:
        """The control operation; UsageError for a plan that is none."""
        if "plan" in request:
            self._points.plan(parse_plan(request["plan"]))
        return self._points.describe()

    async def reach(self, point: str, process: ProcessInstance) -> int:
        """A step of a process; returns how often its message goes: once, twice, or not at all."""
        if not self._points.armed:
            return 1
        copies = 1
        for fault in self._points.reach(point, Parties(process, process)):
            if fault.action == "delay":
                await trio.sleep(fault.duration / SECOND)
            elif fault.action == "drop":
                copies = 0
            elif copies:
                copies = 2
        return copies

    async def carry_out(
        self, point: str, process: ProcessInstance, act: Callable[[], Awaitable[Reply] | Reply]
    ) -> Reply:
        """A step that is a call to the agent. Dropped if the request or its reply gets lost.

        A request that comes twice is carried out twice; the second time is answered to nobody.
        """
        copies = await self.reach(f"{point}.before", process)
        if not copies:
            raise Dropped
        result, descriptors = await _finished(act())
        if copies > 1:
            with contextlib.suppress(WsaError):
                close_all((await _finished(act()))[1])
        if not await self.reach(f"{point}.after", process):
            close_all(descriptors)
            raise Dropped
        return result, descriptors

    def _act(self, fault: Fault, process: ProcessInstance | None) -> None:
        number = _SIGNALS[fault.action]
        if process is None:
            os.kill(os.getpid(), number)
        elif (pidfd := self._pidfd_of(process)) is not None:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it has ended by itself


async def _finished(outcome: Awaitable[Reply] | Reply) -> Reply:
    return await outcome if isinstance(outcome, Awaitable) else outcome


def close_all(descriptors: Iterable[int]) -> None:
    """Of a reply that nobody gets."""
    for fd in descriptors:
        os.close(fd)
