"""``sanloom heal``: end every partition."""

import click

from nodes.cli.fault import show_changes
from nodes.cli.options_and_tables import json_option, lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@json_option
def command(lab_name: str | None, as_json: bool) -> int:
    """Mend every link that a partition cut; other settings stay (see: sanloom fault clear)."""
    return show_changes(changes.heal(records.find(lab_name)), as_json)
