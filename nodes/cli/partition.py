"""``sanloom partition NODES [NODES]``: cut the links between two groups of nodes."""

import click

from nodes.cli.fault import show_changes
from nodes.cli.options_and_tables import json_option, lab_option
from nodes.lab import changes, records


@click.command()
@lab_option
@json_option
@click.option("--one-way", is_flag=True, help="Only from the first group to the second.")
@click.argument("group", metavar="NODE[,NODE...]")
@click.argument("others", metavar="[NODE,...]", required=False)
def command(lab_name: str | None, as_json: bool, one_way: bool, group: str, others: str | None) -> int:
    """Cut every link between the nodes named first and those named second, which unless given are all the rest.

    Whatever enters such a link is dropped; captures and the journal say so. sanloom heal mends all of them.
    """
    changed = changes.partition(
        records.find(lab_name), group.split(","), None if others is None else others.split(","), one_way=one_way
    )
    return show_changes(changed, as_json)
