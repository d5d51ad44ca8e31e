"""Applications of a topology in containers: on Compose each has its own, on Swarm they are in their host's."""

import json

import pytest

from tests.containers.test_compose import NOTHING, of_project
from tests.containers.test_swarm import swarm
from tests.nodes.cli.test_applications import HOSTS
from tests.support.labs import FAST_PAIR, sanloom, wait_until

__all__ = ["swarm"]
pytestmark = pytest.mark.live


@pytest.fixture
def topology(tmp_path):
    path = tmp_path / "apps.yaml"
    path.write_text(FAST_PAIR.replace("hosts: {client: {}, server: {}}\n", HOSTS.replace("100us", "1ms")))
    return str(path)


def applications():
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return shown["applications"]


def use(engine, topology, tmp_path):
    up = ["up", topology, "--engine", engine, "-d", "--name", "ac", "--out", str(tmp_path / "runs")]
    done = sanloom(*up, timeout=180)
    try:
        assert done.returncode == 0, done.stderr
        wait_until(lambda: applications()["client.call"]["status"] == 0, seconds=40, tell=applications)
        found = applications()
        assert (found["server.serve"]["state"], found["server.serve"]["status"]) == ("up", None)
        assert "2 round trips" in sanloom("logs", "client.call").stdout
        if engine == "compose":
            assert sanloom("pause", "server").returncode == 0
            assert sanloom("resume", "server").returncode == 0
    finally:
        ended = sanloom("down", timeout=180)
    assert ended.returncode == 0, ended.stderr
    run = tmp_path / "runs" / "latest"
    assert "2 round trips" in (run / "client.call.log").read_text()
    assert (run / "client.fail.log").read_text().startswith("blue /run/sanloom/client.agent\n")


def test_compose(image, topology, tmp_path):
    file = tmp_path / "apps.yaml"
    text = file.read_text().replace("      missing: {command: [no-such-program]}\n", "")
    file.write_text(text)
    use("compose", topology, tmp_path)
    assert of_project("sanloom-ac") == NOTHING


def test_swarm(swarm, image, topology, tmp_path):
    use("swarm", topology, tmp_path)
