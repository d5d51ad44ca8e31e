"""Applications of a topology run with the lab, on its hosts, and end with it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from nodes.lab.leftovers import processes_of
from tests.support.labs import FAST_PAIR, assert_nothing_left, run_ids, sanloom, wait_until

pytestmark = pytest.mark.live
HOSTS = """hosts:
  client:
    applications:
      call:
        command: [python, -m, nodes.apps.round_trips, "server:7000", --count, "2"]
        after: [server.serve]    # started, not yet listening perhaps: then it is refused and tries again
        restart: on-failure
      fail: {command: "sh -c 'echo $COLOUR $SANLOOM_AGENT; exit 3'", environment: {COLOUR: blue}, restart: on-failure}
      missing: {command: [no-such-program]}
  server:
    applications:
      serve: {command: [python, -m, nodes.apps.echo_server], restart: on-failure}
"""


@pytest.fixture
def topology(tmp_path):
    path = tmp_path / "apps.yaml"
    path.write_text(FAST_PAIR.replace("hosts: {client: {}, server: {}}\n", HOSTS))
    return str(path)


def applications():
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return shown["applications"]


def test_they_run_talk_fail_and_end(topology, tmp_path, runtime):
    done = sanloom("up", topology, "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    ids = run_ids(runtime)
    try:
        wait_until(lambda: applications()["client.call"]["status"] == 0, tell=applications)
        wait_until(lambda: applications()["client.fail"]["restarts"] >= 1, tell=applications)
        found = applications()
        assert (found["server.serve"]["state"], found["server.serve"]["status"]) == ("up", None)
        assert (found["client.missing"]["state"], found["client.missing"]["status"]) == ("failed", 127)
        assert "2 round trips" in sanloom("logs", "client.call").stdout
        assert "no-such-program: No such file" in sanloom("logs", "client.missing").stdout
        shown = sanloom("ps")
        assert shown.returncode == 0
        assert "ended (0)" in shown.stdout
        os.kill(found["server.serve"]["pid"], signal.SIGKILL)
        wait_until(lambda: applications()["server.serve"]["restarts"] == 1, tell=applications)
        wait_until(lambda: applications()["server.serve"]["state"] == "up", tell=applications)
        assert sanloom("logs", "client.nothing").returncode == 2
    finally:
        assert sanloom("down").returncode == 0
    assert_nothing_left(runtime, ids)
    lines = (tmp_path / "runs" / "latest" / "client.fail.log").read_text().splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("blue /")


def test_they_end_with_a_launcher_that_is_killed(topology, tmp_path, runtime):
    arguments = [sys.executable, "-m", "nodes", "up", topology, "--out", str(tmp_path / "runs")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert "ready after" in launcher.stdout.readline()
        ids = run_ids(runtime)
        wait_until(lambda: applications()["server.serve"]["state"] == "up")
        launcher.kill()
    wait_until(lambda: not list((runtime / "sanloom").iterdir()) and not any(processes_of(run) for run in ids))
    assert_nothing_left(runtime, ids)


def test_they_end_when_their_runner_is_killed_and_the_lab_goes_down(topology, tmp_path, runtime):
    done = sanloom("up", topology, "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    ids = run_ids(runtime)
    wait_until(lambda: applications()["server.serve"]["state"] == "up")
    record = json.loads((runtime / "sanloom" / "fast" / "lab.json").read_text())
    os.kill(record["runner"][0], signal.SIGKILL)
    assert sanloom("down").returncode == 0
    assert_nothing_left(runtime, ids)
