"""``fault``, ``partition``, ``heal``, ``pause``, ``resume``, ``kill`` on a running lab, as a user types them."""

import json
import subprocess
import sys

import pytest

from tests.support.labs import FAST_PAIR, assert_nothing_left, run_ids, sanloom, wait_until

pytestmark = pytest.mark.live
CALLER = """
import sys, time
from provider import socket
with socket.create_connection(("server", 7000), timeout=60) as connection:
    connection.settimeout(60)
    print("connected", flush=True)
    for line in sys.stdin:
        try:
            connection.sendall(line.encode())
            got = b""
            while len(got) < len(line):
                part = connection.recv(100)
                if not part: raise EOFError
                got += part
            print(got.decode().strip(), flush=True)
        except OSError as error:
            print(type(error).__name__, error.winerror, flush=True)
            break
"""
ECHO = """
from provider import socket
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    try:
        while data := connection.recv(100): connection.sendall(data)
    except OSError as error:
        print(type(error).__name__, error.winerror, flush=True)
"""


PATIENT = pytest.mark.parametrize("lab", ["250ms"], indirect=True)
"""Links so long that the retry budget, which grows with them, outlasts some commands on a slow machine."""


@pytest.fixture
def lab(tmp_path, runtime, request):
    path = tmp_path / "fast.yaml"
    path.write_text(FAST_PAIR.replace("100us", getattr(request, "param", "100us")))
    done = sanloom("up", str(path), "-d", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    ids = run_ids(runtime)
    yield tmp_path / "runs" / "latest"
    assert sanloom("down", "--all").returncode == 0
    assert_nothing_left(runtime, ids)


class Talk:
    """A connection from client to server whose ends are programs; ``say`` waits for the echo."""

    def __init__(self):
        self.server = self._start("server", ECHO)
        assert self.server.stdout.readline() == "listening\n"
        self.client = self._start("client", CALLER)
        assert self.client.stdout.readline() == "connected\n"

    @staticmethod
    def _start(host, code):
        command = [sys.executable, "-m", "nodes", "exec", host, "--", "python", "-c", code]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def say(self, word):
        self.client.stdin.write(f"{word}\n")

    def answer(self):
        return self.client.stdout.readline().strip()

    def close(self):
        for process in (self.client, self.server):
            process.kill()
            process.communicate()


@pytest.fixture
def talk(lab):
    made = Talk()
    yield made
    made.close()


def changed(*arguments):
    done = sanloom(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def states():
    (shown,) = json.loads(sanloom("ps", "--json").stdout)
    return {node["node"]: node["state"] for node in shown["nodes"]}


def test_links_are_set_listed_and_cleared(lab):
    both = changed("fault", "set", "s1-client", "loss=10%", "latency=2ms", "rate=1Gbit", "queue=7")
    assert sorted(both) == ["client->s1", "s1->client"]
    after = both["client->s1"]["after"]
    assert (after["loss"], after["latency"], after["rate"], after["queue"]) == (0.1, 2_000_000, 10**9, 7)
    assert both["client->s1"]["before"]["loss"] == 0
    one = changed("fault", "set", "server->s1", "jitter=1us", "rate=none")
    assert list(one) == ["server->s1"]
    shown = sanloom("fault", "list").stdout
    assert len(shown.splitlines()) == 5
    assert "client->s1  2ms" in shown
    assert "latency, loss, rate, queue" in shown
    cleared = changed("fault", "clear", "client")
    assert cleared["client->s1"]["after"] == both["client->s1"]["before"]
    assert changed("fault", "list")["server->s1"]["jitter"] == 1000
    changed("fault", "clear", "--all")
    assert all(link["original"].items() <= link.items() for link in changed("fault", "list").values())
    journal = [json.loads(line) for line in sanloom("logs", "--journal", "--json", "client").stdout.splitlines()]
    records = [record for record in journal if record["event"] == "link.changed"]
    assert [record["after"]["loss"] for record in records] == [0.1, 0]
    assert {record["link"] for record in records} == {"client->s1"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("fault", "set", "client-s2", "loss=1%"), "has no link 'client-s2'; it has client-s1, server-s1"),
        (("fault", "set", "client-", "loss=1%"), "the arrow wants quotes: 'client->s1'"),
        (("fault", "set", "client", "loss"), "expected SETTING=VALUE, as latency=2ms"),
        (("fault", "set", "client", "los=1%"), "did you mean 'loss'?"),
        (("fault", "set", "client", "latency=9999999h"), "it must be 0 to 60s"),
        (("fault", "set", "client", "loss=101%"), "loss: '101%' is not between 0% and 100%"),
        (("fault", "set", "client", "queue=-1"), "queue: '-1' is not a whole number of frames"),
        (("fault", "clear"), "name a link, or say --all"),
        (("partition", "nobody"), "has no node 'nobody'; it has s1, client, server"),
        (("partition", "client", "server"), "no link leads from client to server; it is linked with s1"),
        (("partition", "client", "client,s1"), "client cannot be on both sides"),
        (("pause", "nobody"), "has no node 'nobody'"),
    ],
)
def test_wrong_requests_change_nothing(lab, arguments, told):
    done = sanloom(*arguments)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert all(link["original"].items() <= link.items() for link in changed("fault", "list").values())


