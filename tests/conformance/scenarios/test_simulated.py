"""Every fault scenario of handoff.md 7, in all modes and all states of the stream, in virtual time."""

import re

import pytest

from tests.conformance.scenarios import after_the_commit, before_the_commit
from tests.conformance.scenarios.outcomes import nothing_is_left
from tests.support.stage import MODES, STATES, SimulatedStage

SCENARIOS = {
    name: function
    for module in (before_the_commit, after_the_commit)
    for name, function in vars(module).items()
    if re.match(r"s\d\d_", name)
}
LIVE_ONLY = {10, 41, 44}
"""10: file objects are the library's; 41: an agent's death; 44 is 9 with another name."""


def test_every_scenario_is_there():
    assert {int(name[1:3]) for name in SCENARIOS} | LIVE_ONLY == set(range(1, 47))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name, mode, state):
    stage = SimulatedStage(mode, state)
    SCENARIOS[name](stage)
    nothing_is_left(stage)
