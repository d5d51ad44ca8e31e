"""``up``, ``ps``, ``exec``, ``logs``, ``down``: as a user types them; and nothing stays behind, whatever was killed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from nodes.control import client as client_module
from nodes.lab import leftovers, records
from tests.support.labs import (
    ECHO_CLIENT,
    FAST_PAIR,
    assert_nothing_left,
    echo_server,
    run_ids,
    sanloom,
    wait_until,
)

pytestmark = pytest.mark.live


@pytest.fixture
def fast(tmp_path):
    path = tmp_path / "fast.yaml"
    path.write_text(FAST_PAIR)
    return str(path)


@pytest.fixture
def detached(fast, tmp_path, runtime):
    done = sanloom("up", fast, "-d", "--out", str(tmp_path / "runs"), "--json")
    assert done.returncode == 0, done.stderr
    ids = run_ids(runtime)
    yield json.loads(done.stdout)
    assert sanloom("down", "--all").returncode == 0
    assert_nothing_left(runtime, ids)


def test_a_session_of_use(detached, tmp_path):
    with echo_server("fast") as server:
        (lab,) = json.loads(sanloom("ps", "--json").stdout)
        by_name = {node["node"]: node for node in lab["nodes"]}
        assert {name: node["state"] for name, node in by_name.items()} == {"s1": "up", "client": "up", "server": "up"}
        (listening,) = by_name["server"]["sockets"]
        assert (listening["state"], listening["controlling"]) == ("listening", server.pid)
        client = sanloom("exec", "client", "--", "python", "-c", ECHO_CLIENT)
        assert (client.returncode, client.stdout) == (0, "True\n"), client.stderr
        assert server.wait(20) == 0
    wait_until(lambda: "CONTROLLED BY" not in sanloom("ps").stdout)
    journal = [json.loads(line) for line in sanloom("logs", "--journal", "--json", "client").stdout.splitlines()]
    assert "connect.established" in [record["event"] for record in journal]
    down = sanloom("down", "--json")
    assert json.loads(down.stdout) == [{"lab": "fast", "killed": 0, "run": detached["run"]}]
    events = (tmp_path / "runs" / "latest" / "events.jsonl").read_text()
    assert "accept.waiting" in events
    assert sanloom("ps").stdout == "no lab is running\n"


def test_exit_status_and_arguments_of_exec(detached):
    code = "import sys, os; print(sys.argv[1:]); sys.exit(7)"
    done = sanloom("exec", "client", "--", "python", "-c", code, "--lab", "-x")
    assert (done.returncode, done.stdout) == (7, "['--lab', '-x']\n")
    assert sanloom("exec", "clint", "--", "true").returncode == 2
    missing = sanloom("exec", "client", "--", "no-such-program")
    assert (missing.returncode, missing.stderr) == (2, "exec: no-such-program: No such file or directory\n")


@pytest.mark.parametrize("victim", ["s1", "client", "server"])
def test_down_after_kill_9_of_a_node_leaves_nothing(detached, victim):
    with echo_server("fast") as server:
        pid = detached["nodes"][victim]["pid"]
        started = leftovers.start_time(pid)
        os.kill(pid, signal.SIGKILL)
        leftovers.await_end([(pid, started)])
        shown = sanloom("ps", "--json")
        assert shown.returncode == 1
        states = {node["node"]: node["state"] for node in json.loads(shown.stdout)[0]["nodes"]}
        assert states[victim] == "ended"
        assert sanloom("down").returncode == 0
        server.wait(10)


def test_down_after_kill_9_of_everything(detached, runtime):
    with echo_server("fast") as server:
        (run,) = run_ids(runtime)
        for pid in leftovers.processes_of(run):
            os.kill(pid, signal.SIGKILL)
        server.wait(10)
        assert sanloom("down").returncode == 0


def test_a_dead_lab_makes_room_for_a_new_one_of_its_name(detached, fast, tmp_path, runtime):
    (run,) = run_ids(runtime)
    leftovers.kill_run(run)
    done = sanloom("up", fast, "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_lives(detached, fast, tmp_path):
    done = sanloom("up", fast, "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "running already" in done.stderr
    other = sanloom("up", fast, "-d", "--name", "other", "--out", str(tmp_path / "runs"))
    assert other.returncode == 0, other.stderr
    assert "say which one with --lab" in sanloom("exec", "client", "--", "true").stderr
    assert sanloom("down", "--lab", "other").returncode == 0
    assert sanloom("exec", "client", "--", "true").returncode == 0


def foreground(fast, tmp_path) -> subprocess.Popen[str]:
    up = subprocess.Popen(
        [sys.executable, "-m", "nodes", "up", fast, "--out", str(tmp_path / "runs"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert up.stdout is not None
    json.loads(up.stdout.readline())
    return up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_lab_ends_in_order_with_a_signal(fast, tmp_path, runtime, number):
    up = foreground(fast, tmp_path)
    ids = run_ids(runtime)
    up.send_signal(number)
    _, errors = up.communicate(timeout=20)
    assert (up.returncode, errors) == (0, "")
    assert_nothing_left(runtime, ids)


def test_a_foreground_lab_ends_with_its_killed_launcher_and_leaves_nothing(fast, tmp_path, runtime):
    up = foreground(fast, tmp_path)
    (record,) = records.running()
    with echo_server("fast") as server:
        up.kill()
        up.communicate(timeout=20)
        leftovers.await_end([(node.pid, node.start_time) for node in record.nodes.values()], 20)
        server.wait(20)
        wait_until(lambda: not (runtime / "sanloom" / "fast").exists())
        assert_nothing_left(runtime, [record.run_id])


def test_a_wrong_topology_starts_nothing(tmp_path, runtime):
    path = tmp_path / "wrong.yaml"
    path.write_text(FAST_PAIR.replace("100us", "100 parsecs"))
    done = sanloom("up", str(path), "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "wrong.yaml:2:" in done.stderr
    assert "defaults.link.latency" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not (runtime / "sanloom").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ps", "--lab", "x"], "no lab is running"),
        (["exec", "client", "--", "true"], "no lab is running"),
        (
            ["up", "no-such"],
            "no such file, and no shipped topology has this name (broker, leaf-spine, pair, prefork, restart, star)",
        ),
        (["up", "pair", "--name", "A/B"], "is no name"),
        (["capture", "-w", "x"], "no lab is running"),
        (["dwon"], "did you mean 'down'?"),
        (["down", "--lab", "../x"], "is no name of a lab"),
    ],
)
def test_bad_usage_is_told_with_status_2(arguments, expected, tmp_path):
    done = sanloom(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_down_without_a_lab_is_no_mistake():
    done = sanloom("down")
    assert (done.returncode, done.stdout) == (0, "no lab is running\n")


def test_a_lab_over_tcp_with_curve_works_and_listens_only_on_loopback(fast, tmp_path, runtime):
    assert sanloom("up", fast, "-d", "--transport", "tcp", "--out", str(tmp_path / "runs")).returncode == 0
    ids = run_ids(runtime)
    (record,) = records.running()
    try:
        with echo_server("fast") as server:
            client = sanloom("exec", "client", "--", "python", "-c", ECHO_CLIENT)
            assert (client.returncode, client.stdout) == (0, "True\n"), client.stderr
            assert server.wait(20) == 0
        secrets = list((runtime / "sanloom" / "fast").glob("*.key"))
        assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600] * 3
        listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        ours = [line.split()[1] for line in listening.splitlines() if line.split()[1].endswith(":12B9")]
        assert ours
        assert all(address[6:8] == "7F" for address in ours)
        statistics = client_module.ask(record.control_path("s1"), "statistics")
        assert statistics["handshakes_refused"] == 0
        assert {name: peer["state"] for name, peer in statistics["neighbours"].items()} == {
            "client": "up",
            "server": "up",
        }
    finally:
        assert sanloom("down").returncode == 0
    assert_nothing_left(runtime, ids)
