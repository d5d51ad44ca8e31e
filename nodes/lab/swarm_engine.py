"""The swarm engine: every node of the lab is a service of a Docker Swarm, deployed as one stack.

A manager cannot reach into the containers of other machines, so all that is done inside a node goes from the lab's
controller over the fabric's network (:mod:`nodes.control.reach`), wherever the node runs; ``end`` too.
"""

import contextlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from fabric.topology.spec import Topology
from nodes.lab import leftovers, results
from nodes.lab.application_runner import STATE_FILE
from nodes.lab.container_lab import (
    REACH,
    RUN,
    ContainerLab,
    ask,
    controller_of,
    copy,
    inside_arguments,
    log_of,
    project,
    read_file,
)
from nodes.lab.docker_cli import docker
from nodes.lab.records import LabRecord
from nodes.lab.swarm_file import KEY_FOLDER, render_swarm, write_keys

FILE = "stack.yaml"
GONE_SECONDS = 90.0
_MACHINE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.-]*\Z")
_CONSTRAINT = re.compile(r"^(node|engine)\.[a-z.A-Z0-9_-]+ *[!=]= *[A-Za-z0-9][A-Za-z0-9 ._/-]*\Z")


class SwarmLab(ContainerLab):
    """A lab that Docker Swarm runs."""

    engine = "swarm"

    def __init__(self, *arguments: Any, placement: dict[str, str] | None = None, **options: Any) -> None:
        """``placement``: node -> constraint (``parse_placement``); the rest as for other labs."""
        super().__init__(*arguments, **options)
        self._placement = placement or {}

    def stop(self) -> None:
        """End the lab and join its results; safe to call again."""
        if self.record.directory:
            end(self.record)

    def states(self) -> dict[str, str]:
        """By the manager's word and the nodes' own."""
        return states(self.record)

    def _check_engine(self) -> None:
        state = docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}").strip()
        if state != "active true":
            raise EnvironmentLacks("this engine is no Swarm manager: docker swarm init, or run this on a manager")

    def _launch(self, image: str, directory: Path) -> None:
        manager = docker("info", "--format", "{{.Swarm.NodeID}}").strip()
        write_keys(self.topology, directory / KEY_FOLDER)
        text = render_swarm(
            self.topology,
            lab=self.record.name,
            image=image,
            mode=self._mode,
            seed=self._seed,
            capture=self.record.capture,
            host_role=self.host_role,
            placement=self._placement,
            manager=f"node.id == {manager}",
        )
        (directory / FILE).write_text(text)
        try:
            docker(
                *[
                    "stack",
                    "deploy",
                    "--resolve-image",
                    "never",
                    "--with-registry-auth",
                    "--compose-file",
                    str(directory / FILE),
                ],
                project(self.record),
            )
        finally:
            shutil.rmtree(directory / KEY_FOLDER, ignore_errors=True)  # they are Swarm secrets now


def parse_placement(topology: Topology, texts: tuple[str, ...]) -> dict[str, str]:
    """``NODE=CONSTRAINT`` texts -> node -> constraint; a bare word is the host name of a machine. UsageError."""
    placement = {}
    nodes = [*topology.network_switches, *topology.hosts]
    for text in texts:
        node, separator, constraint = text.partition("=")
        if not separator or not constraint:
            raise UsageError(f"--place {text}: expected NODE=MACHINE or NODE=CONSTRAINT, as node.labels.rack==1")
        if node not in nodes:
            raise UsageError(f"--place {text}: the topology has no node {node!r}; it has {', '.join(nodes)}")
        if _MACHINE.match(constraint):
            constraint = f"node.hostname == {constraint}"
        elif not _CONSTRAINT.match(constraint):
            raise UsageError(f"--place {text}: {constraint!r} is no constraint; one is: node.labels.rack==1")
        placement[node] = constraint
    return placement


