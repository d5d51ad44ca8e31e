"""``sanloom render TOPOLOGY --to compose``: a topology as a file for another program."""

from pathlib import Path

import click

from fabric.errors import UsageError
from fabric.topology.yaml_model import load
from nodes.lab.compose_file import render_compose
from nodes.lab.topology_files import find_topology


@click.command()
@click.argument("topology")
@click.option("--to", "target", type=click.Choice(["compose"]), default="compose", show_default=True)
@click.option("--mode", type=click.Choice(["suspend", "local"]), default="suspend", show_default=True)
@click.option("--seed", type=int, help="Seed of the links' draws; the topology's unless given.")
@click.option("--capture", is_flag=True, help="Every node records what enters its links.")
@click.option("--build-context", metavar="PATH", help="Let compose build the image from Sanloom's sources there.")
@click.option("--workload", is_flag=True, help="Add a file transfer with hand-overs, under the profile workload.")
@click.option("-o", "output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of the terminal.")
def command(
    topology: str,
    target: str,
    mode: str,
    seed: int | None,
    capture: bool,
    build_context: str | None,
    workload: bool,
    output: Path | None,
) -> int:
    """Translate a topology. The compose file runs with plain: docker compose up"""
    found = load(find_topology(topology))
    text = render_compose(found, mode=mode, seed=seed, capture=capture, build_context=build_context, workload=workload)
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error.strerror}") from None
    return 0
