"""``sanloom pause NODE``: freeze a node."""

import click

from nodes.cli.options_and_tables import lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@click.argument("node")
def command(lab_name: str | None, node: str) -> int:
    """Freeze NODE: its container with all that runs in it; of the process engine its own process."""
    changes.pause(records.find(lab_name), node)
    return 0
