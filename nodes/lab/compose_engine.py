"""The compose engine: every node of the lab is a container, and Docker Compose starts and stops them.

The lab's record names the compose project; containers are found by its label, so whatever the launcher or a node did,
``end`` removes exactly what this project made. Control sockets are reached through ``docker exec``: nothing is
published.
"""

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from fabric.assembly import Plan
from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from fabric.topology.spec import Topology
from nodes.lab import leftovers, results
from nodes.lab.compose_file import DEFAULT_IMAGE, render_compose
from nodes.lab.docker_cli import containers, docker
from nodes.lab.process_engine import new_lab_directory
from nodes.lab.records import LabRecord, NodeRecord

READY_SECONDS = 120.0
STOP_SECONDS = 30
FILE = "compose.yaml"
ENVIRONMENT_IMAGE = "SANLOOM_IMAGE"
_RUN = "/var/lib/sanloom/run"
_ROOT = Path(__file__).parents[2]
_SOURCES = ("docker", "fabric", "nodes", "provider", "topologies", "requirements", "pyproject.toml")


class ComposeLab:
    """A lab of containers; the interface is that of :class:`nodes.lab.process_engine.Lab`."""

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
            engine="compose",
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
        self.record.directory = str(new_lab_directory(self.record.name, end))
        try:
            self.run_directory.mkdir(parents=True, exist_ok=True)
            text = render_compose(
                self.topology,
                lab=self.record.name,
                image=image,
                mode=self._mode,
                seed=self._seed,
                capture=self.record.capture,
            )
            (Path(self.record.directory) / FILE).write_text(text)
            for node in [*self.topology.network_switches, *self.topology.hosts]:
                kind = "host" if node in self.topology.hosts else "network switch"
                container = f"{project(self.record)}-{node}-1"
                self.record.nodes[node] = NodeRecord(kind, 0, 0, f"/run/sanloom/{node}.control", "", container)
            self.record.write()
            _compose(self.record, "up", "--detach", "--no-build", "--quiet-pull", timeout=READY_SECONDS)
            self._await_healthy()
        except BaseException:
            self.stop()
            raise

    def command(self, host: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; text mode, ``options`` as for Popen. Ending it here does not end it there."""
        return subprocess.Popen(exec_arguments(self.record, host, arguments), text=True, **options)

    def ask(self, node: str, operation: str) -> dict[str, Any]:
        """One request on a node's control socket."""
        return ask(self.record, node, operation)

    def place(self, host: str, path: Path) -> str:
        """Copy a file into a host; its path there."""
        inside = f"/tmp/{path.name}"
        docker("cp", str(path), f"{self.record.nodes[host].container}:{inside}")
        return inside

    def fetch(self, host: str, inside: str, path: Path) -> None:
        """Copy a file out of a host."""
        docker("cp", f"{self.record.nodes[host].container}:{inside}", str(path))

    def inside(self, path: Path) -> str:
        """Where a host would write a file that ``fetch`` brings to ``path``."""
        return f"/tmp/{path.name}"

    def stop(self) -> None:
        """End the lab and join its results; safe to call again."""
        if self.record.directory:
            end(self.record)

    def _await_healthy(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            found = states(self.record)
            waiting = [node for node, state in found.items() if state != "up"]
            if not waiting:
                return
            ended = [node for node in waiting if found[node] == "ended"]
            if ended:
                log = docker("logs", "--tail", "1", self.record.nodes[ended[0]].container).strip()
                raise SanloomError(f"node {ended[0]} ended at its start: {log or 'it wrote nothing'}")
            if time.monotonic() > deadline:
                raise EnvironmentLacks(f"not ready within {READY_SECONDS:.0f} s: {', '.join(waiting)}")
            time.sleep(0.2)


def project(record: LabRecord) -> str:
    """The compose project of a lab."""
    return f"sanloom-{record.name}"


def states(record: LabRecord) -> dict[str, str]:
    """Node -> ``up``, ``starting``, ``paused`` or ``ended``, by the engine's word."""
    found = containers(project(record))
    shown = {}
    for node in record.nodes:
        state = found.get(node, {}).get("State", {})
        if state.get("Paused"):
            shown[node] = "paused"
        elif not state.get("Running"):
            shown[node] = "ended"
        else:
            shown[node] = "up" if state.get("Health", {}).get("Status") == "healthy" else "starting"
    return shown


def ask(record: LabRecord, node: str, operation: str) -> dict[str, Any]:
    """One request on a node's control socket, asked from inside its container."""
    entry = record.nodes[node]
    command = ["python", "-P", "-m", "nodes.control.ask", entry.control, operation]
    output = docker("exec", entry.container, *command, timeout=15)
    answer: dict[str, Any] = json.loads(output)
    return answer


def exec_arguments(record: LabRecord, host: str, arguments: tuple[str, ...], *, terminal: bool = False) -> list[str]:
    """The command line that runs ``arguments`` on a host."""
    if host not in record.topology["hosts"]:
        hosts = ", ".join(record.topology["hosts"])
        raise UsageError(f"{host!r} is no host of the lab {record.name}; hosts: {hosts}")
    return [
        "docker",
        "exec",
        "--interactive",
        *(["--tty"] if terminal else []),
        record.nodes[host].container,
        *arguments,
    ]


def end(record: LabRecord) -> int:
    """Stop the nodes in order, fetch their results, and remove all that the project made. Safe to call again.

    Returns how many nodes had ended before.
    """
    before = sum(state == "ended" for state in states(record).values())
    with contextlib.suppress(SanloomError):
        docker("unpause", *[record.nodes[n].container for n, state in states(record).items() if state == "paused"])
    with contextlib.suppress(SanloomError):
        _compose(record, "stop", "--timeout", "10", timeout=STOP_SECONDS + 30)
    run = Path(record.run_directory)
    if run.is_dir():
        for node, entry in record.nodes.items():
            with contextlib.suppress(SanloomError):
                docker("cp", f"{entry.container}:{_RUN}/.", str(run))
            with contextlib.suppress(SanloomError):
                (run / f"{node}.log").write_text(log_of(record, node))
    _compose(record, "down", "--volumes", "--remove-orphans", "--timeout", "5", timeout=STOP_SECONDS + 60)
    leftovers.remove_directory(Path(record.directory))
    if run.is_dir():
        results.join(run, list(record.nodes))
    return before


def log_of(record: LabRecord, node: str) -> str:
    """What a node wrote to its standard output and error."""
    done = subprocess.run(
        ["docker", "logs", record.nodes[node].container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout


def read_file(record: LabRecord, node: str, name: str) -> str:
    """A file of a node's results."""
    return docker("exec", record.nodes[node].container, "cat", f"{_RUN}/{name}", timeout=30)


def start_capture(record: LabRecord, node: str, links: list[str]) -> "subprocess.Popen[bytes]":
    """A process whose standard output is the pcapng stream of these links; it ends with its standard input."""
    entry = record.nodes[node]
    command = ["python", "-P", "-m", "nodes.control.ask", entry.control, "capture", *links]
    return subprocess.Popen(
        ["docker", "exec", "--interactive", entry.container, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def ensure_image() -> str:
    """The image to use: $SANLOOM_IMAGE, else one built from these very sources, which is made if it is missing."""
    given = os.environ.get(ENVIRONMENT_IMAGE)
    if given:
        docker("image", "inspect", given)
        return given
    if not (_ROOT / "docker" / "Dockerfile").is_file():
        docker("image", "inspect", DEFAULT_IMAGE)
        return DEFAULT_IMAGE
    image = f"{DEFAULT_IMAGE}-{_digest_of_sources()}"
    try:
        docker("image", "inspect", image)
    except EnvironmentLacks as error:
        if "missing" not in str(error):
            raise
        dockerfile = str(_ROOT / "docker" / "Dockerfile")
        docker("build", "--file", dockerfile, "--tag", image, "--tag", DEFAULT_IMAGE, str(_ROOT), timeout=900)
    return image


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = _ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(_ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _compose(record: LabRecord, *arguments: str, timeout: float) -> None:
    file = Path(record.directory) / FILE
    docker("compose", "--project-name", project(record), "--file", str(file), *arguments, timeout=timeout)
