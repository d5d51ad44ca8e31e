"""``sanloom render TOPOLOGY --to compose|swarm``: a topology as a file for another program."""

import os
from pathlib import Path
from typing import Any

import click

from fabric.errors import UsageError
from fabric.topology.spec import Topology
from fabric.topology.yaml_model import load
from nodes.cli.options_and_tables import place_option
from nodes.lab.compose_file import DEFAULT_IMAGE, render_compose
from nodes.lab.images import ENVIRONMENT_IMAGE
from nodes.lab.swarm_engine import parse_placement
from nodes.lab.swarm_file import KEY_FOLDER, render_swarm, write_keys
from nodes.lab.topology_files import find_topology


@click.command()
@click.argument("topology")
@click.option("--to", "target", type=click.Choice(["compose", "swarm"]), default="compose", show_default=True)
@click.option("--mode", type=click.Choice(["suspend", "local", "rehome"]), default="suspend", show_default=True)
@click.option("--seed", type=int, help="Seed of the links' draws; the topology's unless given.")
@click.option("--capture", is_flag=True, help="Every node records what enters its links.")
@click.option("--build-context", metavar="PATH", help="Let compose build the image from Sanloom's sources there.")
@click.option("--workload", is_flag=True, help="Add a file transfer with hand-overs, under the profile workload.")
@click.option("--image", help="Image of the nodes, from a registry of yours say; $SANLOOM_IMAGE or the released one.")
@click.option("--encrypted", is_flag=True, help="For Swarm: let Docker encrypt the network too.")
@place_option
@click.option("-o", "output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of the terminal.")
def command(
    topology: str,
    target: str,
    mode: str,
    seed: int | None,
    capture: bool,
    build_context: str | None,
    workload: bool,
    image: str | None,
    encrypted: bool,
    places: tuple[str, ...],
    output: Path | None,
) -> int:
    """Translate a topology. The compose file runs with plain: docker compose up

    A stack file for Swarm (-o is needed) gets its CURVE keys in a folder keys/ beside it; docker stack deploy makes
    Swarm secrets of them, then delete the folder.
    """
    found = load(find_topology(topology))
    common: dict[str, Any] = {"mode": mode, "seed": seed, "capture": capture}
    if target == "swarm":
        common["image"] = image or os.environ.get(ENVIRONMENT_IMAGE) or DEFAULT_IMAGE
        text = render_swarm(found, encrypted=encrypted, placement=parse_placement(found, places), **common)
        return _write_stack(found, output, text)
    if places or encrypted:
        raise UsageError("render: --place and --encrypted are for --to swarm")
    if image is not None:
        common["image"] = image
    text = render_compose(found, build_context=build_context, workload=workload, **common)
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error.strerror}") from None
    return 0


def _write_stack(topology: Topology, output: Path | None, text: str) -> int:
    if output is None:
        raise UsageError("render --to swarm: -o FILE is needed; the keys go into a folder beside it")
    try:
        write_keys(topology, output.parent / KEY_FOLDER)
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"-o {output}: {error.filename or output}: {error.strerror}") from None
    return 0
