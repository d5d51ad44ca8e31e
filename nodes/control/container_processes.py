"""All processes of our own container, as one thing that can be frozen, thawed and killed.

For a container that nobody can reach through its engine. Its first process (a small init) and the caller itself are
left out: the init ends when its child does, and with it the container.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

ROUNDS, ROUND_SECONDS = 500, 0.002
"""Processes may start others while they are being stopped, and stop a little after the signal; a round that finds none
running is the last.
"""
_STOPPED = ("T", "t", "Z", "X")


class ContainerProcesses:
    """See the module text. ``proc`` is where the processes are listed."""

    def __init__(self, spared: frozenset[int], proc: Path = Path("/proc")) -> None:
        self._spared = spared | {1}
        self._proc = proc
        self.paused = False

    def pause(self) -> None:
        """Stop every process; returns when all have stopped, or after ROUNDS."""
        self.paused = True
        for _ in range(ROUNDS):
            running = [pid for pid in self._others() if self._state(pid) not in _STOPPED]
            if not running:
                return
            self._signal(running, signal.SIGSTOP)
            time.sleep(ROUND_SECONDS)

    def resume(self) -> None:
        """Let every process go on."""
        self._signal(self._others(), signal.SIGCONT)
        self.paused = False

    def kill(self) -> None:
        """Kill every process, the container's main one included."""
        self._signal(self._others(), signal.SIGKILL)

    def _others(self) -> list[int]:
        pids = (int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal())
        return [pid for pid in pids if pid not in self._spared]

    def _state(self, pid: int) -> str:
        try:
            return (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return "X"

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
