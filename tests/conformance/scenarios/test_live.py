"""The fault scenarios that make sense with real processes: the same functions as in virtual time, on a live lab.

The others need what only virtual time gives: an hour that passes, one certain message that is lost, a table that is
full, a look inside.
"""

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from tests.conformance.scenarios.outcomes import works
from tests.conformance.scenarios.test_simulated import SCENARIOS
from tests.nodes.handoff.conftest import left
from tests.support.labs import FAST_PAIR, wait_until
from tests.support.live_stage import LiveStage, Pool
from tests.support.stage import MODES, STATES

pytestmark = pytest.mark.live
LIVE = (1, 3, 9, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 29, 33, 36, 37, 40, 46)
NAMES = sorted(name for name in SCENARIOS if int(name[1:3]) in LIVE)
ONCE = (3, 17, 20, 22)
"""Whole seconds long: one mode and one state will do."""


def chosen():
    """Every scenario in every mode, each time in another state; all of them are for ``pytest -m soak``."""
    for number, name in enumerate(NAMES):
        for position, mode in enumerate(MODES):
            for state in STATES:
                turn = STATES[(number + position) % len(STATES)]
                usual = state == turn and (int(name[1:3]) not in ONCE or mode == "suspend")
                yield pytest.param(name, mode, state, marks=() if usual else pytest.mark.soak)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(parse(FAST_PAIR, "fast"), tmp_path_factory.mktemp("run")) as lab:
        yield lab


@pytest.fixture(scope="module")
def pool(lab):
    made = Pool(lab)
    yield made
    made.close()
    wait_until(lambda: not left(lab), 30, tell=lambda: left(lab))


@pytest.mark.parametrize(("name", "mode", "state"), list(chosen()))
def test_scenario(lab, pool, name, mode, state):
    stage = LiveStage(pool, mode, state)
    try:
        SCENARIOS[name](stage)
        if stage.bystanders:
            works(stage, *stage.bystanders[::-1])
    finally:
        stage.end()
    wait_until(lambda: {entry.get("pid") for entry in left(lab)} <= pool.pids(), 30, tell=lambda: left(lab))
