"""Topology files: mistakes come all at once, with their place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import UsageError
from fabric.topology import Topology
from fabric.topology.yaml_model import load, loads, schema

ROOT = Path(__file__).parents[3] / "topologies"


@pytest.mark.parametrize("name", ["pair", "star", "leaf-spine"])
def test_shipped_topologies_load_and_survive_json(name):
    topology = load(ROOT / name / "topology.yaml")
    assert Topology.from_json(json.loads(json.dumps(topology.to_json()))) == topology


def test_committed_schema_is_in_step():
    assert json.loads((ROOT / "topology.schema.json").read_text()) == schema()


def test_several_mistakes_at_once():
    with pytest.raises(UsageError) as caught:
        loads("name: x\nhosts:\n  a: {ipp: 3}\nlinks:\n  - endpoints: [a, c]\n    latncy: 2ms\n", "f.yaml")
    assert "f.yaml:3:7: hosts.a.ipp: unknown key (did you mean 'ip'?)\n      a: {ipp: 3}\n          ^" in str(
        caught.value
    )
    assert "f.yaml:6:5: links.0.latncy: unknown key (did you mean 'latency'?)" in str(caught.value)


@given(st.text(alphabet="abn:-[]{}&*!|>'\"?%#, \n\t1\x00", max_size=80))
def test_any_text_is_a_topology_or_a_usage_error(text):
    try:
        assert isinstance(loads(text), Topology)
    except UsageError:
        pass
