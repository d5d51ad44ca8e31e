"""What the commands do with a running lab, whichever engine runs it: dispatch by the record's ``engine``."""

import os
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

from fabric.capture.live_stream import LiveCapture, find_capture_point, open_links, open_live_capture
from fabric.errors import UsageError
from fabric.topology.spec import Topology
from nodes.control import client
from nodes.lab import compose_engine, container_lab, process_engine, swarm_engine
from nodes.lab.compose_engine import ComposeLab
from nodes.lab.process_engine import Lab
from nodes.lab.records import LabRecord
from nodes.lab.swarm_engine import SwarmLab

ENGINES = ("process", "compose", "swarm")
AnyLab: TypeAlias = Lab | ComposeLab | SwarmLab
LAB_CLASSES: dict[str, type[Lab] | type[ComposeLab] | type[SwarmLab]] = {
    "process": Lab,
    "compose": ComposeLab,
    "swarm": SwarmLab,
}


def lab_options(engine: str, topology: Topology, transport: str, places: tuple[str, ...]) -> dict[str, Any]:
    """What the command line's options mean for labs of this engine, as keyword arguments. UsageError."""
    if places and engine != "swarm":
        raise UsageError("--place is for --engine swarm: only there are several machines")
    if engine == "swarm":
        return {"placement": swarm_engine.parse_placement(topology, places)}
    return {"transport": transport} if engine == "process" else {}


def states(record: LabRecord) -> dict[str, str]:
    """Node -> ``up``, ``starting``, ``paused``, ``ended``."""
    if record.engine == "compose":
        return compose_engine.states(record)
    if record.engine == "swarm":
        return swarm_engine.states(record)
    return {name: node.state() for name, node in record.nodes.items()}


def ask(record: LabRecord, node: str, operation: str, **members: Any) -> dict[str, Any]:
    """One request on a node's control socket; SanloomError if it does not answer."""
    if record.engine != "process":
        return container_lab.ask(record, node, operation, **members)
    return client.ask(record.control_path(node), operation, **members)


def exec_command(record: LabRecord, host: str, arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that run ``arguments`` on a host."""
    if record.engine != "process":
        terminal = os.isatty(0) and os.isatty(1)
        return container_lab.exec_arguments(record, host, arguments, terminal=terminal), dict(os.environ)
    return list(arguments), process_engine.environment_on(record, host)


def end(record: LabRecord) -> int:
    """End a lab and remove all of it but its results; returns how many nodes or processes were not in order."""
    if record.engine == "compose":
        return compose_engine.end(record)
    return swarm_engine.end(record) if record.engine == "swarm" else process_engine.end(record)


def applications(record: LabRecord) -> dict[str, dict[str, Any]]:
    """HOST.NAME of the topology's applications -> {pid, state, status, restarts}, in the order of the topology."""
    if not any(host.get("applications") for host in record.topology["hosts"].values()):
        return {}
    if record.engine == "compose":
        return compose_engine.applications(record)
    if record.engine == "swarm":
        return swarm_engine.applications(record)
    return process_engine.applications(record)


def log_of(record: LabRecord, node: str) -> str:
    """What a node has written so far, or an application: HOST.NAME."""
    if "." in node:
        return _application_log(record, node)
    if record.engine != "process":
        return container_lab.log_of(record, node)
    try:
        return Path(record.nodes[node].log).read_text(errors="replace")
    except OSError:
        return ""


def _application_log(record: LabRecord, name: str) -> str:
    if record.engine == "compose":
        return container_lab.log_of(record, name.replace(".", "-"))
    if record.engine == "swarm":
        return container_lab.read_file(record, name.partition(".")[0], f"{container_lab.RUN}/{name}.log")
    try:
        return (Path(record.run_directory) / f"{name}.log").read_text(errors="replace")
    except OSError:
        return ""


def journal_of(record: LabRecord, node: str) -> str:
    """A node's journal so far."""
    if record.engine != "process":
        return container_lab.read_journal(record, node)
    try:
        return (Path(record.run_directory) / f"{node}.jsonl").read_text()
    except OSError:
        return ""


class ContainerCapture(LiveCapture):
    """A live capture that comes out of ``docker exec``."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        super().__init__(os.dup(process.stdout.fileno()))
        process.stdout.close()
        self._process = process

    def close(self) -> None:
        """End the tap: its standard input ends."""
        super().close()
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def open_capture(record: LabRecord, where: str) -> LiveCapture:
    """A live capture of a node or a link; raises as ``fabric.capture.live_stream.open_live_capture``."""
    if record.engine == "process":
        return open_live_capture(where, record.directory)
    nodes = {name: {"control": node.control} for name, node in record.nodes.items()}
    point = find_capture_point(where, {"nodes": nodes, "links": record.links})
    return ContainerCapture(container_lab.start_capture(record, point.node, list(point.links or ())))


def open_entries(record: LabRecord, node: str, links: list[str]) -> LiveCapture:
    """A live capture of what enters these links at a node."""
    if record.engine == "process":
        return open_links(node, links, record.directory)
    return ContainerCapture(container_lab.start_capture(record, node, links))
