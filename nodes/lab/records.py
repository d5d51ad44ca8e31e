"""What a running lab leaves on this machine so that other commands find it: ``lab.json`` in the lab's directory.

Labs live side by side in one directory per user: ``$XDG_RUNTIME_DIR/sanloom`` or ``/tmp/sanloom-UID``, mode 0700, one
folder per lab, named as the lab. A record names every process by pid *and* start time, so a reused pid is never taken
for a node.
"""

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabric.errors import EnvironmentLacks, UsageError
from nodes.lab import leftovers

RECORD = "lab.json"
ENVIRONMENT_LAB_DIR = "SANLOOM_LAB_DIR"


@dataclass
class NodeRecord:
    """One node process. ``control`` is the name of its control socket in the lab's directory, ``log`` a whole path."""

    kind: str
    pid: int
    start_time: int
    control: str
    log: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return leftovers.start_time(self.pid) == self.start_time

    def state(self) -> str:
        """``up``, ``paused`` (stopped by a signal) or ``ended``."""
        if not self.alive():
            return "ended"
        return "paused" if leftovers.is_stopped(self.pid) else "up"


@dataclass
class LabRecord:
    """One running lab. ``launcher`` is (pid, start time) of whoever started it; ``detached`` if it lives on without."""

    name: str
    run_id: str
    engine: str
    directory: str
    run_directory: str
    topology: dict[str, Any]
    launcher: tuple[int, int]
    detached: bool
    capture: bool = False
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    links: list[dict[str, str]] = field(default_factory=list)
    runner: tuple[int, int] | None = None
    """(pid, start time) of the process that runs the topology's applications, on the process engine."""

    def write(self) -> None:
        """Replace the record on disk in one step."""
        path = Path(self.directory) / RECORD
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(path)

    def alive(self) -> bool:
        """Whether a node, or the launcher of a lab that is not detached, still runs."""
        pid, started = self.launcher
        return leftovers.start_time(pid) == started or any(node.alive() for node in self.nodes.values())

    def control_path(self, node: str) -> Path:
        """A node's control socket; UsageError for a name that the lab does not have."""
        if node not in self.nodes:
            raise UsageError(f"the lab {self.name} has no node {node!r}; it has {', '.join(self.nodes)}")
        return Path(self.directory) / self.nodes[node].control


def labs_directory() -> Path:
    """Where this user's labs live; made with mode 0700. EnvironmentLacks if it is somebody else's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "sanloom" if runtime else Path(tempfile.gettempdir()) / f"sanloom-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise EnvironmentLacks(f"{path} cannot be made ({error.strerror}); set XDG_RUNTIME_DIR") from None
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not path.is_dir() or path.is_symlink():
        raise EnvironmentLacks(f"{path} must be a directory of yours with mode 0700; remove it or set XDG_RUNTIME_DIR")
    return path


def read(directory: Path) -> LabRecord:
    """The record in a lab's directory; UsageError if there is none."""
    try:
        data = json.loads((directory / RECORD).read_text())
        nodes = {name: NodeRecord(**node) for name, node in data.pop("nodes").items()}
        data["launcher"] = (int(data["launcher"][0]), int(data["launcher"][1]))
        if data.get("runner") is not None:
            data["runner"] = (int(data["runner"][0]), int(data["runner"][1]))
        return LabRecord(**data, nodes=nodes)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UsageError(f"{directory} holds no running lab ({error})") from None


def running() -> list[LabRecord]:
    """All labs of this user that have a record, by name."""
    found = []
    for directory in sorted(labs_directory().iterdir()):
        with contextlib.suppress(UsageError):
            found.append(read(directory))
    return found


def find(name: str | None) -> LabRecord:
    """The lab of that name, or the only one that runs. UsageError says what there is."""
    given = os.environ.get(ENVIRONMENT_LAB_DIR)
    if name is None and given:
        return read(Path(given))
    labs = running()
    if not labs:
        raise UsageError("no lab is running; start one with: sanloom up pair -d")
    names = ", ".join(lab.name for lab in labs)
    if name is None:
        if len(labs) > 1:
            raise UsageError(f"several labs are running ({names}); say which one with --lab")
        return labs[0]
    for lab in labs:
        if lab.name == name:
            return lab
    raise UsageError(f"no lab named {name!r} is running; running: {names}")
