"""Topology files: mistakes come all at once, with their place; any text is a topology or a UsageError."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.assembly import Plan
from fabric.errors import UsageError
from fabric.topology.spec import Topology
from fabric.topology.yaml_model import load, parse
from fabric.units import MILLISECOND

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
PAIR = """name: x
hosts: {a: {}, b: {ip: 10.1.2.3}}
links:
  - {endpoints: [a, b], latency: 2ms, loss: 0.5%, reverse: {latency: 7ms}}
"""


@pytest.mark.parametrize("name", ["pair", "star", "leaf-spine", "prefork", "restart", "broker"])
def test_shipped_topologies_load_and_survive_json(name):
    topology = load(TOPOLOGIES / name / "topology.yaml")
    assert Topology.from_json(json.loads(json.dumps(topology.to_json()))) == topology
    assert len(Plan(topology).links) == 2 * len(topology.links)


def test_directions_have_settings_of_their_own():
    (link,) = parse(PAIR, "f").links
    assert (link.forward.latency, link.reverse.latency) == (2 * MILLISECOND, 7 * MILLISECOND)
    assert link.forward.loss == link.reverse.loss == 0.005
    assert parse(PAIR, "f").hosts["b"].ip == "10.1.2.3"


def test_several_mistakes_at_once_with_their_places():
    text = "name: x\nhosts:\n  a: {ipp: 3}\nlinks:\n  - endpoints: [a, c]\n    latncy: 2ms\n"
    with pytest.raises(UsageError) as caught:
        parse(text, "f.yaml")
    told = str(caught.value)
    assert "f.yaml:3:7: hosts.a.ipp: unknown key (known keys: ip)" in told or "did you mean 'ip'" in told
    assert "f.yaml:5:20: links[0].endpoints: there is no node 'c'" in told
    assert "f.yaml:6:5: links[0].latncy: unknown key (did you mean 'latency'?)" in told


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("2ms", "2 parsecs"), "unknown unit 'parsecs'; a duration takes one of"),
        (("2ms", "-2ms"), "is negative"),
        (("0.5%", "150%"), "not between 0% and 100%"),
        (("name: x", "name: X!"), "is no name"),
        (("name: x", "nam: x"), "did you mean 'name'?"),
        (("name: x", "name: x\nseed: many"), "'many' is not a whole number"),
        (("name: x", "name: x\nname: y"), "stands here a second time"),
        (("[a, b]", "[a, a]"), "two different nodes"),
        (("[a, b]", "[a]"), "expected two node names"),
        (("b: {ip: 10.1.2.3}", "b: {ip: 10.1.2}"), "hosts.b.ip"),
        (("b: {ip: 10.1.2.3}", "b: {ip: 10.77.0.1}"), "is the address of 'a' already"),
        (("hosts: {a: {}, b: {ip: 10.1.2.3}}", "hosts: [a, b]"), "expected a mapping"),
        (("a: {}, b", "a: {}, c: {}, b"), "a host has exactly one link, this one has 0"),
        (("name: x", "name: &x x"), "anchors and aliases"),
        (("{endpoints", "{endpoints: ["), "not YAML"),
    ],
)
def test_each_mistake_has_its_message(change, expected):
    text = PAIR.replace(*change)
    assert text != PAIR
    with pytest.raises(UsageError, match=r"f\.yaml") as caught:
        parse(text, "f.yaml")
    assert expected in str(caught.value)


def test_quotas_of_a_host_survive_json():
    found = parse(
        "name: x\nhosts: {a: {sockets: 200, sockets-per-process: 100}, b: {}}\nlinks: [{endpoints: [a, b]}]", "f"
    )
    for topology in (found, Topology.from_json(json.loads(json.dumps(found.to_json())))):
        a, b = topology.hosts.values()
        assert (a.sockets, a.sockets_per_process, b.sockets, b.sockets_per_process) == (200, 100, None, None)


@pytest.mark.parametrize("quota", ["sockets: 0", "sockets: 16385", "sockets-per-process: 4097", "sockets: many"])
def test_quotas_out_of_range(quota):
    with pytest.raises(UsageError, match=r"f:2:\d+: hosts\.a\.sockets.*is not a whole number from 1 to"):
        parse(f"name: x\nhosts: {{a: {{{quota}}}, b: {{}}}}\nlinks: [{{endpoints: [a, b]}}]", "f")


def test_missing_and_binary_files_are_told(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "b.yaml")


@given(st.text(alphabet="abn:-[]{}&*!|>'\"?%#, \n\t1\x00", max_size=80))
def test_any_text_is_a_topology_or_a_usage_error(text):
    try:
        assert isinstance(parse(text, "f"), Topology)
    except UsageError:
        pass


@given(st.data())
def test_a_topology_with_one_line_spoilt_is_a_topology_or_a_usage_error(data):
    lines = (TOPOLOGIES / "pair" / "topology.yaml").read_text().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(st.text(st.characters(codec="utf-8"), max_size=30))
    try:
        assert isinstance(parse("\n".join(lines), "f"), Topology)
    except UsageError:
        pass
