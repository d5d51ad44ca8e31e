"""The folder of one run: its nodes' logs, journals and captures, joined at the end; ``latest`` leads to the newest."""

import contextlib
import json
import time
from pathlib import Path

from fabric.capture.merge import merge_captures
from fabric.errors import UsageError

CAPTURE = "capture.pcapng"
EVENTS = "events.jsonl"


def new_run_directory(out: Path, name: str) -> Path:
    """Make ``out/DATE-TIME-name`` and let ``out/latest`` lead to it. UsageError if there can be no such folder."""
    out = out.resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        run = out / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        try:
            run.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except (NotADirectoryError, FileNotFoundError, PermissionError) as error:
            raise UsageError(f"{out}: no folder for results can be made there: {error.strerror}") from None
    temporary = out / f".latest-{run.name}"
    temporary.symlink_to(run.name)
    temporary.replace(out / "latest")
    return run


def join(run: Path, nodes: list[str]) -> None:
    """The nodes' captures and journals -> ``capture.pcapng`` and ``events.jsonl``, each in the order of time."""
    captures = [path for node in nodes if (path := run / f"{node}.pcapng").exists()]
    if captures:
        with contextlib.ExitStack() as stack, (run / CAPTURE).open("wb") as merged:
            merge_captures([stack.enter_context(file.open("rb")) for file in captures], merged.write)
        for file in captures:
            file.unlink()
    lines = []
    for node in nodes:
        path = run / f"{node}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a node that was killed
                lines.append((int(json.loads(line)["at"]), line))
    lines.sort(key=lambda entry: entry[0])
    (run / EVENTS).write_text("".join(f"{line}\n" for _, line in lines))
