"""``python -m nodes.lab.application_runner FILE``: runs the applications that a topology names, for as long as the lab.

FILE is JSON: ``{"applications": [{"host", "name", "command", "environment", "restart"}, ...], "logs": folder,
"state": file, "wait_for": file or null}``. They are started in that order, each in a session of its own, with its
output in ``logs/HOST.NAME.log``. ``state`` always holds ``{"HOST.NAME": {"pid", "start_time", "state", "status",
"restarts"}}``; state is ``up``, ``ended`` or ``failed`` (it could not be started). An application with ``restart:
on-failure`` that ends with another status than 0 is started again, after a second, then two, four, at most half a
minute.

In a container without a launcher, ``--host HOST`` takes the place of FILE: the topology comes from the environment.
The runner ends on SIGTERM, or with its lifeline (``--lifeline-fd``), and its applications with it.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from fabric.topology.spec import Topology
from nodes.lab import leftovers

RESTART_FIRST_SECONDS, RESTART_MAX_SECONDS = 1.0, 30.0
READY_SECONDS = 120.0
STATE_FILE = "applications.json"
CONFIG_FILE = "applications-to-run.json"


@dataclass
class ApplicationState:
    """What is known of one application."""

    pid: int = 0
    start_time: int = 0
    state: str = "waiting"
    status: int | None = None
    restarts: int = 0


class Runner:
    """See the module text."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._applications: list[dict[str, Any]] = config["applications"]
        self._logs, self._state_file = Path(config["logs"]), Path(config["state"])
        self._wait_for = Path(config["wait_for"]) if config.get("wait_for") else None
        self._states = {f"{each['host']}.{each['name']}": ApplicationState() for each in self._applications}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, lifeline: int | None) -> None:
        """Until told to end; then all applications have ended."""
        self._write_states()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_all)
                    if lifeline is not None:
                        nursery.start_soon(self._end_with, lifeline, nursery.cancel_scope)
                    async for _ in signals:
                        nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await self._end_all()

    async def _run_all(self) -> None:
        if self._wait_for is not None:
            with trio.move_on_after(READY_SECONDS):
                while not self._wait_for.exists():  # noqa: ASYNC110 - another process makes the file
                    await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            for application in self._applications:
                name = f"{application['host']}.{application['name']}"
                self._start(name, application)
                nursery.start_soon(self._watch, name, application)
                await trio.lowlevel.checkpoint()

    def _start(self, name: str, application: dict[str, Any]) -> None:
        state = self._states[name]
        with (self._logs / f"{name}.log").open("ab") as log:
            try:
                process = subprocess.Popen(
                    application["command"],
                    env={**os.environ, **application["environment"]},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{application['command'][0]}: {error.strerror}\n".encode())
                state.state, state.status, state.pid = "failed", 127, 0
            else:
                self._processes[name] = process
                state.pid, state.start_time = process.pid, leftovers.start_time(process.pid) or 0
                state.state, state.status = "up", None
        self._write_states()

    async def _watch(self, name: str, application: dict[str, Any]) -> None:
        state, pause = self._states[name], RESTART_FIRST_SECONDS
        while True:
            process = self._processes.get(name)
            if process is not None:
                await _ended(process)
                status = process.wait()
                state.state, state.status = "ended", status if status >= 0 else 128 - status
                self._write_states()
            if application["restart"] != "on-failure" or state.status == 0:
                return
            await trio.sleep(pause)
            pause = min(2 * pause, RESTART_MAX_SECONDS)
            state.restarts += 1
            self._start(name, application)

    async def _end_with(self, fd: int, scope: trio.CancelScope) -> None:
        await trio.lowlevel.wait_readable(fd)
        scope.cancel()

    async def _end_all(self) -> None:
        running = [process for process in self._processes.values() if process.poll() is None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            with trio.move_on_after(leftovers.GRACE_SECONDS):
                for process in running:
                    await _ended(process)
            running = [process for process in running if process.poll() is None]
        for name, process in self._processes.items():
            state, status = self._states[name], process.poll()
            if state.state == "up" and status is not None:
                state.state, state.status = "ended", status if status >= 0 else 128 - status
        self._write_states()

    def _write_states(self) -> None:
        temporary = self._state_file.with_suffix(".new")
        with contextlib.suppress(OSError):  # at the end the lab's directory may be gone
            temporary.write_text(json.dumps({name: asdict(state) for name, state in self._states.items()}))
            temporary.replace(self._state_file)


async def _ended(process: "subprocess.Popen[bytes]") -> None:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


def describe(topology: Topology, host: str | None = None) -> list[dict[str, Any]]:
    """The applications of a host, or of all, in the order in which they start."""
    return [
        {
            "host": on,
            "name": application.name,
            "command": list(application.command),
            "environment": dict(application.environment),
            "restart": application.restart,
        }
        for on, application in topology.applications()
        if host in (None, on)
    ]


def in_container(host: str) -> dict[str, Any]:
    """The configuration for a host's own container."""
    from nodes.container import DATA, READY, RUNTIME

    topology = Topology.from_json(json.loads(os.environ["SANLOOM_TOPOLOGY"]))
    return {
        "applications": describe(topology, host),
        "logs": str(DATA),
        "state": str(RUNTIME / STATE_FILE),
        "wait_for": str(READY),
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m nodes.lab.application_runner")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--host")
    parser.add_argument("--lifeline-fd", type=int)
    arguments = parser.parse_args()
    config = json.loads(arguments.file.read_text()) if arguments.file else in_container(arguments.host)
    trio.run(Runner(config).run, arguments.lifeline_fd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
