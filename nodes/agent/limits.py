"""What an agent gives its applications: quotas that follow from the file descriptors that it may have.

Whatever the applications do, the agent must never run out of descriptors for itself. So it raises its soft limit to
the hard one, keeps OWN_FILES back, and divides the rest: connections, watched processes, and two for every socket
(both ends of its data channel). ``docs/ipc.md`` has the table.
"""

import resource
from dataclasses import dataclass

from provider.sockets_switch.quotas import PER_HOST_MAX, PER_PROCESS_MAX, Quotas

OWN_FILES = 384
"""For zmq, the journal, captures, and the 64 connections of the control socket with two pipe ends each."""
FILES_PER_SOCKET = 2
CONNECTIONS_MAX = 1024
PROCESSES_MAX = 4096
_FEWEST = 16
_DEFAULT = Quotas()


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of an agent."""

    connections: int
    """From applications, all together."""
    connections_per_process: int
    processes: int
    """Whose end is waited for: those attached, and those that a ticket is out for."""
    quotas: Quotas


def open_files() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return PER_HOST_MAX * 4 if hard == resource.RLIM_INFINITY else hard


def limits_for(files: int, sockets: int | None = None, sockets_per_process: int | None = None) -> Limits:
    """Limits of an agent that may have ``files`` descriptors. ``sockets`` and ``sockets_per_process`` are wishes: what
    the descriptors do not allow is cut down.
    """
    left = max(files - OWN_FILES, 8 * _FEWEST)
    connections = max(_FEWEST, min(CONNECTIONS_MAX, left // 8))
    processes = max(_FEWEST, min(PROCESSES_MAX, left // 8))
    possible = max(_FEWEST, min(PER_HOST_MAX, (left - connections - processes) // FILES_PER_SOCKET))
    on_host = min(possible, _DEFAULT.sockets if sockets is None else sockets)
    if sockets_per_process is None:
        sockets_per_process = min(_DEFAULT.sockets_per_process, max(1, on_host // 2))
    each = min(PER_PROCESS_MAX, on_host, sockets_per_process)
    return Limits(connections, max(4, connections // 4), processes, Quotas(each, on_host, _DEFAULT.lingering))
