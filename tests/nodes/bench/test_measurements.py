"""Each measurement runs, gives figures that can be right, and leaves nothing behind; they are not judged here."""

import json

import pytest

from nodes.bench import delay, forwarding, goodput, handoff, simulator
from tests.support.labs import assert_nothing_left, sanloom

pytestmark = pytest.mark.live


def test_forwarding(runtime):
    figures = forwarding.measure(seconds=0.05, rounds=1)
    assert [figure.name for figure in figures] == ["forwarding 1024 B"] * 2 + ["forwarding 4096 B"] * 2
    assert all(figure.ours > 0 and figure.baseline for figure in figures)


def test_delay(runtime, monkeypatch):
    monkeypatch.setattr(delay, "LATENCIES", (1_000_000,))
    figures = delay.measure(frames=10, rounds=1)
    assert [figure.name for figure in figures] == ["delay error 1 ms p50", "delay error 1 ms p99"]
    assert 0 < figures[0].ours <= figures[1].ours


def test_handoff(runtime, monkeypatch):
    monkeypatch.setattr(handoff, "LOADED", handoff.TOPOLOGY)
    figures = handoff.measure(rounds=4)
    assert len(figures) == 16
    assert all(figure.ours > 0 for figure in figures)
    assert sum(figure.at_most is not None for figure in figures) == 2
    (runtime / "sanloom").mkdir(exist_ok=True)
    assert_nothing_left(runtime, [])


def test_goodput(runtime):
    (figure,) = goodput.measure(size=1 << 20, rounds=1)
    assert figure.ours > 0
    assert figure.baseline


def test_simulator_and_the_command(runtime):
    (figure,) = simulator.measure(size=100_000, rounds=1)
    assert figure.ours > 0
    done = sanloom("bench", "--only", "simulator", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["figures"][0]["name"] == "simulator"
    assert shown["machine"]["processors"] >= 1
    assert "OURS" in sanloom("bench", "--only", "simulator", "--quick").stdout
