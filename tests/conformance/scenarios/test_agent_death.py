"""Scenario 41: the agent of the host that hands over is killed at a stage of the hand-over.

Its connections end with it, everywhere alike: applications on the host hear WSAENETDOWN, and the peer that is sending
WSAECONNRESET when its retry budget is used up (a peer that only waits hears it when the suspension's deadline passes).
"""

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import STAGES
from tests.conformance.scenarios.outcomes import LOST
from tests.support.labs import FAST_PAIR
from tests.support.live_stage import LiveStage, Pool
from tests.support.stage import Died

pytestmark = pytest.mark.live
POINTS = [f"handoff.{stage}.{moment}" for stage in STAGES for moment in ("before", "after")]
USUAL = ("handoff.suspended.before", "handoff.commit.after", "handoff.rehome.after")


@pytest.mark.parametrize("point", [pytest.param(p, marks=() if p in USUAL else pytest.mark.soak) for p in POINTS])
def test_everybody_hears_of_it(tmp_path, point):
    with Lab(parse(FAST_PAIR, "fast"), tmp_path / "run") as lab:
        stage = LiveStage(Pool(lab), "rehome", "idle")
        try:
            stage.plan(point, "kill", "agent")
            with pytest.raises((WsaError, Died)):
                stage.target.redeem(stage.source.share(stage.target))
            for party in (stage.source, stage.target, stage.bystanders[1]):
                with pytest.raises(WsaError) as told:
                    party.call("socket.create_connection(('client', 1), 5)")
                assert told.value.wsa is WsaErrno.WSAENETDOWN, party.name
            lost = stage.bystanders[0]  # not suspended: it finds out when it sends
            stage.until(lambda: lost.write(1000) == 0 and lost.try_use() in LOST, 10 * stage.retry_budget)
        finally:
            for party in stage.company:
                party.puppet.close()
