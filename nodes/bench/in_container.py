"""A measurement of single processes, taken inside one container of the image instead of on the machine itself.

What needs no lab (the network switch alone, the delay of a channel, the simulator) is the same program there; so the
table of a container engine differs from that of the process engine by what a container costs: its Python, its
scheduling and its name spaces.
"""

import dataclasses
import json
from typing import Any

from fabric.errors import SanloomError
from nodes.bench.figures import Figure
from nodes.lab.docker_cli import docker
from nodes.lab.images import ensure_image

SECONDS = 300.0
_FIELDS = {field.name for field in dataclasses.fields(Figure)}


def measure(name: str, *, quick: bool) -> list[Figure]:
    """The figures of ``sanloom bench --only NAME`` in a container without a network."""
    run = ["run", "--rm", "--init", "--network", "none", "--entrypoint", "python", ensure_image()]
    bench = ["bench", "--only", name, "--json", *(["--quick"] if quick else [])]
    try:
        told = docker(*run, "-P", "-c", _ANY_STATUS, *bench, timeout=SECONDS)
        return [_figure(found) for found in json.loads(told)["figures"]]
    except (ValueError, KeyError, TypeError):
        raise SanloomError(f"bench: the measurement {name} in a container gave no figures") from None


def _figure(found: dict[str, Any]) -> Figure:
    kept: dict[str, Any] = {key: value for key, value in found.items() if key in _FIELDS}
    kept |= {key: tuple(value) for key, value in kept.items() if isinstance(value, list)}
    return Figure(**kept)


_ANY_STATUS = """
import sys
from nodes.cli.main import main
sys.argv[0] = "sanloom"
status = main()
sys.exit(0 if status == 1 else status)  # a floor that is missed is the caller's to judge
"""
