"""Rendered compose files: in step with their topologies, valid, and without anything secret or published."""

import json
from pathlib import Path

import pytest
import yaml

from fabric.topology.spec import Topology
from fabric.topology.yaml_model import load, parse
from nodes.container import SECRET, make_keys
from nodes.lab.compose_file import render_compose

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
NAMES = ["pair", "star", "leaf-spine"]


@pytest.mark.parametrize("name", [*NAMES, "prefork", "restart", "broker"])
def test_the_committed_file_is_in_step(name):
    topology = load(TOPOLOGIES / name / "topology.yaml")
    committed = (TOPOLOGIES / name / "compose.yaml").read_text()
    assert committed == render_compose(topology, build_context="../..", workload=True), (
        f"renew it: sanloom render {name} --build-context ../.. --workload -o topologies/{name}/compose.yaml"
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_service_per_node_and_nothing_published(name):
    topology = load(TOPOLOGIES / name / "topology.yaml")
    file = yaml.safe_load(render_compose(topology, lab="other", image="my:image", mode="local", seed=9, capture=True))
    assert file["name"] == "sanloom-other"
    nodes = {*topology.hosts, *topology.network_switches}
    assert set(file["services"]) == {"keys", *nodes}
    assert file["networks"] == {"fabric": {"internal": True}}
    for node in nodes:
        service = file["services"][node]
        assert service["command"] == ["host" if node in topology.hosts else "network-switch"]
        assert (service["image"], service["cap_drop"]) == ("my:image", ["ALL"])
        assert service["depends_on"] == {"keys": {"condition": "service_completed_successfully"}}
        assert service["labels"]["sanloom.node"] == node
        assert "ports" not in service
        assert f"keys-{node}:/var/lib/sanloom/keys:ro" in service["volumes"]
        assert [v for v in service["volumes"] if v.startswith("keys-")] == [f"keys-{node}:/var/lib/sanloom/keys:ro"]
        environment = service["environment"]
        assert environment["SANLOOM_NODE"] == node
        assert (environment["SANLOOM_MODE"], environment["SANLOOM_SEED"]) == ("local", "9")
        assert environment["SANLOOM_CAPTURE"] == "1"
        assert Topology.from_json(json.loads(environment["SANLOOM_TOPOLOGY"])) == topology
    assert set(file["volumes"]) == {*(f"keys-{n}" for n in nodes), *(f"run-{h}" for h in topology.hosts)}


def test_keys_are_made_once_per_node_and_kept(tmp_path):
    nodes = ["a", "b"]
    for node in nodes:
        (tmp_path / node).mkdir()
    make_keys(tmp_path, nodes)
    secrets = {node: (tmp_path / node / SECRET).read_text() for node in nodes}
    public = [json.loads((tmp_path / node / "public.json").read_text()) for node in nodes]
    assert public[0] == public[1]
    assert set(public[0]) == set(nodes)
    assert len({*secrets.values(), *public[0].values()}) == 4
    assert all((tmp_path / node / SECRET).stat().st_mode & 0o777 == 0o600 for node in nodes)
    make_keys(tmp_path, nodes)
    assert {node: (tmp_path / node / SECRET).read_text() for node in nodes} == secrets


def test_what_applications_say_survives_yaml_and_variables():
    command = ["sh", "-c", "echo 'it''s' $HOME \"${X}\""]
    text = PAIR_WITH_APPLICATION.replace("COMMAND", json.dumps(command))
    file = yaml.safe_load(render_compose(parse(text, "t")))
    service = file["services"]["a-say"]
    assert [part.replace("$$", "$") for part in service["entrypoint"]] == command
    assert "$" not in "".join(service["entrypoint"]).replace("$$", "")
    topology = file["x-environment"]["SANLOOM_TOPOLOGY"]
    assert "$" not in topology.replace("$$", "")
    assert Topology.from_json(json.loads(topology.replace("$$", "$"))) == parse(text, "t")
    assert (service["pid"], service["restart"]) == ("service:a", "no")
    assert service["labels"]["sanloom.kind"] == "application"


PAIR_WITH_APPLICATION = """name: t
hosts:
  a: {applications: {say: {command: COMMAND}}}
  b: {}
links: [{endpoints: [a, b]}]
"""
