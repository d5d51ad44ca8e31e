"""``sanloom down``: end a lab, whatever state it is in, and leave nothing of it but its results."""

import json
from pathlib import Path

import click

from fabric.errors import UsageError
from nodes.cli.options_and_tables import json_option, lab_option
from nodes.lab import leftovers, records
from nodes.lab.engines import end


@click.command()
@lab_option
@click.option("--all", "everything", is_flag=True, help="Every lab of yours on this machine.")
@json_option
def command(lab_name: str | None, everything: bool, as_json: bool) -> int:
    """End a lab: its nodes, everything that runs on its hosts, its sockets. Its results stay."""
    ended = []
    for record in records.running() if everything else _chosen(lab_name):
        killed = end(record)
        ended.append({"lab": record.name, "killed": killed, "run": record.run_directory})
        if not as_json:
            had = f"; {killed} processes had to be killed" if killed else ""
            click.echo(f"lab {record.name} ended{had}; results: {record.run_directory}")
    if lab_name is not None and not ended and not everything:
        leftovers.remove_directory(_broken(lab_name))
        ended.append({"lab": lab_name, "killed": 0, "run": None})
    if as_json:
        click.echo(json.dumps(ended))
    elif not ended:
        click.echo("no lab is running")
    return 0


def _chosen(name: str | None) -> list[records.LabRecord]:
    if name is None and not records.running():
        return []
    if name is not None and _broken(name).is_dir() and not (_broken(name) / records.RECORD).exists():
        return []
    return [records.find(name)]


def _broken(name: str) -> Path:
    if "/" in name or name in ("", ".", ".."):
        raise UsageError(f"--lab: {name!r} is no name of a lab")
    return records.labs_directory() / name
