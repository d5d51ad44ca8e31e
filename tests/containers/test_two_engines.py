"""A lab across two engines of one swarm: the demo, a remote host in use, a machine that is cut off and comes back."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.labs import sanloom, wait_until
from tests.support.two_engines import AHEAD_SECONDS, CannotStart, two_engines

pytestmark = pytest.mark.live
PLACES = ("--place", "s1=sla", "--place", "client=sla", "--place", "server=slb")
STACK = "sanloom-far"


@pytest.fixture(scope="module")
def engines(image):
    running = two_engines()
    try:
        both = running.__enter__()
    except CannotStart as why:
        pytest.skip(str(why))
    try:
        both.load(image)
        yield both
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def manager(engines, image, monkeypatch):
    """The environment of a command on the manager."""
    monkeypatch.setenv("DOCKER_HOST", engines.url("sla"))
    monkeypatch.setenv("SANLOOM_IMAGE", image)
    return engines


def left(engines) -> dict[str, str]:
    label = f"label=com.docker.stack.namespace={STACK}"
    found = {
        f"{kind} on {name}": engines.docker(name, kind, "ls", "-q", *option, "--filter", label)
        for name in ("sla", "slb")
        for kind, option in (("container", ["-a"]), ("network", []))
    }
    return {what: ids for what, ids in found.items() if ids}


def states() -> dict[str, str]:
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return {node["node"]: node["state"] for node in shown["nodes"]}


def neighbours() -> dict[str, dict[str, dict[str, object]]]:
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return {node["node"]: node["neighbours"] for node in shown["nodes"]}


def round_trips() -> None:
    echo = ["exec", "server", "--", "python", "-m", "nodes.apps.echo_server", "--once"]
    with subprocess.Popen([sys.executable, "-m", "nodes", *echo], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "listening" in server.stdout.readline()
            done = sanloom(
                "exec", "client", "--", "python", "-m", "nodes.apps.round_trips", "server:7000", "--count", "2"
            )
            assert (done.returncode, "2 round trips" in done.stdout) == (0, True), done.stderr
            assert server.wait(30) == 0
        finally:
            server.kill()


def test_the_demo_across_two_machines(manager, tmp_path):
    (tmp_path / "source.bin").write_bytes(os.urandom(3_000_000))
    arguments = ["--file", str(tmp_path / "source.bin"), "--out", str(tmp_path / "runs"), "--json"]
    done = sanloom("demo", "--engine", "swarm", *PLACES, *arguments, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["equal"], result["steps"], result["frames_lost_outside_the_model"]) == (True, 17, 0)
    run = tmp_path / "runs" / "latest"
    assert (run / "received.bin").read_bytes() == (tmp_path / "source.bin").read_bytes()
    assert (run / "capture.pcapng").stat().st_size > 3_000_000
    journal = (run / "events.jsonl").read_text()
    assert '"node":"server"' in journal
    assert left(manager) == {}


def test_a_machine_is_cut_off_and_comes_back(manager, tmp_path):
    done = sanloom(
        "up", "pair", "--engine", "swarm", "-d", "--name", "far", *PLACES, "--out", str(tmp_path / "runs"), timeout=180
    )
    assert done.returncode == 0, done.stderr
    try:
        assert [
            name for name in ("sla", "slb") if manager.docker(name, "ps", "-q", "--filter", f"name={STACK}_server")
        ] == ["slb"]
        assert states() == dict.fromkeys(("s1", "client", "server"), "up")
        assert sanloom("exec", "server", "--", "hostname").stdout == "server\n"
        for node, neighbour, ahead in (("s1", "server", AHEAD_SECONDS), ("server", "s1", -AHEAD_SECONDS)):
            clock = neighbours()[node][neighbour]
            assert clock["clock"] in ("timestamps", "arrival"), clock
            assert abs(clock["offset_us"] - ahead * 10**6) <= clock["error_us"] + 1
        round_trips()
        manager.cut()
        wait_until(lambda: states()["server"] != "up", seconds=5)
        assert {node: state for node, state in states().items() if node != "server"} == {"s1": "up", "client": "up"}
        refused = sanloom("exec", "server", "--", "true")
        assert (refused.returncode, refused.stderr) == (125, "node server does not answer\n")
        manager.mend()
        wait_until(lambda: states() == dict.fromkeys(("s1", "client", "server"), "up"), seconds=90, tell=states)
        wait_until(lambda: manager_sees_ready(manager), seconds=60)
        round_trips()
    finally:
        manager.mend()
        ended = sanloom("down", "--lab", "far", timeout=180)
    assert ended.returncode in (0, 1), ended.stderr
    wait_until(lambda: left(manager) == {}, seconds=60, tell=lambda: left(manager))
    assert "accept.waiting" in (tmp_path / "runs" / "latest" / "events.jsonl").read_text()


def manager_sees_ready(engines) -> bool:
    return engines.docker("sla", "node", "ls", "--format", "{{.Hostname}} {{.Status}}").count("Ready") == 2
