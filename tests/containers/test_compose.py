"""The compose engine, on a real engine: the same commands, the same results, and nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from fabric.wire.pcapng import PcapngReader
from tests.support.labs import sanloom, wait_until

pytestmark = pytest.mark.live
TOPOLOGIES = Path(__file__).parents[2] / "topologies"
PROJECT = "sanloom-ct"
TSHARK = ("tshark", "--disable-heuristic", "rpcrdma_infiniband")


def docker(*arguments: str, check: bool = True, timeout: float = 120, **options) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=check, timeout=timeout, **options
    )
    return done.stdout


def of_project(project: str) -> dict[str, list[str]]:
    """Containers, networks and volumes of a compose project."""
    label = f"label=com.docker.compose.project={project}"
    return {
        "containers": docker("ps", "-aq", "--filter", label).split(),
        "networks": docker("network", "ls", "-q", "--filter", label).split(),
        "volumes": docker("volume", "ls", "-q", "--filter", label).split(),
    }


NOTHING = {"containers": [], "networks": [], "volumes": []}


@pytest.fixture
def lab(image, tmp_path):
    done = sanloom(
        "up", "pair", "--engine", "compose", "-d", "--name", "ct", "--out", str(tmp_path / "runs"), timeout=180
    )
    assert done.returncode == 0, done.stderr
    yield tmp_path / "runs" / "latest"
    done = sanloom("down", "--lab", "ct", timeout=120)
    assert done.returncode in (0, 2), done.stderr
    assert of_project(PROJECT) == NOTHING


@pytest.mark.parametrize("mode", ["suspend", "local", "rehome"])
def test_the_demo(image, tmp_path, mode):
    (tmp_path / "source.bin").write_bytes(os.urandom(3_000_000))
    arguments = ["--file", str(tmp_path / "source.bin"), "--out", str(tmp_path / "runs")]
    done = sanloom("demo", "--engine", "compose", "--mode", mode, *arguments, "--json", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["equal"], result["steps"], result["frames_lost_outside_the_model"]) == (True, 17, 0)
    run = tmp_path / "runs" / "latest"
    assert (run / "received.bin").read_bytes() == (tmp_path / "source.bin").read_bytes()
    journal = (run / "events.jsonl").read_text()
    assert all(f"handoff.san.{step}." in journal for step in range(1, 18))
    if shutil.which("tshark"):
        shown = subprocess.run(
            [*TSHARK, "-r", str(run / "capture.pcapng"), "-T", "fields", "-e", "_ws.malformed", "-e", "_ws.col.Info"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, "HOME": str(tmp_path)},
        ).stdout.splitlines()
        assert {line.split("\t")[0] for line in shown} == {""}
        infos = " ".join(shown)
        names = ["ConnectRequest", "ConnectReply", "ReadyToUse", "SDP Data", "SDP DisConn", "DisconnectRequest"]
        assert [name for name in names if name not in infos] == []


def test_a_session_of_use(lab):
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    assert shown["engine"] == "compose"
    assert {node["node"]: node["state"] for node in shown["nodes"]} == dict.fromkeys(("s1", "client", "server"), "up")
    arguments = [
        sys.executable,
        "-m",
        "nodes",
        "exec",
        "server",
        "--",
        "python",
        "-m",
        "nodes.apps.echo_server",
        "--once",
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "listening" in server.stdout.readline()
            capture = [sys.executable, "-m", "nodes", "capture", "--on", "client", "-w", "-", "--seconds", "6"]
            with subprocess.Popen(capture, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as capturing:
                wait_until(lambda: taps("client") == 1)
                trips = sanloom("exec", "client", "--", "python", "-m", "nodes.apps.round_trips", "server:7000")
                assert trips.returncode == 0, trips.stderr
                assert "5 round trips" in trips.stdout
                data, _ = capturing.communicate(timeout=60)
            assert server.wait(30) == 0
        finally:
            server.kill()
    reader = PcapngReader()
    reader.feed(data)
    assert {packet.interface_description for packet in reader.packets()} == {"client->s1 entry", "s1->client exit"}
    wait_until(lambda: taps("client") == 0)
    assert sanloom("exec", "client", "--", "sh", "-c", "exit 7").returncode == 7
    assert sanloom("exec", "clint", "--", "true").returncode == 2
    assert "accept.waiting" in sanloom("logs", "--journal", "server").stdout
    assert sanloom("down", "--lab", "ct").returncode == 0
    assert "accept.waiting" in (lab / "events.jsonl").read_text()


def taps(node: str) -> int:
    container = f"{PROJECT}-{node}-1"
    answer = docker(
        "exec", container, "python", "-P", "-m", "nodes.control.ask", f"/run/sanloom/{node}.control", "statistics"
    )
    return int(json.loads(answer)["taps"])


def state_of(node: str) -> str:
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return next(entry["state"] for entry in shown["nodes"] if entry["node"] == node)


def test_killed_and_paused_from_outside_show_in_ps_and_down_removes_everything(lab):
    docker("pause", f"{PROJECT}-client-1")
    wait_until(lambda: state_of("client") == "paused", seconds=2)
    docker("unpause", f"{PROJECT}-client-1")
    wait_until(lambda: state_of("client") == "up")
    docker("kill", f"{PROJECT}-server-1")
    wait_until(lambda: state_of("server") == "ended", seconds=2)
    assert sanloom("ps").returncode == 1
    docker("pause", f"{PROJECT}-s1-1")
    assert sanloom("down", "--lab", "ct", timeout=120).returncode == 0
    assert of_project(PROJECT) == NOTHING


def test_links_are_changed_and_nodes_frozen_and_killed_by_command(lab):
    done = sanloom("fault", "set", "client-s1", "loss=5%", "--json")
    assert {name: change["after"]["loss"] for name, change in json.loads(done.stdout).items()} == {
        "client->s1": 0.05,
        "s1->client": 0.05,
    }
    assert sanloom("partition", "server").returncode == 0
    listed = json.loads(sanloom("fault", "list", "--json").stdout)
    assert [name for name, link in listed.items() if link["partition"]] == ["server->s1", "s1->server"]
    assert sanloom("heal").returncode == 0
    assert sanloom("pause", "client").returncode == 0
    assert state_of("client") == "paused"
    assert sanloom("resume", "client").returncode == 0
    wait_until(lambda: state_of("client") == "up")
    assert sanloom("kill", "server").returncode == 0
    assert state_of("server") == "ended"


def test_down_leaves_what_is_not_its_own(lab):
    docker("volume", "create", "sanloom-ct-not-ours")
    try:
        assert sanloom("down", "--lab", "ct").returncode == 0
        assert "sanloom-ct-not-ours" in docker("volume", "ls", "-q").split()
    finally:
        docker("volume", "rm", "sanloom-ct-not-ours")


def test_nodes_run_without_root_or_secrets_in_their_environment(lab):
    for node in ("s1", "client"):
        container = f"{PROJECT}-{node}-1"
        assert docker("exec", container, "id", "-u").strip() == "10001"
        assert (
            docker("exec", container, "stat", "-c", "%a %u", "/var/lib/sanloom/keys/secret.key").strip() == "600 10001"
        )
        secret = docker("exec", container, "cat", "/var/lib/sanloom/keys/secret.key").strip()
        inspected = docker("inspect", container)
        assert secret not in inspected
        assert json.loads(inspected)[0]["NetworkSettings"]["Ports"] in ({}, None)
        assert "secret" not in docker("exec", container, "ls", "/keys", check=False)


def test_leaf_spine_every_host_reaches_every_other(image, tmp_path):
    up = ["up", "leaf-spine", "--engine", "compose", "-d", "--name", "ct", "--out", str(tmp_path / "runs")]
    done = sanloom(*up, timeout=120)
    assert done.returncode == 0, done.stderr
    try:
        assert float(done.stdout.split("ready after ")[1].split()[0]) < 60
        hosts = [f"h{number}" for number in range(1, 9)]
        servers = {}
        for host in hosts:
            arguments = [sys.executable, "-m", "nodes", "exec", host, "--", "python", "-c", _GREETER, host]
            servers[host] = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        try:
            for server in servers.values():
                assert server.stdout is not None
                assert server.stdout.readline() == "listening\n"
            for host in hosts:
                done = sanloom("exec", host, "--", "python", "-c", _CALLER, *hosts, timeout=60)
                assert done.stdout.split() == hosts, (host, done.stdout, done.stderr)
        finally:
            for server in servers.values():
                server.kill()
                server.communicate()
        assert len(list(permutations(hosts, 2))) == 56
    finally:
        assert sanloom("down", "--lab", "ct", timeout=180).returncode == 0
    assert of_project(PROJECT) == NOTHING


_GREETER = """
import sys
from provider import socket
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    while True:
        connection, _ = server.accept()
        with connection: connection.sendall(sys.argv[1].encode())
