"""Plans of faults: what is refused, what fires when, and that nothing fires twice."""

import pytest

from fabric.errors import UsageError
from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND
from provider.handoff.fault_points import POINTS, Fault, FaultPoints, Parties, parse_plan

SOURCE, TARGET = ProcessInstance(1, 1), ProcessInstance(2, 1)
PARTIES = Parties(SOURCE, SOURCE, TARGET)


def armed(*faults):
    records, acted = [], []
    points = FaultPoints(lambda event, **members: records.append((event, members)))
    points.act = lambda fault, process: acted.append((fault.action, process))
    points.plan(faults)
    return points, records, acted


def test_there_is_a_point_before_and_after_everything_that_design_and_scenarios_name():
    assert len(POINTS) == len(set(POINTS)) == 2 * (17 + 10 + 7 + 2)
    for name in ("handoff.san.17.after", "handoff.generic.10.before", "handoff.ticket.before", "handoff.commit.after"):
        assert name in POINTS


def test_a_fault_fires_at_its_occurrence_once_and_leaves_a_record():
    points, records, acted = armed(
        Fault("handoff.drain.after", "kill", "target", occurrence=2), Fault("handoff.drain.after", "stop")
    )
    points.reach("handoff.drain.before", PARTIES)
    assert acted == []
    points.reach("handoff.drain.after", PARTIES)
    assert acted == [("stop", SOURCE)]
    assert points.armed
    points.reach("handoff.drain.after", PARTIES)
    assert acted == [("stop", SOURCE), ("kill", TARGET)]
    assert not points.armed
    points.reach("handoff.drain.after", PARTIES)
    assert len(acted) == len(records) == 2
    assert records[1] == ("fault.fired", records[1][1])
    assert records[1][1]["pid"] == 2
    assert [fault["action"] for fault in points.describe()["fired"]] == ["stop", "kill"]


def test_what_a_message_suffers_is_the_callers_business():
    points, _, acted = armed(
        Fault("handoff.san.6.before", "delay", duration=MILLISECOND), Fault("handoff.san.6.before", "drop")
    )
    assert [fault.action for fault in points.reach("handoff.san.6.before", PARTIES)] == ["delay", "drop"]
    assert acted == []


def test_one_who_has_no_part_there_is_missed_and_that_is_told():
    points, records, acted = armed(Fault("handoff.peer.resumed.after", "kill", "target"))
    points.reach("handoff.peer.resumed.after", Parties(SOURCE))
    assert acted == []
    assert records[-1][0] == "fault.missed"


def test_the_agent_itself():
    points, _, acted = armed(Fault("handoff.commit.before", "kill", "agent"))
    points.reach("handoff.commit.before", PARTIES)
    assert acted == [("kill", None)]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({}, "a list"),
        ([1], "fault 1 is no object"),
        ([{"point": "handoff.san.5.before"}], "needs point and action"),
        ([{"point": "handoff.san.18.before", "action": "kill"}], "no fault point"),
        ([{"point": "handoff.ticket.before", "action": "drop"}], "none of kill, stop"),
        ([{"point": "handoff.san.5.before", "action": "explode"}], "'explode' is none of kill"),
        ([{"point": "handoff.san.5.before", "action": "delay"}], "a delay has a duration"),
        ([{"point": "handoff.san.5.before", "action": "kill", "duration": "1ms"}], "a delay has a duration"),
        ([{"point": "handoff.san.5.before", "action": "delay", "duration": "1"}], "fault 1: duration: '1' has no unit"),
        ([{"point": "handoff.san.5.after", "action": "duplicate"}], "before the step"),
        ([{"point": "handoff.san.5.after", "action": "kill", "who": "me"}], "who is 'me'"),
        ([{"point": "handoff.san.5.after", "action": "kill", "occurrence": 0}], "occurrence is 0"),
        ([{"point": "handoff.san.5.after", "action": "kill", "occurrence": True}], "occurrence is no int"),
        ([{"point": "handoff.san.5.after", "action": "kill", "when": 1}], "unknown member 'when'"),
        ([{"point": "handoff.san.5.after", "action": "kill"}] * 257, "at most 256"),
    ],
)
def test_a_plan_that_is_none_is_told(plan, told):
    with pytest.raises(UsageError, match=told):
        parse_plan(plan)


def test_a_plan_is_read():
    (fault,) = parse_plan([{"point": "handoff.san.5.before", "action": "delay", "duration": "5ms", "occurrence": 3}])
    assert fault == Fault("handoff.san.5.before", "delay", duration=5 * MILLISECOND, occurrence=3)
