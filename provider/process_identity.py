"""Who is at the other end of an AF_UNIX socket, by the kernel's word: pid, start time, and a pidfd that tells of
its end. The agent asks this of applications, the TCP/IP provider of the process that a socket is handed to.
"""

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from fabric.ids import ProcessInstance

_UCRED = struct.Struct("3i")
_SO_PEERPIDFD = 77
"""Of Linux 6.5: a pidfd of the very process that connected, whatever has become of its number since."""


class NoSuchProcess(Exception):
    """The process ended before it could be identified."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Kernel credentials of a connected peer."""

    process: ProcessInstance
    uid: int
    pidfd: int


def start_time(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``: clock ticks since boot. NoSuchProcess if there is no such process."""
    return int(_fields(pid)[18])


def parent_of(process: ProcessInstance) -> ProcessInstance:
    """The process that forked this one, if it still lives; NoSuchProcess if either has ended."""
    parent = instance_of(int(_fields(process.pid)[0]))
    if start_time(process.pid) != process.start_time:
        raise NoSuchProcess(f"process {process.pid} has ended")
    return parent


def _fields(pid: int) -> list[str]:
    """``/proc/PID/stat`` from field 4, the parent's pid, on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoSuchProcess(f"process {pid} does not exist") from error
    state, *rest = text.rpartition(")")[2].split()
    if state == "Z":
        raise NoSuchProcess(f"process {pid} has ended")
    return rest


def instance_of(pid: int) -> ProcessInstance:
    """The process that has this pid now; NoSuchProcess if none has."""
    if not 0 < pid <= 0x7FFFFFFF:
        raise NoSuchProcess(f"{pid} is no process id")
    return ProcessInstance(pid, start_time(pid))


def open_process(pid: int) -> tuple[ProcessInstance, int]:
    """The process that has this pid now, and a pidfd of it, which the caller closes; NoSuchProcess if none has, OSError
    if there is no descriptor left to look.

    The pidfd is opened first and checked last, so a reused pid cannot slip in.
    """
    if not 0 < pid <= 0x7FFFFFFF:
        raise NoSuchProcess(f"{pid} is no process id")
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError) as error:
        raise NoSuchProcess(f"process {pid} does not exist") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # that is a thread's number
            raise
        raise NoSuchProcess(f"{pid} is no process") from error
    try:
        process = instance_of(pid)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if poller.poll(0):
            raise NoSuchProcess(f"process {pid} has ended")
    except BaseException:
        os.close(pidfd)
        raise
    return process, pidfd


def identify(connection: socket.socket) -> Peer:
    """The process that connected, by the kernel's word; NoSuchProcess if it has ended."""
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    process, pidfd = open_process(pid)
    try:
        _require_connector(connection, pid)
    except BaseException:
        os.close(pidfd)
        raise
    return Peer(process, uid, pidfd)


def _require_connector(connection: socket.socket, pid: int) -> None:
    """NoSuchProcess if the one that connected has ended, so that its number may be another's by now."""
    try:
        connector = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EMFILE, errno.ENFILE):
            return  # an older kernel, or no descriptor left for the question
        raise NoSuchProcess(f"process {pid} has ended") from error
    try:
        poller = select.poll()
        poller.register(connector, select.POLLIN)
        if poller.poll(0):
            raise NoSuchProcess(f"process {pid} has ended")
    finally:
        os.close(connector)
