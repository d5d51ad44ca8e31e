"""``python -m nodes.netswitch``: run one network switch; see :mod:`nodes.daemon` for its arguments."""

import sys

import trio

from fabric.units import Instant
from nodes.daemon import NodeConfig, NodeDaemon, parse_arguments


def main() -> int:
    """Entry point."""
    arguments = parse_arguments("netswitch")
    config = NodeConfig.read(arguments.config)

    async def run() -> None:
        daemon = NodeDaemon(config)

        def ignore(event: object, now: Instant) -> None:
            """Refused frames are counted by the engine."""

        daemon.build(daemon.plan.network_switch(config.node), ignore)
        await daemon.run(arguments, [], lambda: {"kind": "network-switch", "node": config.node})

    trio.run(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
