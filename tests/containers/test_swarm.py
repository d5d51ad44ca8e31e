"""The swarm engine on a swarm of one machine: deploy, use, reschedule, remove."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from fabric.topology.yaml_model import load
from nodes.lab.swarm_file import render_swarm, write_keys
from nodes.lab.topology_files import find_topology
from tests.containers.test_compose import docker
from tests.support.labs import sanloom, wait_until

pytestmark = pytest.mark.live
STACK = "sanloom-st"


@pytest.fixture(scope="module")
def swarm():
    """A swarm; one that we made is left at the end."""
    state = docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}").strip()
    if state == "active true":
        yield
        return
    if state.startswith("active"):
        pytest.skip("this engine is a worker of a swarm; the tests need a manager")
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield
    docker("swarm", "leave", "--force")


def left() -> dict[str, str]:
    """What Swarm still has of the stack."""
    label = f"label=com.docker.stack.namespace={STACK}"
    kinds = ("container", "network", "secret", "config", "service")
    found = {k: docker(k, "ls", "-q", *(["-a"] if k == "container" else []), "--filter", label).strip() for k in kinds}
    return {kind: ids for kind, ids in found.items() if ids}


@pytest.fixture
def lab(swarm, image, tmp_path):
    arguments = ["up", "pair", "--engine", "swarm", "-d", "--name", "st", "--out", str(tmp_path / "runs")]
    done = sanloom(*arguments, timeout=180)
    assert done.returncode == 0, done.stderr
    yield tmp_path / "runs" / "latest"
    assert sanloom("down", "--lab", "st", timeout=180).returncode in (0, 2)
    assert left() == {}


def states() -> dict[str, str]:
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return {node["node"]: node["state"] for node in shown["nodes"]}


def container(node: str) -> str:
    return docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={STACK}_{node}").split()[0]


def round_trips(count: int) -> str:
    """Output of some round trips from client to an echo server on server."""
    echo = ["exec", "server", "--", "python", "-m", "nodes.apps.echo_server", "--once"]
    with subprocess.Popen([sys.executable, "-m", "nodes", *echo], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "listening" in server.stdout.readline()
            arguments = ["python", "-m", "nodes.apps.round_trips", "server:7000", "--count", str(count)]
            done = sanloom("exec", "client", "--", *arguments)
            assert done.returncode == 0, done.stderr
            assert server.wait(30) == 0
        finally:
            server.kill()
    return done.stdout


def test_without_a_swarm_the_command_says_what_to_do(image, tmp_path):
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "inactive":
        pytest.skip("this engine is part of a swarm")
    done = sanloom("up", "pair", "--engine", "swarm", "-d", "--out", str(tmp_path / "runs"))
    assert (done.returncode, "docker swarm init" in done.stderr) == (3, True), done.stderr


def test_use_reschedule_and_removal(lab):
    assert states() == dict.fromkeys(("s1", "client", "server"), "up")
    assert "2 round trips" in round_trips(2)
    for node in ("s1", "client"):
        inspected = docker("inspect", container(node))
        secret = docker("exec", container(node), "cat", "/var/lib/sanloom/keys/secret.key").strip()
        assert secret not in inspected
        assert docker("exec", container(node), "id", "-u").strip() == "10001"
    docker("kill", container("server"))  # Swarm starts another task, which comes back into the fabric
    wait_until(lambda: states()["server"] != "up", seconds=2)
    wait_until(lambda: states()["server"] == "up", seconds=60)
    wait_until(lambda: neighbours()["server"] == {"state": "up", "restarts": 1, "clock": "same"}, seconds=30)
    assert neighbours()["client"]["restarts"] == 0
    assert "2 round trips" in round_trips(2)
    assert sanloom("down", "--lab", "st", timeout=180).returncode == 0
    assert left() == {}
    assert "accept.waiting" in (lab / "events.jsonl").read_text()


def test_the_controller_reaches_freezes_and_kills_nodes(lab):
    done = sanloom("exec", "client", "--", "sh", "-c", "cat; echo oops >&2; exit 9", input="typed")
    assert (done.returncode, done.stdout, done.stderr) == (9, "typed", "oops\n")
    assert sanloom("exec", "client", "--", "no-such-program").returncode == 127
    secret = docker("exec", container("control"), "cat", "/var/lib/sanloom/keys/secret.key").strip()
    assert secret not in docker("inspect", container("control"))
    assert sanloom("fault", "set", "client", "loss=1%").returncode == 0
    assert sanloom("pause", "client").returncode == 0
    assert states() == {"s1": "up", "client": "paused", "server": "up"}
    refused = sanloom("exec", "client", "--", "true")
    assert (refused.returncode, refused.stderr) == (125, "node client: the node is paused\n")
    assert sanloom("resume", "client").returncode == 0
    wait_until(lambda: states()["client"] == "up")
    docker("pause", container("client"))  # by somebody else, on this machine
    wait_until(lambda: states()["client"] == "paused", seconds=2)
    docker("unpause", container("client"))
    first = container("server")
    assert sanloom("kill", "server").returncode == 0
    wait_until(lambda: states()["server"] != "up", seconds=2)
    wait_until(lambda: states()["server"] == "up", seconds=60)
    assert container("server") != first
    assert "2 round trips" in round_trips(2)
    capture = sanloom("capture", "--on", "client", "-w", str(lab / "c.pcapng"), "--seconds", "1")
    assert capture.returncode == 0, capture.stderr
    assert sanloom("logs", "s1").returncode == 0
    assert "accept.waiting" in sanloom("logs", "--journal", "server").stdout


def neighbours() -> dict[str, dict[str, object]]:
    ask = ["python", "-P", "-m", "nodes.control.ask", "/run/sanloom/s1.control", "statistics"]
    found: dict[str, dict[str, object]] = json.loads(docker("exec", container("s1"), *ask))["neighbours"]
    return found


def test_the_demo(swarm, image, tmp_path):
    (tmp_path / "source.bin").write_bytes(os.urandom(3_000_000))
    arguments = ["--file", str(tmp_path / "source.bin"), "--out", str(tmp_path / "runs"), "--json"]
    done = sanloom("demo", "--engine", "swarm", *arguments, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["equal"], result["steps"], result["frames_lost_outside_the_model"]) == (True, 17, 0)
    assert (tmp_path / "runs" / "latest" / "capture.pcapng").stat().st_size > 3_000_000
    assert docker("stack", "ls", "--format", "{{.Name}}").split() == []


def test_a_rendered_stack_file_is_deployed_by_plain_docker(swarm, image, tmp_path):
    topology = load(find_topology("pair"))
    write_keys(topology, tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    text = render_swarm(topology, lab="st", image=image, placement={"s1": "node.role == manager"})
    (tmp_path / "stack.yaml").write_text(text)
    try:
        docker("stack", "deploy", "--resolve-image", "never", "-c", str(tmp_path / "stack.yaml"), STACK)
        wait_until(lambda: ready("client") and ready("server") and ready("s1"), seconds=90)
    finally:
        docker("stack", "rm", STACK)
        wait_until(lambda: left() == {}, seconds=90, tell=left)


def ready(node: str) -> bool:
    ids = docker("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={STACK}_{node}").split()
    test = ["docker", "exec", *ids[:1], "test", "-e", "/run/sanloom/ready"]
    return bool(ids) and subprocess.run(test, check=False, capture_output=True).returncode == 0


def test_the_file_asks_for_an_encrypted_network_and_keeps_secrets_apart(tmp_path):
    topology = load(find_topology("leaf-spine"))
    file = yaml.safe_load(render_swarm(topology, encrypted=True, placement={"h1": "node.labels.rack == 1"}))
    assert file["networks"]["fabric"]["driver_opts"] == {"encrypted": ""}
    assert file["services"]["h1"]["deploy"]["placement"] == {"constraints": ["node.labels.rack == 1"]}
    for node, service in file["services"].items():
        assert [secret["source"] for secret in service["secrets"]] == [node]
        assert "depends_on" not in service
