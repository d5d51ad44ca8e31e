"""``sanloom schema``: the JSON Schema of topology files."""

import json

import click

from fabric.topology.json_schema import topology_schema


@click.command()
def command() -> int:
    """Print the JSON Schema of topology files, for an editor that checks while you type."""
    click.echo(json.dumps(topology_schema(), indent=2))
    return 0