@PATIENT
def test_a_partition_that_heals_in_time_only_delays(talk):
    cut = changed("partition", "client")
    assert sorted(cut) == ["client->s1", "s1->client"]
    talk.say("delayed")
    wait_until(lambda: changed("fault", "list")["client->s1"]["dropped"].get("partition", 0) > 0)
    assert sorted(changed("heal")) == ["client->s1", "s1->client"]
    assert talk.answer() == "delayed"
    assert changed("heal") == {}


def test_a_partition_beyond_the_retry_budget_ends_the_connection(talk):
    changed("partition", "server", "s1", "--one-way")
    talk.say("lost")
    assert talk.answer() == "WsaConnectionResetError 10054"
    changed("heal")


@PATIENT
def test_a_paused_node_shows_and_delays_and_a_killed_one_ends(lab, talk):
    assert sanloom("pause", "s1").returncode == 0
    assert states() == {"s1": "paused", "client": "up", "server": "up"}
    talk.say("waits")
    assert sanloom("resume", "s1").returncode == 0
    assert talk.answer() == "waits"
    assert sanloom("kill", "s1").returncode == 0
    assert states() == {"s1": "ended", "client": "up", "server": "up"}
    again = sanloom("kill", "s1")
    assert (again.returncode, again.stderr) == (3, "sanloom: node s1 has ended\n")


def test_a_killed_node_hinders_neither_list_nor_heal_nor_clear(lab):
    changed("partition", "server")
    assert json.loads(sanloom("kill", "client", "--json").stdout)["state"] == "ended"
    listed = sanloom("fault", "list", "--json")
    links = json.loads(listed.stdout)
    assert (listed.returncode, links["client->s1"]) == (1, {"state": "ended"})
    assert [name for name, link in links.items() if link.get("partition")] == ["server->s1", "s1->server"]
    assert "(its node is ended)" in sanloom("fault", "list").stdout
    assert sorted(changed("heal")) == ["s1->server", "server->s1"]
    assert sorted(changed("partition", "s1", "client")) == ["s1->client"]
    assert "client->s1" not in changed("fault", "clear", "--all")
    assert changed("heal") == {}
    refused = sanloom("fault", "set", "client-s1", "loss=1%")
    assert (refused.returncode, "nothing has changed: client is ended" in refused.stderr) == (1, True)


def test_a_fault_that_meets_a_paused_node_is_not_half_made_and_ends_wherever_it_can(lab):
    changed("partition", "server")
    assert sanloom("pause", "server").returncode == 0
    refused = sanloom("partition", "client,server")
    assert (refused.returncode, "server is paused, and its links are part of it; resume it" in refused.stderr) == (
        1,
        True,
    )
    listed = json.loads(sanloom("fault", "list", "--json").stdout)
    assert not listed["client->s1"]["partition"]
    healed = sanloom("heal", "--json")
    assert (healed.returncode, list(json.loads(healed.stdout))) == (1, ["s1->server"])
    assert "server is paused: its links stay as they are" in healed.stderr
    assert json.loads(sanloom("resume", "server", "--json").stdout)["state"] == "up"
    assert list(changed("heal")) == ["server->s1"]


def test_down_ends_a_lab_with_a_paused_node(lab):
    assert sanloom("pause", "client").returncode == 0
    assert sanloom("down").returncode == 0
    assert '"node.statistics"' in (lab / "events.jsonl").read_text()
