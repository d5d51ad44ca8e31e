"""One fast lab for all tests of a module, and puppets: a peer on ``client``, others on ``server``."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from fabric.topology.yaml_model import parse
from nodes.lab.process_engine import Lab
from tests.support.labs import FAST_PAIR, wait_until
from tests.support.puppet import Puppet

_ports = itertools.count(7100)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    directory = Path(tempfile.mkdtemp(prefix="sl-"))
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    try:
        with Lab(parse(FAST_PAIR, "fast"), tmp_path_factory.mktemp("run")) as lab:
            yield lab
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(directory, ignore_errors=True)


def left(lab: Lab) -> list[object]:
    """Processes and sockets that the hosts still know."""
    shown = [lab.ask(host, "ps") for host in lab.topology.hosts]
    return [entry for host in shown for entry in (*host["processes"], *host["sockets"])]


@pytest.fixture
def puppets(lab):
    """``puppets("server")`` starts one; all end with the test, and then both hosts must be as before."""
    started: list[Puppet] = []

    def start(host: str) -> Puppet:
        started.append(Puppet(lab, host))
        return started[-1]

    yield start
    for puppet in started:
        puppet.close()
    wait_until(lambda: not left(lab), tell=lambda: left(lab))


@pytest.fixture
def pair(puppets):
    """(peer on client, source on server): connected, the stream's ends are ``c`` in both."""
    peer, source = puppets("client"), puppets("server")
    port = next(_ports)
    peer.run(f"l = socket.create_server(('', {port}))")
    source.run(f"c = socket.create_connection(('client', {port}), timeout=20)")
    peer.run("c, _ = l.accept(); c.settimeout(20); l.close()")
    return peer, source


def read_exactly(count: str) -> str:
    """Code for ``count`` bytes of ``c``."""
    return f"""
got = b""
while len(got) < {count}:
    part = c.recv(min(65536, {count} - len(got)))
    if not part: raise EOFError(f"the stream ended after {{len(got)}} bytes")
    got += part
got"""
