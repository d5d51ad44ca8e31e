"""What every node process does: read its configuration, drive its engine, answer on its control socket, end tidily.

The configuration is a JSON file that the launcher writes: lab, node, run_id, topology, seed, directory (of the
sockets), journal (a file), mode; and for channels over tcp:// ``tcp``: {bind (an address), addresses (node ->
address), secret_key (a file), public_keys (node -> key)}. The process writes ``ready`` and a newline to
``--ready-fd`` (or makes the file ``--ready-file``) when it serves and has heard all its neighbours; it ends on
SIGTERM, on SIGINT, or when ``--lifeline-fd`` (a pipe whose other end its launcher holds) reaches its end. It removes
the files that it made.
"""

import argparse
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from fabric.assembly import Plan
from fabric.capture.stream import CaptureStream
from fabric.capture.tap import OUT
from fabric.engine import Engine
from fabric.journal import LineJournal
from fabric.live.curve import Credentials, read_secret
from fabric.live.driver import LATENESS_BOUNDS, EventHandler, NodeDriver
from fabric.live.machine import machine_id
from fabric.live.zmq_channel import Endpoints, NodeChannels, ipc_address
from fabric.topology.spec import Topology
from nodes.control.capture import CaptureOperation
from nodes.control.links import LinkOperations
from nodes.control.server import ControlServer, Operation
from nodes.lab import leftovers
from nodes.output_file import OutputFile


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node's share of a lab."""

    lab: str
    node: str
    run_id: str
    topology: Topology
    seed: int
    directory: Path
    journal: Path
    capture: Path | None
    mode: str
    tcp: dict[str, Any] | None = None

    def endpoints(self, plan: Plan) -> Endpoints:
        """Which address the node binds and which neighbours it connects to."""
        peers = sorted({link.sink for link in plan.links_from(self.node)})
        binds = any(self._binds(peer) for peer in peers)
        connects = [peer for peer in peers if not self._binds(peer)]
        if self.tcp is not None:
            addresses = self.tcp["addresses"]
            return Endpoints(self.tcp["bind"] if binds else None, {peer: addresses[peer] for peer in connects})
        own = ipc_address(self.directory, self.node) if binds else None
        return Endpoints(own, {peer: ipc_address(self.directory, peer) for peer in connects})

    def credentials(self) -> Credentials | None:
        """The CURVE keys for tcp://; UsageError for a key file that is not in order."""
        if self.tcp is None:
            return None
        return Credentials(read_secret(Path(self.tcp["secret_key"])), self.tcp["public_keys"])

    def _binds(self, peer: str) -> bool:
        """Of two neighbours the network switch binds; of two of a kind the first by name."""
        network_switches = self.topology.network_switches
        if (self.node in network_switches) != (peer in network_switches):
            return self.node in network_switches
        return self.node < peer

    @classmethod
    def read(cls, path: Path) -> "NodeConfig":
        """From the launcher's file."""
        data = json.loads(path.read_text())
        capture = data.get("capture")
        return cls(
            data["lab"],
            data["node"],
            data["run_id"],
            Topology.from_json(data["topology"]),
            data["seed"],
            Path(data["directory"]),
            Path(data["journal"]),
            Path(capture) if capture else None,
            data["mode"],
            data.get("tcp"),
        )


def parse_arguments(role: str) -> argparse.Namespace:
    """The command line of a node process."""
    parser = argparse.ArgumentParser(prog=f"python -m nodes.{role}")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--lifeline-fd", type=int)
    return parser.parse_args()


def _tell_ready(arguments: argparse.Namespace) -> None:
    if arguments.ready_file is not None:
        arguments.ready_file.touch()
    if arguments.ready_fd is not None:
        with contextlib.suppress(BrokenPipeError):  # whoever started us may not care
            os.write(arguments.ready_fd, b"ready\n")
        os.close(arguments.ready_fd)


