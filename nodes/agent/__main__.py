"""``python -m nodes.agent``: run the agent of one host; see :mod:`nodes.daemon` for its arguments."""

import os
import sys
import time
from itertools import islice
from typing import Any

import trio

from fabric.assembly import ip_bytes, mac_of
from fabric.units import SECOND, Instant
from nodes.agent.applications import ApplicationServer
from nodes.agent.limits import limits_for, open_files
from nodes.control.server import Operation
from nodes.daemon import NodeConfig, NodeDaemon, parse_arguments
from provider.san_provider.config import ProxyConfig
from provider.stack import HostConfig, HostStack

SHOWN_MAX = 256
"""Sockets, and processes, in one answer of ``ps``, which has a bound; the rest is counted."""


def ack_timeout_code(round_trip: int) -> int:
    """The smallest local ACK timeout code that leaves room for twice the round trip and a slow machine."""
    wanted = 2 * round_trip + SECOND // 10
    return next(code for code in range(1, 32) if 4096 << code >= wanted)


def main() -> int:
    """Entry point."""
    arguments = parse_arguments("agent")
    config = NodeConfig.read(arguments.config)

    async def run() -> None:
        daemon = NodeDaemon(config)
        plan, node = daemon.plan, config.node
        spec = config.topology.hosts[node]
        limits = limits_for(open_files(), spec.sockets, spec.sockets_per_process)
        ip = spec.ip
        stack = HostStack(
            HostConfig(
                name=node,
                ip=ip,
                mac=mac_of(ip_bytes(ip)),
                neighbours=plan.addresses(),
                names=plan.names(),
                seed=int.from_bytes(os.urandom(8), "big"),
                node_key=os.urandom(32),
                default_mode=config.mode,
                quotas=limits.quotas,
                spread_interval=SECOND,  # ApplicationServer goes on with it earlier
                proxy=ProxyConfig(ack_timeout=ack_timeout_code(plan.max_round_trip())),
            ),
            lambda event, **members: daemon.journal.record(time.monotonic_ns(), node, event, **members),
        )
        applications: ApplicationServer

        def on_event(event: object, now: Instant) -> None:
            applications.on_event(event, now)

        driver = daemon.build(stack, on_event)
        path = config.directory / f"{node}.agent"
        applications = ApplicationServer(stack, driver, daemon.journal, node, path, time.monotonic_ns, limits)

        daemon.more_statistics = lambda: {"applications": applications.statistics()}

        async def serve(nursery: trio.Nursery) -> None:
            await nursery.start(applications.serve)

        more: dict[str, Operation] = {"fault-points": applications.faults.operation}
        await daemon.run(arguments, [serve], lambda: describe(config, stack), more)

    trio.run(run)
    return 0


def describe(config: NodeConfig, stack: HostStack) -> dict[str, Any]:
    """What ``sanloom ps`` shows of a host."""
    core = stack.core
    sockets = []
    for socket in islice(core.sockets.values(), SHOWN_MAX):
        controlling = core.controlling(socket)
        sockets.append(
            {
                "socket": socket.number,
                "state": socket.phase.value,
                "local": socket.local,
                "peer": socket.remote,
                "descriptors": [[d.owner.process.pid, d.s] for d in socket.descriptors],
                "controlling": controlling.owner.process.pid if controlling is not None else None,
                "epoch": core.registry.epoch(socket.number),
            }
        )
    processes = [{"pid": p.process.pid, "name": p.name} for p in islice(core.processes.values(), SHOWN_MAX)]
    not_shown = len(core.sockets) - len(sockets) + len(core.processes) - len(processes)
    shown = {"kind": "host", "node": config.node, "ip": stack.config.ip, "processes": processes, "sockets": sockets}
    return shown | ({"not_shown": not_shown} if not_shown else {})


if __name__ == "__main__":
    sys.exit(main())
