"""``sanloom schema``: the JSON Schema of topology files."""

import json

import click


@click.command()
def command() -> None:
    """Print the JSON Schema of topology files."""
    from fabric.topology.yaml_model import schema

    click.echo(json.dumps(schema(), indent=2))
