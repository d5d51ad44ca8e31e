"""The ``capture`` operation: a tap on the node's links whose pcapng stream goes into a pipe that the caller is given.

The pipe is the only queue beyond the tap's own bounded one: a reader that is too slow loses frames, which are counted
and told in the stream, and never slows the node. The tap ends when the caller closes the pipe or hangs up.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Collection
from typing import Any

import trio

from fabric.capture.stream import CaptureStream
from fabric.capture.tap import Tap, TapSet
from fabric.errors import UsageError
from nodes.control.server import Connection

FRAMES_AT_ONCE = 256
PIPE_SIZE = 1 << 20


class CaptureOperation:
    """``{"op": "capture", "links": [...]}``: names of link directions of this node; null or absent for all."""

    def __init__(self, taps: TapSet, links: Collection[str]) -> None:
        self._taps = taps
        self._links = links

    async def __call__(self, request: dict[str, Any], connection: Connection) -> None:
        """Answer with the pipe's read end, then stream until the caller goes."""
        wanted = self._wanted(request.get("links"))
        readable, writable = os.pipe()
        wake = _Wake()
        tap = self._taps.subscribe(wanted, wake=wake.set)
        try:
            with contextlib.suppress(OSError):  # the limit for pipes may be lower; then it stays as it is
                fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            async with trio.lowlevel.FdStream(writable) as pipe:
                try:
                    await connection.answer({"links": wanted or sorted(self._links)}, (readable,))
                finally:
                    os.close(readable)
                await self._stream(tap, wake, pipe, connection)
        finally:
            self._taps.unsubscribe(tap)

    def _wanted(self, links: object) -> list[str] | None:
        if links is None:
            return None
        if not isinstance(links, list) or not links or not all(isinstance(link, str) for link in links):
            raise UsageError("links: expected a list of names of link directions, or null")
        for link in links:
            if link not in self._links:
                raise UsageError(f"links: this node has no link {link!r}; it has {', '.join(sorted(self._links))}")
        return links

    async def _stream(self, tap: Tap, wake: "_Wake", pipe: trio.abc.SendStream, connection: Connection) -> None:
        data = bytearray()
        stream = CaptureStream(data.extend, epoch_offset=time.time_ns() - time.monotonic_ns(), check_icrc=True)

        async def write(scope: trio.CancelScope) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    if data:  # at first the section header, which a reader such as Wireshark wants at once
                        await pipe.send_all(bytes(data))
                        data.clear()
                    if taken := tap.take(FRAMES_AT_ONCE):
                        stream.write_all(taken)
                    else:
                        await wake.wait()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, nursery.cancel_scope)
            await connection.closed()
            nursery.cancel_scope.cancel()


class _Wake:
    """An event that can be set many times and clears when waited for."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()
