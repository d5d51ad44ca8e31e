"""A lab with an honest connection under load on the host whose agent is attacked, and what that agent holds."""

import os
from pathlib import Path

import pytest

from tests.nodes.handoff.conftest import lab, left
from tests.support.labs import wait_until
from tests.support.puppet import Puppet

__all__ = ["lab"]

_ECHO = """
import socket as stdlib
l = socket.create_server(("", 7999))
def echo():
    c, _ = l.accept()
    while part := c.recv(65536): c.sendall(part)
threading.Thread(target=echo, daemon=True).start()
"""
_LOAD = """
import random
c = socket.create_connection(("client", 7999), timeout=60)
rounds, wrong = 0, []
def load():
    global rounds
    generator = random.Random(1)
    try:
        while True:
            sent = generator.randbytes(generator.choice((1, 100, 5000, 20_000)))
            c.sendall(sent)
            got = b""
            while len(got) < len(sent):
                part = c.recv(65536)
                if not part: raise EOFError(f"after {rounds} rounds")
                got += part
            if got != sent: wrong.append(rounds)
            rounds += 1
    except BaseException as error:
        wrong.append(repr(error))
threading.Thread(target=load, daemon=True).start()
"""


class Honest:
    """A connection that echoes random blocks without a pause, and compares them."""

    def __init__(self, lab) -> None:
        self._peer, self._source = Puppet(lab, "client"), Puppet(lab, "server")
        self._peer.run(_ECHO)
        self._source.run(_LOAD)

    def goes_on(self, rounds: int = 30) -> None:
        """So many more blocks are echoed, byte for byte, while an attack runs, and fresh sockets can be had."""
        before, wrong = self._source.run("[rounds, wrong]")
        assert wrong == []
        wait_until(lambda: self._source.run("rounds") >= before + rounds, 60, lambda: self._source.run("wrong"))
        assert self._source.run("wrong") == []

    def makes_a_socket(self) -> str:
        """What the honest process hears when it wants one more socket."""
        return self._source.run("""
try:
    socket.socket().close(); heard = "ok"
except OSError as error: heard = error.winerror
heard""")

    def close(self) -> None:
        self._source.close()
        self._peer.close()


class Agent:
    """The agent under attack."""

    def __init__(self, lab, host: str = "server") -> None:
        self._lab, self._host = lab, host
        self.pid = lab.record.nodes[host].pid

    def statistics(self) -> dict[str, object]:
        return self._lab.ask(self._host, "statistics")["applications"]

    def held(self) -> dict[str, object]:
        """Everything that must be as before once the hostile process is gone."""
        statistics = self.statistics()
        counters = {k: v for k, v in statistics.items() if k not in ("refused", "short_of_files", "limits")}
        status = Path(f"/proc/{self.pid}/status").read_text()
        threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads"))
        return {**counters, "threads": threads, "files": self.files()}

    def files(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def holds_no_more_than(self, before: dict[str, object]) -> bool:
        """The same, but that a thread of trio's that idled in the beginning may have ended since."""
        now = self.held()
        return now["threads"] <= before["threads"] and {**now, "threads": 0} == {**before, "threads": 0}

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.fixture
def agent(lab):
    """The agent of ``server``; at the end it holds what it held at the beginning."""
    wait_until(lambda: not left(lab), tell=lambda: left(lab))
    found = Agent(lab)
    before = found.held()
    yield found
    wait_until(lambda: found.holds_no_more_than(before), 60, lambda: (before, found.held()))


@pytest.fixture
def honest(lab, agent):
    connection = Honest(lab)
    yield connection
    connection.goes_on()
    connection.close()


@pytest.fixture
def hostile(lab, honest):
    """``hostile()`` starts a process on the attacked host that knows how to be hostile."""
    started: list[Puppet] = []

    def start(host: str = "server") -> Puppet:
        puppet = Puppet(lab, host)
        started.append(puppet)
        puppet.run("from tests.support.hostile import *")
        return puppet

    yield start
    for puppet in started:
        puppet.close()
