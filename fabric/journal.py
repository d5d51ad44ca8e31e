"""The journal: one record per thing worth knowing later, as a line of JSON.

A record is ``{"at": ns, "node": name, "event": dotted.name, ...}``, members in the order in which they were given, so
that the same run writes the same bytes. Engines never see a journal; drivers and the agent write what engines report.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

from fabric.units import Instant

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Journal(Protocol):
    """Where records go."""

    def record(self, at: Instant, node: str, event: str, /, **members: Any) -> None:
        """Write one record; ``members`` must be JSON values."""
        ...


class LineJournal:
    """Writes each record as one line to ``write`` (a file's write method, or a list's append in tests)."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def record(self, at: Instant, node: str, event: str, /, **members: Any) -> None:
        self._write(_encode({"at": at, "node": node, "event": event, **members}) + "\n")


class NullJournal:
    """Keeps nothing."""

    def record(self, at: Instant, node: str, event: str, /, **members: Any) -> None:
        pass
