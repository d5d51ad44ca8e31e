"""``sanloom fault set|clear|list``: what the links of a running lab are set to."""

import json
from typing import Any

import click

from fabric.errors import UsageError
from fabric.units import format_duration, format_rate
from nodes.cli.options_and_tables import json_option, lab_option, table
from nodes.lab import changes, engines, records


@click.group()
def command() -> None:
    """Change links while they carry traffic. LINK: client->s1, client-s1 (both ways), or a node (all its links).

    Frames that are on their way keep their fate; those that enter from now on meet the new settings.
    """


@command.command("set")
@lab_option
@json_option
@click.argument("link")
@click.argument("settings", nargs=-1, required=True, metavar="SETTING=VALUE...")
def set_(lab_name: str | None, as_json: bool, link: str, settings: tuple[str, ...]) -> int:
    """For example: sanloom fault set client-s1 loss=10% latency=20ms. What is not named stays as it is."""
    return show_changes(changes.set_links(records.find(lab_name), link, changes.parse_settings(settings)), as_json)


@command.command("clear")
@lab_option
@json_option
@click.argument("link", required=False)
@click.option("--all", "everything", is_flag=True, help="Every link of the lab.")
def clear(lab_name: str | None, as_json: bool, link: str | None, everything: bool) -> int:
    """Back to what the topology says; partitions end too."""
    if (link is None) != everything:
        raise UsageError("fault clear: name a link, or say --all")
    return show_changes(changes.clear_links(records.find(lab_name), link), as_json)


@command.command("list")
@lab_option
@json_option
def list_(lab_name: str | None, as_json: bool) -> int:
    """Every link direction, with what differs from the topology and how many frames it has dropped, by reason.

    Exit status 1 if a node could not be asked.
    """
    found = changes.list_links(records.find(lab_name))
    if as_json:
        click.echo(json.dumps(found))
    else:
        header = ["LINK", "LATENCY", "JITTER", "LOSS", "RATE", "QUEUE", "CHANGED", "DROPPED"]
        click.echo(table(header, [[name, *_row(link)] for name, link in found.items()]))
    return int(any("state" in link for link in found.values()))


def show_changes(done: changes.Changes, as_json: bool) -> int:
    """What a command has changed, link by link; exit status 1 if a node that still lives was left out."""
    for node, state in done.left_out.items():
        told = "it sends nothing" if state == "ended" else "its links stay as they are; do this again later"
        click.echo(f"sanloom: {node} is {state}: {told}", err=True)
    status = int(any(state != "ended" for state in done.left_out.values()))
    if as_json:
        click.echo(json.dumps(done.links))
        return status
    rows = [
        [name, *_cells(change["after"]), "partition" if change["after"]["partition"] else None]
        for name, change in done.links.items()
    ]
    click.echo(table(["LINK", "LATENCY", "JITTER", "LOSS", "RATE", "QUEUE", ""], rows) if rows else "nothing to change")
    return status


def show_state(record: records.LabRecord, node: str, as_json: bool) -> int:
    """With ``--json``, what a node's state is after a command."""
    if as_json:
        click.echo(json.dumps({"lab": record.name, "node": node, "state": engines.states(record)[node]}))
    return 0


def _row(link: dict[str, Any]) -> list[object]:
    if "state" in link:
        return [None, None, None, None, None, f"(its node is {link['state']})", None]
    dropped = ", ".join(f"{reason} {count}" for reason, count in link["dropped"].items())
    return [*_cells(link), _differs(link), dropped or None]


def _cells(link: dict[str, Any]) -> list[object]:
    return [
        format_duration(link["latency"]),
        format_duration(link["jitter"]),
        f"{link['loss']:.4g}".rstrip() if not link["loss"] else f"{100 * link['loss']:.4g}%",
        None if link["rate"] is None else format_rate(link["rate"]),
        link["queue"],
    ]


def _differs(link: dict[str, Any]) -> str | None:
    found = [key for key, value in link["original"].items() if link[key] != value]
    return ", ".join([*found, *(["partition"] if link["partition"] else [])]) or None
