"""Scenario 42, and the stream under load: one connection handed to and fro, with faults at random.

A few dozen times here; a thousand times with ``pytest -m soak``.
"""

import random

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from provider.errors import WsaErrno
from tests.conformance.scenarios.before_the_commit import T_TICKET, refused
from tests.conformance.scenarios.outcomes import nothing_is_left, works
from tests.nodes.handoff.conftest import left
from tests.support.labs import FAST_PAIR, wait_until
from tests.support.live_stage import LiveStage, Pool
from tests.support.stage import MODES, SimulatedStage


def to_and_fro(stage, times, fault_rate):
    """Hand the connection over ``times`` times; gives its last owner and how many faults there were."""
    rng = random.Random(stage.seed)
    owner, other = stage.source, stage.target
    faults = 0
    for number in range(times):
        mode = rng.choice(MODES)
        fault = rng.choice(["lost", "repeated", "stolen", "flap", "dead"]) if rng.random() < fault_rate else None
        faults += fault is not None
        if fault == "flap":
            stage.cut()
            stage.advance(0.05)
            stage.cut(False)
        if fault == "dead":
            victim = stage.another("server", f"victim {number}")
            stage.parties.append(victim)
            owner.share(victim, mode)
            victim.kill()
        else:
            info = owner.share(other, mode)
        if fault in ("lost", "dead"):
            stage.until(lambda owner=owner: owner.usable, T_TICKET + 1)
            continue
        if fault == "stolen":
            refused(WsaErrno.WSAEINVAL, lambda info=info: stage.third.redeem(info))
        other.redeem(info)
        if fault == "repeated":
            refused(WsaErrno.WSAEINVAL, lambda info=info, other=other: other.redeem(info))
        owner.close()
        owner, other = other, owner
        stage.turn()
    return owner, faults


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_simulated(times):
    stage = SimulatedStage("suspend", "load", seed=times)
    owner, faults = to_and_fro(stage, times, 0.1)
    assert faults > times // 20
    works(stage, owner)
    nothing_is_left(stage)


@pytest.mark.live
@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.soak)])
def test_live(tmp_path, times):
    with Lab(parse(FAST_PAIR, "fast"), tmp_path / "run") as lab:
        pool = Pool(lab)
        stage = LiveStage(pool, "suspend", "load", seed=times)
        descriptors = stage.agent_descriptors()
        try:
            owner, faults = to_and_fro(stage, times, 0.05)
            works(stage, owner)
            works(stage, *stage.bystanders[::-1])
            assert faults
            assert stage.agent_descriptors() <= descriptors + 2 * len(stage.parties)
        finally:
            stage.end()
            pool.close()
        wait_until(lambda: not left(lab), 30, tell=lambda: left(lab))
        wait_until(lambda: lab.ask("server", "statistics")["queue_pairs"] == 0, 30)
