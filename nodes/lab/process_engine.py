"""The embedded process engine: every node of the lab is a process of this machine.

A lab in the foreground holds its nodes by a lifeline, a pipe that closes with the launcher: whatever ends the launcher
ends the lab. A detached lab lives on until ``sanloom down``. Both are found by their record (:mod:`nodes.lab.records`),
and :func:`end` removes either kind, whatever state it is in.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from fabric.assembly import Plan
from fabric.errors import EnvironmentLacks, SanloomError, UsageError
from fabric.live.curve import new_keys, write_secret
from fabric.topology.spec import Topology
from nodes.control import client
from nodes.lab import application_runner, leftovers, records, results
from nodes.lab.records import LabRecord, NodeRecord
from provider.ipc import ENVIRONMENT_AGENT

READY_SECONDS = 20.0
TCP_PORT = 4793
_CONFIG = "{}.config"
_SIGNS_OF_LACK = ("Address already in use", "No space left on device", "Too many open files", "Cannot allocate memory")
"""In a node's last words: this machine has too little of something."""


class Lab:
    """A lab on this machine; use it as a context manager, or call ``start`` of a detached one."""

    host_program = "nodes.agent"
    """The module that runs as a host."""
    wrappers: ClassVar[dict[str, list[str]]] = {}
    """Node -> the beginning of its command line: a program that becomes the node, in a time namespace say."""

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
        transport: str = "ipc",
    ) -> None:
        self.topology = topology
        self.run_directory = run_directory
        self._seed = topology.seed if seed is None else seed
        self._mode = mode
        self._transport = transport
        self._tcp: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._runner: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        own = os.getpid()
        self.record = LabRecord(
            name=name or f"{topology.name}-{secrets.token_hex(3)}",
            run_id=secrets.token_hex(16),
            engine="process",
            directory="",
            run_directory=str(run_directory),
            topology=topology.to_json(),
            launcher=(own, leftovers.start_time(own) or 0),
            detached=detached,
            capture=capture,
            links=[{"name": x.name, "source": x.source, "sink": x.sink} for x in Plan(topology).links],
        )

    @property
    def directory(self) -> Path:
        """Where the lab's sockets are."""
        return Path(self.record.directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every node and wait until all are ready.

        UsageError if a lab of this name runs already, EnvironmentLacks or SanloomError if a node does not come up;
        then nothing of the lab is left.
        """
        self.record.directory = str(new_lab_directory(self.record.name, end))
        self.record.write()
        lifeline: int | None = None
        ready: dict[int, str] = {}
        try:
            self.run_directory.mkdir(parents=True, exist_ok=True)
            if self._transport == "tcp":
                self._tcp = _tcp_settings([*self.topology.network_switches, *self.topology.hosts], self.directory)
            if not self.record.detached:
                lifeline, self._lifeline = os.pipe()
            for name in [*self.topology.network_switches, *self.topology.hosts]:
                ready[self._start_node(name, lifeline)] = name
            self.record.write()
            self._await_ready(ready)
            if self.topology.applications():
                self._start_applications(lifeline)
                self.record.write()
        except BaseException:
            self.stop()
            raise
        finally:
            for fd in [*ready, *([] if lifeline is None else [lifeline])]:
                os.close(fd)

    def command(self, host: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host: with the host's agent in its environment. Text mode; ``options`` as for Popen."""
        return subprocess.Popen(list(arguments), env=environment_on(self.record, host), text=True, **options)

    def ask(self, node: str, operation: str, **members: Any) -> dict[str, Any]:
        """One request on a node's control socket."""
        return client.ask(self.record.control_path(node), operation, **members)

    def place(self, host: str, path: Path) -> str:
        """Hosts see the files of this machine as they are."""
        return str(path)

    def fetch(self, host: str, inside: str, path: Path) -> None:
        """Nothing to do: see ``place``."""

    def inside(self, path: Path) -> str:
        """See ``place``."""
        return str(path)

    def stop(self) -> None:
        """End every process of this run, remove its sockets, join its results; safe to call again."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        end_applications(self.record)
        if self._runner is not None:
            self._runner.wait()
        for process in self._nodes.values():
            process.terminate()
            process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + leftovers.GRACE_SECONDS
        for process in self._nodes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        if self.record.directory:
            end(self.record)
        for process in self._nodes.values():
            process.wait()
        self._nodes.clear()

    # ------------------------------------------------------------------ private

    def _start_node(self, name: str, lifeline: int | None) -> int:
        host = name in self.topology.hosts
        kind, module = ("host", self.host_program) if host else ("network switch", "nodes.netswitch")
        config = self.directory / _CONFIG.format(name)
        log = self.run_directory / f"{name}.log"
        config.write_text(json.dumps(self._config(name)))
        readable, writable = os.pipe()
        arguments = ["--config", str(config), "--ready-fd", str(writable)]
        inherited = [writable]
        if lifeline is not None:
            arguments += ["--lifeline-fd", str(lifeline)]
            inherited.append(lifeline)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*self.wrappers.get(name, []), sys.executable, "-P", "-m", module, *arguments],
                    env={**os.environ, leftovers.ENVIRONMENT_RUN: self.record.run_id},
                    pass_fds=inherited,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # a Ctrl-C is for the launcher, which then ends the nodes in order
                )
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        self._nodes[name] = process
        started = leftovers.start_time(process.pid) or 0
        self.record.nodes[name] = NodeRecord(kind, process.pid, started, f"{name}.control", str(log))
        return readable

    def _start_applications(self, lifeline: int | None) -> None:
        """One process that runs all of them, and ends with the lab as the nodes do."""
        applications = application_runner.describe(self.topology)
        for application in applications:
            own = environment_on(self.record, application["host"])
            changes = {name: value for name, value in own.items() if os.environ.get(name) != value}
            application["environment"] = {**changes, **application["environment"]}
        config = self.directory / application_runner.CONFIG_FILE
        state = self.directory / application_runner.STATE_FILE
        config.write_text(
            json.dumps({"applications": applications, "logs": str(self.run_directory), "state": str(state)})
        )
        with (self.run_directory / "applications.log").open("ab") as log:
            self._runner = subprocess.Popen(
                [
                    *[sys.executable, "-P", "-m", "nodes.lab.application_runner", str(config)],
                    *([] if lifeline is None else ["--lifeline-fd", str(lifeline)]),
                ],
                env={**os.environ, leftovers.ENVIRONMENT_RUN: self.record.run_id},
                pass_fds=[] if lifeline is None else [lifeline],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.record.runner = (self._runner.pid, leftovers.start_time(self._runner.pid) or 0)

    def _config(self, name: str) -> dict[str, Any]:
        return {
            "lab": self.record.name,
            "node": name,
            "run_id": self.record.run_id,
            "topology": self.record.topology,
            "seed": self._seed,
            "directory": self.record.directory,
            "journal": str(self.run_directory / f"{name}.jsonl"),
            "capture": str(self.run_directory / f"{name}.pcapng") if self.record.capture else None,
            "mode": self._mode,
            "tcp": self._tcp.get(name),
        }

    def _await_ready(self, ready: dict[int, str]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        waiting = dict(ready)
        while waiting:
            found, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            if not found:
                raise EnvironmentLacks(f"not ready within {READY_SECONDS:.0f} s: {', '.join(waiting.values())}")
            for fd in found:
                name = waiting.pop(fd)
                if os.read(fd, 16) != b"ready\n":
                    log = (self.run_directory / f"{name}.log").read_text(errors="replace").strip()
                    last = log.splitlines()[-1] if log else "it wrote nothing to its log"
                    lacks = any(sign in last for sign in _SIGNS_OF_LACK)
                    raise (EnvironmentLacks if lacks else SanloomError)(f"node {name} ended at its start: {last}")


def _tcp_settings(nodes: list[str], directory: Path) -> dict[str, dict[str, Any]]:
    """Keys and addresses for channels over tcp:// on this machine: a loopback address per node, chosen at random."""
    keys = {name: new_keys() for name in nodes}
    net = 1 + secrets.randbelow(250)
    addresses = {
        name: f"tcp://127.{net}.{number >> 8}.{number & 255}:{TCP_PORT}" for number, name in enumerate(nodes, 1)
    }
    public = {name: pair.public for name, pair in keys.items()}
    settings = {}
    for name, pair in keys.items():
        secret = directory / f"{name}.key"
        write_secret(pair, secret)
        settings[name] = {
            "bind": addresses[name],
            "addresses": addresses,
            "secret_key": str(secret),
            "public_keys": public,
        }
    return settings


def environment_on(record: LabRecord, host: str) -> dict[str, str]:
    """The environment of a command on a host; UsageError for a name that is no host.

    The directory of this Python comes first in PATH, so that ``python app.py`` finds Sanloom's packages.
    """
    hosts = record.topology["hosts"]
    if host not in hosts:
        raise UsageError(f"{host!r} is no host of the lab {record.name}; hosts: {', '.join(hosts)}")
    here = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        leftovers.ENVIRONMENT_RUN: record.run_id,
        records.ENVIRONMENT_LAB_DIR: record.directory,
        ENVIRONMENT_AGENT: str(Path(record.directory) / f"{host}.agent"),
    }


