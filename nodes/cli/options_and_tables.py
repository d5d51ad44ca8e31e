"""What several commands share: the options ``--lab``, ``--json`` and ``--place``, and tables."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def lab_option(function: F) -> F:
    """``--lab NAME``, needed only when several labs run."""
    return click.option("--lab", "lab_name", metavar="NAME", help="Which lab, if several run.")(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="The result as JSON.")(function)


def place_option(function: F) -> F:
    """``--place NODE=MACHINE``, for Swarm; may be repeated."""
    text = "On Swarm: the machine of a node, by host name or as a constraint; may be repeated."
    return click.option("--place", "places", metavar="NODE=MACHINE", multiple=True, help=text)(function)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under a header, two spaces between them; ``None`` is shown as a hyphen."""
    cells = [list(header), *[["-" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
