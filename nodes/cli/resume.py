"""``sanloom resume NODE``: let a frozen node go on."""

import click

from nodes.cli.fault import show_state
from nodes.cli.options_and_tables import json_option, lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@json_option
@click.argument("node")
def command(lab_name: str | None, as_json: bool, node: str) -> int:
    """Let a node go on that was paused."""
    record = records.find(lab_name)
    changes.resume(record, node)
    return show_state(record, node, as_json)
