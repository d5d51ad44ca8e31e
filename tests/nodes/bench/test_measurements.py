"""Each measurement runs, gives figures that can be right, and leaves nothing behind; they are not judged here."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.bench import delay, forwarding, goodput, handoff, live_ends, reliable_connection, simulator
from tests.support.labs import assert_nothing_left, sanloom, wait_until

pytestmark = pytest.mark.live


def test_forwarding(runtime):
    figures = forwarding.measure(seconds=0.05, rounds=1)
    assert [figure.name for figure in figures] == ["forwarding 1024 B"] * 2 + ["forwarding 4096 B"] * 2
    assert all(figure.ours > 0 and figure.baseline for figure in figures)


def test_forwarding_between_live_hosts(runtime):
    figures = live_ends.measure(seconds=0.05, rounds=1)
    assert [figure.name for figure in figures] == ["forwarding 1024 B, live hosts", "forwarding 4096 B, live hosts"]
    assert all(figure.ours > 0 and figure.baseline for figure in figures)
    assert_nothing_left(runtime, [])


def test_delay(runtime, monkeypatch):
    monkeypatch.setattr(delay, "LATENCIES", (1_000_000,))
    figures = delay.measure(frames=10, rounds=1)
    assert [figure.name for figure in figures] == ["delay error 1 ms p50", "delay error 1 ms p99"]
    assert 0 < figures[0].ours <= figures[1].ours


def test_handoff(runtime, monkeypatch):
    monkeypatch.setattr(handoff, "LOADED", handoff.TOPOLOGY)
    figures = handoff.measure(rounds=6)
    assert len(figures) == 24
    assert all(figure.ours > 0 for figure in figures)
    assert sum(figure.at_most is not None for figure in figures) == 3
    (runtime / "sanloom").mkdir(exist_ok=True)
    assert_nothing_left(runtime, [])


def test_goodput(runtime):
    (figure,) = goodput.measure(size=1 << 20, rounds=1)
    assert figure.ours > 0
    assert figure.baseline


def test_simulator_and_the_command(runtime):
    (figure,) = simulator.measure(size=100_000, rounds=1)
    assert figure.ours > 0
    assert figure.baseline
    done = sanloom("bench", "--only", "simulator", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["figures"][0]["name"] == "simulator"
    assert len(shown["figures"][0]["ours_rounds"]) == len(shown["figures"][0]["baseline_rounds"]) == 2
    assert shown["machine"]["processors"] >= 1
    assert "OURS" in sanloom("bench", "--only", "simulator", "--quick").stdout


def test_the_reliable_connection_alone():
    figures = reliable_connection.measure(packets=200, rounds=1)
    assert [figure.name for figure in figures] == ["reliable connection, 1024 B", "reliable connection, 4096 B"]
    assert all(figure.ours > 0 for figure in figures)


@pytest.mark.parametrize("role", ["source", "sink"])
def test_an_end_of_the_bare_relay_ends_with_its_standard_input_also_when_there_is_no_relay(tmp_path, role):
    arguments = [sys.executable, "-m", "fabric.live.relay_ends", role, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        finally:
            process.kill()
    assert process.returncode in (0, 1)


MISSES = """
import sys
from nodes.bench.figures import Figure
from nodes.cli import bench, main
bench.MEASUREMENTS["simulator"] = lambda quick, engine: [Figure("x", "u", 1, 2, at_least=0.6)]
sys.argv = ["sanloom", "bench", "--only", "simulator"]
sys.exit(main.main())
"""


def test_a_missed_floor_is_said_and_is_status_1():
    done = subprocess.run([sys.executable, "-c", MISSES], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "MISSED" in done.stdout) == (1, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_after_a_killed_benchmark(number, tmp_path):
    """Every process of the run has the mark in its environment, whatever it is."""
    mark = secrets.token_hex(8)
    arguments = [sys.executable, "-m", "nodes", "bench", "--only", "goodput"]
    with subprocess.Popen(arguments, env={**os.environ, "BENCH_MARK": mark, "TMPDIR": str(tmp_path)}) as process:
        # once a relay of the plain chain is there, its sink waits for a connection, and would do so for ever
        wait_until(lambda: any(b"trio.run(main)" in line for _, line in marked(mark)))
        process.send_signal(number)
        assert process.wait(20) == (130 if number == signal.SIGTERM else -number)
    wait_until(lambda: not marked(mark), tell=lambda: marked(mark))


def marked(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"BENCH_MARK={mark}".encode() in path.read_bytes():
                found.append((path.parent.name, (path.parent / "cmdline").read_bytes()[-80:]))
    return found
