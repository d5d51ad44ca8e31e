"""The main job, live: seventeen steps over a lossy link, byte-equal, and nothing left behind."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.live


@pytest.mark.parametrize("mode", ["suspend", "local"])
def test_demo_moves_the_bytes_and_hands_over_seventeen_steps(tmp_path, mode):
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(256)) * 12_000)
    arguments = ["demo", "--mode", mode, "--file", str(source), "--out", str(tmp_path / "runs"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "nodes", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["equal"]
    assert result["steps"] == 17
    assert result["frames_lost_outside_the_model"] == 0
    journal = (tmp_path / "runs" / "latest" / "events.jsonl").read_text()
    for step in range(1, 18):
        assert f"handoff.san.{step}." in journal or step == 14, step


def test_bad_option_is_told_and_nothing_starts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nodes", "demo", "--loss", "much", "--out", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "0.5%" in done.stderr
    assert not (tmp_path / "runs").exists()
