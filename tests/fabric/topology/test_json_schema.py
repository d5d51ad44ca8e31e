"""The schema: in step with the committed file, accepts what we ship, refuses only what the validation refuses too."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from fabric.errors import UsageError
from fabric.topology.json_schema import topology_schema
from fabric.topology.yaml_model import parse
from fabric.units import parse_duration, parse_rate, parse_ratio

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
CHECK = jsonschema.Draft202012Validator(topology_schema())
BASE = {"name": "x", "hosts": {"a": {}, "b": {}}, "links": [{"endpoints": ["a", "b"]}]}


def test_the_committed_schema_is_in_step():
    assert json.loads((TOPOLOGIES / "topology.schema.json").read_text()) == topology_schema()


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(topology_schema())


@pytest.mark.parametrize("name", ["pair", "star", "leaf-spine"])
def test_it_accepts_what_we_ship(name):
    CHECK.validate(yaml.safe_load((TOPOLOGIES / name / "topology.yaml").read_text()))


@pytest.mark.parametrize(
    "changes",
    [
        {"nam": "x"},
        {"name": "X"},
        {"seed": -1},
        {"seed": "many"},
        {"hosts": {}},
        {"hosts": {"A": {}}},
        {"hosts": {"a": {"ipp": "10.0.0.1"}, "b": {}}},
        {"links": [{"endpoints": ["a"]}]},
        {"links": [{"endpoints": ["a", "b"], "latency": "2 parsecs"}]},
        {"links": [{"endpoints": ["a", "b"], "latency": 2}]},
        {"links": [{"endpoints": ["a", "b"], "loss": "much"}]},
        {"links": [{"endpoints": ["a", "b"], "rate": 10}]},
        {"links": [{"endpoints": ["a", "b"], "queue": "long"}]},
        {"links": [{"endpoints": ["a", "b"], "forward": {"endpoints": ["a", "b"]}}]},
        {"defaults": {"links": {}}},
    ],
)
def test_what_it_refuses_the_validation_refuses_too(changes):
    assert CHECK.is_valid(BASE)
    parse(yaml.safe_dump(BASE), "f")
    assert not CHECK.is_valid(BASE | changes)
    with pytest.raises(UsageError):
        parse(yaml.safe_dump(BASE | changes), "f")


@pytest.mark.parametrize(
    ("key", "parse_value", "texts"),
    [
        ("latency", parse_duration, ["2ms", "0", "1.5 us", ".5s", "1h", "3min", "+2ms", "2", "ms", "2 ms x", "-2ms"]),
        ("rate", parse_rate, ["10Gbit", "1gbit", "8kbps", "1Mibit", "5bit", "7", "x", "10 Gbits"]),
        ("loss", parse_ratio, ["0.5%", "0", "1", ".25", "30 %", "x%", "%"]),
    ],
)
def test_patterns_agree_with_the_units(key, parse_value, texts):
    for text in texts:
        try:
            parse_value(text)
            expected = True
        except ValueError:
            expected = False
        document = BASE | {"links": [{"endpoints": ["a", "b"], key: text}]}
        assert CHECK.is_valid(document) == expected, text
