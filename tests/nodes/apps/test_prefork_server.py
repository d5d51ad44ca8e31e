"""The pre-forking server: workers serve what the controlling process accepted, and none is lost with a worker."""

import os
import signal

import pytest

from tests.nodes.apps.conftest import CALL
from tests.support.labs import wait_until

pytestmark = [pytest.mark.live, pytest.mark.parametrize("example", ["prefork"], indirect=True)]
WORKERS = 3


def call(example):
    """A client with a connection; the process that serves it, once one does."""
    client = example.puppet("client")
    client.run(CALL)
    return client, client.run("c.getsockname()[1]")


def serving(example, port):
    """The worker that has the connection: it is not the controlling process."""
    controlling = example.application("server.serve")["pid"]
    wait_until(lambda: example.owners().get(port) not in (None, controlling), tell=example.owners)
    return example.owners()[port]


def test_each_connection_has_a_worker_of_its_own(example):
    example.ended_well("client.call")
    calls = [call(example) for _ in range(WORKERS)]
    for client, _ in calls:
        assert client.run("echo(bytes(range(256)) * 500)")
    owners = {serving(example, port) for _, port in calls}
    assert len(owners) == WORKERS
    late, port = call(example)  # all workers are busy: it waits in the backlog
    late.start("echo(b'late')")
    calls[0][0].run("c.close()")
    assert late.result()
    assert serving(example, port) in owners


@pytest.mark.parametrize("moment", ["before it took the connection", "while it is frozen for good"])
def test_a_connection_on_its_way_to_a_worker_that_dies_goes_to_another(example, moment):
    example.listens()
    clients = [call(example) for _ in range(WORKERS)]
    workers = [serving(example, port) for _, port in clients]
    for worker in workers:  # whichever is given the next connection will not take it
        os.kill(worker, signal.SIGSTOP)
    victim = workers[0]
    clients[0][0].run("c.close()")
    os.kill(victim, signal.SIGCONT)
    wait_until(lambda: clients[0][1] not in example.owners())
    os.kill(victim, signal.SIGSTOP)
    client, port = call(example)
    client.start("echo(b'sent before anybody serves it' * 1000)")
    wait_until(lambda: example.owners().get(port, 0) is None, tell=example.owners)  # in transfer
    if moment.startswith("before"):
        os.kill(victim, signal.SIGKILL)
    assert client.result()
    replaced = serving(example, port)
    assert replaced not in workers
    assert f"worker {victim} ended (-9)" in example.log("server.serve")
    for worker, (other, _) in zip(workers[1:], clients[1:], strict=True):  # they were not disturbed
        os.kill(worker, signal.SIGCONT)
        assert other.run("echo(b'still there')")


def test_a_worker_that_dies_while_it_serves_ends_its_connection_alone(example):
    example.listens()
    (first, port), (second, _) = call(example), call(example)
    assert first.run("echo(b'one')")
    assert second.run("echo(b'two')")
    os.kill(serving(example, port), signal.SIGKILL)
    assert (
        first.run("""
try: c.recv(1); outcome = "end"
except ConnectionResetError: outcome = "reset"
outcome""")
        == "reset"
    )
    assert second.run("echo(b'two')")
    for _ in range(WORKERS - 1):
        client, _ = call(example)
        assert client.run("echo(b'served by the replacement, too')")
