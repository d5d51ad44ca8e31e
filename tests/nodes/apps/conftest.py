"""The examples run as they are shipped: ``sanloom up NAME``, with the applications that the topology names."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from fabric.topology.yaml_model import load
from nodes.lab import process_engine
from nodes.lab.process_engine import Lab
from nodes.lab.topology_files import find_topology
from tests.support.labs import wait_until
from tests.support.puppet import Puppet


class Example:
    """A running lab of one example, and puppets on its hosts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._puppets: list[Puppet] = []

    def application(self, name: str) -> dict:
        """What ``sanloom ps`` shows of HOST.NAME."""
        return process_engine.applications(self.lab.record).get(name, {"state": "waiting", "status": None})

    def log(self, name: str) -> str:
        """What HOST.NAME wrote so far."""
        path = self.lab.run_directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def ended_well(self, name: str) -> None:
        """Wait until HOST.NAME ended, with status 0."""
        wait_until(
            lambda: self.application(name)["status"] == 0,
            seconds=40,
            tell=lambda: (self.application(name), self.log(name), self.log("server.serve")),
        )

    def listens(self, name: str = "server.serve") -> None:
        """Wait until HOST.NAME says that it listens."""
        wait_until(lambda: "listening" in self.log(name), tell=lambda: self.log(name))

    def puppet(self, host: str) -> Puppet:
        """A process of the host that does what the test says."""
        self._puppets.append(Puppet(self.lab, host))
        return self._puppets[-1]

    def owners(self) -> dict[int, int | None]:
        """Port of the client -> process that controls its connection on the server."""
        sockets = self.lab.ask("server", "ps")["sockets"]
        return {entry["peer"][1]: entry["controlling"] for entry in sockets if entry["peer"]}

    def close(self) -> None:
        """End the puppets."""
        for puppet in self._puppets:
            puppet.close()


@pytest.fixture
def example(request, tmp_path):
    """The lab of the topology that ``request.param`` names."""
    directory = Path(tempfile.mkdtemp(prefix="sl-"))
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    topology = load(find_topology(request.param))
    try:
        with Lab(topology, tmp_path / "run") as lab:
            running = Example(lab)
            try:
                yield running
            finally:
                running.close()
    finally:
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(directory, ignore_errors=True)


CALL = """
c = socket.create_connection(("server", 7000), timeout=20)
def echo(data):
    c.sendall(data)
    got = b""
    while len(got) < len(data):
        part = c.recv(len(data) - len(got))
        if not part: raise EOFError(f"the stream ended after {len(got)} bytes")
        got += part
    return got == data
"""
