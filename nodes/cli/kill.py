"""``sanloom kill NODE``: kill a node."""

import click

from nodes.cli.options_and_tables import lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@click.argument("node")
def command(lab_name: str | None, node: str) -> int:
    """SIGKILL for NODE; what it held ends as after a crash. On Swarm another task takes its place."""
    changes.kill(records.find(lab_name), node)
    return 0
