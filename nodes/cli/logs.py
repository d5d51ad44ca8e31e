"""``sanloom logs``: what the nodes of a lab wrote, or their journals."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from nodes.cli.options_and_tables import lab_option
from nodes.lab import records
from nodes.lab.engines import journal_of, log_of, states

POLL_SECONDS = 0.2


@click.command()
@click.argument("nodes", nargs=-1)
@lab_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the lab ends.")
@click.option("--journal", is_flag=True, help="The journals (what happened, with times) instead of the logs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line: node and text, or the journal record.")
def command(nodes: tuple[str, ...], lab_name: str | None, follow: bool, journal: bool, as_json: bool) -> int:
    """Print the logs of all nodes and applications (HOST.NAME), or of those named."""
    lab = records.find(lab_name)
    applications = (
        []
        if journal
        else [
            f"{host}.{application['name']}"
            for host, spec in lab.topology["hosts"].items()
            for application in spec.get("applications", ())
        ]
    )
    for node in nodes:
        if node not in applications:
            lab.control_path(node)
    names = list(nodes) or [*lab.nodes, *applications]
    read = journal_of if journal else log_of
    followers = [_Follower(name, partial(read, lab, name)) for name in names]
    while True:
        alive = follow and any(state != "ended" for state in states(lab).values())
        found = [(name, line) for follower in followers for name, line in follower.lines(last=not alive)]
        if journal:
            found.sort(key=lambda entry: _at(entry[1]))
        for name, line in found:
            click.echo(_line(name, line, journal, as_json))
        if not alive:
            return 0
        time.sleep(POLL_SECONDS)


class _Follower:
    """Whole lines of a growing text."""

    def __init__(self, name: str, read: Callable[[], str]) -> None:
        self._name, self._read = name, read
        self._told = 0

    def lines(self, *, last: bool) -> list[tuple[str, str]]:
        text = self._read()
        end = len(text) if last else text.rfind("\n") + 1
        new, self._told = text[self._told : end], max(self._told, end)
        return [(self._name, line) for line in new.splitlines()]


def _at(line: str) -> int:
    try:
        return int(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return 0


def _line(name: str, line: str, journal: bool, as_json: bool) -> str:
    if as_json:
        return line if journal else json.dumps({"node": name, "text": line})
    if not journal:
        return f"{name:<12} | {line}"
    try:
        record: dict[str, Any] = json.loads(line)
        at, event = int(record.pop("at")), record.pop("event")
        node = record.pop("node", name)
    except (ValueError, KeyError, TypeError):
        return f"{name:<12} | {line}"
    members = " ".join(f"{key}={json.dumps(value)}" for key, value in record.items())
    return f"{at / 1e9:16.6f} {node:<12} | {event} {members}".rstrip()
