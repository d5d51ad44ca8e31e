"""Labs of one test: a runtime directory of their own, and a look at what they leave behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodes.lab.leftovers import processes_of

ECHO_SERVER = """
from provider import socket
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
"""
ECHO_CLIENT = """
import sys
from provider import socket
with socket.create_connection(("server", 7000), timeout=20) as connection:
    sent = bytes(range(256)) * 1000
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    got = b""
    while data := connection.recv(65536):
        got += data
    print(got == sent)
"""
FAST_PAIR = """name: fast
defaults: {link: {latency: 100us}}
hosts: {client: {}, server: {}}
network-switches: {s1: {}}
links:
  - endpoints: [client, s1]
  - endpoints: [server, s1]
"""


def sanloom(*arguments: str, timeout: float = 60, **options) -> subprocess.CompletedProcess[str]:
    """Run the command line; status and output are the caller's to look at."""
    return subprocess.run(
        [sys.executable, "-m", "nodes", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        **options,
    )


@contextmanager
def echo_server(lab: str) -> Iterator[subprocess.Popen[str]]:
    """An echo server on the host ``server``, listening; ended at the end if need be."""
    arguments = ["exec", "--lab", lab, "server", "--", "python", "-c", ECHO_SERVER]
    with subprocess.Popen([sys.executable, "-m", "nodes", *arguments], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            yield server
        finally:
            server.kill()


def wait_until(condition: Callable[[], object], seconds: float = 20, tell: Callable[[], object] = lambda: "") -> None:
    """Ask again until the answer is true; AssertionError at the deadline. For what has no event to wait on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {tell()}"
        time.sleep(0.01)


def run_ids(runtime: Path) -> list[str]:
    """Ids of the runs that have a record."""
    return [json.loads(path.read_text())["run_id"] for path in runtime.glob("sanloom/*/lab.json")]


def assert_nothing_left(runtime: Path, ids: list[str]) -> None:
    """No process of these runs, and no file of any lab."""
    assert {run: processes_of(run) for run in ids} == {run: [] for run in ids}
    assert [str(path) for path in (runtime / "sanloom").glob("*")] == []
    assert os.path.isdir(runtime)
