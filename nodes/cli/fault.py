"""``sanloom fault set|clear|list``: what the links of a running lab are set to."""

import json
from typing import Any

import click

from fabric.errors import UsageError
from fabric.units import format_duration, format_rate
from nodes.cli.options_and_tables import json_option, lab_option, table
from nodes.lab import changes, records


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
    changed = changes.set_links(records.find(lab_name), link, changes.parse_settings(settings))
    return show_changes(changed, as_json)


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
    """Every link direction, with what differs from the topology."""
    found = changes.list_links(records.find(lab_name))
    if as_json:
        click.echo(json.dumps(found))
        return 0
    rows = [[name, *_cells(link), _differs(link)] for name, link in found.items()]
    click.echo(table(["LINK", "LATENCY", "JITTER", "LOSS", "RATE", "QUEUE", "CHANGED"], rows))
    return 0


def show_changes(changed: dict[str, dict[str, Any]], as_json: bool) -> int:
    """What a command has changed, link by link."""
    if as_json:
        click.echo(json.dumps(changed))
        return 0
    rows = [
        [name, *_cells(change["after"]), "partition" if change["after"]["partition"] else None]
        for name, change in changed.items()
    ]
    click.echo(table(["LINK", "LATENCY", "JITTER", "LOSS", "RATE", "QUEUE", ""], rows) if rows else "nothing to change")
    return 0


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
