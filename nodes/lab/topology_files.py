"""Where a topology argument leads: a file, a folder with a ``topology.yaml``, or the name of one that comes with
Sanloom.
"""

from pathlib import Path

from fabric.errors import UsageError

_PLACES = (Path(__file__).parents[2] / "topologies", Path(__file__).parent / "topologies")


def shipped() -> list[str]:
    """Names of the topologies that come with Sanloom."""
    return sorted({found.parent.name for place in _PLACES for found in place.glob("*/topology.yaml")})


def find_topology(text: str) -> Path:
    """The file that ``text`` means; UsageError if there is none."""
    path = Path(text)
    if path.is_dir():
        path = path / "topology.yaml"
    if path.is_file():
        return path
    for place in _PLACES:
        if (place / text / "topology.yaml").is_file():
            return place / text / "topology.yaml"
    raise UsageError(f"{text}: no such file, and no shipped topology has this name ({', '.join(shipped())})")
