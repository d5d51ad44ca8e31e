"""Where a topology named on the command line is."""

import difflib
from pathlib import Path

from fabric.errors import UsageError

_PLACES = (Path(__file__).parents[2] / "topologies", Path(__file__).parent / "topologies")


def find_topology(text: str) -> Path:
    """A file, a folder that holds topology.yaml, or the name of a shipped topology; UsageError says what there is."""
    path = Path(text)
    if path.is_file():
        return path
    if (path / "topology.yaml").is_file():
        return path / "topology.yaml"
    shipped = {found.parent.name: found for place in _PLACES for found in sorted(place.glob("*/topology.yaml"))}
    if text in shipped:
        return shipped[text]
    close = difflib.get_close_matches(text, shipped, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"{text}: no such file, folder or shipped topology{hint}; shipped are {', '.join(shipped)}")
