"""``sanloom validate FILE...``: check topology files."""

import json

import click

from fabric.errors import UsageError
from fabric.topology.yaml_model import load
from nodes.lab.topology_files import find_topology


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file.")
def command(files: tuple[str, ...], as_json: bool) -> int:
    """Check topology files: a path, a folder, or the name of a shipped one. Exit status 2 if one is wrong."""
    wrong = 0
    for text in files:
        try:
            topology = load(find_topology(text))
        except UsageError as error:
            wrong = 2
            if as_json:
                click.echo(json.dumps({"file": text, "valid": False, "errors": str(error)}))
            else:
                click.echo(str(error), err=True)
            continue
        nodes = len(topology.hosts), len(topology.network_switches), len(topology.links)
        if as_json:
            click.echo(json.dumps({"file": text, "valid": True, "topology": topology.to_json()}))
        else:
            click.echo(f"{text}: valid: {nodes[0]} hosts, {nodes[1]} network switches, {nodes[2]} links")
    return wrong
