"""A command that a remote client runs here: the process, its pipes or its terminal, and its end."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable

import trio

from nodes.control.remote_messages import CHUNK, Credit, Kind, encode, encode_credit, encode_json

GRACE_SECONDS = 2.0
LINGER_SECONDS = 1.0
"""How long the output may stay open (in some grandchild's hands) after the command has ended."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class RemoteCommand:
    """One command; ``send`` carries messages to the client. ``run`` to its end, or cancel it: then it is killed."""

    def __init__(self, arguments: list[str], terminal: tuple[int, int] | None, send: Callable[[bytes], None]) -> None:
        self._arguments = arguments
        self._terminal = terminal
        self._terminal_fd: int | None = None
        self._send = send
        self.credit = Credit()
        self._credited = trio.Event()
        self._input_in, self._input_out = trio.open_memory_channel[bytes](1 << 16)
        self.pending = 0
        """Bytes of input that the process has not taken."""

    def feed(self, data: bytes) -> None:
        """Input of the client; empty at its end. The caller keeps ``pending`` within the credit."""
        self.pending += len(data)
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._input_in.send_nowait(data)

    def credited(self) -> None:
        """``credit`` has grown."""
        self._credited.set()
        self._credited = trio.Event()

    def resize(self, size: tuple[int, int]) -> None:
        """Rows and columns of the client's terminal have changed."""
        if self._terminal_fd is not None:
            fcntl.ioctl(self._terminal_fd, termios.TIOCSWINSZ, _size(size))

    async def run(self) -> None:
        """Until it has ended and its status is sent."""
        try:
            process, streams = self._start()
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            self._send(encode(Kind.ERRORS, f"{self._arguments[0]}: {error.strerror}\n".encode()))
            self._send(encode_json(Kind.EXIT, {"status": status}))
            return
        writable, *readable = streams
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry_input, writable)
                async with trio.open_nursery() as outputs:
                    for kind, stream in zip((Kind.OUTPUT, Kind.ERRORS), readable, strict=False):
                        outputs.start_soon(self._carry_output, kind, stream)
                    await _wait(process)
                    outputs.cancel_scope.deadline = trio.current_time() + LINGER_SECONDS
                nursery.cancel_scope.cancel()
            status = process.returncode
            self._send(encode_json(Kind.EXIT, {"status": status if status >= 0 else 128 - status}))
        finally:
            self._terminal_fd = None
            with trio.CancelScope(shield=True):
                await _end(process)
                for stream in streams:
                    await trio.aclose_forcefully(stream)

    def _start(self) -> tuple["subprocess.Popen[bytes]", list[trio.lowlevel.FdStream]]:
        """The process, and the streams: its input, its output, and its errors unless it has a terminal."""
        if self._terminal is None:
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            pipes = (process.stdin, process.stdout, process.stderr)
            streams = [trio.lowlevel.FdStream(os.dup(pipe.fileno())) for pipe in pipes]
            for pipe in pipes:
                pipe.close()
            return process, streams
        ours, its = pty.openpty()
        try:
            fcntl.ioctl(its, termios.TIOCSWINSZ, _size(self._terminal))
            process = subprocess.Popen(
                self._arguments,
                stdin=its,
                stdout=its,
                stderr=its,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(its)
        self._terminal_fd = ours
        return process, [trio.lowlevel.FdStream(os.dup(ours)), trio.lowlevel.FdStream(ours)]

    async def _carry_input(self, stream: trio.lowlevel.FdStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            async for data in self._input_out:
                if not data:
                    if self._terminal is None:
                        break
                    await stream.send_all(b"\x04")  # end of file, on a terminal
                    continue
                await stream.send_all(data)
                self.pending -= len(data)
                self._send(encode_credit(len(data)))
        if self._terminal is None:
            await stream.aclose()

    async def _carry_output(self, kind: Kind, stream: trio.lowlevel.FdStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):  # EIO: nobody holds the terminal any more
            while True:
                while not self.credit.left:
                    await self._credited.wait()
                data = await stream.receive_some(min(CHUNK, self.credit.left))
                if not data:
                    return
                # the other stream may have used the credit meanwhile; then the rest waits its turn
                while data:
                    while not self.credit.left:
                        await self._credited.wait()
                    part = data[: self.credit.left]
                    data = data[len(part) :]
                    self.credit.take(len(part))
                    self._send(encode(kind, part))


def _size(size: tuple[int, int]) -> bytes:
    return struct.pack("4H", *size, 0, 0)


async def _wait(process: "subprocess.Popen[bytes]") -> None:
    fd = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    process.wait()


async def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and its group, politely at first; what it left behind when it ended by itself stays."""
    for number in (signal.SIGHUP, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with trio.move_on_after(GRACE_SECONDS):
            await _wait(process)
            return