"""
_CALLER = """
import sys
from provider import socket
for host in sys.argv[1:]:
    with socket.create_connection((host, 7000), timeout=20) as connection:
        print(connection.recv(10).decode(), flush=True)
"""


def test_plain_docker_compose_runs_the_committed_file_with_its_workload(image, tmp_path):
    environment = {**os.environ, "SANLOOM_IMAGE": image}
    compose = ["compose", "-p", PROJECT, "-f", str(TOPOLOGIES / "pair" / "compose.yaml"), "--profile", "workload"]
    try:
        done = subprocess.run(
            ["docker", *compose, "up", "--no-build", "--exit-code-from", "receiver"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        received = next(line for line in done.stdout.splitlines() if '"event": "received"' in line)
        report = json.loads(received[received.index("{") :])
        sent = docker("logs", f"{PROJECT}-sender-1")
        assert (report["bytes"], report["worker"]) == (8 << 20, 0)
        assert report["sha256"] in sent
    finally:
        docker(*compose, "down", "--volumes", "--timeout", "3", env=environment, timeout=60)
    assert of_project(PROJECT) == NOTHING


def test_an_application_in_a_container_of_its_own_needs_the_pid_namespace_too(lab, image):
    mount = ["--volume", f"{PROJECT}_run-server:/run/sanloom", "--env", "SANLOOM_AGENT=/run/sanloom/server.agent"]
    run = ["docker", "run", "--rm", "--network", "none", *mount, "--entrypoint", "python"]
    code = "from provider import socket; s = socket.create_server(('', 7100)); print(s.getsockname())"
    alone = subprocess.run([*run, image, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert alone.returncode == 1
    assert "the agent cannot see your process" in alone.stderr
    assert "share the pid namespace" in alone.stderr
    shared = ["--pid", f"container:{PROJECT}-server-1"]
    together = subprocess.run(
        [*run, *shared, image, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (together.returncode, together.stdout) == (0, "('0.0.0.0', 7100)\n"), together.stderr


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "no Docker engine answers"),
        ({"SANLOOM_IMAGE": "sanloom:no-such-tag"}, "the image is missing"),
        ({"PATH": "/nowhere"}, "docker is not installed"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence_and_status_3(image, tmp_path, changes, told):
    arguments = ["up", "pair", "--engine", "compose", "-d", "--name", "ct", "--out", str(tmp_path / "runs")]
    done = sanloom(*arguments, env={**os.environ, **changes})
    assert (done.returncode, told in done.stderr, len(done.stderr.splitlines())) == (3, True, 1), done.stderr
    assert not any(path.is_dir() and not path.is_symlink() for path in (tmp_path / "runs").glob("*"))
    assert of_project(PROJECT) == NOTHING


def test_the_benchmark_gives_the_same_table_in_containers(image):
    done = sanloom("bench", "--engine", "compose", "--only", "forwarding", "--quick", "--json", timeout=120)
    assert done.returncode in (0, 1), done.stderr  # 1: a floor is missed, which a busy machine may do
    found = json.loads(done.stdout)
    names = [figure["name"] for figure in found["figures"]]
    assert "forwarding 1024 B" in names
    assert "forwarding 4096 B, live hosts, in containers" in names
    assert all(figure["ours"] > 0 for figure in found["figures"])
    assert docker("ps", "-aq", "--filter", "label=sanloom.lab").split() == []
