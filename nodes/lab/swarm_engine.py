"""The swarm engine: every node of the lab is a service of a Docker Swarm, deployed as one stack.

Commands reach into the containers of this machine; a node that Swarm placed on another machine runs, but ``exec``,
``capture`` and ``ps`` must be called there.
"""

import contextlib
import json
import shutil
import time
from pathlib import Path

from fabric.errors import EnvironmentLacks, SanloomError
from nodes.container import READY
from nodes.lab import leftovers, results
from nodes.lab.container_lab import ContainerLab, ask, container_of, fetch_results, project
from nodes.lab.docker_cli import docker
from nodes.lab.records import LabRecord
from nodes.lab.swarm_file import KEY_FOLDER, render_swarm, write_keys

FILE = "stack.yaml"
GONE_SECONDS = 90.0


class SwarmLab(ContainerLab):
    """A lab that Docker Swarm runs."""

    engine = "swarm"

    def stop(self) -> None:
        """End the lab and join its results; safe to call again."""
        if self.record.directory:
            end(self.record)

    def states(self) -> dict[str, str]:
        """By the manager's word; a node on this machine is up once it has heard its neighbours."""
        found = states(self.record)
        return {node: self._unless_ready(node) if state == "up" else state for node, state in found.items()}

    def _unless_ready(self, node: str) -> str:
        try:
            container = container_of(self.record, node)
        except EnvironmentLacks:
            return "up"  # on another machine, where its health is all that can be seen from here
        try:
            docker("exec", container, "test", "-e", str(READY))
        except SanloomError:
            return "starting"
        return "up"

    def _check_engine(self) -> None:
        state = docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}").strip()
        if state != "active true":
            raise EnvironmentLacks("this engine is no Swarm manager: docker swarm init, or run this on a manager")

    def _launch(self, image: str, directory: Path) -> None:
        write_keys(self.topology, directory / KEY_FOLDER)
        text = render_swarm(
            self.topology,
            lab=self.record.name,
            image=image,
            mode=self._mode,
            seed=self._seed,
            capture=self.record.capture,
        )
        (directory / FILE).write_text(text)
        try:
            docker(
                *["stack", "deploy", "--resolve-image", "never", "--compose-file", str(directory / FILE)],
                project(self.record),
            )
        finally:
            shutil.rmtree(directory / KEY_FOLDER, ignore_errors=True)  # they are Swarm secrets now


def states(record: LabRecord) -> dict[str, str]:
    """Node -> ``up`` (running and healthy), ``starting``, ``paused`` or ``ended``."""
    shown = dict.fromkeys(record.nodes, "ended")
    try:
        lines = docker("stack", "ps", "--format", "{{json .}}", project(record)).splitlines()
    except SanloomError as error:
        if isinstance(error, EnvironmentLacks):
            raise
        return shown  # nothing of it is left
    for line in lines:
        task = json.loads(line)
        node = task["Name"].removeprefix(f"{project(record)}_").rpartition(".")[0]
        if node in shown and task["DesiredState"] in ("Running", "Ready"):
            shown[node] = "up" if task["CurrentState"].startswith("Running") else "starting"
    paused = docker(
        *["ps", "--filter", f"label=com.docker.stack.namespace={project(record)}", "--filter", "status=paused"],
        *["--format", '{{.Label "com.docker.swarm.service.name"}}'],
    )
    for service in paused.split():
        shown[service.removeprefix(f"{project(record)}_")] = "paused"
    return shown


def end(record: LabRecord) -> int:
    """Fetch the results of the nodes on this machine and remove the stack with its networks, secrets and configs.

    Returns how many nodes were not running. Safe to call again.
    """
    found = states(record)
    for node, state in found.items():
        if state == "paused":
            docker("unpause", container_of(record, node))
    run = Path(record.run_directory)
    if run.is_dir():
        for node in record.nodes:
            with contextlib.suppress(SanloomError):
                ask(record, node, "flush")
            fetch_results(record, node, run)
    with contextlib.suppress(SanloomError):
        docker("stack", "rm", project(record))
    _await_gone(record)
    leftovers.remove_directory(Path(record.directory))
    if run.is_dir():
        results.join(run, list(record.nodes))
    return sum(state == "ended" for state in found.values())


def _await_gone(record: LabRecord) -> None:
    """``docker stack rm`` returns before it is done; EnvironmentLacks if something is left after GONE_SECONDS."""
    label = f"label=com.docker.stack.namespace={project(record)}"
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        left = [
            kind
            for kind in ("container", "network", "secret", "config", "service")
            if docker(kind, "ls", "-q", *(["-a"] if kind == "container" else []), "--filter", label).strip()
        ]
        if not left:
            return
        if time.monotonic() > deadline:
            raise EnvironmentLacks(f"Swarm did not remove the lab's {', '.join(left)} within {GONE_SECONDS:.0f} s")
        time.sleep(0.3)
