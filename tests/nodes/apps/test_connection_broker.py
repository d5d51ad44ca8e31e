"""The broker: reads one line, hands on, and is not missed afterwards."""

import os
import signal

import pytest

from tests.support.labs import wait_until

pytestmark = [pytest.mark.live, pytest.mark.parametrize("example", ["broker"], indirect=True)]
CALL = """
c = socket.create_connection(("server", 7000), timeout=20)
def talk(data):
    c.sendall(data)
    return hear(len(data))
def hear(count):
    got = b""
    while len(got) < count:
        part = c.recv(count - len(got))
        if not part: raise EOFError(f"the stream ended: {got!r}")
        got += part
    return got
"""
ANSWER = """
got = b""
try:
    while part := c.recv(1000): got += part
except ConnectionResetError: pass  # the broker has not read all that was sent
got"""


def ready(example):
    """Both services have found the broker: each has taken a client."""
    example.ended_well("client.call")
    upper = example.puppet("client")
    upper.run(CALL)
    upper.run("c.sendall(b'upper\\n'); c.sendall(b'x')")
    if upper.run("c.recv(1)") != b"X":  # it had not registered yet
        upper.run("c.close()")
        return ready(example)
    return upper


def test_each_client_gets_what_it_asked_for_and_no_byte_is_missing(example):
    upper = ready(example)
    assert upper.run("talk(b'abc' * 20_000)") == b"ABC" * 20_000
    eager = example.puppet("client")  # sends on before anybody has heard which service it wants
    eager.run(CALL)
    data = bytes(range(256)) * 300
    eager.run("c.sendall(b'echo\\n' + data)", data=data)
    assert eager.run(f"hear({len(data)})") == data
    slow = example.puppet("client")
    slow.run(CALL)
    for part in (b"up", b"per", b"\nfirst "):
        slow.run("c.sendall(part)", part=part)
    assert slow.run("hear(6)") == b"FIRST "
    ports = [client.run("c.getsockname()[1]") for client in (upper, eager, slow)]
    pids = {name: example.application(f"server.{name}")["pid"] for name in ("upper", "echo")}
    assert [example.owners()[port] for port in ports] == [pids["upper"], pids["echo"], pids["upper"]]


def test_the_broker_is_out_of_the_data_path(example):
    upper = ready(example)
    os.kill(example.application("server.serve")["pid"], signal.SIGKILL)
    wait_until(lambda: example.application("server.serve")["restarts"] == 1)
    assert upper.run("talk(b'still here')") == b"STILL HERE"
    wait_until(lambda: example.log("server.serve").count("listening") == 2)
    again = ready(example)  # the services have registered with the new one
    assert again.run("talk(b'abc')") == b"ABC"


def test_what_no_service_takes_is_told_so(example):
    ready(example)
    for line, answer in ((b"telnet\n", b"no service 'telnet'; there are: echo, upper\n"), (b"x" * 100, b"")):
        client = example.puppet("client")
        client.run(CALL)
        client.run("c.sendall(line)", line=line)
        assert client.run(ANSWER) == answer


def test_a_process_that_dies_before_it_took_the_client_leaves_it_to_the_next(example):
    ready(example)
    frozen = example.application("server.upper")["pid"]
    os.kill(frozen, signal.SIGSTOP)
    client = example.puppet("client")
    client.run(CALL)
    client.start("c.sendall(b'upper\\nabc'); hear(3)")
    wait_until(lambda: "handoff.ticket" in journal_tail(example), tell=lambda: journal_tail(example))
    os.kill(frozen, signal.SIGKILL)  # the runner starts another
    assert client.result() == b"ABC"
    (owner,) = {pid for pid in example.owners().values() if pid == example.application("server.upper")["pid"]}
    assert owner != frozen


def journal_tail(example) -> str:
    """What the server's journal says since its last commit."""
    return (example.lab.run_directory / "server.jsonl").read_text().rpartition("handoff.commit")[2]
