"""``sanloom up TOPOLOGY``: start a lab; ``sanloom down`` or Ctrl-C ends it."""

import json
import os
import signal
import time
from pathlib import Path

import click

from fabric.errors import UsageError
from fabric.topology.checker import NAME
from fabric.topology.spec import Topology
from fabric.topology.yaml_model import load
from nodes.cli.options_and_tables import json_option, place_option
from nodes.lab.engines import ENGINES, LAB_CLASSES, AnyLab, lab_options
from nodes.lab.results import new_run_directory
from nodes.lab.topology_files import find_topology


@click.command()
@click.argument("topology")
@click.option("--engine", type=click.Choice(ENGINES), default="process", show_default=True)
@click.option("-d", "--detach", is_flag=True, help="Leave the lab running and return.")
@click.option(
    "--transport",
    type=click.Choice(["ipc", "tcp"]),
    default="ipc",
    show_default=True,
    help="Channels between processes; tcp has CURVE, as containers always have.",
)
@click.option("--name", help="Name of the lab; the topology's name unless given.")
@click.option("--seed", type=int, help="Seed of the links' draws; the topology's unless given.")
@click.option("--mode", type=click.Choice(["suspend", "local", "rehome"]), default="suspend", show_default=True)
@click.option("--capture/--no-capture", default=False, help="Record every link from the first frame on.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True)
@place_option
@json_option
def command(
    topology: str,
    engine: str,
    detach: bool,
    transport: str,
    name: str | None,
    seed: int | None,
    mode: str,
    capture: bool,
    out: Path,
    places: tuple[str, ...],
    as_json: bool,
) -> int:
    """Start a lab: a file, a folder with a topology.yaml, or the name of a topology that comes with Sanloom.

    In the foreground it ends with Ctrl-C, or with whatever ends this command; with -d it ends with: sanloom down.
    """
    found = load(find_topology(topology))
    lab_name = name or found.name
    if not NAME.match(lab_name):
        raise UsageError(f"--name: {lab_name!r} is no name: a lower-case letter, then letters, digits and hyphens")
    options = lab_options(engine, found, transport, places)
    lab = LAB_CLASSES[engine](
        found,
        new_run_directory(out, lab_name),
        name=lab_name,
        seed=seed,
        mode=mode,
        capture=capture,
        detached=detach,
        **options,
    )
    ended = _Signals()
    began = time.monotonic()
    try:
        lab.start()
        ended.started()
    except BaseException:
        lab.stop()
        _remove_if_empty(lab.run_directory)
        raise
    text = _json(lab) if as_json else _text(lab, found, time.monotonic() - began)
    if detach:
        click.echo(text)
        return 0
    try:
        click.echo(text)
        ended.wait()
    finally:
        lab.stop()
    if not as_json:
        click.echo(f"ended; results: {lab.run_directory}")
    return 0


class _Signals:
    """SIGINT and SIGTERM: an orderly end, also while the lab is still starting."""

    def __init__(self) -> None:
        self._started = False
        self._readable, self._writable = os.pipe()
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, _number: int, _frame: object) -> None:
        if not self._started:
            raise click.Abort
        os.write(self._writable, b"x")

    def started(self) -> None:
        """From now on a signal only ends ``wait``."""
        self._started = True

    def wait(self) -> None:
        """Until a signal has come."""
        os.read(self._readable, 1)


def _remove_if_empty(run: Path) -> None:
    if not any(run.iterdir()):
        latest = run.parent / "latest"
        run.rmdir()
        if latest.is_symlink() and not latest.exists():
            latest.unlink()


def _json(lab: AnyLab) -> str:
    record = lab.record
    return json.dumps(
        {
            "lab": record.name,
            "engine": record.engine,
            "directory": record.directory,
            "run": record.run_directory,
            "nodes": {name: {"kind": node.kind, "pid": node.pid} for name, node in record.nodes.items()},
        }
    )


def _text(lab: AnyLab, topology: Topology, took: float) -> str:
    hosts = ", ".join(f"{host.name} ({host.ip})" for host in topology.hosts.values())
    some = next(iter(topology.hosts))
    return "\n".join(
        [
            f"lab {lab.record.name}: {len(topology.hosts)} hosts, {len(topology.network_switches)} network switches,"
            f" {len(topology.links)} links, ready after {took:.1f} s",
            f"hosts: {hosts}",
            f"results: {lab.run_directory}",
            f"next: sanloom exec {some} -- COMMAND   sanloom ps   sanloom capture --on {some} -w - | wireshark -k -i -",
        ]
    )