def states(record: LabRecord) -> dict[str, str]:
    """Node -> ``up`` (it has heard its neighbours), ``starting``, ``paused``, ``not answering`` or ``ended``."""
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
    frozen = docker(
        *["ps", "--filter", f"label=com.docker.stack.namespace={project(record)}", "--filter", "status=paused"],
        *["--format", '{{.Label "com.docker.swarm.service.name"}}'],
    )
    for service in frozen.split():  # by docker pause, on this machine; its remote control is frozen too
        shown[service.removeprefix(f"{project(record)}_")] = "paused"
    running = [node for node, state in shown.items() if state == "up"]
    answers = _ask_for_states(record, running) if running else {}
    for node in running:
        shown[node] = _state(answers.get(node))
    return shown


def _ask_for_states(record: LabRecord, nodes: list[str]) -> dict[str, dict[str, bool] | None]:
    try:
        told = docker("exec", controller_of(record), *REACH, ",".join(nodes), "state", timeout=15)
    except SanloomError:
        return {}
    answers: dict[str, dict[str, bool] | None] = json.loads(told)
    return answers


def _state(answer: dict[str, bool] | None) -> str:
    if answer is None:
        return "not answering"
    if answer["paused"]:
        return "paused"
    return "up" if answer["ready"] else "starting"


def applications(record: LabRecord) -> dict[str, dict[str, Any]]:
    """HOST.NAME -> {pid, state, status, restarts}, as the runners in the hosts' containers tell."""
    found: dict[str, dict[str, Any]] = {}
    for host, spec in record.topology["hosts"].items():
        if spec.get("applications"):
            told = read_file(record, host, f"/run/sanloom/{STATE_FILE}")
            with contextlib.suppress(ValueError):
                found |= json.loads(told)
    return found


def pause(record: LabRecord, node: str) -> None:
    """Freeze all that runs in a node's container, wherever it is."""
    _reach(record, node, "pause")


def resume(record: LabRecord, node: str) -> None:
    """Let it go on."""
    _reach(record, node, "resume")


def kill(record: LabRecord, node: str) -> None:
    """SIGKILL for all that runs in it; Swarm starts another task in its place."""
    _reach(record, node, "kill")


def _reach(record: LabRecord, node: str, operation: str) -> None:
    record.control_path(node)
    docker("exec", controller_of(record), *REACH, node, operation, timeout=15)


def end(record: LabRecord) -> int:
    """Fetch the results of the nodes and remove the stack with its networks, secrets and configs.

    Returns how many nodes were not running. Safe to call again.
    """
    found = states(record)
    run = Path(record.run_directory)
    for node, state in found.items():
        with contextlib.suppress(SanloomError, OSError, subprocess.SubprocessError, tarfile.TarError):
            if state == "paused":
                _thaw(record, node)
            if run.is_dir() and state in ("up", "paused"):
                _fetch_results(record, node, run)
    with contextlib.suppress(SanloomError):
        docker("stack", "rm", project(record))
    _await_gone(record)
    leftovers.remove_directory(Path(record.directory))
    if run.is_dir():
        results.join(run, list(record.nodes))
    return sum(state != "up" for state in found.values())


def _thaw(record: LabRecord, node: str) -> None:
    """Whoever froze it."""
    service = f"label=com.docker.swarm.service.name={project(record)}_{node}"
    found = docker("ps", "-q", "--filter", service, "--filter", "status=paused").split()
    if found:
        docker("unpause", *found)
    resume(record, node)


def _fetch_results(record: LabRecord, node: str, run: Path) -> None:
    """Copy a node's journal, capture and log into the run's folder."""
    ask(record, node, "flush")
    with tempfile.TemporaryFile() as archive:
        copy(inside_arguments(record, node, "tar", "-C", RUN, "-cf", "-", "."), stdout=archive)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as opened:
            opened.extractall(run, filter="data")
    (run / f"{node}.log").write_text(log_of(record, node))


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
