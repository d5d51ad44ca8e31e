"""The server is replaced under constant load: no reset, no byte lost or doubled, nobody refused."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.nodes.apps.conftest import CALL
from tests.support.puppet import until

pytestmark = [pytest.mark.live, pytest.mark.parametrize("example", ["restart"], indirect=True)]
RESTARTS = 4
LOAD = """
import hashlib
c = socket.create_connection(("server", 7000), timeout=20)
stop, sent, got, failures, moved = False, 0, 0, [], threading.Condition()
there, back = hashlib.sha256(), hashlib.sha256()
def send():
    global sent
    try:
        number = 0
        while not stop:
            block = b"".join((number + n).to_bytes(4, "big") for n in range(500 + number % 300))
            number += 1
            c.sendall(block)
            there.update(block); sent += len(block)
            with moved:  # always something under way, and no more than a busy machine carries in time
                assert moved.wait_for(lambda: sent - got < 50_000, 25)
        c.shutdown(socket.SHUT_WR)
    except BaseException as error: failures.append(f"send: {error!r}")
def receive():
    global got
    try:
        while part := c.recv(50_000):
            back.update(part)
            with moved:
                got += len(part)
                moved.notify()
    except BaseException as error: failures.append(f"receive: {error!r}")
threads = [threading.Thread(target=send), threading.Thread(target=receive)]
for thread in threads: thread.start()
"""
NEWCOMERS = """
stop, served, failures = False, 0, []
def call():
    global served
    try:
        while not stop:
            with socket.create_connection(("server", 7000), timeout=20) as c:
                c.sendall(b"hello"); c.shutdown(socket.SHUT_WR)
                got = b""
                while part := c.recv(100): got += part
                assert got == b"hello", got
                served += 1
    except BaseException as error: failures.append(repr(error))
thread = threading.Thread(target=call); thread.start()
"""
SERVER = [sys.executable, "-m", "nodes.apps.zero_downtime_restart"]


def restart(example, stack):
    """A new server; it is there when it says so, and the old one is gone."""
    new = stack.enter_context(example.lab.command("server", *SERVER, stdout=subprocess.PIPE))
    stack.callback(new.kill)
    assert new.stdout.readline().startswith(f"process {new.pid} is listening")
    return new


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def test_clients_see_a_delay_and_nothing_else(example, stack):
    example.listens()
    loads = [example.puppet("client") for _ in range(3)]
    newcomers = example.puppet("client")
    for load in loads:
        load.run(LOAD)
    newcomers.run(NEWCOMERS)
    previous = None
    for _ in range(RESTARTS):
        before = [load.run("got") for load in loads], newcomers.run("served")
        new = restart(example, stack)
        if previous is not None:
            assert previous.wait(20) == 0
        previous = new
        ports = [load.run("c.getsockname()[1]") for load in loads]
        assert [example.owners()[port] for port in ports] == [new.pid] * len(loads)
        for load, got in zip(loads, before[0], strict=True):
            until(load, f"failures or got > {got + 100_000}")
        until(newcomers, f"failures or served > {before[1]}")
    assert example.application("server.serve")["status"] == 0
    example.ended_well("client.call")
    newcomers.run("stop = True; thread.join(25)")
    assert newcomers.run("failures") == []
    for load in loads:
        load.run("stop = True\nfor thread in threads: thread.join(25)")
        assert load.run("failures") == []
        assert load.run("(sent, there.hexdigest())") == load.run("(got, back.hexdigest())")


@pytest.mark.parametrize("moment", ["after it has taken some", "when it has everything"])
def test_a_new_server_that_dies_leaves_everything_to_the_old_one(example, stack, moment):
    example.listens()
    clients = [example.puppet("client") for _ in range(5)]
    for client in clients:
        client.run(CALL)
        assert client.run("echo(b'before')")
    broken = example.puppet("server")
    how_many = 3 if moment.startswith("after") else 1000
    broken.start(f"""
from nodes.apps import zero_downtime_restart as app, meeting
old, taken = meeting.knock(app.NAME), []
while len(taken) < {how_many} and (message := meeting.hear(old)) != app.READY:
    taken.append(socket.fromshare(message[:628]))
os.kill(os.getpid(), {int(signal.SIGKILL)})
""")
    with pytest.raises(EOFError):
        broken.result()
    for client in clients:
        assert client.run("echo(bytes(range(256)) * 400)")
    owner = example.application("server.serve")["pid"]
    assert {owner} == {example.owners()[client.run("c.getsockname()[1]")] for client in clients}
    new = restart(example, stack)  # and now one that works
    for client in clients:
        assert client.run("echo(b'after')")
        assert example.owners()[client.run("c.getsockname()[1]")] == new.pid


def test_a_new_server_that_freezes_is_given_up(example, stack, monkeypatch):
    example.listens()
    client, frozen = example.puppet("client"), example.puppet("server")
    client.run(CALL)
    frozen.run("""
from nodes.apps import zero_downtime_restart as app, meeting
old = meeting.knock(app.NAME)
listener = socket.fromshare(meeting.hear(old)[:628])
""")
    os.kill(frozen.pid, signal.SIGSTOP)
    assert client.run("echo(b'served in the end')")
    assert f"process {frozen.pid} failed" in example.log("server.serve")
