"""The embedded process engine: every node of the lab is a process of this machine.

Nothing is found by name: the launcher keeps the processes it started, and everything they start carries the run's
random id in its environment (``SANLOOM_RUN``), which is how leftovers of this very run, and nothing else, are found
at the end.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from fabric.errors import EnvironmentLacks, SanloomError
from fabric.topology.spec import Topology
from provider.ipc import ENVIRONMENT_AGENT

READY_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
ENVIRONMENT_RUN = "SANLOOM_RUN"


class Lab:
    """A lab on this machine; use it as a context manager."""

    def __init__(
        self,
        topology: Topology,
        run_directory: Path,
        *,
        mode: str = "suspend",
        seed: int | None = None,
        capture: bool = False,
    ) -> None:
        self.topology = topology
        self.run_directory = run_directory
        self.run_id = secrets.token_hex(16)
        self.directory = Path()
        self._mode = mode
        self._seed = topology.seed if seed is None else seed
        self._capture = capture
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._lifeline: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every node and wait until all are ready; EnvironmentLacks or SanloomError says what went wrong."""
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        self.directory = Path(tempfile.mkdtemp(prefix="sanloom-", dir=base))
        self.run_directory.mkdir(parents=True, exist_ok=True)
        lifeline, self._lifeline = os.pipe()
        ready: dict[int, str] = {}
        try:
            for name in [*self.topology.network_switches, *self.topology.hosts]:
                ready[self._start_node(name, lifeline)] = name
            self._await_ready(ready)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(lifeline)
            for fd in ready:
                os.close(fd)

    def command(self, host: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host: with the host's agent in its environment. Text mode; ``options`` as for Popen."""
        if host not in self.topology.hosts:
            raise SanloomError(f"{host!r} is no host of {self.topology.name}; hosts: {', '.join(self.topology.hosts)}")
        environment = {**self._environment(), ENVIRONMENT_AGENT: str(self.directory / f"{host}.agent")}
        return subprocess.Popen(list(arguments), env=environment, text=True, **options)

    def ask(self, node: str, operation: str) -> dict[str, Any]:
        """One request on a node's control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(STOP_TIMEOUT)
            control.connect(str(self.directory / f"{node}.control"))
            control.send(json.dumps({"id": 1, "op": operation}).encode())
            reply: dict[str, Any] = json.loads(control.recv(1 << 20))
        if "error" in reply:
            raise SanloomError(reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def stop(self) -> None:
        """End every process of this run and remove its sockets; safe to call again."""
        for process in self._nodes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in self._nodes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._nodes.clear()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        kill_run(self.run_id)
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------------ private

    def _environment(self) -> dict[str, str]:
        return {**os.environ, ENVIRONMENT_RUN: self.run_id}

    def _start_node(self, name: str, lifeline: int) -> int:
        role = "agent" if name in self.topology.hosts else "netswitch"
        config = self.directory / f"{name}.json"
        captured = str(self.run_directory / f"{name}.pcapng") if self._capture else None
        config.write_text(
            json.dumps(
                {
                    "lab": self.topology.name,
                    "node": name,
                    "run_id": self.run_id,
                    "topology": self.topology.to_json(),
                    "seed": self._seed,
                    "directory": str(self.directory),
                    "journal": str(self.run_directory / f"{name}.jsonl"),
                    "capture": captured,
                    "mode": self._mode,
                }
            )
        )
        readable, writable = os.pipe()
        arguments = ["--config", str(config), "--ready-fd", str(writable), "--lifeline-fd", str(lifeline)]
        try:
            with (self.run_directory / f"{name}.log").open("ab") as log:
                self._nodes[name] = subprocess.Popen(
                    [sys.executable, "-m", f"nodes.{role}", *arguments],
                    env=self._environment(),
                    pass_fds=(writable, lifeline),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.close(writable)
        return readable

    def _await_ready(self, ready: dict[int, str]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        waiting = dict(ready)
        while waiting:
            found, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            if not found:
                raise EnvironmentLacks(f"not ready within {READY_TIMEOUT:.0f} s: {', '.join(waiting.values())}")
            for fd in found:
                name = waiting.pop(fd)
                if os.read(fd, 16) != b"ready\n":
                    log = (self.run_directory / f"{name}.log").read_text(errors="replace").strip()
                    last = log.splitlines()[-1] if log else "it wrote nothing to its log"
                    raise SanloomError(f"node {name} ended at its start: {last}")


def kill_run(run_id: str) -> int:
    """Kill every process that carries this run's id in its environment; returns how many there were."""
    marker = f"{ENVIRONMENT_RUN}={run_id}".encode()
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed
