"""What labs of containers have in common, whether Compose or Swarm starts them: reaching into a node's container."""

import contextlib
import json
import os
import secrets
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from fabric.assembly import Plan
from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from fabric.topology.spec import Topology
from nodes.container import CONTROL
from nodes.lab import leftovers
from nodes.lab.docker_cli import docker, explain
from nodes.lab.images import ensure_image
from nodes.lab.process_engine import new_lab_directory
from nodes.lab.records import LabRecord, NodeRecord

READY_SECONDS = 120.0
COPY_SECONDS = 120.0
RUN = "/var/lib/sanloom/run"
"""Where a container's node puts its journal and its capture."""
ASK = ("python", "-P", "-m", "nodes.control.ask")
REACH = ("python", "-P", "-m", "nodes.control.reach")


class ContainerLab(ABC):
    """A lab of containers; the interface is that of :class:`nodes.lab.process_engine.Lab`."""

    engine: str
    host_role = "host"
    """What the image runs as a host."""

    def __init__(
        self,
        topology: Topology,
        run_directory: Path,
        *,
        name: str | None = None,
        mode: str = "suspend",
        seed: int | None = None,
        capture: bool = False,
        detached: bool = False,
    ) -> None:
        self.topology = topology
        self.run_directory = run_directory
        self._mode, self._seed = mode, seed
        own = os.getpid()
        self.record = LabRecord(
            name=name or f"{topology.name}-{secrets.token_hex(3)}",
            run_id=secrets.token_hex(16),
            engine=self.engine,
            directory="",
            run_directory=str(run_directory),
            topology=topology.to_json(),
            launcher=(own, leftovers.start_time(own) or 0),
            detached=detached,
            capture=capture,
            links=[{"name": x.name, "source": x.source, "sink": x.sink} for x in Plan(topology).links],
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every container and wait until all nodes are ready; nothing of the lab is left if that fails.

        EnvironmentLacks says what this machine lacks, UsageError that a lab of this name runs already.
        """
        image = ensure_image()
        self._check_engine()
        self.record.directory = str(new_lab_directory(self.record.name, lambda _record: None))
        try:
            self.run_directory.mkdir(parents=True, exist_ok=True)
            for node in [*self.topology.network_switches, *self.topology.hosts]:
                kind = "host" if node in self.topology.hosts else "network switch"
                self.record.nodes[node] = NodeRecord(kind, 0, 0, f"/run/sanloom/{node}.control", "")
            self.record.write()
            self._launch(image, Path(self.record.directory))
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def command(self, host: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; text mode, ``options`` as for Popen. Ending it here does not end it there."""
        return subprocess.Popen(exec_arguments(self.record, host, arguments), text=True, **options)

    def ask(self, node: str, operation: str, **members: Any) -> dict[str, Any]:
        """One request on a node's control socket."""
        return ask(self.record, node, operation, **members)

    def place(self, host: str, path: Path) -> str:
        """Copy a file into a host; its path there."""
        inside = self.inside(path)
        arguments = inside_arguments(self.record, host, "sh", "-c", 'cat > "$0"', inside, interactive=True)
        with path.open("rb") as file:
            copy(arguments, stdin=file)
        return inside

    def fetch(self, host: str, inside: str, path: Path) -> None:
        """Copy a file out of a host."""
        with path.open("wb") as file:
            copy(inside_arguments(self.record, host, "cat", inside), stdout=file)

    def inside(self, path: Path) -> str:
        """Where a host would write a file that ``fetch`` brings to ``path``."""
        return f"/tmp/{path.name}"

    @abstractmethod
    def stop(self) -> None:
        """End the lab and join its results; safe to call again."""

    @abstractmethod
    def states(self) -> dict[str, str]:
        """Node -> ``up``, ``starting``, ``paused``, ``ended``."""

    @abstractmethod
    def _launch(self, image: str, directory: Path) -> None:
        """Start the containers; files go into the lab's directory."""

    @abstractmethod
    def _check_engine(self) -> None:
        """EnvironmentLacks if the engine cannot do it."""

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            found = self.states()
            waiting = [node for node, state in found.items() if state != "up"]
            if not waiting:
                return
            ended = [node for node in waiting if found[node] == "ended"]
            if ended:
                log = log_of(self.record, ended[0]).strip().splitlines()
                raise SanloomError(f"node {ended[0]} ended at its start: {log[-1] if log else 'it wrote nothing'}")
            if time.monotonic() > deadline:
                raise EnvironmentLacks(f"not ready within {READY_SECONDS:.0f} s: {', '.join(waiting)}")
            time.sleep(0.2)


def project(record: LabRecord) -> str:
    """The compose project, or the stack, of a lab."""
    return f"sanloom-{record.name}"


def inside_arguments(
    record: LabRecord, node: str, *arguments: str, interactive: bool = False, terminal: bool = False
) -> list[str]:
    """The command line that runs ``arguments`` in a node's container: there by ``docker exec``, or on Swarm from the
    lab's controller, since the container may be on another machine. UsageError for an unknown node, EnvironmentLacks
    if there is nothing to reach it with.
    """
    record.control_path(node)
    options = [*(["--interactive"] if interactive else []), *(["--tty"] if terminal else [])]
    if record.engine == "compose":
        return ["docker", "exec", *options, container_of(record, node), *arguments]
    reach = [*REACH, node, "exec", *(["--terminal"] if terminal else []), "--"]
    return ["docker", "exec", *options, controller_of(record), *reach, *arguments]


def container_of(record: LabRecord, node: str) -> str:
    """A node's container, on Compose."""
    return f"{project(record)}-{node}-1"


def controller_of(record: LabRecord) -> str:
    """The container of the lab's controller, on Swarm. EnvironmentLacks if it does not run on this machine."""
    label = f"label=com.docker.swarm.service.name={project(record)}_{CONTROL}"
    found = docker("ps", "-q", "--filter", label, "--filter", "status=running").split()
    if not found:
        raise EnvironmentLacks(
            f"the controller of the lab {record.name} does not run on this machine;"
            f" docker service ps {project(record)}_{CONTROL} says where it does"
        )
    return found[0]


def copy(arguments: list[str], **files: Any) -> None:
    """Run a command whose input or output is a file. SanloomError with its words if it fails."""
    done = subprocess.run(arguments, stderr=subprocess.PIPE, check=False, timeout=COPY_SECONDS, **files)
    if done.returncode:
        raise explain(tuple(arguments[1:]), done.stderr.decode(errors="replace"))


def ask(record: LabRecord, node: str, operation: str, **members: Any) -> dict[str, Any]:
    """One request on a node's control socket, asked from inside its container."""
    command = inside_arguments(record, node, *ASK, record.nodes[node].control, operation, json.dumps(members))
    answer: dict[str, Any] = json.loads(docker(*command[1:], timeout=15))
    return answer


def exec_arguments(record: LabRecord, host: str, arguments: tuple[str, ...], *, terminal: bool = False) -> list[str]:
    """The command line that runs ``arguments`` on a host."""
    if host not in record.topology["hosts"]:
        hosts = ", ".join(record.topology["hosts"])
        raise UsageError(f"{host!r} is no host of the lab {record.name}; hosts: {hosts}")
    return inside_arguments(record, host, *arguments, interactive=True, terminal=terminal)


def log_of(record: LabRecord, node: str) -> str:
    """What a node wrote to its standard output and error; empty if the engine has nothing of it."""
    of = [container_of(record, node)]
    if record.engine == "swarm":
        of = ["--raw", f"{project(record)}_{node}"]
    done = subprocess.run(
        ["docker", *(["service"] if record.engine == "swarm" else []), "logs", *of],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout if done.returncode == 0 else ""


def read_journal(record: LabRecord, node: str) -> str:
    """A node's journal so far; empty if it cannot be read."""
    return read_file(record, node, f"{RUN}/{node}.jsonl")


def read_file(record: LabRecord, node: str, inside: str) -> str:
    """The text of a file in a node's container; empty if it cannot be read."""
    with contextlib.suppress(SanloomError):
        return docker(*inside_arguments(record, node, "cat", inside)[1:], timeout=30)
    return ""


def start_capture(record: LabRecord, node: str, links: list[str]) -> "subprocess.Popen[bytes]":
    """A process whose standard output is the pcapng stream of these links; it ends with its standard input."""
    command = [*ASK, record.nodes[node].control, "capture", *links]
    return subprocess.Popen(
        inside_arguments(record, node, *command, interactive=True), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
