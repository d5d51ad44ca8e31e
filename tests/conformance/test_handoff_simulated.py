"""A stream is exact over two hand-overs and loss, nothing is left over, and the same seed gives the same journal."""

import os
import subprocess
import sys

import pytest

from tests.support.handoff_run import execute


@pytest.mark.parametrize("mode", ["suspend", "local", "rehome"])
@pytest.mark.parametrize("seed", range(1, 6))
def test_stream_is_exact_and_everything_is_released(seed, mode):
    run, exact = execute(seed, mode)
    assert exact, f"seed {seed}"
    for stack in (run.client, run.server):
        left = stack.statistics()
        assert (left.sockets, left.descriptors, left.endpoints, left.parked) == (0, 0, 0, 0), f"seed {seed}: {left}"
    assert run.server.statistics().registry.commits == 2


def journal(hash_seed: str, seed: int) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.handoff_run", str(seed), "suspend"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
        timeout=100,
    ).stdout


def test_same_seed_gives_a_byte_equal_journal_under_any_hash_seed():
    first = journal("0", 7)
    assert first == journal("4242", 7)
    assert first != journal("0", 8)
    assert b"handoff.commit" in first
