"""The data channel of one descriptor: an AF_UNIX stream pair whose process end is the socket's ``fileno()``.

The agent keeps a duplicate of the process end. That makes three things possible that a plain pipe could not do:

* *not yet writable*: before the connection is up, the agent fills the process-to-agent direction, so select, epoll,
  asyncio and trio report the descriptor writable exactly when connect has finished;
* *accept readiness*: one byte per connection that waits makes a listener's descriptor readable;
* *revocation*: (1) shut the process-to-agent direction and read it to its end: that is exactly what the process got
  accepted; (2) take back what the process has not read with one recv that is larger than the pair can hold: the
  kernel serves it atomically against any other reader, so what a process read is always a prefix; (3) close. A stale
  descriptor then fails with ECONNRESET where the kernel allows (an end that is closed while it holds unread data
  resets the other), else it reads the end of file and writes EPIPE; the library turns either into the documented
  error.
"""

import array
import contextlib
import fcntl
import select
import socket
import termios
from dataclasses import dataclass

PAIR_LIMIT = 1 << 22
"""More than a pair can hold in one direction (its send buffer is a few hundred KiB)."""
ACCEPTED_AT_LEAST = 1 << 20
"""What a process may have written and we not read is at least this, whatever its send buffer usually is."""
_READ_AT_ONCE = 1 << 18
_SMALLEST_BUFFER = 4608


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation found."""

    accepted: bytes
    """Written by the process, not yet read by the agent."""
    unread: bytes
    """Given to the process, not read by it."""
    finished: bool
    """The process had shut its sending direction down itself."""
    overflow: bool = False
    """The process made its send buffer larger and wrote more than we keep; ``accepted`` is only a part of it."""


class DataChannel:
    """One pair; all calls are non-blocking. ``process_end`` is handed to the process by SCM_RIGHTS.

    O_NONBLOCK belongs to the open file, which the process shares and may clear at any time: on the process end the
    agent says MSG_DONTWAIT with every call.
    """

    def __init__(self) -> None:
        self.agent_end, self.process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.agent_end.setblocking(False)
        self.process_end.setblocking(False)
        self.agent_end.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # else a byte of MSG_OOB makes us spin
        self.closed = False
        """No byte moves any more."""
        self.detached = False
        """The process's end is the process's alone; it can no longer be revoked."""
        self._end_shown = False
        self._usual_buffer = self.process_end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        self._accepted_max = max(ACCEPTED_AT_LEAST, 8 * self._usual_buffer)
        self._fill()

    def fileno(self) -> int:
        """The agent's end, for waiting."""
        return self.agent_end.fileno()

    def detach(self) -> None:
        """Give up our duplicate of the process's end, so that we hear when the process closes it."""
        self.detached = True
        self.process_end.close()

    def open(self) -> None:
        """The connection is up: make the process end writable. What was written before is no part of the stream."""
        self._drain_agent_end()
        if not self.detached:  # else its buffer stays small: nobody but the process can reach it any more
            self.process_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._usual_buffer)

    def signal_waiting(self) -> None:
        """One more connection waits to be accepted."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a full pair is readable anyway
            self.agent_end.send(b"\x01")

    def give(self, data: bytes) -> int:
        """Offer bytes to the process; returns how many the pair took, 0 when it is full."""
        try:
            return self.agent_end.send(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(data)  # the process shut its receiving direction: nobody will read them

    def take(self, limit: int) -> bytes | None:
        """Bytes that the process wrote; ``None`` when there are none now, ``b""`` at its end."""
        try:
            return self.agent_end.recv(min(limit, _READ_AT_ONCE))
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def under_way(self) -> tuple[int, int]:
        """Bytes that wait at the process's end (0 for a detached one) and at ours."""
        counts = array.array("i", [0, 0])
        if not self.detached:
            fcntl.ioctl(self.process_end, termios.FIONREAD, memoryview(counts)[:1])
        fcntl.ioctl(self.agent_end, termios.FIONREAD, memoryview(counts)[1:])
        return counts[0], counts[1]

    def show_end(self) -> None:
        """The peer sends no more: the process reads the end of file after what was given."""
        if not self._end_shown:
            self._end_shown = True
            with contextlib.suppress(OSError):
                self.agent_end.shutdown(socket.SHUT_WR)

    def finish_sending(self) -> None:
        """The process sends no more: our end reads the end of file after its last byte."""
        with contextlib.suppress(OSError):
            self.process_end.shutdown(socket.SHUT_WR)

    def revoke(self) -> Revoked:
        """Cut the process off; see the module text. The channel is closed afterwards."""
        finished = self._process_has_finished()
        with contextlib.suppress(OSError):  # nobody writes from here on, and what was written stays readable
            self.agent_end.shutdown(socket.SHUT_RD)
        accepted = self._read_all_but_reset()
        overflow = len(accepted) > self._accepted_max
        if self.detached:
            self.close()
            return Revoked(accepted, b"", finished, overflow)
        unread = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            unread = self.process_end.recv(PAIR_LIMIT, socket.MSG_DONTWAIT)
        self.close()
        return Revoked(accepted, unread, finished, overflow)

    def reset(self) -> None:
        """The connection is gone: the process gets ECONNRESET after what was already given.

        A detached end reads the end of file instead, and stays with us until the process closes it.
        """
        if self.detached:
            self.closed = True
            with contextlib.suppress(OSError):
                self.agent_end.shutdown(socket.SHUT_RDWR)
            return
        with contextlib.suppress(OSError):
            self.process_end.send(b"\0", socket.MSG_DONTWAIT)  # unread data in our end makes its closing a reset
        self.close()

    def close(self) -> None:
        """Close both of the agent's descriptors."""
        self.closed = True
        self.agent_end.close()
        self.process_end.close()

    def _fill(self) -> None:
        self.process_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALLEST_BUFFER)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.process_end.send(bytes(2048), socket.MSG_DONTWAIT)

    def _drain_agent_end(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            self.agent_end.recv(PAIR_LIMIT)  # once: a process that writes all the time must not keep us here

    def _process_has_finished(self) -> bool:
        """Whether the process itself closed its sending direction, asked before we do it in its place."""
        poller = select.poll()
        poller.register(self.agent_end, select.POLLRDHUP)
        return any(event & (select.POLLRDHUP | select.POLLHUP) for _, event in poller.poll(0))

    def _read_all_but_reset(self) -> bytes:
        """Everything up to the end; the last byte is left in the kernel so that closing resets the stale descriptor."""
        parts = []
        waiting = array.array("i", [0])
        size = 0
        while size <= self._accepted_max:
            fcntl.ioctl(self.agent_end, termios.FIONREAD, waiting)
            if waiting[0] <= 1:
                break
            try:
                part = self.agent_end.recv(min(waiting[0] - 1, _READ_AT_ONCE))
            except (BlockingIOError, ConnectionResetError):
                break
            if not part:
                break
            parts.append(part)
            size += len(part)
        if waiting[0] == 1:
            with contextlib.suppress(BlockingIOError):
                parts.append(self.agent_end.recv(1, socket.MSG_PEEK))
        return b"".join(parts)
