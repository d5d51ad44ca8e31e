"""What a lab may leave on this machine, and its removal: processes that carry the run's id, and files of its directory.

Nothing is found by name: a process belongs to a run if its environment says so (``SANLOOM_RUN``, random per run, and
inherited by everything that runs on a host), and it is signalled through a pidfd opened before that is looked at, so a
reused pid cannot be hit.
"""

import os
import select
import shutil
import signal
import time
from pathlib import Path

ENVIRONMENT_RUN = "SANLOOM_RUN"
KILL_ROUNDS = 20
GRACE_SECONDS = 5.0


def processes_of(run_id: str) -> list[int]:
    """Pids of the living processes of this run, this one excepted."""
    return [pid for pid in _all_pids() if _belongs(pid, run_id)]


def start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat``, clock ticks since boot; ``None`` for a process that has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def await_stopped(pid: int, started: int, seconds: float) -> bool:
    """Wait until a SIGSTOP has taken effect, or the process has ended; false if neither within ``seconds``."""
    deadline = time.monotonic() + seconds
    while start_time(pid) == started and not is_stopped(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def end_process(pid: int, started: int, signal_number: int) -> bool:
    """Signal this very process instance; false if it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, signal_number)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)


def await_end(processes: list[tuple[int, int]], seconds: float = GRACE_SECONDS) -> bool:
    """Wait until these process instances have ended; false if some have not within ``seconds``."""
    deadline = time.monotonic() + seconds
    for pid, started in processes:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            while start_time(pid) == started:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poller.poll(min(left, 0.2) * 1000)
        finally:
            os.close(pidfd)
    return True


def kill_run(run_id: str) -> int:
    """Kill every process of the run, also those that it starts meanwhile; returns how many there were."""
    killed = 0
    for _ in range(KILL_ROUNDS):
        found = processes_of(run_id)
        if not found:
            break
        instances = []
        for pid in found:
            started = start_time(pid)
            if started is not None and _belongs(pid, run_id) and end_process(pid, started, signal.SIGKILL):
                instances.append((pid, started))
        killed += len(instances)
        await_end(instances)
    return killed


def remove_directory(directory: Path) -> None:
    """Remove a lab's directory of sockets."""
    shutil.rmtree(directory, ignore_errors=True)


def clean_up_after_launcher(directory: Path, node: str, run_id: str) -> None:
    """What a node does as its very last act when its launcher vanished; the last node of the lab removes everything.

    A node that was killed leaves its configuration; then the rest stays for ``sanloom down``.
    """
    (directory / f"{node}.key").unlink(missing_ok=True)
    (directory / f"{node}.config").unlink(missing_ok=True)
    if any(directory.glob("*.config")):
        return
    try:
        (directory / "lab.json").rename(directory / "lab.ending")  # only one of two that end together succeeds
    except FileNotFoundError:
        return
    kill_run(run_id)
    remove_directory(directory)


def _all_pids() -> list[int]:
    own = os.getpid()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != own]


def _belongs(pid: int, run_id: str) -> bool:
    marker = f"{ENVIRONMENT_RUN}={run_id}".encode()
    try:
        return marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and start_time(pid) is not None
    except OSError:
        return False
