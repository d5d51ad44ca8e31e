"""``sanloom logs``: what the nodes of a lab wrote, or their journals."""

import json
import time
from pathlib import Path
from typing import IO, Any

import click

from fabric.errors import UsageError
from nodes.cli.options_and_tables import lab_option
from nodes.lab import records

POLL_SECONDS = 0.2


@click.command()
@click.argument("nodes", nargs=-1)
@lab_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the lab ends.")
@click.option("--journal", is_flag=True, help="The journals (what happened, with times) instead of the logs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line: node and text, or the journal record.")
def command(nodes: tuple[str, ...], lab_name: str | None, follow: bool, journal: bool, as_json: bool) -> int:
    """Print the logs of all nodes, or of those named."""
    lab = records.find(lab_name)
    for node in nodes:
        lab.control_path(node)
    names = list(nodes) or list(lab.nodes)
    run = Path(lab.run_directory)
    sources = {name: run / f"{name}.jsonl" if journal else Path(lab.nodes[name].log) for name in names}
    followers = [_Follower(name, path) for name, path in sources.items()]
    while True:
        alive = follow and lab.alive()
        found = [(name, line) for follower in followers for name, line in follower.lines(last=not alive)]
        if journal:
            found.sort(key=lambda entry: _at(entry[1]))
        for name, line in found:
            click.echo(_line(name, line, journal, as_json))
        if not alive:
            return 0
        time.sleep(POLL_SECONDS)


class _Follower:
    """Whole lines of a growing file."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def lines(self, *, last: bool) -> list[tuple[str, str]]:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return []
            except OSError as error:
                raise UsageError(f"{self._path}: cannot be read: {error.strerror}") from None
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        if last and self._rest:
            whole, self._rest = [*whole, self._rest], b""
        return [(self._name, line.decode(errors="replace")) for line in whole]


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
