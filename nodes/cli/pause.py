"""``sanloom pause NODE``: freeze a node."""

import click

from nodes.cli.fault import show_state
from nodes.cli.options_and_tables import json_option, lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@json_option
@click.argument("node")
def command(lab_name: str | None, as_json: bool, node: str) -> int:
    """Freeze NODE: its container with all that runs in it; of the process engine its own process."""
    record = records.find(lab_name)
    changes.pause(record, node)
    return show_state(record, node, as_json)
