"""The compose engine: every node of the lab is a container, and Docker Compose starts and stops them.

The lab's record names the compose project; containers are found by its label, so whatever the launcher or a node did,
``end`` removes exactly what this project made. Control sockets are reached through ``docker exec``: nothing is
published.
"""

import contextlib
import subprocess
from pathlib import Path
from typing import Any

from fabric.errors import SanloomError
from nodes.lab import leftovers, results
from nodes.lab.compose_file import LABEL_KIND, LABEL_NODE, render_compose
from nodes.lab.container_lab import READY_SECONDS, RUN, ContainerLab, container_of, log_of, project
from nodes.lab.docker_cli import containers, docker
from nodes.lab.records import LabRecord

STOP_SECONDS = 60.0
FILE = "compose.yaml"


class ComposeLab(ContainerLab):
    """A lab that Docker Compose runs."""

    engine = "compose"

    def stop(self) -> None:
        """End the lab and join its results; safe to call again."""
        if self.record.directory:
            end(self.record)

    def states(self) -> dict[str, str]:
        """By the engine's word."""
        return states(self.record)

    def _check_engine(self) -> None:
        docker("compose", "version")

    def _launch(self, image: str, directory: Path) -> None:
        text = render_compose(
            self.topology,
            lab=self.record.name,
            image=image,
            mode=self._mode,
            seed=self._seed,
            capture=self.record.capture,
            host_role=self.host_role,
        )
        (directory / FILE).write_text(text)
        _compose(self.record, "up", "--detach", "--no-build", "--quiet-pull", timeout=READY_SECONDS)


def states(record: LabRecord) -> dict[str, str]:
    """Node -> ``up``, ``starting``, ``paused`` or ``ended``."""
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


def end(record: LabRecord) -> int:
    """Stop the nodes in order, fetch their results, and remove all that the project made. Safe to call again.

    Returns how many nodes had ended before.
    """
    found = states(record)
    for node in [node for node, state in found.items() if state == "paused"]:
        resume(record, node)
    with contextlib.suppress(SanloomError):
        _compose(record, "stop", "--timeout", "10", timeout=STOP_SECONDS)
    run = Path(record.run_directory)
    if run.is_dir():
        for node in record.nodes:
            _fetch_results(record, node, run)
        for name in applications(record):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                (run / f"{name}.log").write_text(log_of(record, name.replace(".", "-")))
    _compose(record, "down", "--volumes", "--remove-orphans", "--timeout", "5", timeout=STOP_SECONDS)
    leftovers.remove_directory(Path(record.directory))
    if run.is_dir():
        results.join(run, list(record.nodes))
    return sum(state == "ended" for state in found.values())


def applications(record: LabRecord) -> dict[str, dict[str, Any]]:
    """HOST.NAME -> {pid, state, status, restarts}: each has a container of its own."""
    services = containers(project(record))
    found = {}
    for host, spec in record.topology["hosts"].items():
        for application in spec.get("applications", ()):
            inspected = services.get(f"{host}-{application['name']}", {})
            state = inspected.get("State", {})
            up = bool(state.get("Running"))
            found[f"{host}.{application['name']}"] = {
                "pid": state.get("Pid") or 0,
                "state": "up" if up else "ended" if inspected else "waiting",
                "status": None if up or not inspected else state.get("ExitCode"),
                "restarts": inspected.get("RestartCount", 0),
            }
    return found


def pause(record: LabRecord, node: str) -> None:
    """Freeze all that runs in a node's container, and its applications in theirs."""
    docker("pause", container_of(record, node), *_application_containers(record, node, "running"))


def resume(record: LabRecord, node: str) -> None:
    """Let it go on."""
    docker("unpause", container_of(record, node), *_application_containers(record, node, "paused"))


def kill(record: LabRecord, node: str) -> None:
    """SIGKILL."""
    docker("kill", container_of(record, node))


def _application_containers(record: LabRecord, host: str, status: str) -> list[str]:
    labels = (f"com.docker.compose.project={project(record)}", f"{LABEL_NODE}={host}", f"{LABEL_KIND}=application")
    filters = [part for label in labels for part in ("--filter", f"label={label}")]
    return docker("ps", "-q", *filters, "--filter", f"status={status}").split()


def _fetch_results(record: LabRecord, node: str, run: Path) -> None:
    """Copy a node's journal, capture and log into the run's folder, as far as they can be had."""
    with contextlib.suppress(SanloomError):
        docker("cp", f"{container_of(record, node)}:{RUN}/.", str(run))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        (run / f"{node}.log").write_text(log_of(record, node))


def _compose(record: LabRecord, *arguments: str, timeout: float) -> None:
    file = Path(record.directory) / FILE
    docker("compose", "--project-name", project(record), "--file", str(file), *arguments, timeout=timeout)
