"""Which links a name means; and a change that one node does not take is taken by none."""

import threading

import pytest

from fabric.assembly import Plan
from fabric.errors import EnvironmentLacks, UsageError
from fabric.topology.yaml_model import parse
from fabric.wire.pcapng import PcapngReader
from nodes.control import client
from nodes.lab import changes, engines, leftovers
from nodes.lab.process_engine import Lab
from nodes.lab.records import LabRecord
from tests.support.labs import FAST_PAIR, wait_until

HYPHENS = """name: hyphens
hosts: {a: {}, b-c: {}, x: {}}
network-switches: {a-b: {}, c: {}}
links:
  - endpoints: [a, a-b]
  - endpoints: [b-c, a-b]
  - endpoints: [x, c]
  - endpoints: [a-b, c]
"""


def record_of(text: str) -> LabRecord:
    """A lab that was never started."""
    links = [{"name": x.name, "source": x.source, "sink": x.sink} for x in Plan(parse(text, "x")).links]
    return LabRecord("x", "0", "process", "/", "/", {}, (0, 0), True, links=links)


def found(text: str, topology: str = HYPHENS) -> list[str]:
    return [link["name"] for link in changes.find_links(record_of(topology), text)]


def test_a_link_is_named_by_direction_by_both_ends_or_by_a_node():
    assert found("client->s1", FAST_PAIR) == ["client->s1"]
    assert found("client-s1", FAST_PAIR) == found("s1-client", FAST_PAIR) == ["client->s1", "s1->client"]
    assert found("s1", FAST_PAIR) == ["client->s1", "s1->client", "server->s1", "s1->server"]
    assert found("a-a-b") == ["a->a-b", "a-b->a"]
    assert found("b-c") == ["b-c->a-b", "a-b->b-c"]


def test_a_name_that_may_mean_two_links_is_refused():
    both = HYPHENS.replace("  - endpoints: [x, c]\n", "  - endpoints: [x, c]\n  - endpoints: [c, a-b-c]\n").replace(
        "x: {}}", "x: {}, a-b-c: {}}"
    )
    with pytest.raises(UsageError, match="'a-b-c' may be the node a-b-c or the link of a-b and c; name its directions"):
        found("a-b-c", both)
    assert found("a-b->c", both) == ["a-b->c"]


@pytest.mark.parametrize("texts", [["loss"], ["loss=1%", "loss=2%"], ["=1"], ["lose=1%"], ["latency="]])
def test_settings_that_are_none_are_told(texts):
    with pytest.raises(UsageError):
        changes.parse_settings(texts)


@pytest.fixture
def lab(tmp_path):
    with Lab(parse(FAST_PAIR, "fast"), tmp_path / "run", capture=True) as lab:
        yield lab


@pytest.mark.live
def test_what_one_node_does_not_take_is_taken_by_none_and_not_later_either(lab, monkeypatch):
    """The node s1 freezes between the look at its state and the request, which it finds when it goes on."""
    before = changes.list_links(lab.record)
    ask, others_answered = engines.ask, threading.Event()

    def freeze_first(record, node, operation, **members):
        if node == "s1":
            assert others_answered.wait(20)
            changes.pause(record, node)
        try:
            return ask(record, node, operation, **members)
        finally:
            others_answered.set()

    with monkeypatch.context() as patched:
        patched.setattr(engines, "ask", freeze_first)
        patched.setattr(client, "TIMEOUT_SECONDS", 1.0)
        with pytest.raises(EnvironmentLacks, match="s1 does not answer"):
            changes.set_links(lab.record, "client-s1", {"loss": "10%"})
    changes.resume(lab.record, "s1")
    assert changes.list_links(lab.record) == before
    lab.stop()
    journal = (lab.run_directory / "client.jsonl").read_text()
    assert journal.count("link.changed") == 2  # there and back
    assert "link.changed" not in (lab.run_directory / "s1.jsonl").read_text()


@pytest.mark.live
def test_directions_of_one_node_change_at_one_instant_and_captures_name_the_partition(lab):
    changes.partition(lab.record, ["s1"], None)
    listener = lab.command("server", "python", "-c", "from provider import socket; socket.create_server(('', 7000))")
    assert listener.wait(20) == 0
    caller = lab.command(
        "client", "python", "-c", "from provider import socket; socket.create_connection(('server', 7000), 30)"
    )
    try:
        wait_until(lambda: changes.list_links(lab.record)["client->s1"]["dropped"].get("partition"))
    finally:
        caller.kill()
        caller.wait(20)
    changed = [line for line in (lab.run_directory / "s1.jsonl").read_text().splitlines() if "link.changed" in line]
    assert len({line.partition(",")[0] for line in changed}) == 1
    assert len(changed) == 2
    lab.stop()
    reader = PcapngReader()
    reader.feed((lab.run_directory / "capture.pcapng").read_bytes())
    told = [comment for packet in reader.packets() for comment in packet.comments]
    assert "dropped by partition on client->s1 (frame 1)" in told


@pytest.mark.live
def test_a_pause_has_begun_when_it_returns_and_a_kill_has_ended(lab):
    for node in ("client", "s1"):
        changes.pause(lab.record, node)
        assert engines.states(lab.record)[node] == "paused"
        changes.pause(lab.record, node)
        changes.resume(lab.record, node)
        assert client.ask(lab.record.control_path(node), "ping") == {}
    changes.kill(lab.record, "server")
    assert engines.states(lab.record)["server"] == "ended"
    with pytest.raises(EnvironmentLacks, match="server has ended"):
        changes.resume(lab.record, "server")
    assert leftovers.await_stopped(*_instance(lab, "server"), seconds=0)


def _instance(lab: Lab, node: str) -> tuple[int, int]:
    record = lab.record.nodes[node]
    return record.pid, record.start_time
