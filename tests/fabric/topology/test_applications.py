"""Applications in topology files: what is read, in which order they start, and what is told of mistakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import UsageError
from fabric.topology.spec import ApplicationSpec, Topology
from fabric.topology.yaml_model import parse

FILE = """name: t
hosts:
  client:
    applications:{client}
  server:
    applications:{server}
network-switches: {{s1: {{}}}}
links:
  - endpoints: [client, s1]
  - endpoints: [server, s1]
"""


def topology(client="", server=""):
    return parse(FILE.format(client=client, server=server), "t.yaml")


def told(client="", server=""):
    with pytest.raises(UsageError) as wrong:
        topology(client, server)
    return str(wrong.value)


def test_all_that_can_be_said_of_one():
    found = topology(
        """
      call:
        command: "sh -c 'echo $COLOUR; exit 3'"
        environment: {COLOUR: blue, NUMBER: 7}
        after: [server.serve]
        restart: on-failure""",
        """
      serve: {command: [python, -m, app, 80]}""",
    )
    assert found.hosts["client"].applications == (
        ApplicationSpec(
            "call",
            ("sh", "-c", "echo $COLOUR; exit 3"),
            {"COLOUR": "blue", "NUMBER": "7"},
            ("server.serve",),
            "on-failure",
        ),
    )
    assert found.hosts["server"].applications == (ApplicationSpec("serve", ("python", "-m", "app", "80"), {}),)
    assert [(host, each.name) for host, each in found.applications()] == [("server", "serve"), ("client", "call")]
    assert Topology.from_json(found.to_json()) == found


def test_a_host_without_any_does_not_mention_them():
    assert topology().to_json()["hosts"]["client"] == {"name": "client", "ip": "10.77.0.1"}


@pytest.mark.parametrize(
    ("client", "place", "message"),
    [
        ("\n      a: {}", "5:7: hosts.client.applications.a.command", "missing: what shall run?"),
        ("\n      a: {command: []}", "5:20", "expected a program and its arguments"),
        ("\n      a: {command: ''}", "5:20", "expected a program"),
        ("\n      a: {command: 'x \"y'}", "5:20", "No closing quotation"),
        ("\n      a: {command: {x: y}}", "5:20", "expected a single value"),
        ("\n      A: {command: x}", "5:7", "no name: a lower-case letter"),
        ("\n      a: {command: x, afer: []}", "5:23", "unknown key (did you mean 'after'?)"),
        ("\n      a: {command: x, after: b}", "5:30", "expected a list of HOST.APPLICATION"),
        (
            "\n      a: {command: x, after: [client.b]}",
            "5:31",
            "there is no application 'client.b' (did you mean 'client.a'",
        ),
        ("\n      a: {command: x, after: [client.a]}", "5:31", "'client.a' comes after this one itself"),
        ("\n      a: {command: x, restart: always}", "5:32", "'always' is not one of never, on-failure"),
        ("\n      a: {command: x, environment: {1X: y}}", "5:37", "no name of a variable"),
        ("\n      a: {command: x, environment: {X: [y]}}", "5:40", "expected a single value"),
        (" [a]", "4:19", "expected a mapping"),
    ],
)
def test_mistakes_are_told_where_they_are(client, place, message):
    text = told(client)
    assert f"t.yaml:{place}" in text, text
    assert message in text


def test_a_circle_over_two_hosts():
    text = told("\n      a: {command: x, after: [server.b]}", "\n      b: {command: x, after: [client.a]}")
    assert "client.a: after: 'server.b' comes after this one itself" in text


def test_the_container_of_an_application_must_not_be_named_as_a_node():
    file = FILE.format(client="\n      a: {command: x}", server="").replace("s1", "client-a")
    with pytest.raises(UsageError, match="a node is named 'client-a'"):
        parse(file, "t.yaml")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_the_order_respects_every_after(pairs):
    edges = {(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]}
    lines = [
        f"\n      a{n}: {{command: x, after: [{', '.join(f'client.a{m}' for k, m in sorted(edges) if k == n)}]}}"
        for n in range(10)
    ]
    order = [application.name for _, application in topology("".join(lines)).applications()]
    assert sorted(order) == [f"a{n}" for n in range(10)]
    assert all(order.index(f"a{m}") < order.index(f"a{n}") for n, m in edges)
