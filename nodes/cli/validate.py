"""``sanloom validate``: check topology files."""

import json

import click

from fabric.errors import UsageError
from nodes.lab.topology_files import find_topology


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def command(files: tuple[str, ...], as_json: bool) -> int:
    """Check topology files (or folders, or shipped names); all mistakes are listed."""
    from fabric.topology.yaml_model import load

    report: list[dict[str, object]] = []
    for text in files:
        try:
            topology = load(find_topology(text))
        except UsageError as error:
            report.append({"file": text, "valid": False, "errors": str(error)})
            if not as_json:
                click.echo(str(error), err=True)
            continue
        counts = {"hosts": len(topology.hosts), "network_switches": len(topology.network_switches)}
        counts["links"] = len(topology.links)
        report.append({"file": text, "valid": True, **counts})
        if not as_json:
            click.echo(f"{text}: fine: " + ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items()))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    return 0 if all(item["valid"] for item in report) else 2
