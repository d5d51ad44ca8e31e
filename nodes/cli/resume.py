"""``sanloom resume NODE``: let a frozen node go on."""

import click

from nodes.cli.options_and_tables import lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@click.argument("node")
def command(lab_name: str | None, node: str) -> int:
    """Let a node go on that was paused."""
    changes.resume(records.find(lab_name), node)
    return 0