def end(record: LabRecord) -> int:
    """End a lab in whatever state it is: nodes first, in order, then whatever carries the run's id; remove its sockets
    and join its results. Returns how many processes had to be killed. Safe to call again.
    """
    end_applications(record)
    instances = [(node.pid, node.start_time) for node in record.nodes.values()]
    for pid, started in instances:
        leftovers.end_process(pid, started, signal.SIGTERM)
        leftovers.end_process(pid, started, signal.SIGCONT)  # one that is paused hears it then
    leftovers.await_end(instances)
    killed = leftovers.kill_run(record.run_id)
    leftovers.remove_directory(Path(record.directory))
    run = Path(record.run_directory)
    if run.is_dir():
        results.join(run, list(record.nodes))
    return killed


def end_applications(record: LabRecord) -> None:
    """End the topology's applications while their agents are there; safe to call again."""
    if record.runner is not None and leftovers.end_process(*record.runner, signal.SIGTERM):
        leftovers.await_end([record.runner], 3 * leftovers.GRACE_SECONDS)


def applications(record: LabRecord) -> dict[str, dict[str, Any]]:
    """HOST.NAME -> what the runner last wrote of it; ``ended`` for all of them if nobody runs them any more."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(
            (Path(record.directory) / application_runner.STATE_FILE).read_text()
        )
    except (OSError, ValueError):
        return {}
    for state in found.values():
        if state["state"] == "up" and leftovers.start_time(state["pid"]) != state["start_time"]:
            state["state"] = "ended"
    return found


def new_lab_directory(name: str, end_dead: Callable[[LabRecord], object]) -> Path:
    """Make the lab's directory; what a dead lab of the same name left is removed first."""
    path = records.labs_directory() / name
    for _ in range(2):
        try:
            path.mkdir(mode=0o700)
            return path
        except FileExistsError:
            pass
        try:
            found = records.read(path)
        except UsageError:
            raise UsageError(
                f"a lab named {name!r} is being started or broke down; remove it with: sanloom down --lab {name}"
            ) from None
        if found.alive() or found.engine != "process":
            raise UsageError(f"a lab named {name!r} is running already; end it with: sanloom down --lab {name}")
        end_dead(found)
    raise UsageError(f"somebody else is starting a lab named {name!r}")