class NodeDaemon:
    """The parts that host agents and network switches have in common."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.plan = Plan(config.topology)
        self._journal_file = OutputFile(config.journal)
        self.journal = LineJournal(self._journal_file.write_text)
        self.channels = NodeChannels(config.node, config.endpoints(self.plan), config.credentials())
        self.driver: NodeDriver
        self.more_statistics: Callable[[], dict[str, Any]] = dict
        """Counters of what else the node does."""
        self._capture_file: OutputFile | None = None
        self._launcher_gone = False

    def build(self, engine: Engine, on_event: EventHandler) -> NodeDriver:
        """The driver, with this node's outgoing links and channels."""
        config, plan = self.config, self.plan
        outgoing = [(link, plan.link_model(link, config.seed)) for link in plan.links_from(config.node)]
        incoming = plan.links_to(config.node)
        boot_id = int.from_bytes(os.urandom(8), "big")
        self.driver = NodeDriver(engine, outgoing, incoming, self.channels, on_event, boot_id, machine_id())
        return self.driver

    async def run(
        self,
        arguments: argparse.Namespace,
        services: list[Callable[[trio.Nursery], Awaitable[None]]],
        describe: Callable[[], dict[str, Any]],
        operations: dict[str, Operation] | None = None,
    ) -> None:
        """Serve until told to end; ``operations`` are answered on the control socket beside the usual ones."""
        # The receiver outlives the nursery: a second signal must not cut the orderly end short.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    for service in services:
                        await service(nursery)
                    if self.config.capture is not None:
                        self._start_capture(nursery, self.config.capture)
                    await nursery.start(self._control(describe, operations or {}).serve)
                    nursery.start_soon(self.driver.run)
                    nursery.start_soon(self._end_on_signal, signals, nursery.cancel_scope)
                    if arguments.lifeline_fd is not None:
                        nursery.start_soon(self._end_with, arguments.lifeline_fd, nursery.cancel_scope)
                    await self.driver.ready.wait()
                    _tell_ready(arguments)
            finally:
                self._finish()

    def statistics(self) -> dict[str, Any]:
        """Counters of this node."""
        driver = self.driver
        adapter = getattr(driver.engine.statistics(), "adapter", None)
        return {
            "packets_retransmitted": getattr(adapter, "packets_retransmitted", 0),
            "queue_pairs": getattr(adapter, "queue_pairs", 0),
            "engine": repr(driver.engine.statistics()),
            "links": {name: repr(model.statistics()) for name, model in driver.links().items()},
            "lateness_us": dict(zip(map(str, LATENESS_BOUNDS), driver.lateness, strict=True)),
            "lost_outside_model": driver.lost,
            "neighbours": driver.neighbours(),
            "messages_refused": self.channels.refused,
            "handshakes_refused": self.channels.handshakes_refused,
            "journal_lines_lost": self._journal_file.lost,
            "capture_blocks_lost": 0 if self._capture_file is None else self._capture_file.lost,
            "taps": len(driver.taps.statistics()),
            **self.more_statistics(),
        }

    # ---------------------------------------------------------------- private

    def _control(self, describe: Callable[[], dict[str, Any]], more: dict[str, Operation]) -> ControlServer:
        node, plan = self.config.node, self.plan
        links = {str(link.name) for link in [*plan.links_from(node), *plan.links_to(node)]}
        operations = LinkOperations(self.driver, self.journal, node)
        return ControlServer(
            self.config.directory / f"{node}.control",
            {
                "ps": lambda _: describe() | {"neighbours": self.driver.neighbours()},
                "statistics": lambda _: self.statistics(),
                "flush": lambda _: self._flush(),
                "links": operations.list_all,
                "link": operations.change,
                **more,
            },
            {"capture": CaptureOperation(self.driver.taps, links)},
        )

    def _start_capture(self, nursery: trio.Nursery, path: Path) -> None:
        """Everything that enters this node's links, into a file, from the first frame on."""
        path.unlink(missing_ok=True)
        self._capture_file = OutputFile(path, buffer=1 << 18, resume=False)
        offset = time.time_ns() - time.monotonic_ns()
        stream = CaptureStream(self._capture_file.write, epoch_offset=offset)
        names = [str(link.name) for link in self.plan.links_from(self.config.node)]
        for name in names:
            stream.add_link(name, OUT)
        wake = trio.Event()

        def woken() -> None:
            nonlocal wake
            wake.set()

        tap = self.driver.taps.subscribe(names, max_frames=200_000, max_bytes=1 << 30, wake=woken)
        self._tap, self._stream = tap, stream

        async def write() -> None:
            nonlocal wake
            while True:
                await wake.wait()
                wake = trio.Event()
                while taken := tap.take(256):
                    stream.write_all(taken)
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(write)

    async def _end_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            scope.cancel()
            return

    async def _end_with(self, fd: int, scope: trio.CancelScope) -> None:
        await trio.lowlevel.wait_readable(fd)
        self._launcher_gone = True
        scope.cancel()

    def _flush(self) -> dict[str, Any]:
        """What was captured so far goes to the file, for whoever copies it while we run."""
        if self._capture_file is not None:
            while taken := self._tap.take(256):
                self._stream.write_all(taken)
            self._capture_file.flush()
        return {}

    def _finish(self) -> None:
        node = self.config.node
        self.journal.record(time.monotonic_ns(), node, "node.statistics", **self.statistics())
        if self._capture_file is not None:
            while taken := self._tap.take(256):
                self._stream.write_all(taken)
            self._capture_file.close()
        self.channels.close()
        self._journal_file.close()
        if self._launcher_gone:
            leftovers.clean_up_after_launcher(self.config.directory, node, self.config.run_id)
