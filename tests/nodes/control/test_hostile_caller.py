"""Garbage and floods on the control socket of a node of a real lab: it answers others, and goes on."""

import json

import pytest

from nodes.lab.process_engine import Lab
from tests.nodes.agent.conftest import Agent, agent, honest, hostile, lab
from tests.support.labs import wait_until

__all__ = ["agent", "honest", "hostile", "lab"]
pytestmark = pytest.mark.live


def control(lab: Lab, node: str) -> str:
    return str(lab.record.control_path(node))


@pytest.mark.parametrize("node", ["server", "s1"])
def test_garbage_and_wrong_members(hostile, honest, lab, node):
    puppet = hostile()
    attacked = Agent(lab, node)
    puppet.start(f"""
path = {control(lab, node)!r}
from tests.support.hostile import WRONG
count = throw(path, garbage(2))
requests = [{{"op": op}} for op in ("ping", "ps", "statistics", "flush", "links", "link", "capture")]
for value in WRONG:
    requests += [{{"op": "link", "link": value}}, {{"op": "link", "link": "server->s1", "settings": value}}]
    requests += [{{"op": "link", "link": "server->s1", "partition": value}} for value in [value] if value is not True]
    requests += [{{"op": "capture", "links": value}}, {{"op": "ps", "x": value, "id": value}}, {{"op": value}}]
    for name in ("jitter", "loss", "queue", "latency", "rate", "partition"):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            requests.append({{"op": "link", "link": "server->s1", "settings": {{name: value}}}})
count + throw(path, (encoded(request) for request in requests), 0)""")
    honest.goes_on()
    assert puppet.result(120) > 500
    assert lab.ask(node, "ping") == {}
    wait_until(lambda: lab.ask(node, "statistics")["taps"] == 0)
    assert attacked.files() < 60
    for link in lab.ask(node, "links").values():
        assert {name: link[name] for name in link["original"]} == link["original"]


def test_a_thousand_idle_callers_and_a_flood(hostile, honest, lab, agent):
    puppet = hostile()
    memory = agent.memory()
    puppet.run(f"""
path = {control(lab, "server")!r}
idle = [connect(path) for _ in range(1000)]
stop, done = False, 0
def flood(op):
    global done
    while not stop:
        sock = connect(path)
        while not stop and ask(sock, op) is not None: done += 1
threads = [threading.Thread(target=flood, args=(op,)) for op in ("ping", "ps", "statistics", "links") * 10]
for thread in threads: thread.start()
""")
    honest.goes_on()
    for _ in range(5):
        assert lab.ask("server", "ping") == {}
    assert puppet.run("stop = True\nfor thread in threads: thread.join()\ndone", 60) > 100
    assert agent.memory() < memory + (32 << 20)


def test_callers_that_read_no_answers(hostile, honest, lab, agent):
    puppet = hostile()
    memory = agent.memory()
    puppet.run(f"""
silent = [connect({control(lab, "server")!r}) for _ in range(60)]
for sock in silent:
    sock.setblocking(False)
    try:
        while True: sock.send(encoded({{"op": "statistics"}}))
    except OSError: pass
""")
    honest.goes_on()
    assert lab.ask("server", "ping") == {}
    assert agent.memory() < memory + (64 << 20)


def test_ps_stays_an_answer_when_a_process_has_a_thousand_sockets(hostile, honest, lab):
    puppet = hostile()
    puppet.run("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sock = attached(); held = [new_socket(sock) for _ in range(1000)]""")
    shown = lab.ask("server", "ps")
    assert len(shown["sockets"]) == 256
    assert shown["not_shown"] == 1001 - 256
    assert len(json.dumps(shown)) < 100_000


def test_captures_that_nobody_reads(hostile, honest, lab, agent):
    puppet = hostile()
    puppet.run(f"""
captures = []
for _ in range(40):
    sock = connect({control(lab, "server")!r})
    captures.append((sock, ask_fds(sock, "capture")))
""")
    assert puppet.run("sum('result' in reply for _, (reply, _) in captures)") == 32
    memory = agent.memory()
    honest.goes_on(100)
    assert lab.ask("server", "ping") == {}
    assert agent.memory() < memory + (256 << 20)
