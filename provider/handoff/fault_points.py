"""Fault points: the named places of a hand-over where a fault plan may act before execution goes on.

================================  ======================================================  =============================
names                             reached                                                 what a plan may do there
================================  ======================================================  =============================
handoff.san.STEP.MOMENT           by the process that takes the step of the SAN scenario,  kill, stop, delay, drop,
                                  1 to 17; 5, 8, 10 and 14 are calls to the agent, 2, 3,  duplicate
                                  6 and 11 messages to the other process
handoff.generic.STEP.MOMENT       the same for the ten steps of the generic page          the same
handoff.STAGE.MOMENT              in the agent of the host that hands over                kill, stop
handoff.peer.STAGE.MOMENT         in the agent of the peer                                kill, stop
================================  ======================================================  =============================

MOMENT is ``before`` or ``after``. STAGE of the agent: drain (the source's channel is cut off), suspend (SuspComm falls
due), suspended (the answer is there), ticket (it is recorded), commit, resume, rehome (the connection goes down). STAGE
of the peer: suspended, resumed.

``kill`` and ``stop`` hit the process that a fault names: ``self``, the process that has reached the point (at the
agent's stages the source before the commit and the target after it), ``source``, ``target``, or ``agent``. Delays,
lost and repeated messages are the business of whoever carries the message: :meth:`FaultPoints.reach` returns them.

Nothing here acts by itself, and a point that no plan names costs one look at ``armed``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fabric.errors import UsageError
from fabric.ids import ProcessInstance
from fabric.units import Duration, parse_duration

MOMENTS = ("before", "after")
STAGES = ("drain", "suspend", "suspended", "ticket", "commit", "resume", "rehome")
PEER_STAGES = ("suspended", "resumed")
STEPS = {"san": 17, "generic": 10}
AT_ONCE = ("kill", "stop")
CARRIED = ("delay", "drop", "duplicate")
WHO = ("self", "source", "target", "agent")
PLAN_MAX = 256


def _names() -> Iterable[str]:
    for scenario, steps in STEPS.items():
        yield from (f"handoff.{scenario}.{step}" for step in range(1, steps + 1))
    yield from (f"handoff.{stage}" for stage in STAGES)
    yield from (f"handoff.peer.{stage}" for stage in PEER_STAGES)


POINTS = tuple(f"{name}.{moment}" for name in _names() for moment in MOMENTS)
"""All of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a plan: the ``occurrence``-th time that ``point`` is reached, counted from 1."""

    point: str
    action: str
    who: str = "self"
    duration: Duration = 0
    """Of a delay, in nanoseconds."""
    occurrence: int = 1

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise UsageError(f"there is no fault point {self.point[:80]!r}; one is handoff.san.5.before")
        steps = self.point.startswith(("handoff.san.", "handoff.generic."))
        actions = AT_ONCE + CARRIED if steps else AT_ONCE
        if self.action not in actions:
            raise UsageError(f"{self.point}: the action {self.action[:80]!r} is none of {', '.join(actions)}")
        if self.who not in WHO:
            raise UsageError(f"{self.point}: who is {self.who[:80]!r}; expected one of {', '.join(WHO)}")
        if not 1 <= self.occurrence <= 1_000_000:
            raise UsageError(f"{self.point}: occurrence is {self.occurrence}; expected 1 to 1000000")
        if self.action == "duplicate" and not self.point.endswith(".before"):
            raise UsageError(f"{self.point}: what is repeated is repeated before the step")
        if (self.duration > 0) != (self.action == "delay"):
            raise UsageError(f"{self.point}: a delay has a duration above 0, and nothing else has")


def parse_plan(entries: object) -> list[Fault]:
    """A plan as JSON has it: ``[{"point": ..., "action": ..., "duration": "5ms"}]``. UsageError names the entry."""
    if not isinstance(entries, list) or len(entries) > PLAN_MAX:
        raise UsageError(f"a fault plan is a list of at most {PLAN_MAX} faults")
    return [_parse_fault(number, entry) for number, entry in enumerate(entries, 1)]


def _parse_fault(number: int, entry: object) -> Fault:
    if not isinstance(entry, Mapping):
        raise UsageError(f"fault {number} is no object with point and action")
    members: dict[str, Any] = dict(entry)
    kinds = {"point": str, "action": str, "who": str, "duration": str, "occurrence": int}
    for key, value in members.items():
        if key not in kinds:
            raise UsageError(f"fault {number} has an unknown member {key[:80]!r}; there are {', '.join(kinds)}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise UsageError(f"fault {number}: {key} is no {kinds[key].__name__}")
    if not {"point", "action"} <= members.keys():
        raise UsageError(f"fault {number} needs point and action")
    try:
        if "duration" in members:
            members["duration"] = parse_duration(members["duration"])
    except ValueError as error:
        raise UsageError(f"fault {number}: duration: {error}") from None
    return Fault(**members)


@dataclass(frozen=True, slots=True)
class Parties:
    """Whom a fault may name at a point. ``reached_by`` is ``self``."""

    reached_by: ProcessInstance | None
    source: ProcessInstance | None = None
    target: ProcessInstance | None = None

    def find(self, who: str) -> ProcessInstance | None:
        """The process; ``None`` for the agent, and for one that has no part here."""
        return {"self": self.reached_by, "source": self.source, "target": self.target}.get(who)


Act = Callable[[Fault, ProcessInstance | None], None]
"""Kills or stops: the fault, and the process that it hits (``None`` for the agent)."""


class FaultPoints:
    """The plan of one host. ``act`` is set by whoever drives the host; it is called inside ``reach``."""

    def __init__(self, report: Callable[..., None]) -> None:
        self.armed = False
        """Whether a plan has faults that are still to come."""
        self.act: Act = lambda fault, process: None
        self._report = report
        self._planned: list[Fault] = []
        self._fired: list[Fault] = []
        self._reached: dict[str, int] = {}

    def plan(self, faults: Iterable[Fault]) -> None:
        """Replace the plan; counting begins anew."""
        self._planned, self._fired, self._reached = list(faults), [], {}
        self.armed = bool(self._planned)

    def reach(self, point: str, parties: Parties) -> list[Fault]:
        """Execution is at ``point``. Kills and stops have happened on return; the others are returned, in order."""
        assert point in POINTS, point
        if not self.armed:
            return []
        count = self._reached[point] = self._reached.get(point, 0) + 1
        due = [fault for fault in self._planned if (fault.point, fault.occurrence) == (point, count)]
        for fault in due:
            self._planned.remove(fault)
            self._fired.append(fault)
            hit = parties.find(fault.who)
            self._report("fault.fired", **asdict(fault), pid=None if hit is None else hit.pid)
            if fault.action in AT_ONCE:
                if hit is None and fault.who != "agent":
                    self._report("fault.missed", point=point, who=fault.who)
                    continue
                self.act(fault, hit)
        self.armed = bool(self._planned)
        return [fault for fault in due if fault.action in CARRIED]

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """What has fired, in order, and what is still to come."""
        return {
            "fired": [asdict(fault) for fault in self._fired],
            "pending": [asdict(fault) for fault in self._planned],
        }
